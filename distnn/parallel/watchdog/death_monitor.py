"""A process beside a node's ranks that reports which of them died.

Some launchers end all ranks as soon as one is dead, before any of them can report which one it was.
They do not end this process, which has a session of its own. It takes longer to start than a small
fit: one process watches over one fit after the other, and ends with the rank that started it.
"""

import os
import select
import signal
import socket
import sys
import time
import weakref
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from distnn.parallel.comm.futex import wait_for_release
from distnn.parallel.comm.status import RankRow, StatusTable, is_held
from distnn.parallel.watchdog.reports import (
    describe_deaths,
    process_state,
    write_error,
    write_report,
)

if TYPE_CHECKING:
    import subprocess

PACKAGE = Path(__file__).parents[2]
# after the standard library: nothing that lies beside the package can take its place
SCRIPT = "import sys; sys.path.append(sys.argv.pop()); "
SCRIPT += "from distnn.parallel.watchdog.death_monitor import main; main(*sys.argv[1:])"
START_SECONDS = 1.0  # longest that a rank waits for the monitor to be there
LOOK_SECONDS = 1.0  # at most, to the next look at who has ended without a mark
NOTE_SECONDS = 5.0  # that a launcher has to note how the ranks ended
NOTE_INTERVAL = 0.05  # seconds from one of them to the next
LAUNCHER_SECONDS = 5.0  # that a launcher has to end what is left of a job


class Monitor:
    """The process, as the rank has it that starts it: when it is first needed.

    Python runs isolated: no module of the working directory or of the user's is imported.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._end: Callable[[], object] = lambda: None

    def watch(self, table: StatusTable) -> None:
        """Watch over the ranks of a table until all are done."""
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._start()
        assert self._socket is not None
        socket.send_fds(self._socket, [str(len(table.rows)).encode()], [table.handle])

    def close(self) -> None:
        """End the process, once all are done."""
        self._end()

    def forget(self) -> None:
        """Nobody waits for it any more: this process ends, and then the monitor does."""
        if self._process is not None:
            self._process.returncode = 0

    def _start(self) -> None:
        import subprocess

        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            arguments = [str(theirs.fileno()), self._host, str(PACKAGE.parent)]
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", SCRIPT, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                close_fds=True,
            )
        # also where nobody closes it; not at the program's end, when some rank may have failed
        finish = weakref.finalize(self, _finish, self._socket, self._process)
        finish.atexit = False
        self._end = finish


def _finish(tables: socket.socket, process: "subprocess.Popen[bytes]") -> None:
    tables.close()
    process.wait()


def wait_for_start(table: StatusTable) -> None:
    """Wait a little until the monitor is there."""
    until = time.monotonic() + START_SECONDS
    while not table.shared.monitored and time.monotonic() < until:
        time.sleep(0.001)


def open_process(process: int) -> int | None:
    """A handle that a poll reports when the process ends; None where the system has none."""
    try:
        return os.pidfd_open(process)
    except (OSError, AttributeError):
        return None


def main(handle: str, host: str) -> None:
    """Watch over the ranks of each table that comes, until nobody sends one or a rank has died."""
    with socket.socket(fileno=int(handle)) as tables:
        while True:
            ranks, handles, _, _ = socket.recv_fds(tables, 64, 1)
            if not handles or watch(StatusTable(handles[0], int(ranks)), host):
                return
            os.close(handles[0])


def watch(table: StatusTable, host: str) -> bool:
    """Wait until every rank is done; report the first one that ended before, and return True."""
    poll, alive, dead = select.poll(), {}, []
    for row in table.rows:
        process = open_process(row.process)
        if process is not None:
            alive[process] = row
            poll.register(process, select.POLLIN)
        elif not Path(f"/proc/{row.process}").exists() and not row.done:
            dead.append(row)
    table.shared.monitored = 1
    dead = dead or _first_dead(table, poll, alive)
    if dead:
        if table.claim_report():
            write_report(describe_deaths(table.dead_rows() or dead, host))
        _kill_the_rest(poll, alive)
        outlast([row.process for row in table.rows])
    for process in alive:
        os.close(process)
    return bool(dead)


def _first_dead(table: StatusTable, poll: select.poll, alive: dict[int, RankRow]) -> list[RankRow]:
    """Who died first, or was found dead at the same look; none if all were done."""
    uses_mutexes = True
    while any(not row.done for row in alive.values()):
        seen = [(mutex, mutex.state) for mutex in table.mutexes]  # once: it may change any time
        if dead := table.dead_rows():
            return dead
        timeout = 0 if uses_mutexes else 1000 * LOOK_SECONDS
        ended = [_forget(poll, alive, process) for process, _ in poll.poll(timeout)]
        if dead := [row for row in ended if not row.done]:
            return dead
        held = [(mutex, state) for mutex, state in seen if is_held(state)]
        uses_mutexes = uses_mutexes and wait_for_release(held, LOOK_SECONDS)
    return []


def _forget(poll: select.poll, alive: dict[int, RankRow], process: int) -> RankRow:
    """Remove a process that has ended; its row."""
    poll.unregister(process)
    os.close(process)
    return alive.pop(process)


def _kill_the_rest(poll: select.poll, alive: dict[int, RankRow]) -> None:
    """Kill what the launcher has not ended in a while: it would wait for the dead rank forever."""
    until = time.monotonic() + LAUNCHER_SECONDS
    while alive and time.monotonic() < until:
        for process, _ in poll.poll(100):
            _forget(poll, alive, process)
    for process in alive:
        try:
            signal.pidfd_send_signal(process, signal.SIGKILL)
        except ProcessLookupError:
            continue


def outlast(processes: Collection[int]) -> None:
    """Stay, with the error stream open, until the launcher has noted how these processes ended.

    MPICH's launcher notes one of them whenever something is written to a stream or a stream is
    closed. Once all streams are closed it still waits for those that are left over, but as ended
    with 0, if they ended because the first one was gone (Hydra's `pmip.c`, `pmip_cb.c`): where
    that one ended with 0, so would the job. Hence something that is not seen is written as long as
    one is left over.
    """
    for _ in range(round(NOTE_SECONDS / NOTE_INTERVAL)):
        time.sleep(NOTE_INTERVAL)
        states = {process_state(process) for process in processes}
        if states == {""}:
            return
        if "dead" in states:
            write_error(b"\r")
