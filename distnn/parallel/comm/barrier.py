"""How the ranks of a node wait for one another.

A barrier has two halves: everyone *arrives*, the leader sees the last one arrive, may then do what
must be done alone, and *releases* the others. Each rank announces itself in a cache line of its
own in the node's shared memory, so that no message is sent, the leader reads one number per rank
and every other rank only one. A waiting rank polls, then yields its core, at once where there are
more ranks than cores, because the one that is waited for may need it; where yielding would not
reach that one (see `affinity`), it sleeps.

A stop request travels with both halves: the leader sees the largest of all ranks', the others get
what the leader makes of it.
"""

import os
import time

import numpy as np

from distnn.parallel.comm.affinity import is_oversubscribed, must_sleep
from distnn.parallel.comm.futex import Futex, has_futex
from distnn.parallel.comm.shared_memory import SharedMemory

CACHE_LINE = 8  # int64 numbers: how many have passed, the stop request, and nothing
POLLS = 300  # before a rank with a core of its own yields it: less than 20 us
YIELDS = 20_000  # before a waiting rank starts to nap: some 10 ms
NAP = 0.0005  # seconds
LONGEST_SLEEP = 0.01  # seconds, if nobody wakes the sleeper


class Barrier:
    """The barrier of one node's ranks.

    Each rank calls `wait`, or `arrive` and then, the leader `wait_all` and `release`, the others
    `wait_release`.

    Attributes:
        is_leader: whether this rank is the one that releases the others.
        is_oversubscribed: whether there are more ranks than cores.
    """

    def __init__(self, memory: SharedMemory) -> None:
        comm = memory.comm
        self.is_leader = comm.node_rank == 0
        self._sync, self._status = memory.sync, comm.status
        self._count = 0
        lines = memory.array((comm.node_size + 1, CACHE_LINE), np.int64)
        self._flags = lines.data.cast("B").cast("q")
        self._own = comm.node_rank * CACHE_LINE
        self._others = [rank * CACHE_LINE for rank in range(1, comm.node_size)]
        self._release = comm.node_size * CACHE_LINE
        self.is_oversubscribed = is_oversubscribed(comm)
        self._polls = 0 if self.is_oversubscribed else POLLS
        self._futex: Futex | None = None
        if self._others and has_futex() and must_sleep(comm):
            self._futex = Futex(self._flags, LONGEST_SLEEP)

    def arrive(self, stop: int = 0) -> None:
        """Announce that all this rank wrote is there to be read.

        Args:
            stop: this rank's stop request; 0: none.
        """
        self._count += 1
        if self._others:
            self._flags[self._own + 1] = stop
            self._sync()
            self._flags[self._own] = self._count
            if self._futex is not None and not self.is_leader:
                self._futex.wake(self._own)

    def wait_all(self, stop: int = 0) -> int:
        """Leader: wait until every rank has arrived; the largest stop request, with its own."""
        flags, count = self._flags, self._count
        for line in self._others:
            if flags[line] < count:
                self._wait(line)
            stop = max(stop, flags[line + 1])
        if self._others:
            self._sync()
        return stop

    def release(self, stop: int = 0) -> None:
        """Leader: let the others go on, with what the leader wrote there to be read."""
        if self._others:
            self._flags[self._release + 1] = stop
            self._sync()
            self._flags[self._release] = self._count
            if self._futex is not None:
                self._futex.wake(self._release)

    def wait_release(self) -> int:
        """Not the leader: wait until the leader releases this rank; what it gave `release`."""
        if self._flags[self._release] < self._count:
            self._wait(self._release)
        self._sync()
        return self._flags[self._release + 1]

    def wait(self, stop: int = 0) -> int:
        """The whole barrier: afterwards each rank may read what any rank wrote before.

        Returns:
            The largest stop request of the node's ranks.
        """
        self.arrive(stop)
        if not self.is_leader:
            return self.wait_release()
        stop = self.wait_all(stop)
        self.release(stop)
        return stop

    def _wait(self, line: int) -> None:
        if self._futex is not None:
            self._sleep(self._futex, line)
            return
        flags, count, yield_core = self._flags, self._count, os.sched_yield
        for _ in range(self._polls):
            if flags[line] >= count:
                return
        for _ in range(YIELDS):
            if flags[line] >= count:
                return
            yield_core()
        with self._status.waiting():
            while flags[line] < count:  # seconds of evaluation or writing elsewhere: use no core
                time.sleep(NAP)
                self._status.check()

    def _sleep(self, futex: Futex, line: int) -> None:
        flags, count = self._flags, self._count
        if (seen := flags[line]) < count:
            futex.sleep(line, seen)
        if flags[line] >= count:
            return
        with self._status.waiting():
            while (seen := flags[line]) < count:
                futex.sleep(line, seen)
                self._status.check()
