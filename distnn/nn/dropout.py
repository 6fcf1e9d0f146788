"""Inverted dropout on hidden layers (Srivastava et al. 2014, section 10: scaled in training)."""

from collections.abc import Iterable

import numpy as np

from distnn.nn.layout import Array
from distnn.nn.rng import DROPOUT, Stream


class Dropout:
    """Draws the masks of one network: 0 with probability ``rate``, else 1 / (1 - rate).

    A mask depends on (seed, step, slice, layer) and the number of rows, never on the rank.
    """

    def __init__(self, rate: float, seed: int) -> None:
        self.rate = rate
        self._stream = Stream(seed, DROPOUT)

    def draw(self, step: int, slices: int | Iterable[int], layer: int, M: Array) -> None:
        """Write the mask of a hidden layer into M (b, n), or those of a stack into M (k, b, n)."""
        of_slices = [(slices, M)] if isinstance(slices, int) else zip(slices, M, strict=True)
        for number, mask in of_slices:
            self._stream.at(step, number, layer).random(dtype=M.dtype.type, out=mask)
        np.greater_equal(M, self.rate, M)
        np.multiply(M, 1 / (1 - self.rate), M)
