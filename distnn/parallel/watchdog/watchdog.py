"""A thread on every rank that ends a job which can go on no more.

It wakes twice a second, reads its node's status table and sleeps again. It is woken at once when a
rank of the node dies or a signal arrives, also while the rank itself is inside a call to MPI. Where
all ranks of its node wait for other nodes, it goes by what is known of those (see `heartbeat`).
"""

import atexit
import os
import select
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import numpy as np

from distnn.errors import DistnnError, RankFailed
from distnn.parallel.comm.communicator import SHARED_MEMORY, Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.parallel.comm.status import RankRow, SharedRow, StatusTable
from distnn.parallel.watchdog import death_monitor, heartbeat, robust_mutex
from distnn.parallel.watchdog.reports import (
    REPORT_SECONDS,
    describe_deaths,
    describe_rank,
    write_report,
)
from distnn.parallel.watchdog.stall import StallDetector

INTERVAL = 0.5  # seconds between two looks
ABORT_SECONDS = 5  # that MPI has to end a job; then the system ends this process
END_SECONDS = 2  # that MPI has to end in a program in which a rank has failed
TOGETHER_SECONDS = 5.0  # in which an error of all ranks is raised on all of them
RAISE_SECONDS = 6.0  # in which a failure elsewhere must be raised on this rank as an exception
LEAST_BYTES = 4096  # between two looks; reading the counters takes some hundred itself
LEAST_SHARE = 0.02  # of the time between two looks: a process that computes so much is at work


class Watchdog:
    """Watches over the ranks of this node. Made collectively; then each rank is on its own.

    Args:
        comm: its status is kept in a table of the node from now on.
        ends_job: whether a failure ends the job. Else it is raised as `RankFailed` on the other
            ranks, and only ranks that cannot be reached so end the job.
    """

    def __init__(self, comm: Communicator, *, ends_job: bool = True) -> None:
        self.comm, self.ends_job = comm, ends_job
        self._host, self._status = socket.gethostname(), comm.status
        self._table, self._release_mutex = _create_table(comm)
        has_heartbeat = heartbeat.is_possible(comm)
        self._heartbeat = None
        if has_heartbeat and comm.node_rank == 0:
            self._heartbeat = heartbeat.Heartbeat(comm, self._table, self._host)
        self._detector = StallDetector(
            comm, self._table, self._host, has_heartbeat, self._heartbeat
        )
        self._monitor: death_monitor.Monitor | None = None
        if comm.node_rank == 0 and comm.size > 1:
            self._monitor = comm.kept.setdefault("monitor", death_monitor.Monitor(self._host))
            self._monitor.watch(self._table)
        self._parent = os.getppid()
        self._wake_read, self._wake_write = os.pipe()
        self._poll = select.poll()
        self._poll.register(self._wake_read, select.POLLIN)
        self._processes = self._open_processes()
        self._callbacks: dict[int, Callable[[bytes], None]] = {}
        self._closed = False
        self._activity = _activity()
        self._thread = threading.Thread(target=self._run, name="distnn watchdog", daemon=True)
        self._thread.start()
        if ends_job and comm.rank != 0:  # costs nothing: rank 0 now looks at files, alone
            death_monitor.wait_for_start(self._table)

    def on_readable(self, handle: int, callback: Callable[[bytes], None]) -> None:
        """Have the thread call `callback` with what can be read from a pipe, as soon as it can."""
        self._callbacks[handle] = callback
        self._poll.register(handle, select.POLLIN)
        os.write(self._wake_write, b"!")

    def leave(self) -> None:
        """From now on this rank may end, and that is no failure. Collective: ranks wait here for
        one another, because in MPI's own end no thread runs that could watch them.
        """
        self._status.enter("end")
        self._close_heartbeat()
        self.comm.total(0)
        self._mark_done()
        if self._monitor is not None:
            self._monitor.forget()

    def close(self) -> None:
        """This rank is no longer watched, and watches no more."""
        table_in_use = not self._close_heartbeat()
        self._mark_done()
        self._closed = True
        os.write(self._wake_write, b"!")
        self._thread.join()
        for handle in (self._wake_read, self._wake_write, *self._processes):
            os.close(handle)
        self._status.move(RankRow(), SharedRow())
        if not table_in_use:
            os.close(self._table.handle)

    def fail(self, code: int, text: str) -> None:
        """This rank failed: report it, unless another rank did so first, and end the job.

        Args:
            code: exit code of the job.
            text: follows the description of where this rank is.
        """
        row, shared = self._status.row, self._table.shared
        if not self.ends_job:  # an exception is raised, which says the same
            shared.exit_code, shared.failed = code, row.rank + 1
            return
        self._end(f"{describe_rank(row, self._host)} {text}", code, row.rank)

    def _mark_done(self) -> None:
        self._status.row.done = 1
        if self._release_mutex is not None:
            self._release_mutex()
            self._release_mutex = None

    def _close_heartbeat(self) -> bool:
        """Leaders wait here for one another, watched to the end; whether they all came."""
        if self._heartbeat is None:
            return True
        with self._status.waiting():
            return self._heartbeat.close()

    def _open_processes(self) -> dict[int, RankRow]:
        """Handles on the other ranks of the node, with their rows."""
        found = {}
        for row in self._table.rows:
            own = row.process == os.getpid()
            process = None if own else death_monitor.open_process(row.process)
            if process is not None:
                found[process] = row
                self._poll.register(process, select.POLLIN)
        return found

    # --- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        shared, failed_for = self._table.shared, 0.0
        while True:
            start = time.monotonic()
            events = self._poll.poll(1000 * min(INTERVAL, self._status.stall_timeout / 10))
            if self._closed:
                return
            dead = [row for handle, _ in events if (row := self._handle(handle)) is not None]
            if dead:
                dead = self._table.dead_rows() or dead
                self._end(describe_deaths(dead, self._host), 1, dead[0].rank)
            # a job that was suspended finds hours gone, in which this thread did not look
            passed = min(time.monotonic() - start, 2 * INTERVAL)
            self._note_activity(passed)
            self._detector.look(passed)
            if (stall := self._detector.stall()) is not None:
                text, culprit = stall
                self._end(text, 1, culprit)
            if self.comm.size > 1 and os.getppid() != self._parent:
                self._end("the launcher of this job is gone; the job ends", 1, 0)
            failed_for += passed if shared.failed else 0.0
            if failed_for >= RAISE_SECONDS:
                end_job(shared.exit_code)

    def _handle(self, handle: int) -> RankRow | None:
        """React to what the poll found; the row of a rank that died."""
        if handle == self._wake_read:
            os.read(handle, 64)
        elif handle in self._callbacks:
            self._callbacks[handle](os.read(handle, 64))
        else:
            self._poll.unregister(handle)
            row = self._processes[handle]
            return None if row.done else row
        return None

    def _end(self, text: str, code: int, culprit: int) -> None:
        """Report a failure, if none was reported before, and end the job or let it be raised."""
        is_first = self._table.claim_report()
        if is_first:
            write_report(text)
        shared = self._table.shared
        shared.exit_code, shared.failed = code, culprit + 1
        if self.ends_job:  # who reported it does so, after the launcher has had time to read it
            time.sleep(REPORT_SECONDS if is_first else ABORT_SECONDS)
            end_job(code)

    def _note_activity(self, seconds: float) -> None:
        """Work in one piece makes progress while this process computes, reads or writes."""
        if not self._status.row.working:
            return
        before, self._activity = self._activity, _activity()
        is_busy = self._activity[0] - before[0] > LEAST_SHARE * seconds
        if is_busy or self._activity[1] - before[1] > LEAST_BYTES:
            self._status.moved()


