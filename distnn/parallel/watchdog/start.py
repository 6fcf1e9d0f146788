"""Watching over ranks until their watchdog runs: while MPI starts, and until the handshake is over.

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
from contextlib import suppress
from itertools import pairwise
from math import inf
from pathlib import Path

from distnn.checks import from_text
from distnn.parallel.comm.launcher import (
    LOCAL_RANKS,
    LOCAL_SIZES,
    RANKS,
    launched_rank,
    launched_ranks,
)
from distnn.parallel.comm.status import STALL_TIMEOUT
from distnn.parallel.watchdog.death_monitor import open_process, outlast
from distnn.parallel.watchdog.reports import (
    HALTED,
    REPORT_SECONDS,
    process_state,
    write_report,
)

MARGIN = 0.5  # seconds more than a watchdog takes, which can say more
LONGEST_LOOK = 1.0  # seconds; a job that was suspended finds hours gone, which do not count
GUARDED = (0, 1)  # ranks of each machine that have a guard apart: one of them may be stopped
GRACE = 1.0  # seconds in which a rank may end by itself, with a message, as another one has done
CLAIM_SECONDS = 3.0  # for which nobody else on the machine reports


class StartGuard:
    """Ends the job if its start takes longer than a stall timeout; `close` says that it is done.

    Args:
        seconds: the stall timeout.
        apart: by a process of its own, as a thread cannot run while MPI is initialised; made
            before threads and MPI are there, by the first two ranks of each machine. It ends the
            job, too, if a rank of the machine dies.
    """

    def __init__(self, seconds: float, *, apart: bool) -> None:
        self._read = self._write = -1
        self._finish: Callable[[], object] = lambda: None
        if apart and (launched_ranks()[0] == 1 or launched_rank(names=LOCAL_RANKS) not in GUARDED):
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
                target=_Watch(self._read, seconds, rank).run, name="distnn start", daemon=True
            )
            thread.start()
            self._finish = thread.join

    def close(self) -> None:
        """The start is done, or this rank says itself why it ends."""
        if self._write < 0:
            return
        with suppress(BrokenPipeError):  # the guard has ended
            os.write(self._write, b".")
        os.close(self._write)
        self._finish()
        os.close(self._read)
        self._write = -1

    def _watch_apart(self, seconds: float, rank: int) -> None:
        try:
            os.setsid()  # launchers end the processes of a rank's group with it
            # the launcher must see the files of a rank that dies closed
            os.closerange(3, self._read)
            os.closerange(self._read + 1, os.sysconf("SC_OPEN_MAX") if self._read > 1000 else 1000)
            watch = _Watch(self._read, seconds, rank)
            watch.siblings = {}
            watch.run()
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
    """The message that these ranks have not arrived."""
    found = {rank: process for process, rank in _siblings(os.getppid())}
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


class _Watch:
    """Waits for a byte in a pipe; or reports who died or is late, and kills its rank.

    Attributes:
        siblings: process and rank by a handle, of those that are watched; None: only the pipe is.
    """

    def __init__(self, handle: int, seconds: float, process: int) -> None:
        self.siblings: dict[int, tuple[int, int]] | None = None
        self._handle, self._seconds, self._process = handle, seconds, process
        self._launcher = _parent(process)
        self._poll = select.poll()
        self._poll.register(handle, select.POLLIN)

    def run(self) -> None:
        """See above."""
        waited, since_death = 0.0, 0.0
        dead: list[tuple[int, int]] = []
        while waited < self._seconds + MARGIN and since_death < GRACE:
            self._find_siblings()
            start = time.monotonic()
            events = [handle for handle, _ in self._poll.poll(100)]
            passed = min(time.monotonic() - start, LONGEST_LOOK)
            if self._handle in events and os.read(self._handle, 1):
                return
            ended = [self._forget(handle) for handle in events if handle != self._handle]
            dead = dead or ended  # before this rank, which the launcher may have ended since
            if self._handle in events:
                dead = dead or [(self._process, launched_rank() or 0)]
                break
            waited += passed
            since_death += passed if dead else 0.0
        self._end(dead)

    def _find_siblings(self) -> None:
        # not once all are known: who dies meanwhile would be seen after those that a launcher ends
        if self.siblings is None or len(self.siblings) == launched_rank(names=LOCAL_SIZES):
            return
        known = {process for process, _ in self.siblings.values()}
        for process, rank in _siblings(self._launcher):
            handle = None if process in known else open_process(process)
            if handle is not None:
                self.siblings[handle] = process, rank
                self._poll.register(handle, select.POLLIN)

    def _forget(self, handle: int) -> tuple[int, int]:
        self._poll.unregister(handle)
        return (self.siblings or {})[handle]

    def _never_seen(self) -> list[int]:
        """The ranks that had no process at any look, where all are on this machine."""
        local, ranks = launched_rank(names=LOCAL_SIZES), launched_ranks()[0]
        seen = {rank for _, rank in (self.siblings or {}).values()}
        return [rank for rank in range(ranks) if rank not in seen] if local == ranks else []

    def _end(self, dead: list[tuple[int, int]]) -> None:
        host, limit = socket.gethostname(), f"more than {self._seconds:.0f} s (--stall-timeout)"
        lines = [f"rank {rank} on {host} (process {process}) died" for process, rank in dead]
        if self.siblings is not None:
            late = self._never_seen()
            lines += [f"rank {rank} on {host} has ended, or has not started" for rank in late]
        halted = [
            f"rank {rank} on {host} (process {process}): it is {process_state(process)}"
            for process, rank in _siblings(self._launcher)
            if process_state(process) in HALTED
        ]
        lines = lines or halted or [f"a rank has not started, or is stopped; seen from {host}"]
        first = "in start-up" if dead else f"the start took {limit}"
        with socket.socket(socket.AF_UNIX) as claim:
            is_first = _claim(claim, self._launcher)
            if is_first:
                write_report("\n  ".join([f"{first}; the job ends", *lines]))
                time.sleep(REPORT_SECONDS)
            with suppress(ProcessLookupError):
                os.kill(self._process, signal.SIGKILL)  # the launcher ends all others: MPI cannot
            if is_first and self.siblings is not None:
                outlast([process for process, _ in self.siblings.values()])
                for stream in range(3):
                    os.close(stream)  # which the launcher waits for
                time.sleep(CLAIM_SECONDS)


def _claim(claim: socket.socket, launcher: int) -> bool:
    """Whether nobody else on this machine reports why this job ends, from now on."""
    try:
        claim.bind(f"\0distnn-start-{launcher}")
    except OSError:
        return False
    return True


def _siblings(launcher: int) -> list[tuple[int, int]]:
    """Process and rank of all that a launcher started on this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        other = int(path.name)
        if _parent(other) != launcher:
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
