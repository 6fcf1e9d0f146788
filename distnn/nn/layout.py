"""Where numbers lie: one flat vector seen as weight matrices, and aligned buffers."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[np.floating]
Shapes = tuple[tuple[int, int], ...]
Block = slice | None
"""Some rows or columns of a matrix; None: all of them."""

CACHE_LINE = 64
MEGABYTE = 1 << 20
GRAIN = 64  # rows or columns: blocks begin at a multiple of it


def weight_shapes(layers: Sequence[int]) -> Shapes:
    """Shapes of ``W[1] ... W[L]``: (1 + n_in, n_out), row 0 the bias."""
    return tuple((1 + n_in, n_out) for n_in, n_out in pairwise(layers))


def total_size(shapes: Shapes) -> int:
    """Number of weights in all layers together."""
    return sum(rows * columns for rows, columns in shapes)


def matrices(vector: Array, shapes: Shapes) -> list[Array]:
    """The flat vector as one matrix per layer: views, in layer order, C layout.

    Of several vectors (k, size): one stack of matrices (k, rows, columns) per layer.
    """
    views, start = [], 0
    for rows, columns in shapes:
        stop = start + rows * columns
        views.append(vector[..., start:stop].reshape(*vector.shape[:-1], rows, columns))
        start = stop
    return views


def grid(shape: tuple[int, int], itemsize: int) -> tuple[list[int], list[int]]:
    """Where the blocks of a layer's weights end: those of its rows, and those of its columns.

    Small products suffer from being cut, and those with fewer columns suffer more.
    """
    size = shape[0] * shape[1] * itemsize
    of_rows = 1 if size < MEGABYTE else 2 if size < 8 * MEGABYTE else 4
    of_columns = 1 if size < 4 * MEGABYTE else 2
    return _ends(shape[0], of_rows), _ends(shape[1], of_columns)


def _ends(n: int, blocks: int) -> list[int]:
    between = (n * k // blocks // GRAIN * GRAIN for k in range(1, blocks))
    return [end for end in between if end] + [n]


def blocks(ends: list[int]) -> list[Block]:
    """What lies between the ends of a ``grid``, as indices."""
    return [slice(lo, hi) for lo, hi in pairwise([0, *ends])] if len(ends) > 1 else [None]


def aligned(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """An array of zeros that starts on a cache line."""
    dtype = np.dtype(dtype)
    n_bytes = int(np.prod(shape)) * dtype.itemsize
    raw = np.zeros(n_bytes + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return raw[start : start + n_bytes].view(dtype).reshape(shape)
