"""How a vector is cut for its sum, its norm and its update: nothing left out, nothing twice."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distnn.parallel.reduction.granules import (
    BLOCK,
    GRANULE,
    Grid,
    block_ranges,
    clip_factor,
    granule_ends,
    granule_rows,
    norm,
    part,
    plan_squares,
    sum_squares,
)

ENDS = st.lists(st.integers(1, 3000), min_size=1, max_size=3, unique=True).map(sorted)
ROWS = st.lists(st.integers(1, 60), min_size=1, max_size=3, unique=True).map(sorted)
GRIDS = st.lists(st.tuples(ROWS, ENDS), min_size=1, max_size=4)
NAMED: dict[str, Sequence[Grid]] = {
    "one granule": [([3], [5])],
    "a whole granule": [([2], [GRANULE // 2])],
    "one element more": [([1], [GRANULE + 1])],
    "several matrices": [([70], [100]), ([9], [3]), ([77, 300], [200])],
    "cut": [([30], [500, 700])],
    "cut between others": [([70], [100]), ([30, 41], [500, 1700, 3000]), ([9], [3]), ([77], [200])],
    "cut ones are neighbours": [([5], [1, 2]), ([4], [3, 2000]), ([1], [1])],
}


def restated(grids: Sequence[Grid]) -> list[int]:
    """Length of each granule, written down matrix by matrix."""
    lengths, waiting = [], 0  # waiting: elements of uncut neighbours

    def full() -> None:
        nonlocal waiting
        while waiting:
            lengths.append(min(GRANULE, waiting))
            waiting -= lengths[-1]

    for rows, columns in grids:
        if len(columns) == 1:
            waiting += rows[-1] * columns[-1]
            continue
        full()
        for _ in range(rows[-1]):
            lengths += [right - left for left, right in pairwise([0, *columns])]
    full()
    return lengths


@pytest.mark.parametrize("grids", NAMED.values(), ids=NAMED)
def test_granules_of_named_grids(grids: Sequence[Grid]) -> None:
    assert np.diff(granule_ends(grids), prepend=0).tolist() == restated(grids)


@given(GRIDS)
def test_granules_are_those_of_the_definition(grids: Sequence[Grid]) -> None:
    assert np.diff(granule_ends(grids), prepend=0).tolist() == restated(grids)


def test_the_cut_of_rows_makes_no_other_granules() -> None:
    for columns in ([700], [500, 700]):
        cut, whole = granule_ends([([5, 30], columns)]), granule_ends([([30], columns)])
        assert np.array_equal(cut, whole)


@given(GRIDS, st.integers(1, 40))
def test_parts_follow_one_another_and_end_with_granules(grids: Sequence[Grid], parts: int) -> None:
    ends = granule_ends(grids)
    cuts = [part(ends, parts, k) for k in range(parts)]
    assert cuts[0][0] == 0
    assert cuts[-1][1] == ends[-1]
    assert all(end == start for (_, end), (start, _) in pairwise(cuts))
    edges = {0: 0} | {int(end): k for k, end in enumerate(ends, 1)}
    counts = [edges[end] - edges[start] for start, end in cuts]
    assert max(counts) - min(counts) <= 1


@given(GRIDS, st.data())
def test_blocks_cover_a_part_and_are_as_long_as_they_may_be(
    grids: Sequence[Grid], data: st.DataObject
) -> None:
    ends = granule_ends(grids)
    parts = data.draw(st.integers(1, 9))
    lo, hi = part(ends, parts, data.draw(st.integers(0, parts - 1)))
    ranges = block_ranges(ends, lo, hi)
    assert [start for start, _ in ranges] == [lo, *(end for _, end in ranges)][: len(ranges)]
    assert (ranges[-1][1] if ranges else lo) == hi
    edges = {0: 0} | {int(end): k for k, end in enumerate(ends, 1)}
    for start, end in ranges:
        assert start < end
        assert end in edges
        assert end - start <= BLOCK or edges[end] == edges[start] + 1
        if end < hi:  # the next granule would not have fitted
            assert int(ends[edges[end]]) - start > BLOCK


def test_a_granule_that_is_longer_than_a_block_is_a_block() -> None:
    width = BLOCK + 9
    ends = granule_ends([([2], [width, width + 3])])
    expected = [(0, width), (width, width + 3)]
    expected += [(start + width + 3, end + width + 3) for start, end in expected]
    assert block_ranges(ends, 0, 2 * (width + 3)) == expected


@given(GRIDS, st.integers(1, 5), st.sampled_from(["f4", "f8"]))
def test_the_squares_of_all_blocks_of_all_parts_are_those_of_all_granules(
    grids: Sequence[Grid], parts: int, dtype: str
) -> None:
    ends = granule_ends(grids)
    vector = np.random.default_rng(len(ends)).normal(size=ends[-1]).astype(dtype)
    squares = np.full(len(ends), np.nan)
    for k in range(parts):
        for lo, hi in block_ranges(ends, *part(ends, parts, k)):
            sum_squares(plan_squares(vector[lo:hi], ends, lo, squares))
    edges = [0, *ends.tolist()]
    alone = [float(np.vecdot(vector[lo:hi], vector[lo:hi])) for lo, hi in pairwise(edges)]
    assert squares.tolist() == alone
    total = 0.0
    for square in alone:
        total += square
    assert norm(squares) == math.sqrt(total)
    exact = math.sqrt(math.fsum(float(x) ** 2 for x in vector))
    assert norm(squares) == pytest.approx(exact, rel=2e-5 if dtype == "f4" else 1e-13)


def test_a_plan_sees_what_is_in_the_gradient_later() -> None:
    ends = granule_ends([([3], [4])])
    vector, squares = np.zeros(12), np.empty(1)
    plan = plan_squares(vector, ends, 0, squares)
    vector[:] = 2
    sum_squares(plan)
    assert norm(squares) == math.sqrt(48)


@given(st.integers(0, 4 * GRANULE))
def test_rows_of_a_run_are_its_granules(size: int) -> None:
    run = np.arange(size)
    rows = [row.tolist() for matrix in granule_rows(run) for row in matrix]
    assert rows == [list(range(lo, min(size, lo + GRANULE))) for lo in range(0, size, GRANULE)]


def test_a_norm_that_is_not_finite() -> None:
    squares = np.empty(1)
    vector = np.array([1.0, np.nan])
    sum_squares(plan_squares(vector, granule_ends([([2], [1])]), 0, squares))
    assert math.isnan(norm(squares))
    factor = clip_factor(norm(squares), 1.0, np.dtype("f4"))
    assert factor is not None
    assert math.isnan(factor)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_gradient_is_shortened_and_never_made_longer(dtype: str) -> None:
    kind = np.dtype(dtype)
    assert clip_factor(2.0, 2.0, kind) is None
    assert clip_factor(1.9, 2.0, kind) is None
    factor = clip_factor(6.0, 2.0, kind)
    assert factor == kind.type(1 / 3)
    assert factor is not None
    assert factor.dtype == kind
