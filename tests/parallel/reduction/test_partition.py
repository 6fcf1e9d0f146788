"""Who owns what, as closed formulas: nothing is lost, nothing twice, for any sizes."""

from hypothesis import given
from hypothesis import strategies as st

from distnn.parallel.reduction.partition import bounds, rank_slices, slice_rows

sizes = st.integers(0, 10**6)
counts = st.integers(1, 500)


@given(sizes, counts)
def test_parts_follow_one_another_and_differ_by_one_at_most(n: int, parts: int) -> None:
    cuts = [bounds(n, parts, k) for k in range(parts)]
    assert [lo for lo, _ in cuts] == [0, *(hi for _, hi in cuts[:-1])]
    assert cuts[-1][1] == n
    lengths = [hi - lo for lo, hi in cuts]
    assert max(lengths) - min(lengths) <= 1
    assert min(lengths) >= 0


@given(counts, st.integers(0, 499))
def test_every_rank_has_a_slice_and_every_slice_one_rank(ranks: int, more: int) -> None:
    slices = ranks + more
    owned = [k for rank in range(ranks) for k in range(*rank_slices(rank, ranks, slices))]
    assert owned == list(range(slices))
    assert all(lo < hi for lo, hi in (rank_slices(rank, ranks, slices) for rank in range(ranks)))


def test_ten_rows_in_four_slices() -> None:
    assert [slice_rows(k, 4, 10) for k in range(4)] == [(0, 2), (2, 5), (5, 7), (7, 10)]


def test_a_batch_smaller_than_its_slices_leaves_some_empty() -> None:
    assert [slice_rows(k, 4, 2) for k in range(4)] == [(0, 0), (0, 1), (1, 1), (1, 2)]
