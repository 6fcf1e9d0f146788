"""The stall watch: a thread on every rank that ends a job in which nothing moves any more.

It wakes twice a second, reads its node's board and sleeps again. It is woken at once when a rank
of the node dies or a signal arrives, also while the rank itself is inside a call to MPI. Where all
ranks of its node wait for other nodes, it goes by what is heard of those (see `pulse`).
"""

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
from distnn.parallel.comm.status import (
    CODE,
    ELSEWHERE,
    ENDED,
    FAILED,
    HALTED,
    MOVES,
    PHASE,
    PROCESS,
    RANK,
    STEP,
    WAITING,
    WORKING,
    StatusTable,
    deaths,
    doing,
    open_process,
    place,
    state,
    tell,
)
from distnn.parallel.watchdog import death_monitor, heartbeat, robust_mutex

INTERVAL = 0.5  # seconds between two looks
HEARD_SECONDS = 0.2  # that the launcher has to pass a text on; it drops what it has not read
ABORT_SECONDS = 5  # that MPI has to end a job; then the system ends this process
TOGETHER_SECONDS = 5.0  # in which an error of all ranks rises on all of them
AFAR = 2  # stall timeouts that ranks wait for other nodes of which nothing can be heard
RAISE_SECONDS = 6.0  # that a failure elsewhere has to rise on this rank as an exception
PAGE = 4096  # bytes between two looks, of which reading the counters takes some hundred
BUSY = 0.02  # of the time between two looks: a process that computes so much is at work


