"""What guards ranks before their watchdog stands: while MPI starts, and until all have met.

Nothing is shared yet. What is known of the other ranks of a machine is what the system says of the
processes that the same launcher started.
"""

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from math import inf
from pathlib import Path

from distnn.checks import from_text
from distnn.parallel.comm.launcher import LOCAL_RANKS, RANKS, launched_rank, launched_ranks
from distnn.parallel.comm.status import STALL_TIMEOUT
from distnn.parallel.watchdog.reports import HALTED, process_state, write_report

MARGIN = 0.5  # seconds more than a watchdog takes, which knows more
LONGEST_LOOK = 1.0  # seconds; a job that was suspended finds hours gone, which do not count


class StartGuard:
    """Ends the job if its start takes longer than a stall timeout; `close` says that it is done.

    Args:
        seconds: the stall timeout.
        apart: by a process of its own, as a thread cannot run while MPI is initialised; made
            before threads and MPI are there, by the first rank of each machine alone.
    """

    def __init__(self, seconds: float, *, apart: bool) -> None:
        self._read = self._write = -1
        self._finish: Callable[[], object] = lambda: None
        if apart and (launched_ranks()[0] == 1 or launched_rank(names=LOCAL_RANKS) != 0):
            return
        self._read, self._write = os.pipe()
        rank = os.getpid()
        if apart:
            child = os.fork()
            if child == 0:
                self._watch_apart(seconds, rank)
            self._finish = lambda: os.waitpid(child, 0)
        else:
            thread = threading.Thread(
                target=_watch, args=(self._read, seconds, rank), name="distnn start", daemon=True
            )
            thread.start()
            self._finish = thread.join

    def close(self) -> None:
        """The start is done."""
        if self._write < 0:
            return
        os.close(self._write)
        self._finish()
        os.close(self._read)
        self._write = -1

    def _watch_apart(self, seconds: float, rank: int) -> None:
        try:
            # the launcher must see the files of a rank that dies closed
            os.closerange(3, self._read)
            os.closerange(self._read + 1, os.sysconf("SC_OPEN_MAX") if self._read > 1000 else 1000)
            _watch(self._read, seconds, rank)
        finally:
            os._exit(0)


def stall_timeout(words: list[str]) -> float:
    """The stall timeout of a command line that nobody has checked yet."""
    found = STALL_TIMEOUT
    for word, following in pairwise([*words, ""]):
        name, _, joined = word.partition("=")
        if name == "--stall-timeout":
            value = from_text(joined or following, whole=False)
            found = value if isinstance(value, float) and 0 < value < inf else found
    return found


def not_arrived(ranks: Iterable[int], where: str, seconds: float) -> str:
    """The message that these ranks have not come to where all meet."""
    found = {rank: process for process, rank in _siblings(os.getpid())}
    host = socket.gethostname()
    lines = []
    for rank in ranks:
        text = f"rank {rank}"
        if rank in found:
            text += f" on {host} (process {found[rank]})"
        text += f" has not arrived at {where}"
        state = process_state(found[rank]) if rank in found else ""
        lines.append(text + (state and f": it is {state}"))
    first = f"nothing moved for {seconds:.0f} s (--stall-timeout); the job ends"
    return "\n  ".join([first, *lines])


def _watch(handle: int, seconds: float, process: int) -> None:
    """Wait until the pipe's other end is closed; or report who is late, and kill the rank."""
    waited, poll = 0.0, select.poll()
    poll.register(handle, select.POLLIN)
    while waited < seconds + MARGIN:
        start = time.monotonic()
        if poll.poll(100):
            return
        waited += min(time.monotonic() - start, LONGEST_LOOK)
    host = socket.gethostname()
    late = [
        f"rank {rank} on {host} (process {other}) in start-up: it is {process_state(other)}"
        for other, rank in _siblings(process)
        if process_state(other) in HALTED
    ] or [f"a rank has not started, or is stopped elsewhere; seen from {host}"]
    first = f"the start took more than {seconds:.0f} s (--stall-timeout); the job ends"
    write_report("\n  ".join([first, *late]))
    os.kill(process, signal.SIGKILL)  # the launcher ends all others: MPI cannot yet


def _siblings(process: int) -> list[tuple[int, int]]:
    """Process and rank of all that the launcher of `process` started on this machine."""
    parent, found = _parent(process), []
    for path in Path("/proc").glob("[0-9]*"):
        other = int(path.name)
        if _parent(other) != parent:
            continue
        try:
            lines = (path / "environ").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # it ended meanwhile
        environ = dict(line.split("=", 1) for line in lines if "=" in line)
        rank = launched_rank(environ, RANKS)
        if rank is not None:
            found.append((other, rank))
    return sorted(found, key=lambda one: one[1])


def _parent(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return -1
