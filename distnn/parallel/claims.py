"""Asking for cache lines before they are written.

A store to a line of which another core holds a copy waits until that copy is given up. A core lets
some dozens of stores wait at once; products and update rules make two of them to a line (of 32
bytes, with AVX2), so that only half as many lines are asked for at a time. Where cores do not share
a cache, a small network spends most of its step on that. So each line is stored to once before, as
far as possible while the rank would wait for others anyway.
"""

from collections.abc import Sequence

import numpy as np

LINE = 64  # bytes
CACHE = 1 << 20  # bytes: what fits into a core's own cache, and is still there when it is written


class Claims:
    """What one rank writes each step after others have read it, on cores of their own.

    Args:
        gradients: parts of its gradients that start on a cache line.
        weights: its part of the weights, which starts on one, too.
    """

    def __init__(self, gradients: Sequence[np.ndarray], weights: np.ndarray) -> None:
        self._gradients = [lines_of(part) for part in gradients if 0 < part.nbytes <= CACHE]
        self._weights = lines_of(weights)

    def gradients(self) -> None:
        """Before they are written: what stands there does not matter any more."""
        for lines in self._gradients:
            lines.fill(0)

    def weights(self) -> None:
        """Before they are changed: what stands there is stored again."""
        np.positive(self._weights, self._weights)


def lines_of(vector: np.ndarray) -> np.ndarray:
    """One element of each cache line of a vector that starts on a line."""
    return vector[:: LINE // vector.itemsize]
