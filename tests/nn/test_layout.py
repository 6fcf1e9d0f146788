"""One vector seen as matrices: nothing left out, nothing twice, and always on a cache line."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distnn.nn.layout import (
    CACHE_LINE,
    aligned,
    blocks,
    grid,
    matrices,
    total_size,
    weight_shapes,
)

WIDTHS = st.lists(st.integers(1, 9), min_size=2, max_size=5)


@given(WIDTHS)
def test_matrices_lie_one_after_the_other(layers: list[int]) -> None:
    shapes = weight_shapes(layers)
    assert shapes == tuple((1 + layers[l], layers[l + 1]) for l in range(len(layers) - 1))
    vector = np.arange(total_size(shapes), dtype=np.float64)
    views = matrices(vector, shapes)
    assert [view.shape for view in views] == list(shapes)
    assert np.array_equal(np.concatenate([view.ravel() for view in views]), vector)
    for view in views:
        view += 1  # they are views
    assert np.array_equal(vector, np.arange(len(vector)) + 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("shape", [(3,), (5, 7), (0, 4), (2, 3, 4)])
def test_arrays_begin_on_a_cache_line(shape: tuple[int, ...], dtype: type) -> None:
    for _ in range(20):
        array = aligned(shape, dtype)
        assert not array.size or array.ctypes.data % CACHE_LINE == 0  # what is empty is nowhere
        assert array.shape == shape
        assert array.dtype == dtype
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert not array.any()


@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [
        ((785, 128), [785], [128]),
        ((785, 512), [384, 785], [512]),
        ((785, 2048), [384, 785], [1024, 2048]),
        ((2049, 2048), [512, 1024, 1536, 2049], [1024, 2048]),
        ((300_000, 10), [64 * 1171, 64 * 2343, 64 * 3515, 300_000], [10]),
        ((1 + 60, 40_000), [61], [64 * 312, 40_000]),
    ],
)
def test_large_layers_are_cut_by_their_shape(
    shape: tuple[int, int], rows: list[int], columns: list[int]
) -> None:
    assert grid(shape, 4) == (rows, columns)


def test_blocks_lie_between_ends() -> None:
    assert blocks([5]) == [None]
    assert blocks([2, 3, 9]) == [slice(0, 2), slice(2, 3), slice(3, 9)]
