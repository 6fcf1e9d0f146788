"""Where numbers lie: one flat vector seen as weight matrices, and aligned buffers."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[np.floating]
Shapes = tuple[tuple[int, int], ...]

CACHE_LINE = 64


def weight_shapes(layers: Sequence[int]) -> Shapes:
    """Shapes of ``W[1] ... W[L]``: (1 + n_in, n_out), row 0 the bias."""
    return tuple((1 + n_in, n_out) for n_in, n_out in pairwise(layers))


def total_size(shapes: Shapes) -> int:
    """Number of weights in all layers together."""
    return sum(rows * columns for rows, columns in shapes)


def matrices(vector: Array, shapes: Shapes) -> list[Array]:
    """The flat vector as one matrix per layer: views, in layer order, C layout."""
    views, start = [], 0
    for rows, columns in shapes:
        stop = start + rows * columns
        views.append(vector[start:stop].reshape(rows, columns))
        start = stop
    return views


def aligned(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """An array of zeros that starts on a cache line."""
    dtype = np.dtype(dtype)
    n_bytes = int(np.prod(shape)) * dtype.itemsize
    raw = np.zeros(n_bytes + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return raw[start : start + n_bytes].view(dtype).reshape(shape)
