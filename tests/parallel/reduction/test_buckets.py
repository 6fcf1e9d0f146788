"""Buckets: every element in one, complete and needed at the right times, few and small."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distnn.nn.layout import grid, weight_shapes
from distnn.parallel.reduction import buckets as module
from distnn.parallel.reduction.buckets import (
    Bucket,
    Region,
    backward_order,
    plan_buckets,
    row_blocks,
    run,
)
from distnn.parallel.reduction.granules import GRANULE, Grid, granule_ends
from distnn.parallel.reduction.transfer import rank0_roles, sharded_roles

ENDS = st.lists(st.integers(1, 200), min_size=1, max_size=4, unique=True).map(sorted)
GRIDS = st.lists(st.tuples(ENDS, ENDS), min_size=1, max_size=4)
BUCKET, SMALL = 8 * GRANULE, 4 * GRANULE  # bytes
ITEMSIZE = st.sampled_from([4, 8])


@pytest.fixture(autouse=True, scope="module")
def small_buckets():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "BUCKET", BUCKET)
        patched.setattr(module, "SMALL", SMALL)
        yield


def matrices(vector: np.ndarray, grids: Sequence[Grid]) -> list[np.ndarray]:
    found, start = [], 0
    for rows, columns in grids:
        size = rows[-1] * columns[-1]
        found.append(vector[start : start + size].reshape(rows[-1], columns[-1]))
        start += size
    return found


def size_of(grids: Sequence[Grid]) -> int:
    return sum(rows[-1] * columns[-1] for rows, columns in grids)


def owners(buckets: Sequence[Bucket], grids: Sequence[Grid]) -> np.ndarray:
    """The number of each element's bucket."""
    owner = np.full(size_of(grids), -1)
    for bucket in buckets:
        view = bucket.region.view(owner)
        assert view.shape == bucket.region.shape
        assert view.size == bucket.region.size > 0
        assert (view == -1).all()
        view[:] = bucket.number
    return owner


@given(GRIDS, ITEMSIZE)
def test_each_element_lies_in_one_bucket(grids: Sequence[Grid], itemsize: int) -> None:
    buckets = plan_buckets(grids, itemsize)
    assert [bucket.number for bucket in buckets] == list(range(len(buckets)))
    assert (owners(buckets, grids) >= 0).all()


@given(GRIDS, ITEMSIZE)
def test_a_bucket_is_complete_with_the_last_of_its_blocks(
    grids: Sequence[Grid], itemsize: int
) -> None:
    buckets = plan_buckets(grids, itemsize)
    order = backward_order(grids)
    assert order == [
        (layer, block)
        for layer in reversed(range(1, len(grids) + 1))
        for block in range(len(grids[layer - 1][0]))
    ]
    missing = owners(buckets, grids)
    remaining = [bucket.region.size for bucket in buckets]
    complete = {}
    for position, (layer, block) in enumerate(order):
        top, bottom = [0, *grids[layer - 1][0]][block : block + 2]
        numbers = matrices(missing, grids)[layer - 1][top:bottom]
        for number, count in zip(*np.unique(numbers, return_counts=True), strict=True):
            remaining[number] -= count
            if not remaining[number]:
                complete[int(number)] = position
    assert complete == {bucket.number: bucket.position for bucket in buckets}


@given(GRIDS, ITEMSIZE)
def test_a_block_of_columns_needs_the_buckets_in_it(grids: Sequence[Grid], itemsize: int) -> None:
    buckets = plan_buckets(grids, itemsize)
    needed_by: dict[int, list[tuple[int, int]]] = {bucket.number: [] for bucket in buckets}
    for layer, (matrix, (_, columns)) in enumerate(
        zip(matrices(owners(buckets, grids), grids), grids, strict=True), 1
    ):
        for block, (left, right) in enumerate(pairwise([0, *columns])):
            for number in np.unique(matrix[:, left:right]):
                needed_by[int(number)].append((layer, block))
    assert needed_by == {bucket.number: list(bucket.needed_by) for bucket in buckets}


@given(GRIDS, ITEMSIZE)
def test_buckets_come_in_the_order_of_a_forward_pass(grids: Sequence[Grid], itemsize: int) -> None:
    first_needed = [bucket.needed_by[0] for bucket in plan_buckets(grids, itemsize)]
    assert first_needed == sorted(first_needed)