class Watchdog:
    """Watches over the ranks of this node. Made collectively; then each rank is on its own.

    Args:
        comm: whose board of whereabouts is made here.
        ends_job: whether a failure ends the job. Else it rises as `RankFailed` on the other ranks,
            and only ranks that cannot be reached so end the job.
    """

    def __init__(self, comm: Communicator, *, ends_job: bool = True) -> None:
        self.comm, self.ends_job = comm, ends_job
        self.host = socket.gethostname()
        self.board, self._let_go = _shared_board(comm)
        self._here = comm.status
        self._hears_others = heartbeat.can_be_felt(comm)
        self._pulse = None
        if self._hears_others and comm.node_rank == 0:
            self._pulse = heartbeat.Heartbeat(comm, self.board, self.host)
        self._witness = None
        if comm.node_rank == 0 and comm.size > 1 and ends_job:
            self._witness = death_monitor.start(self.board, self.host)
        self._parent = os.getppid()
        self._wake, self._bell = os.pipe()
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)
        self._processes = self._open_processes()
        self._heard: dict[int, Callable[[bytes], None]] = {}
        self._closed = False
        self._activity = _activity()
        self._thread = threading.Thread(target=self._run, name="distnn watch", daemon=True)
        self._thread.start()
        if ends_job and comm.rank != 0:  # costs nothing: rank 0 now looks at files, alone
            death_monitor.await_start(self.board)

    def hear(self, handle: int, called: Callable[[bytes], None]) -> None:
        """Have the thread call `called` with what can be read from a pipe, as soon as it can."""
        self._heard[handle] = called
        self._poll.register(handle, select.POLLIN)
        os.write(self._bell, b"!")

    def leave(self) -> None:
        """From now on this rank may end, and that is no failure; it is watched until it does."""
        self._here.enter("end")
        self._close_pulse()
        self._end_in_turn()
        if self._witness is not None:
            self._witness.returncode = 0  # it goes when the ranks are gone; nobody waits for it

    def close(self) -> None:
        """This rank is no longer watched, and watches no more."""
        self._close_pulse()
        self._end_in_turn()
        self._closed = True
        os.write(self._bell, b"!")
        self._thread.join()
        for handle in (self._wake, self._bell, *self._processes):
            os.close(handle)
        if self._witness is not None:
            self._witness.kill()
            self._witness.wait()

    def fail(self, code: int, text: str) -> None:
        """This rank failed: tell it, unless another rank did so first; end the job if so wanted.

        Args:
            code: exit code of the job.
            text: gets the place where this rank is in front.
        """
        line = self._here.line
        if not self.ends_job:  # it rises as an exception that tells the same
            self.board.common[CODE], self.board.common[FAILED] = code, line[RANK] + 1
            return
        self._end(f"distnn: {place(line, self.host)} {text}", code, line[RANK])

    def _end_in_turn(self) -> None:
        self._here.line[ENDED] = 1
        if self._let_go is not None:
            self._let_go()
            self._let_go = None

    def _close_pulse(self) -> None:
        """Leaders wait here for one another, watched to the end."""
        if self._pulse is not None:
            with self._here.waiting():
                self._pulse.close()

    # --- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        here, anywhere, failed_for = Stillness(), Stillness(), 0.0
        while True:
            start = time.monotonic()
            events = self._poll.poll(1000 * min(INTERVAL, self._here.stall_timeout / 10))
            if self._closed:
                return
            dead = [line for handle, _ in events if (line := self._answer(handle)) is not None]
            if dead:
                dead = self.board.dying() or dead
                self._end(deaths(dead, self.host), 1, dead[0][RANK])
            # a job that was suspended finds hours gone: this thread did not watch them go by
            passed = min(time.monotonic() - start, 2 * INTERVAL)
            self._note_activity(passed)
            self._look(here, anywhere, passed)
            if here.seconds >= self._here.stall_timeout:
                self._judge(here, anywhere)
            if self.comm.size > 1 and os.getppid() != self._parent:
                self._end("distnn: the launcher of this job is gone; the job ends", 1, 0)
            failed_for += passed if self.board.common[FAILED] else 0.0
            if failed_for >= RAISE_SECONDS:
                end_job(self.board.common[CODE])

    def _look(self, here: "Stillness", anywhere: "Stillness", passed: float) -> None:
        """See what moved on this node and on others; the leader passes it on."""
        lines = self.board.lines()
        now = [(line[PHASE], line[STEP], line[MOVES], line[WAITING]) for line in lines]
        here.look(now, passed)
        anywhere.look((now, self.board.common[ELSEWHERE]), passed)
        if self._pulse is not None:
            self._pulse.moves += here.seconds == 0
            self._pulse.late = next((line[RANK] for line in lines if not has_arrived(line)), -1)

    def _answer(self, handle: int) -> memoryview | None:
        """React to what the poll found; the line of a rank that died."""
        if handle == self._wake:
            os.read(handle, 64)
        elif handle in self._heard:
            self._heard[handle](os.read(handle, 64))
        else:
            self._poll.unregister(handle)
            line = self._processes[handle]
            return None if line[ENDED] else line
        return None

    def _end(self, text: str, code: int, culprit: int) -> None:
        first = self.board.claim()
        if first:
            tell(text)
        self.board.common[CODE] = code
        self.board.common[FAILED] = culprit + 1
        if self.ends_job:  # whoever told it does so, and not before the launcher has read it
            time.sleep(HEARD_SECONDS if first else ABORT_SECONDS)
            end_job(code)

    def _judge(self, here: "Stillness", anywhere: "Stillness") -> None:
        """Nothing moves on this node: end the job, unless other nodes are waited for that move."""
        late, seconds = self._late(), here.seconds
        if not late and self.comm.nodes > 1:
            seconds = anywhere.seconds
            if seconds < self._limit_afar():
                return
        suspects = [(line[RANK], self._told(line)) for line in late] or self._suspects_afar()
        words = [text for _, text in suspects]
        arrived = [line for line in self.board.lines() if line not in late]
        if late and arrived:
            ranks = ", ".join(str(line[RANK]) for line in arrived)
            words.append(f"arrived, in {doing(self._here.line)}: rank {ranks}")
        first = f"distnn: nothing moved for {seconds:.0f} s (--stall-timeout); the job ends"
        self._end("\n  ".join([first, *words]), 1, suspects[0][0])
        here.seconds = anywhere.seconds = 0.0

    def _late(self) -> list[memoryview]:
        """The ranks of this node that others wait for: they have not arrived, or cannot go on."""
        lines = self.board.lines()
        late = [line for line in lines if not has_arrived(line)]
        return late or [line for line in lines if state(line[PROCESS]) in HALTED]

    def _limit_afar(self) -> float:
        """Seconds in which something must be heard of other nodes.

        A movement is heard of a beat or two late, so that much more may lie between two; and who
        knows most tells first: the leader who hears all, then the other leaders.
        """
        timeout = self._here.stall_timeout
        if not self._hears_others:
            return AFAR * timeout
        beats = 2 if self.comm.rank == 0 else 4 if self._pulse is not None else 6
        return timeout + beats * heartbeat.beat(timeout)

    def _suspects_afar(self) -> list[tuple[int, str]]:
        """What this rank's node waits for, as far as it is known here: ranks, and words."""
        others = self._pulse.suspects() if self._pulse is not None else []
        leader = self.board.line(0)
        return [*others, (leader[RANK], self._told(leader))]

    def _told(self, line: memoryview) -> str:
        """A rank, where it is, and how it got stuck there, in words."""
        others = "other nodes" if self.comm.nodes > 1 else "others"
        what = f"waits for {others}" if has_arrived(line) else "has not arrived"
        is_now = state(line[PROCESS])
        return f"{place(line, self.host)} {what}" + (is_now and f": it is {is_now}")

    def _note_activity(self, seconds: float) -> None:
        """Work in one piece moves as long as this process computes or does input and output."""
        if not self._here.line[WORKING]:
            return
        before, self._activity = self._activity, _activity()
        busy = self._activity[0] - before[0] > BUSY * seconds
        if busy or self._activity[1] - before[1] > PAGE:
            self._here.moved()

    def _open_processes(self) -> dict[int, memoryview]:
        """Handles on the other ranks of the node, with their lines."""
        found = {}
        for line in self.board.lines():
            process = None if line[PROCESS] == os.getpid() else open_process(line[PROCESS])
            if process is not None:
                found[process] = line
                self._poll.register(process, select.POLLIN)
        return found


