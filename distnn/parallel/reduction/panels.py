"""How the matrices of a flat vector are cut for their journey to another node.

A panel is a rectangle of one matrix. The passes complete a gradient in blocks of rows and need
weights in blocks of columns (a grid), so that each panel lies in one block of either kind.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

PANEL = 1 << 19  # bytes: 4 ms at 1 Gbit/s
Grid = tuple[Sequence[int], Sequence[int]]
"""Of a matrix: where its blocks of rows end, and where its blocks of columns end."""


class Panel(NamedTuple):
    """Rows top … bottom, columns left … right of the matrix that begins at `start` of the vector.

    `layer` counts matrices from 1; `row_block` and `column_block` are those that it lies in.
    """

    layer: int
    row_block: int
    column_block: int
    start: int
    width: int
    top: int
    bottom: int
    left: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the panel."""
        return self.bottom - self.top, self.right - self.left

    def view(self, vector: np.ndarray) -> np.ndarray:
        """The panel in a flat vector."""
        lo, hi = (self.start + row * self.width for row in (self.top, self.bottom))
        return vector[lo:hi].reshape(-1, self.width)[:, self.left : self.right]


def cut(grids: Sequence[Grid], itemsize: int) -> list[Panel]:
    """The panels of matrices that lie in a vector one after the other, as a forward pass needs
    them: layer by layer, in each by blocks of columns."""
    panels: list[Panel] = []
    start = 0
    for layer, (row_ends, column_ends) in enumerate(grids, 1):
        rows, width = row_ends[-1], column_ends[-1]
        for column_block, (left, right) in enumerate(pairwise([0, *column_ends])):
            most = max(1, PANEL // ((right - left) * itemsize))
            panels += [
                Panel(layer, row_block, column_block, start, width, top, bottom, left, right)
                for row_block, top, bottom in _runs(row_ends, most)
            ]
        start += rows * width
    return panels


def backward(grids: Sequence[Grid]) -> list[tuple[int, int]]:
    """(layer, block of rows) as a backward pass completes them."""
    layers = range(len(grids), 0, -1)
    return [(layer, block) for layer in layers for block in range(len(grids[layer - 1][0]))]


def _runs(ends: Sequence[int], most: int) -> Iterator[tuple[int, int, int]]:
    """Every block cut evenly into runs of `most` at most: its number, and where the run lies."""
    for block, (lo, hi) in enumerate(pairwise([0, *ends])):
        count = -(-(hi - lo) // most)
        for k in range(count):
            yield block, lo + (hi - lo) * k // count, lo + (hi - lo) * (k + 1) // count
