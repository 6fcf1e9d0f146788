"""How a flat vector is cut for its sum and its update.

A rank works through its part of the vector block by block, so that a block stays in the core's
cache through the additions of the ordered sum and all passes of the update rule. Parts begin at
granules; whatever is summed along the vector (the norm) is summed granule by granule, so that
it does not depend on who owns which part.
"""

import numpy as np

from distnn.parallel.reduction.partition import bounds

BLOCK = 32_768  # elements: 128 kB of float32, so that a few of them fit into a core's own cache
GRANULE = 1_024  # elements


def part(size: int, parts: int, k: int) -> tuple[int, int]:
    """Elements of part `k` of a vector of `size` cut into `parts` at whole granules."""
    granules = -(-size // GRANULE)
    first, last = bounds(granules, parts, k)
    return min(size, first * GRANULE), min(size, last * GRANULE)


def block_ranges(lo: int, hi: int) -> list[tuple[int, int]]:
    """The run lo … hi in blocks."""
    return [(start, min(hi, start + BLOCK)) for start in range(lo, hi, BLOCK)]


def granule_range(lo: int, hi: int) -> tuple[int, int]:
    """The granules that form the run lo … hi; `lo` is where a granule begins."""
    return lo // GRANULE, -(-hi // GRANULE)


def squares(vector: np.ndarray, out: np.ndarray) -> None:
    """Sum of squares of each granule of `vector`, into float64 `out`, one number per granule."""
    whole = len(vector) // GRANULE
    if whole:
        rows = vector[: whole * GRANULE].reshape(whole, GRANULE)
        out[:whole] = np.vecdot(rows, rows)
    if whole < len(out):
        rest = vector[whole * GRANULE :]
        out[whole] = np.vecdot(rest, rest)


def norm(granule_squares: np.ndarray) -> float:
    """The vector's norm from its granules' squares, added from left to right."""
    return float(np.sqrt(np.add.accumulate(granule_squares)[-1]))