@contextmanager
def watched(comm: Communicator, *, ends_job: bool) -> Iterator[None]:
    """The ranks of a comm are watched inside the context. Collective; see `Watchdog`."""
    if comm.size == 1:
        yield
        return
    watch = Watchdog(comm, ends_job=ends_job)
    try:
        yield
    except RankFailed:
        raise
    except BaseException as error:
        alone = not (isinstance(error, DistnnError) and comm.all_here(TOGETHER_SECONDS))
        if alone:
            watch.fail(1, f"failed:\n{''.join(traceback.format_exception(error))}")
        raise
    finally:
        watch.close()


def end_job(code: int) -> NoReturn:
    """End all ranks of the program with an exit code, this one for certain."""
    signal.alarm(ABORT_SECONDS)  # its default ends a process even where Python cannot run
    if MPI.Is_finalized():
        os.kill(os.getpid(), signal.SIGKILL)
    MPI.COMM_WORLD.Abort(code)
    while True:  # the launcher is at it
        time.sleep(1)


class Stillness:
    """For how many seconds nothing has changed."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._seen: object = None

    def look(self, now: object, passed: float) -> None:
        """See what is `now`, some seconds after the look before."""
        self.seconds = self.seconds + passed if now == self._seen else 0.0
        self._seen = now


def has_arrived(line: memoryview) -> bool:
    """Whether a rank has come to where it waits for others, or to its end."""
    return bool(line[WAITING] or line[ENDED])


def _shared_board(comm: Communicator) -> tuple[StatusTable, Callable[[], None] | None]:
    """A page that the ranks of a node share; `comm.status` stands on it from now on. Collective.

    Returns:
        The board, and what lets go of this rank's lifeline.
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
    board = StatusTable(handle, comm.node_size)
    line = board.line(comm.node_rank)
    line[:] = comm.status.line
    line[PROCESS], line[RANK], line[ENDED] = os.getpid(), comm.rank, 0
    comm.status.line, comm.status.common = line, board.common
    let_go = robust_mutex.hold(board.lifeline(comm.node_rank))
    comm.node_comm.Barrier()  # all have opened it, and all lines are written
    if comm.node_rank == 0:
        os.unlink(name)
    return board, let_go


def _activity() -> tuple[float, int]:
    """Seconds of processor time, and bytes read and written, of this process so far."""
    try:
        with open("/proc/self/io", "rb") as file:
            transferred = sum(int(line.split()[1]) for line in file)
    except OSError:
        transferred = 0
    return time.process_time(), transferred
