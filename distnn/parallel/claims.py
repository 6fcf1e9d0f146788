"""Asking for cache lines before they are written.

A store to a line of which another core holds a copy waits until that copy is given up. A core lets
some dozens of stores wait at once; products and update rules make two of them to a line (of 32
bytes, with AVX2), so that only half as many lines are asked for at a time. Where cores do not share
a cache, a small network spends most of its step on that. So each line is stored to once before.
"""

import numpy as np

LINE = 64  # bytes
CACHE = 1 << 20  # bytes: what fits into a core's own cache, and is still there when it is written


def lines_of(vector: np.ndarray) -> np.ndarray:
    """One element of each cache line of a vector that starts on a line."""
    return vector[:: LINE // vector.itemsize]


def claim_and_keep(lines: np.ndarray) -> None:
    """Store to each line what is there already."""
    np.positive(lines, lines)


def claim(lines: np.ndarray) -> None:
    """Store to each line, what does not matter."""
    lines.fill(0)
