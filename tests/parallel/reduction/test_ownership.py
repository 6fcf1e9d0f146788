"""The division of slices and buckets, as each rank knows it of all the others."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distnn.parallel.reduction.ownership import Ownership, matrix_owners


@st.composite
def ownerships(draw: st.DrawFn) -> Ownership:
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))  # ranks of each node
    ends = list(itertools.accumulate(sizes))
    nodes = list(zip([0, *ends[:-1]], ends, strict=True))
    return Ownership(ends[-1] + draw(st.integers(0, 40)), nodes, draw(st.booleans()))


@given(ownerships())
def test_pieces_of_ranks_and_of_nodes_cover_all_slices_once(own: Ownership) -> None:
    of_nodes = [piece for node in range(len(own.node_ranks)) for piece in own.node_pieces(node)]
    of_ranks = [piece for node in range(len(own.node_ranks)) for piece in own.rank_pieces(node)]
    for pieces in (of_nodes, of_ranks):
        assert [k for piece in pieces for k in range(*piece)] == list(range(own.slices))
    assert of_ranks == [piece for rank in range(own.ranks) for piece in own.pieces(rank)]
    assert len(of_nodes) <= len(of_ranks)


@given(ownerships(), st.integers(1, 30))
def test_each_bucket_has_one_handler_on_each_node(own: Ownership, buckets: int) -> None:
    for node, (first, end) in enumerate(own.node_ranks):
        handlers = [own.handler(node, bucket) for bucket in range(buckets)]
        assert handlers[0] == first  # stop requests and the norm rely on it
        if own.rank0_updates and node == 0:
            assert set(handlers) == {0}
            continue
        counts = [handlers.count(rank) for rank in range(first, end)]
        assert sum(counts) == buckets
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("rank0_updates", [False, True])
def test_eight_slices_on_three_ranks_of_two_nodes(rank0_updates: bool) -> None:
    own = Ownership(8, [(0, 2), (2, 3)], rank0_updates)
    assert own.ranks == 3
    assert [own.run(rank) for rank in range(3)] == [(0, 2), (2, 5), (5, 8)]
    assert own.pieces(1) == [(2, 4), (4, 5)]
    assert own.rank_pieces(0) == [(0, 2), (2, 4), (4, 5)]
    assert own.node_pieces(0) == [(0, 4), (4, 5)]
    assert own.node_pieces(1) == [(5, 6), (6, 8)]
    assert [own.handler(0, bucket) for bucket in range(4)] == (
        [0, 0, 0, 0] if rank0_updates else [0, 1, 0, 1]
    )
    assert [own.handler(1, bucket) for bucket in range(3)] == [2, 2, 2]


def test_matrices_go_to_the_rank_with_least():
    assert matrix_owners([5, 9, 4, 1], 1) == (0, 0, 0, 0)
    assert matrix_owners([5, 9, 4, 1], 2) == (1, 0, 1, 0)
    assert matrix_owners([5, 9, 4, 1], 3) == (1, 0, 2, 2)
    assert matrix_owners([5, 5], 4) == (0, 1)


def test_the_owner_of_a_matrix_handles_its_bucket():
    own = Ownership(4, [(0, 2), (2, 4)], owners=(3, 0, 1))
    assert [own.owner_node(matrix) for matrix in range(3)] == [1, 0, 0]
    assert [own.handler(0, bucket) for bucket in range(3)] == [0, 0, 1]
    assert [own.handler(1, bucket) for bucket in range(3)] == [3, 3, 2]
