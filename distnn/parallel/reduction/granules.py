"""How a flat vector of weights is cut for its sum, its norm and its update.

A rank works through its part block by block, so that a block stays in the core's cache through the
additions of the ordered sum and all passes of the update rule. Whatever is summed along the vector
(the squares of the norm) is summed granule by granule. Granules are contiguous and depend on the
shapes of the weights alone, so that a norm does not depend on who adds up which part.
"""

from collections.abc import Sequence
from itertools import accumulate, groupby

import numpy as np
from numpy.typing import NDArray

from distnn.parallel.reduction.partition import bounds

BLOCK = 32_768  # elements: 128 kB of float32, so that a few of them fit into a core's own cache
GRANULE = 1_024  # elements

Grid = tuple[Sequence[int], Sequence[int]]
"""Of a matrix: where its blocks of rows end, and where its blocks of columns end."""
Ends = NDArray[np.int64]
"""Where granules end, ascending."""
Squares = list[tuple[np.ndarray, np.ndarray]]
"""Rows of equal length whose squares are summed, and where the sums go: (k, length), (k,)."""


def is_cut(grid: Grid) -> bool:
    """Whether the columns of a matrix are in several blocks."""
    return len(grid[1]) > 1


def row_granule_ends(grids: Sequence[Grid]) -> Ends:
    """The granules where whole matrices are updated: their rows."""
    starts = [0, *accumulate(rows[-1] * columns[-1] for rows, columns in grids)]
    rows = [
        start + columns[-1] * np.arange(1, rows[-1] + 1)
        for start, (rows, columns) in zip(starts, grids, strict=False)
    ]
    return np.concatenate(rows).astype(np.int64)


def granule_ends(grids: Sequence[Grid]) -> Ends:
    """The granules of a vector that holds the matrices of these grids one after the other.

    They have 1,024 elements; in a matrix whose columns are cut, a granule is one row of one block
    of columns.
    """
    ends, start, run = [], 0, 0  # run: where the matrices that are not cut began
    for grid in grids:
        rows, width = grid[0][-1], grid[1][-1]
        if is_cut(grid):
            ends.append(_regular(run, start))
            starts = start + width * np.arange(rows)[:, np.newaxis]
            ends.append((starts + np.array(grid[1])).reshape(-1))
            run = start + rows * width
        start += rows * width
    ends.append(_regular(run, start))
    return np.concatenate(ends).astype(np.int64)


def part(ends: Ends, parts: int, k: int) -> tuple[int, int]:
    """Elements of part `k` of a vector cut into `parts` at whole granules."""
    first, last = bounds(len(ends), parts, k)
    return int(ends[first - 1]) if first else 0, int(ends[last - 1]) if last else 0


def block_ranges(ends: Ends, lo: int, hi: int) -> list[tuple[int, int]]:
    """The run lo … hi in blocks of whole granules, of BLOCK elements where granules are shorter."""
    ranges = []
    while lo < hi:
        first, end = np.searchsorted(ends, [lo, lo + BLOCK], "right")  # at least one granule
        ranges.append((lo, min(hi, int(ends[max(first, end - 1)]))))
        lo = ranges[-1][1]
    return ranges


def plan_squares(gradient: np.ndarray, ends: Ends, lo: int, squares: np.ndarray) -> Squares:
    """What `sum_squares` does for a run of whole granules.

    Args:
        gradient: (b,) the run, which begins at element `lo` of the vector.
        squares: (granules,) float64, of the whole vector.
    """
    hi = lo + len(gradient)
    first, last = int(np.searchsorted(ends, lo, "right")), int(np.searchsorted(ends, hi, "left"))
    lengths = np.diff(ends[first : last + 1], prepend=lo).tolist()
    plan, start = [], 0
    for length, group in groupby(lengths):
        count = len(list(group))
        stop = start + count * length
        plan.append((gradient[start:stop].reshape(count, length), squares[first : first + count]))
        start, first = stop, first + count
    return plan


def granule_rows(run: np.ndarray) -> list[np.ndarray]:
    """A run of whole granules of 1,024 elements, as matrices whose rows are granules."""
    run = run.reshape(-1)
    whole = len(run) // GRANULE * GRANULE
    parts = run[:whole].reshape(-1, GRANULE), run[np.newaxis, whole:]
    return [rows for rows in parts if rows.size]


def sum_squares(plan: Squares) -> None:
    """The sum of squares of each granule."""
    for rows, out in plan:
        out[:] = np.vecdot(rows, rows)


def clip_factor(length: float, clip_norm: float, dtype: np.dtype) -> np.floating | None:
    """What a gradient of this norm is multiplied with to have `clip_norm`; None if shorter."""
    return None if length <= clip_norm else dtype.type(clip_norm / length)


def norm(squares: np.ndarray) -> float:
    """The vector's norm from its granules' squares, added from left to right."""
    return float(np.sqrt(np.add.accumulate(squares)[-1]))


def _regular(lo: int, hi: int) -> NDArray[np.int64]:
    """Ends of granules of 1,024 elements; the last one of the run may be shorter."""
    return np.append(np.arange(lo + GRANULE, hi, GRANULE), hi) if lo < hi else np.empty(0, int)
