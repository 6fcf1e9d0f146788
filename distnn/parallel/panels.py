"""How the matrices of a flat vector are cut for their journey to another node.

A panel is a run of columns of one matrix: a block of a layer's outputs. Its product can be computed
by itself, in the forward pass as in the gradient, so that it can be sent, or waited for, alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

PANEL = 1 << 19  # bytes: 4 ms at 1 Gbit/s
COLUMNS = 64  # panels begin at a multiple of it, so that BLAS computes each column as in the whole


class Panel(NamedTuple):
    """The columns lo … hi of the matrix (rows, columns) that begins at `start` of the vector."""

    layer: int
    start: int
    rows: int
    columns: int
    lo: int
    hi: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the panel."""
        return self.rows, self.hi - self.lo

    def view(self, vector: np.ndarray) -> np.ndarray:
        """The panel (rows, hi - lo) in a flat vector."""
        end = self.start + self.rows * self.columns
        return vector[self.start : end].reshape(self.rows, self.columns)[:, self.lo : self.hi]


def cut(shapes: Sequence[tuple[int, int]], itemsize: int) -> list[Panel]:
    """The panels of matrices that lie in a vector one after the other, from the first on.

    They depend on the shapes alone, never on ranks or nodes.
    """
    panels = []
    start = 0
    for layer, (rows, columns) in enumerate(shapes):
        width = max(1, PANEL // (rows * itemsize * COLUMNS)) * COLUMNS
        for lo in range(0, columns, width):
            panels.append(Panel(layer, start, rows, columns, lo, min(columns, lo + width)))
        start += rows * columns
    return panels


def columns(panels: Sequence[Panel], layers: int) -> list[list[tuple[int, int]]]:
    """Of every layer, first and one-past-last column of its panels."""
    return [[(p.lo, p.hi) for p in panels if p.layer == layer] for layer in range(layers)]