@contextmanager
def watched(comm: Communicator, *, ends_job: bool) -> Iterator[None]:
    """The ranks are watched inside the context. Collective; see `Watchdog`."""
    if comm.size == 1:
        yield
        return
    watchdog = Watchdog(comm, ends_job=ends_job)
    try:
        yield
        atexit.unregister(_limit_end)  # the ranks are together again
    except RankFailed:
        atexit.register(_limit_end)
        raise
    except BaseException as error:
        alone = not (isinstance(error, DistnnError) and comm.all_arrive(TOGETHER_SECONDS))
        if alone:
            watchdog.fail(1, f"failed:\n{''.join(traceback.format_exception(error))}")
        raise
    finally:
        watchdog.close()


def _limit_end() -> None:
    """At the end of a program after a failure: MPI would wait there for the rank that failed."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(END_SECONDS)


def end_job(code: int) -> NoReturn:
    """End all ranks of the program with an exit code, this one for certain."""
    signal.alarm(ABORT_SECONDS)  # its default ends a process even where Python cannot run
    if MPI.Is_finalized():
        os.kill(os.getpid(), signal.SIGKILL)
    MPI.COMM_WORLD.Abort(code)
    while True:  # the launcher ends it
        time.sleep(1)


def _create_table(comm: Communicator) -> tuple[StatusTable, Callable[[], None] | None]:
    """The status table of the node, in which `comm.status` is from now on. Collective.

    Returns:
        The table, and what releases this rank's robust mutex.
    """
    path = np.zeros(4096, np.uint8)
    if comm.node_rank == 0:
        import tempfile

        folder = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None
        handle, name = tempfile.mkstemp(prefix="distnn-", dir=folder)
        os.ftruncate(handle, StatusTable.bytes(comm.node_size))
        path[: len(name.encode())] = np.frombuffer(name.encode(), np.uint8)
    comm.node_comm.Bcast(path)
    name = path.tobytes().rstrip(b"\0").decode()
    if comm.node_rank != 0:
        handle = os.open(name, os.O_RDWR)
    table = StatusTable(handle, comm.node_size)
    row = table.rows[comm.node_rank]
    comm.status.move(row, table.shared)
    row.process, row.rank, row.done = os.getpid(), comm.rank, 0
    release_mutex = robust_mutex.hold(table.mutexes[comm.node_rank])
    comm.node_comm.Barrier()  # all have opened it, and all rows are written
    if comm.node_rank == 0:
        os.unlink(name)
    return table, release_mutex


def _activity() -> tuple[float, int]:
    """Seconds of processor time, and bytes read and written, of this process so far."""
    try:
        with open("/proc/self/io", "rb") as file:
            transferred = sum(int(line.split()[1]) for line in file)
    except OSError:
        transferred = 0
    return time.process_time(), transferred
