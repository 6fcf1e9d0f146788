"""How far the clocks of the nodes are apart, so that times of one can be put beside another's.

A node's leader answers a message of rank 0 with the time. If the quickest of many round trips took
r, the answer is of the middle of it, to r / 2 at most (F. Cristian, Probabilistic clock
synchronization, Distributed Computing 3, 1989). Clocks also run at different speeds, by some
millionths: measured twice, the distance is known in between, too.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI

ROUNDS = 100  # some 10 ms a node, which come after one another

Clock = Callable[[], int]
"""Nanoseconds from any start that the ranks of a node have in common."""


class Offset(NamedTuple):
    """How far a node's clock is ahead of the first node's.

    Attributes:
        at: when it was measured, by the first node's clock.
        ahead: how far.
        error: what it may be wrong by. All in ns.
    """

    at: int
    ahead: int
    error: int


def measure(comm: Communicator, clock: Clock = time.perf_counter_ns) -> list[Offset]:
    """The offset of each node, on rank 0; not to be used elsewhere. Collective.

    Nothing else may be under way between the leaders.
    """
    found, leaders = [Offset(clock(), 0, 0)], comm.leader_comm
    for node in range(1, comm.nodes):
        if leaders is not None and comm.is_first:
            found.append(_ask(leaders, node, clock))
        elif leaders is not None and comm.node == node:
            _answer(leaders, clock)
    with comm.status.waiting():
        comm.mpi.Barrier()
    return found


def aligned(times: NDArray[np.int64], start: Offset, end: Offset) -> NDArray[np.int64]:
    """Times (n,) of a node by the first node's clock, from its offsets before and after them."""
    ahead = np.interp(times - start.ahead, [start.at, end.at], [start.ahead, end.ahead])
    return times - np.rint(ahead).astype(np.int64)


def _ask(leaders: "MPI.Comm", node: int, clock: Clock) -> Offset:
    theirs, trips = np.zeros(1, np.int64), []
    for _ in range(ROUNDS):
        start = clock()
        leaders.Send(theirs, node)
        leaders.Recv(theirs, node)
        end = clock()
        trips.append((end - start, start, int(theirs[0])))
    seconds, start, answer = min(trips)
    middle = start + seconds // 2
    return Offset(middle, answer - middle, -(-seconds // 2))


def _answer(leaders: "MPI.Comm", clock: Clock) -> None:
    ours = np.zeros(1, np.int64)
    for _ in range(ROUNDS):
        leaders.Recv(ours, 0)
        ours[0] = clock()
        leaders.Send(ours, 0)
