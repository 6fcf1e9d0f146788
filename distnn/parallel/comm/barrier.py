"""How the ranks of a node wait for one another.

A meeting has two halves: everyone *arrives*, the leader sees the last one arrive, may then do what
must be done alone, and *releases* the others. Each rank announces itself in a cache line of its
own in the node's shared memory, so that no message is sent, the leader reads one number per rank
and every other rank only one. Whoever waits offers its core to others, at once where there are
more ranks than cores, because the one that is waited for may need it; where an offer would not
reach that one (see `crowd`), it sleeps.

A word rides along both ways: each rank's upwards (the leader sees the largest), the leader's
verdict downwards.
"""

import os
import time

import numpy as np

from distnn.parallel.comm.affinity import is_oversubscribed, must_sleep
from distnn.parallel.comm.futex import Futex, is_known
from distnn.parallel.comm.shared_memory import SharedMemory

LINE = 8  # int64 numbers in a cache line
GLANCES = 300  # polls before a rank with a core of its own offers it: less than 20 us
PATIENCE = 20_000  # polls before a waiting rank starts to nap: some 10 ms
NAP = 0.0005  # seconds
LONGEST_SLEEP = 0.01  # seconds, if nobody wakes the sleeper


class Barrier:
    """The meeting point of one node's ranks.

    Attributes:
        is_leader: whether this rank is the one that releases the others.
        is_oversubscribed: whether there are more ranks than cores.
    """

    def __init__(self, memory: SharedMemory) -> None:
        comm = memory.comm
        self.is_leader = comm.node_rank == 0
        self._sync, self._here = memory.sync, comm.status
        self._count = 0
        lines = memory.array((comm.node_size + 1, LINE), np.int64)
        self._flags = lines.data.cast("B").cast("q")
        self._mine = comm.node_rank * LINE
        self._others = [rank * LINE for rank in range(1, comm.node_size)]
        self._verdict = comm.node_size * LINE
        self.is_oversubscribed = is_oversubscribed(comm)
        self._glances = 0 if self.is_oversubscribed else GLANCES
        self._futex: Futex | None = None
        if self._others and is_known() and must_sleep(comm):
            self._futex = Futex(lines.reshape(-1), LONGEST_SLEEP)

    def arrive(self, word: int = 0) -> None:
        """Announce that all this rank wrote is there to be read."""
        self._count += 1
        if self._others:
            self._flags[self._mine + 1] = word
            self._sync()
            self._flags[self._mine] = self._count
            if self._futex is not None and not self.is_leader:
                self._futex.wake(self._mine)

    def wait_all(self, word: int = 0) -> int:
        """Leader: wait until every rank has arrived; the largest word, its own included."""
        flags, count = self._flags, self._count
        for line in self._others:
            if flags[line] < count:
                self._wait(line)
            word = max(word, flags[line + 1])
        if self._others:
            self._sync()
        return word

    def release(self, word: int = 0) -> None:
        """Leader: let the others go on, with what the leader wrote there to be read."""
        if self._others:
            self._flags[self._verdict + 1] = word
            self._sync()
            self._flags[self._verdict] = self._count
            if self._futex is not None:
                self._futex.wake(self._verdict)

    def wait_release(self) -> int:
        """Not the leader: wait until the leader says go on; its word."""
        if self._flags[self._verdict] < self._count:
            self._wait(self._verdict)
        self._sync()
        return self._flags[self._verdict + 1]

    def wait(self) -> None:
        """Arrive and be released: afterwards each rank may read what any rank wrote before."""
        self.arrive()
        if self.is_leader:
            self.wait_all()
            self.release()
        else:
            self.wait_release()

    def _wait(self, line: int) -> None:
        if self._futex is not None:
            self._sleep(self._futex, line)
            return
        flags, count, offer_core = self._flags, self._count, os.sched_yield
        for _ in range(self._glances):
            if flags[line] >= count:
                return
        for _ in range(PATIENCE):
            if flags[line] >= count:
                return
            offer_core()
        with self._here.waiting():
            while flags[line] < count:  # seconds of evaluation or writing elsewhere: be quiet
                time.sleep(NAP)
                self._here.check()

    def _sleep(self, futex: Futex, line: int) -> None:
        flags, count = self._flags, self._count
        if (seen := flags[line]) < count:
            futex.sleep(line, seen)
        if flags[line] >= count:
            return
        with self._here.waiting():
            while (seen := flags[line]) < count:
                futex.sleep(line, seen)
                self._here.check()