@given(GRIDS, ITEMSIZE)
def test_buckets_are_small_and_no_more_than_needed(grids: Sequence[Grid], itemsize: int) -> None:
    buckets = plan_buckets(grids, itemsize)
    for bucket in buckets:
        region = bucket.region
        least = GRANULE if region.is_run else region.right - region.left  # a granule is not cut
        if region.is_run:
            # the parts of a run differ by a granule
            assert region.size * itemsize < BUCKET + GRANULE * itemsize
        else:
            assert region.size <= max(least, BUCKET // itemsize)
    # neighbours in one matrix that is cut both ways could not have been one bucket
    for one, other in pairwise(buckets):
        joined = one.region.size + other.region.size
        same = one.needed_by == other.needed_by and one.position == other.position
        if same and not one.region.is_run and not other.region.is_run:
            rows = one.region.shape[0] + other.region.shape[0]
            most = max(1, BUCKET // ((one.region.right - one.region.left) * itemsize))
            assert rows > most, joined


@given(GRIDS, ITEMSIZE)
def test_only_the_last_run_of_neighbours_ends_within_a_granule(
    grids: Sequence[Grid], itemsize: int
) -> None:
    ends = set(granule_ends(grids).tolist()) | {0}
    for bucket in plan_buckets(grids, itemsize):
        if bucket.region.is_run:
            assert {bucket.region.lo, bucket.region.hi} <= ends


@pytest.mark.parametrize("grids", [[([9], [9])], [([9], [10]), ([11], [20]), ([21], [3])]])
def test_a_small_network_is_one_bucket(grids: Sequence[Grid]) -> None:
    (bucket,) = plan_buckets(grids, 4)
    assert bucket.region == run(0, size_of(grids))
    assert bucket.needed_by == tuple((layer, 0) for layer in range(1, len(grids) + 1))
    assert bucket.position == len(grids) - 1


def test_networks_as_they_are_cut_in_use() -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "BUCKET", 1 << 19)
        patched.setattr(module, "SMALL", 1 << 17)

        def plan(*layers: int) -> list[Bucket]:
            return plan_buckets([grid(shape, 4) for shape in weight_shapes(layers)], 4)

        assert len(plan(784, 128, 10)) == 1
        assert max(bucket.region.size * 4 for bucket in plan(784, 2048, 2048, 10)) <= 1 << 19
        # the first matrix and both halves of the second lie in buckets of their own
        large = plan(784, 2048, 2048, 10)
        assert {(layer, block) for b in large for layer, block in b.needed_by} == {
            (1, 0), (1, 1), (2, 0), (2, 1), (3, 0)
        }  # fmt: skip
        assert all(len(bucket.needed_by) == 1 for bucket in large)


def test_an_edge_within_a_granule_waits_for_the_block_that_is_complete_later() -> None:
    """Of two layers the lower one is complete later, of two blocks of rows the upper one."""
    edge, end = GRANULE + 100, 3 * GRANULE
    layers = plan_buckets([([edge], [1]), ([end - edge], [1])], 4)
    assert [bucket.region for bucket in layers] == [run(0, 2 * GRANULE), run(2 * GRANULE, end)]
    rows = plan_buckets([([edge, end], [1])], 4)
    assert [bucket.region for bucket in rows] == [run(0, GRANULE), run(GRANULE, end)]


@given(GRIDS)
def test_blocks_of_rows_lie_where_their_matrix_has_them(grids: Sequence[Grid]) -> None:
    numbers = np.arange(size_of(grids))
    for (layer, block), (lo, hi) in row_blocks(grids).items():
        top, bottom = [0, *grids[layer - 1][0]][block : block + 2]
        assert np.array_equal(
            matrices(numbers, grids)[layer - 1][top:bottom].ravel(), numbers[lo:hi]
        )
    assert len(row_blocks(grids)) == sum(len(rows) for rows, _ in grids)


@given(GRIDS, ITEMSIZE, st.lists(st.integers(0, 5), min_size=1, max_size=6).filter(any))
def test_cut_regions_cover_a_region_at_whole_granules(
    grids: Sequence[Grid], itemsize: int, shares: list[int]
) -> None:
    ends = set(granule_ends(grids).tolist()) | {0}
    for bucket in plan_buckets(grids, itemsize):
        region = bucket.region
        parts = region.cut(shares)
        assert len(parts) == len(shares)
        count = np.zeros(size_of(grids), int)
        for part in parts:
            part.view(count)[:] += 1
            assert part.view(count).shape == part.shape
            if part.size and region.is_run:
                assert {part.lo, part.hi} <= ends
            elif part.size:
                assert (part.left, part.right, part.width) == region[3:] + region[2:3]
        assert (region.view(count) == 1).all()
        assert count.sum() == region.size
        # what lies before one part lies before the next
        places = [part for part in parts if part.size]
        assert all(one.hi <= other.lo for one, other in pairwise(places))
        unit = GRANULE if region.is_run else region.right - region.left
        for part, share in zip(parts, shares, strict=True):
            assert abs(part.size - region.size * share / sum(shares)) <= 2 * unit
        assert region.empty().size == 0


@given(GRIDS, ITEMSIZE, st.integers(2, 6), st.booleans())
def test_granules_of_all_regions_that_nodes_update_are_all_granules_once(
    grids: Sequence[Grid], itemsize: int, nodes: int, sharded: bool
) -> None:
    ends = granule_ends(grids)
    buckets = plan_buckets(grids, itemsize)
    numbers = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))  # of each element
    found = []
    for bucket in buckets:
        roles = (sharded_roles if sharded else rank0_roles)(bucket.region, nodes)
        updates = roles.updates[:1] if sharded and nodes == 2 else roles.updates
        for region in updates:
            granules = region.granules(ends).tolist()
            assert sorted(granules) == np.unique(region.view(numbers)).tolist()
            found += granules
    assert sorted(found) == list(range(len(ends)))


def test_a_region_of_columns() -> None:
    vector = np.arange(4 * 6)
    region = Region(6, 18, 6, 2, 5)
    assert region.shape == (2, 3)
    assert region.view(vector).tolist() == [[8, 9, 10], [14, 15, 16]]
    assert not region.is_run
    first, rest = region.cut([1, 1])
    assert first.view(vector).tolist() == [[8, 9, 10]]
    assert rest.view(vector).tolist() == [[14, 15, 16]]
    region.view(vector)[:] = 0  # a view, not a copy
    assert vector.sum() == 23 * 24 // 2 - 8 - 9 - 10 - 14 - 15 - 16
