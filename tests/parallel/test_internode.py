"""Between nodes: every node's partial sums reach the owner of each part; the weights come back."""

import numpy as np
import pytest

from distnn.parallel import tree
from distnn.parallel.blocks import GRANULE
from distnn.parallel.internode import InterNode
from distnn.parallel.memory import SharedMemory
from distnn.parallel.ownership import Ownership

pytestmark = pytest.mark.mpi

SIZE = 5 * GRANULE + 333


def value(piece: tree.Node) -> np.ndarray:
    """The partial sum of a node of the tree; whole numbers, so that every order adds alike."""
    a, b = piece
    return (b - a) * np.arange(SIZE, dtype=np.float64) + sum(k * k for k in range(a, b))


class Setup:
    def __init__(self, memory: SharedMemory, slices: int, sharded: bool) -> None:
        self.team = memory.team
        self.own = Ownership(SIZE, slices, self.team.node_ranks, sharded)
        here = self.own.rank_pieces(self.team.node)
        sums = dict(zip(here, memory.arrays(len(here), (SIZE,), np.float64), strict=True))
        self.weights = memory.array((SIZE,), np.float64)
        self.internode = InterNode(memory, self.own, sums, self.weights)
        for piece in self.own.pieces(self.team.rank):
            sums[piece][:] = value(piece)
        self.team.node_comm.Barrier()

    @property
    def parts(self) -> list[tuple[int, int]]:
        return [self.own.node_part(node) for node in range(self.team.nodes)]


@pytest.fixture(params=[(0, False), (0, True), (1, True), (5, False), (5, True)])
def setup(request: pytest.FixtureRequest, memory: SharedMemory) -> Setup:
    more, sharded = request.param
    return Setup(memory, memory.team.size + more, sharded)


def test_a_node_gets_the_other_nodes_pieces_of_its_own_part(setup: Setup) -> None:
    team, own = setup.team, setup.own
    if team.leaders is not None:
        setup.internode.reduce()
    team.node_comm.Barrier()
    lo, hi = own.node_part(team.node)
    others = [node for node in range(team.nodes) if node != team.node]
    expected = [piece for node in others for piece in own.node_pieces(node)] if lo < hi else []
    assert sorted(setup.internode.received) == sorted(expected)
    for piece, vector in setup.internode.received.items():
        assert np.array_equal(vector, value(piece)[lo:hi]), piece


def test_weights_come_back(setup: Setup) -> None:
    team = setup.team
    lo, hi = setup.own.part(team.rank)
    setup.weights[lo:hi] = np.arange(lo, hi)
    team.node_comm.Barrier()
    if team.leaders is not None:
        setup.internode.spread_weights()
    team.node_comm.Barrier()
    assert np.array_equal(setup.weights, np.arange(SIZE))


def test_collect_brings_every_part_to_the_first_node(setup: Setup) -> None:
    team = setup.team
    state = np.full(SIZE, np.nan)
    lo, hi = setup.own.node_part(team.node)
    state[lo:hi] = np.arange(lo, hi)
    setup.internode.collect(state, setup.parts)
    if team.node == 0 and team.leaders is not None:
        assert np.array_equal(state, np.arange(SIZE))


def test_the_largest_word(setup: Setup) -> None:
    if setup.team.leaders is not None:
        assert setup.internode.largest(setup.team.node) == setup.team.nodes - 1
