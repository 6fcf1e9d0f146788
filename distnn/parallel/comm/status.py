"""What the ranks of a node tell of themselves, without a message: a page of shared memory.

Each rank has a line of numbers on it, written by that rank alone, and read by whoever wants to
know why nothing moves: the other ranks' watches, and the witness, a process that imports no more
than this file.
"""

import fcntl
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from distnn.errors import RankFailed

STALL_TIMEOUT = 600.0
LINE = 8  # numbers of a line: one cache line
LIFELINE = 8  # numbers of another line, in which the kernel marks a rank's death: see `lifeline`
OWNER, DIED = 0x3FFFFFFF, 0x40000000  # in its first one: linux/futex.h
PROCESS, RANK, PHASE, STEP, MOVES, WAITING, WORKING, ENDED = range(LINE)
TOLD, FAILED, CODE, WITNESSED, ELSEWHERE = range(5)  # of the line that belongs to all
PHASES = ("start-up", "reading of data", "step", "evaluation", "checkpoint", "end")
STATES = {"T": "stopped by a signal", "t": "held by a debugger", "Z": "dead", "X": "dead"}
STATES |= {"R": "running", "S": "sleeping", "D": "waiting for a disk or network"}
HALTED = {STATES[letter] for letter in "TtZX"}


class RankStatus:
    """Where this rank is in its work. Nobody reads it until it is put on a board.

    Attributes:
        stall_timeout: seconds without any movement on the board after which the job is ended.
        stop: how this rank is asked to stop at the next step boundary; None: it cannot be.
    """

    def __init__(self) -> None:
        self.stall_timeout = STALL_TIMEOUT
        self.stop: Callable[[], None] | None = None
        self.line = memoryview(bytearray(8 * LINE)).cast("q")
        self.common = memoryview(bytearray(8 * LINE)).cast("q")

    def check(self) -> None:
        """Raise RankFailed if another rank of the node has failed."""
        if self.common[FAILED]:
            raise RankFailed(f"rank {self.common[FAILED] - 1} failed; this rank cannot go on")

    def enter(self, phase: str) -> None:
        """Another kind of work begins, one of PHASES."""
        self.line[PHASE] = PHASES.index(phase)
        self.line[MOVES] += 1

    def step(self, number: int) -> None:
        """So many steps are done."""
        self.line[STEP] = number

    def moved(self) -> None:
        """Some other piece of work is done."""
        self.line[MOVES] += 1

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """This rank has arrived and waits for others."""
        self.line[WAITING] += 1
        try:
            yield
        finally:
            self.line[WAITING] -= 1

    @contextmanager
    def working(self) -> Iterator[None]:
        """Work in one piece: as long as this process computes, reads or writes, it moves."""
        self.line[WORKING] += 1
        try:
            yield
        finally:
            self.line[WORKING] -= 1


class StatusTable:
    """The lines of a node's ranks, and one line for all of them.

    Args:
        handle: of an open file that all of them map.
        ranks: how many there are on this node.
    """

    def __init__(self, handle: int, ranks: int) -> None:
        self.handle, self.ranks = handle, ranks
        self._numbers = memoryview(mmap.mmap(handle, StatusTable.bytes(ranks))).cast("q")
        self.common = self.line(ranks)

    @staticmethod
    def bytes(ranks: int) -> int:
        """How large the file must be."""
        return 8 * (LINE * (ranks + 1) + LIFELINE * ranks)

    def line(self, node_rank: int) -> memoryview:
        """The numbers of one rank of the node."""
        return self._numbers[node_rank * LINE : (node_rank + 1) * LINE]

    def lines(self) -> list[memoryview]:
        """The numbers of every rank of the node."""
        return [self.line(node_rank) for node_rank in range(self.ranks)]

    def lifeline(self, node_rank: int) -> memoryview:
        """The numbers that tell of one rank's death."""
        start = LINE * (self.ranks + 1) + LIFELINE * node_rank
        return self._numbers[start : start + LIFELINE]

    def lifelines(self) -> list[memoryview]:
        """The numbers that tell of every rank's death."""
        return [self.lifeline(node_rank) for node_rank in range(self.ranks)]

    def dying(self) -> list[memoryview]:
        """The lines of ranks that are dead, or about to be, and may not end yet."""
        both = zip(self.lines(), self.lifelines(), strict=True)
        return [line for line, life in both if is_marked(life[0]) and not line[ENDED]]

    def claim(self) -> bool:
        """The right to tell why the job ends; only the first who asks has it."""
        fcntl.lockf(self.handle, fcntl.LOCK_EX)
        try:
            told, self.common[TOLD] = self.common[TOLD], 1
        finally:
            fcntl.lockf(self.handle, fcntl.LOCK_UN)
        return not told


def is_held(first: int) -> bool:
    """Whether a living rank holds the lifeline with this first number."""
    return bool(first & OWNER)


def is_marked(first: int) -> bool:
    """Whether the rank that held the lifeline with this first number has died."""
    return bool(first & DIED)


def place(line: memoryview, host: str) -> str:
    """A rank and where it is in its work, in words."""
    return f"rank {line[RANK]} on {host} (process {line[PROCESS]}) in {doing(line)}"


def deaths(lines: list[memoryview], host: str) -> str:
    """That these ranks died, in words; more than one where a launcher was quicker than a look."""
    return f"distnn: {', '.join(place(line, host) for line in lines)} died; the job ends"


def doing(line: memoryview) -> str:
    """What a rank is at, in words: ``step 12`` is the one that is not finished."""
    phase = PHASES[line[PHASE]]
    if phase == "step":
        return f"step {line[STEP] + 1}"
    return f"{phase} after step {line[STEP]}" if line[STEP] else phase


def state(process: int) -> str:
    """What the system says a process does; empty where it says nothing."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    letter = stat.rpartition(")")[2].split()[0]
    return STATES.get(letter, "")


def open_process(process: int) -> int | None:
    """A handle that a poll reports when the process ends; None where the system has none."""
    try:
        return os.pidfd_open(process)
    except (OSError, AttributeError):
        return None


def tell(text: str) -> None:
    """Lines on standard error at once, past any lock that a stuck thread may hold."""
    data = (text.rstrip("\n") + "\n").encode(errors="replace")
    try:
        while data:
            data = data[os.write(2, data) :]
    except OSError:
        return  # nobody reads any more
