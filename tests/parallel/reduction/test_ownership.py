"""What each rank can tell of all the others."""

import itertools

import pytest
from distnn.parallel.reduction.blocks import GRANULE
from hypothesis import given
from hypothesis import strategies as st

from distnn.parallel.reduction.ownership import Ownership


@st.composite
def ownerships(draw: st.DrawFn) -> Ownership:
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))  # ranks of each node
    ends = list(itertools.accumulate(sizes))
    nodes = list(zip([0, *ends[:-1]], ends, strict=True))
    slices = ends[-1] + draw(st.integers(0, 40))
    return Ownership(draw(st.integers(1, 60 * GRANULE)), slices, nodes, draw(st.booleans()))


@given(ownerships())
def test_parts_follow_one_another_and_cover_the_vector(own: Ownership) -> None:
    parts = [own.part(rank) for rank in range(own.ranks)]
    covered = [part for part in parts if part[0] < part[1]]
    assert [lo for lo, _ in covered] == [0, *(hi for _, hi in covered[:-1])]
    assert covered[-1][1] == own.size
    assert all(lo % GRANULE == 0 for lo, _ in covered)
    if not own.sharded:
        assert covered == [(0, own.size)] == [parts[0]]


@given(ownerships())
def test_a_nodes_part_is_that_of_its_ranks(own: Ownership) -> None:
    for node, (first, end) in enumerate(own.node_ranks):
        elements = [own.part(rank) for rank in range(first, end)]
        lo, hi = own.node_part(node)
        assert hi - lo == sum(b - a for a, b in elements)


@given(ownerships())
def test_pieces_of_ranks_and_of_nodes_cover_all_slices_once(own: Ownership) -> None:
    of_nodes = [piece for node in range(len(own.node_ranks)) for piece in own.node_pieces(node)]
    of_ranks = [piece for node in range(len(own.node_ranks)) for piece in own.rank_pieces(node)]
    for pieces in (of_nodes, of_ranks):
        assert [k for piece in pieces for k in range(*piece)] == list(range(own.slices))
    assert of_ranks == [piece for rank in range(own.ranks) for piece in own.pieces(rank)]
    assert len(of_nodes) <= len(of_ranks)


@pytest.mark.parametrize("sharded", [False, True])
def test_eight_slices_on_three_ranks_of_two_nodes(sharded: bool) -> None:
    own = Ownership(10 * GRANULE, 8, [(0, 2), (2, 3)], sharded)
    assert [own.run(rank) for rank in range(3)] == [(0, 2), (2, 5), (5, 8)]
    assert own.pieces(1) == [(2, 4), (4, 5)]
    assert own.node_pieces(0) == [(0, 4), (4, 5)]
    assert own.node_pieces(1) == [(5, 6), (6, 8)]
    assert own.node_part(1) == ((6 * GRANULE, 10 * GRANULE) if sharded else (own.size, own.size))
