"""The status of a node's ranks: a table in memory that they share, read without a message.

Each rank writes a row of its own. Who wants to know why nothing moves reads them all: the
watchdogs of the other ranks and the death monitor, a process without numpy and MPI, which is why
this file needs neither.
"""

import ctypes
import fcntl
import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from distnn.errors import RankFailed

STALL_TIMEOUT = 600.0
PHASES = ("start-up", "reading of data", "step", "evaluation", "checkpoint", "end")
CACHE_LINE = 64  # bytes, the size of each row: ranks do not slow one another down
OWNER, OWNER_DIED = 0x3FFFFFFF, 0x40000000  # FUTEX_TID_MASK, FUTEX_OWNER_DIED of linux/futex.h


def _numbers(*names: str) -> tuple[tuple[str, type[ctypes.c_int64]], ...]:
    return tuple((name, ctypes.c_int64) for name in names)


class RankRow(ctypes.Structure):
    """The status of one rank, written by that rank alone.

    Attributes:
        process, rank: the process's number, and its rank.
        phase: the kind of work it is at, an index of PHASES.
        steps: how many are done.
        events: how often something else was done.
        waiting: above 0 while it waits for other ranks.
        working: above 0 during work in one piece, see `RankStatus.working`.
        done: whether it may end now, and that is no failure.
    """

    process: int
    rank: int
    phase: int
    steps: int
    events: int
    waiting: int
    working: int
    done: int
    _fields_ = _numbers("process", "rank", "phase", "steps", "events", "waiting", "working", "done")

    @property
    def has_arrived(self) -> bool:
        """Whether the rank has come to where it waits for others, or to its end."""
        return bool(self.waiting or self.done)


class SharedRow(ctypes.Structure):
    """What belongs to all ranks of the node.

    Attributes:
        reported: whether somebody has the right to report why the job ends.
        failed: the rank that failed plus 1; 0: none.
        exit_code: of the job, once a rank has failed.
        monitored: whether the death monitor is there.
        events_elsewhere: how often something was done on other nodes.
    """

    reported: int
    failed: int
    exit_code: int
    monitored: int
    events_elsewhere: int
    _fields_ = _numbers("reported", "failed", "exit_code", "monitored", "events_elsewhere")


class MutexRow(ctypes.Structure):
    """A mutex that its rank holds while it lives, see `watchdog.robust_mutex`."""

    state: int  # its first 32 bits, where the C library has the owner's thread
    _fields_ = (("state", ctypes.c_uint32), ("_rest", ctypes.c_char * (CACHE_LINE - 4)))


def is_held(state: int) -> bool:
    """Whether a living rank holds the mutex with this state."""
    return bool(state & OWNER)


def is_orphaned(state: int) -> bool:
    """Whether the rank that held the mutex with this state has died."""
    return bool(state & OWNER_DIED)


class RankStatus:
    """Where this rank is in its work. Nobody else sees it until it is `move`d into a table.

    Attributes:
        stall_timeout: seconds without any progress after which the job is ended.
        stop: how this rank is asked to stop at the next step boundary; None: it cannot be.
        row, shared: this rank's row, and the one of all.
    """

    def __init__(self) -> None:
        self.stall_timeout = STALL_TIMEOUT
        self.stop: Callable[[], None] | None = None
        self.row, self.shared = RankRow(), SharedRow()

    def move(self, row: RankRow, shared: SharedRow) -> None:
        """Use other rows from now on; this rank's keeps its values."""
        ctypes.memmove(ctypes.byref(row), ctypes.byref(self.row), CACHE_LINE)
        self.row, self.shared = row, shared

    def check(self) -> None:
        """Raise RankFailed if another rank of the node has failed."""
        if self.shared.failed:
            raise RankFailed(f"rank {self.shared.failed - 1} failed; this rank cannot go on")

    def enter(self, phase: str) -> None:
        """Another kind of work begins, one of PHASES."""
        self.row.phase = PHASES.index(phase)
        self.row.events += 1

    def step(self, number: int) -> None:
        """So many steps are done."""
        self.row.steps = number

    def moved(self) -> None:
        """Some other piece of work is done."""
        self.row.events += 1

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """This rank has arrived and waits for others."""
        self.row.waiting += 1
        try:
            yield
        finally:
            self.row.waiting -= 1

    @contextmanager
    def working(self) -> Iterator[None]:
        """Work in one piece: it counts as progress while this process computes, reads or writes."""
        self.row.working += 1
        try:
            yield
        finally:
            self.row.working -= 1


class StatusTable:
    """The rows of a node's ranks.

    Args:
        handle: of an open file that all of them map, of `bytes(ranks)` bytes.
        ranks: how many there are on this node.

    Attributes:
        rows, mutexes: one for each rank, in the order of the node's ranks.
        shared: the one row that belongs to all.
    """

    def __init__(self, handle: int, ranks: int) -> None:
        self.handle = handle
        # rows keep the memory mapped; without any of them it is unmapped
        memory = mmap.mmap(handle, StatusTable.bytes(ranks))
        starts = range(0, CACHE_LINE * ranks, CACHE_LINE)
        self.rows = [RankRow.from_buffer(memory, start) for start in starts]
        self.mutexes = [MutexRow.from_buffer(memory, start + starts.stop) for start in starts]
        self.shared = SharedRow.from_buffer(memory, 2 * starts.stop)

    @staticmethod
    def bytes(ranks: int) -> int:
        """How large the file must be."""
        return CACHE_LINE * (2 * ranks + 1)

    def dead_rows(self) -> list[RankRow]:
        """The ranks that the kernel knows to be dead or dying, and that were not done."""
        both = zip(self.rows, self.mutexes, strict=True)
        return [row for row, mutex in both if is_orphaned(mutex.state) and not row.done]

    def claim_report(self) -> bool:
        """Whether the caller is the first to ask, who alone may report why the job ends."""
        fcntl.lockf(self.handle, fcntl.LOCK_EX)
        try:
            reported, self.shared.reported = self.shared.reported, 1
        finally:
            fcntl.lockf(self.handle, fcntl.LOCK_UN)
        return not reported
