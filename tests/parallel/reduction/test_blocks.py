"""How a vector is cut for its sum and its update: nothing left out, nothing twice."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distnn.parallel.reduction.blocks import (
    BLOCK,
    GRANULE,
    block_ranges,
    granule_range,
    norm,
    part,
    squares,
)

sizes = st.integers(0, 10 * BLOCK)


@given(size=sizes, parts=st.integers(1, 40))
def test_parts_follow_one_another_and_begin_at_granules(size: int, parts: int) -> None:
    cuts = [part(size, parts, k) for k in range(parts)]
    assert cuts[0][0] == 0
    assert cuts[-1][1] == size
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(cuts))
    assert all(start % GRANULE == 0 or start == end == size for start, end in cuts)
    lengths = [-(-(end - start) // GRANULE) for start, end in cuts]
    assert max(lengths) - min(lengths) <= 1


@given(lo=st.integers(0, 50).map(lambda g: g * GRANULE), length=st.integers(0, 4 * BLOCK))
def test_blocks_cover_a_run_and_begin_at_granules(lo: int, length: int) -> None:
    ranges = block_ranges(lo, lo + length)
    assert sum(end - start for start, end in ranges) == length
    assert [i for start, end in ranges for i in (start, end)][1:-1:2] == [
        start for start, _ in ranges[1:]
    ]
    assert all(start % GRANULE == 0 and 0 < end - start <= BLOCK for start, end in ranges)
    assert not ranges or (ranges[0][0], ranges[-1][1]) == (lo, lo + length)


@given(size=st.integers(1, 6 * BLOCK), parts=st.integers(1, 9))
def test_granules_of_all_blocks_of_all_parts_are_all_granules_once(size: int, parts: int) -> None:
    granules = [
        granule
        for k in range(parts)
        for start, end in block_ranges(*part(size, parts, k))
        for granule in range(*granule_range(start, end))
    ]
    assert granules == list(range(-(-size // GRANULE)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, GRANULE - 1, GRANULE, GRANULE + 1, 3 * GRANULE + 17])
def test_the_norm_is_the_norm(size: int, dtype: type) -> None:
    vector = np.random.default_rng(size).normal(size=size).astype(dtype)
    out = np.full(-(-size // GRANULE), np.nan)
    squares(vector, out)
    exact = math.sqrt(math.fsum(float(x) ** 2 for x in vector))
    assert norm(out) == pytest.approx(exact, rel=2e-6 if dtype is np.float32 else 1e-14)


@pytest.mark.parametrize("parts", [1, 2, 3, 5])
def test_the_norm_has_the_same_bits_whoever_owns_what(parts: int) -> None:
    size = 4 * BLOCK + 777
    vector = np.random.default_rng(0).normal(size=size).astype(np.float32)
    whole, cut = np.empty(-(-size // GRANULE)), np.empty(-(-size // GRANULE))
    squares(vector, whole)
    for k in range(parts):
        for start, end in block_ranges(*part(size, parts, k)):
            squares(vector[start:end], cut[slice(*granule_range(start, end))])
    assert whole.tobytes() == cut.tobytes()


def test_a_norm_that_is_not_finite() -> None:
    out = np.empty(1)
    squares(np.array([1.0, np.nan]), out)
    assert math.isnan(norm(out))
