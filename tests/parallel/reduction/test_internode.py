"""Between nodes: every node's partial sums reach the owner of each part; the weights come back."""

import numpy as np
import pytest

from distnn.parallel.comm.shared_memory import ArraySpec, SharedMemory
from distnn.parallel.reduction import tree
from distnn.parallel.reduction.blocks import GRANULE
from distnn.parallel.reduction.internode import InterNode
from distnn.parallel.reduction.ownership import Ownership

pytestmark = pytest.mark.mpi

SIZE = 5 * GRANULE + 333


def value(piece: tree.Node) -> np.ndarray:
    """The partial sum of a node of the tree; whole numbers, so that every order adds alike."""
    a, b = piece
    return (b - a) * np.arange(SIZE, dtype=np.float64) + sum(k * k for k in range(a, b))


class Setup:
    def __init__(self, memory: SharedMemory, slices: int, sharded: bool) -> None:
        self.comm = memory.comm
        self.own = Ownership(SIZE, slices, self.comm.node_ranks, sharded)
        here = self.own.rank_pieces(self.comm.node)
        arrays = memory.arrays(ArraySpec(len(here), (SIZE,), np.float64))
        sums = dict(zip(here, arrays, strict=True))
        self.weights = memory.array((SIZE,), np.float64)
        self.internode = InterNode(memory, self.own, sums, self.weights)
        for piece in self.own.pieces(self.comm.rank):
            sums[piece][:] = value(piece)
        self.comm.node_comm.Barrier()

    @property
    def parts(self) -> list[tuple[int, int]]:
        return [self.own.node_part(node) for node in range(self.comm.nodes)]


@pytest.fixture(params=[(0, False), (0, True), (1, True), (5, False), (5, True)])
def setup(request: pytest.FixtureRequest, memory: SharedMemory) -> Setup:
    more, sharded = request.param
    return Setup(memory, memory.comm.size + more, sharded)


def test_a_node_gets_the_other_nodes_pieces_of_its_own_part(setup: Setup) -> None:
    comm, own = setup.comm, setup.own
    if comm.leader_comm is not None:
        setup.internode.reduce()
    comm.node_comm.Barrier()
    lo, hi = own.node_part(comm.node)
    others = [node for node in range(comm.nodes) if node != comm.node]
    expected = [piece for node in others for piece in own.node_pieces(node)] if lo < hi else []
    assert sorted(setup.internode.received) == sorted(expected)
    for piece, vector in setup.internode.received.items():
        assert np.array_equal(vector, value(piece)[lo:hi]), piece


def test_weights_come_back(setup: Setup) -> None:
    comm = setup.comm
    lo, hi = setup.own.part(comm.rank)
    setup.weights[lo:hi] = np.arange(lo, hi)
    comm.node_comm.Barrier()
    if comm.leader_comm is not None:
        setup.internode.spread_weights()
    comm.node_comm.Barrier()
    assert np.array_equal(setup.weights, np.arange(SIZE))


def test_collect_brings_every_part_to_the_first_node(setup: Setup) -> None:
    comm = setup.comm
    state = np.full(SIZE, np.nan)
    lo, hi = setup.own.node_part(comm.node)
    state[lo:hi] = np.arange(lo, hi)
    setup.internode.collect(state, setup.parts)
    if comm.node == 0 and comm.leader_comm is not None:
        assert np.array_equal(state, np.arange(SIZE))


def test_the_largest_word(setup: Setup) -> None:
    if setup.comm.leader_comm is not None:
        assert setup.internode.largest(setup.comm.node) == setup.comm.nodes - 1
