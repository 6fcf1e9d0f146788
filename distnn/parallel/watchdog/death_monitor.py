"""A small process beside a node's ranks that says which of them died.

Some launchers end all ranks as soon as one is dead, before any of them can say which one it was.
This process is not theirs to end; it goes when the ranks are gone.
"""

import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from distnn.parallel.comm.status import (
    ENDED,
    PROCESS,
    WITNESSED,
    StatusTable,
    deaths,
    is_held,
    open_process,
    tell,
)

if TYPE_CHECKING:
    import subprocess

PACKAGE = Path(__file__).parents[2]
SCRIPT = "import sys; sys.path.insert(0, sys.argv.pop()); "
SCRIPT += "from distnn.parallel.watchdog.death_monitor import main; main(*sys.argv[1:])"
START_SECONDS = 1.0  # longest that a rank waits for the witness to be there
LOOK_SECONDS = 1.0  # at most, to the next look at who has ended without a mark
PATIENCE = 5.0  # seconds that a launcher has to end what is left of a job


def start(board: StatusTable, host: str) -> "subprocess.Popen[bytes]":
    """Start the witness of a node's board, in a session of its own."""
    import subprocess

    arguments = [str(board.handle), str(board.ranks), host, str(PACKAGE.parent)]
    return subprocess.Popen(
        [sys.executable, "-E", "-S", "-c", SCRIPT, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[board.handle],
        start_new_session=True,
        close_fds=True,
    )


def await_start(board: StatusTable) -> None:
    """Wait a little until deaths are seen."""
    until = time.monotonic() + START_SECONDS
    while not board.common[WITNESSED] and time.monotonic() < until:
        time.sleep(0.001)


def main(handle: str, ranks: str, host: str) -> None:
    """Wait until every rank has ended; tell the first one that did so out of turn."""
    board = StatusTable(int(handle), int(ranks))
    poll, alive, dead = select.poll(), {}, []
    for line in board.lines():
        process = open_process(line[PROCESS])
        if process is not None:
            alive[process] = line
            poll.register(process, select.POLLIN)
        elif not Path(f"/proc/{line[PROCESS]}").exists() and not line[ENDED]:
            dead.append(line)
    board.common[WITNESSED] = 1
    if dead := dead or _first_dead(board, poll, alive):
        if board.claim():
            tell(deaths(board.dying() or dead, host))
        _end_the_others(poll, alive)


def _first_dead(
    board: StatusTable, poll: select.poll, alive: dict[int, memoryview]
) -> list[memoryview]:
    """The lines of who died first, or was found so at the same look; none if all ended in turn."""
    from distnn.parallel.watchdog.robust_mutex import (
        await_change,  # the ranks wait for this process no longer
    )

    marks = True
    while alive:
        seen = [(numbers, numbers[0]) for numbers in board.lifelines()]
        if dying := board.dying():
            return dying
        ended = [_gone(poll, alive, process) for process, _ in poll.poll(0 if marks else None)]
        if dead := [line for line in ended if not line[ENDED]]:
            return dead
        marks = marks and await_change([one for one in seen if is_held(one[1])], LOOK_SECONDS)
    return []


def _gone(poll: select.poll, alive: dict[int, memoryview], process: int) -> memoryview:
    """Take a process that has ended off the list; its line."""
    poll.unregister(process)
    os.close(process)
    return alive.pop(process)


def _end_the_others(poll: select.poll, alive: dict[int, memoryview]) -> None:
    """What the launcher has not ended in a while would wait for the dead rank forever."""
    until = time.monotonic() + PATIENCE
    while alive and time.monotonic() < until:
        for process, _ in poll.poll(100):
            _gone(poll, alive, process)
    for process in alive:
        try:
            signal.pidfd_send_signal(process, signal.SIGKILL)
        except ProcessLookupError:
            continue
