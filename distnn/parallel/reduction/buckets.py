"""How the matrices of a flat vector are cut into buckets, which travel between nodes as one.

A backward pass completes a gradient in blocks of rows, a forward pass needs weights in blocks of
columns (a grid). A bucket lies in one block of either kind where a matrix is cut both ways;
matrices whose columns are not cut are taken together and cut into runs, so that a small network is
a single bucket.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import ceil, floor
from typing import NamedTuple

import numpy as np

from distnn.parallel.reduction.granules import GRANULE, Ends, Grid, is_cut
from distnn.parallel.reduction.partition import bounds

BUCKET = 1 << 19  # bytes: 4 ms at 1 Gbit/s
SMALL = 1 << 17  # bytes: smaller blocks of rows travel with their neighbours

Block = tuple[int, int]
"""A layer, from 1, and the number of one of its blocks, from 0."""


class Region(NamedTuple):
    """Elements lo … hi of the vector, of which only columns left … right of each `width`."""

    lo: int
    hi: int
    width: int
    left: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns; a run that is not cut into columns is one row."""
        return (self.hi - self.lo) // self.width, self.right - self.left

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.shape[0] * self.shape[1]

    def view(self, vector: np.ndarray) -> np.ndarray:
        """The region in a flat vector, as a matrix."""
        return vector[self.lo : self.hi].reshape(-1, self.width)[:, self.left : self.right]

    def cut(self, shares: Sequence[int]) -> list["Region"]:
        """The region in parts of about these shares, at whole granules; some may be empty."""
        ends = [0, *accumulate(shares)]
        return [
            self._rows(self._units * lo // ends[-1], self._units * hi // ends[-1])
            for lo, hi in pairwise(ends)
        ]

    def empty(self) -> "Region":
        """Nothing of it."""
        return self._rows(0, 0)

    @property
    def is_run(self) -> bool:
        """Whether all elements lo … hi belong to it."""
        return self.right - self.left == self.width == self.hi - self.lo

    @property
    def _units(self) -> int:
        """Granules: rows, or 1,024 elements of a run."""
        return -(-(self.hi - self.lo) // GRANULE) if self.is_run else self.shape[0]

    def granules(self, ends: Ends) -> np.ndarray:
        """The numbers of the granules that form the region, which consists of whole ones."""
        if not self.is_run:
            starts = np.arange(self.lo, self.hi, self.width)
            return np.searchsorted(ends, starts + self.right, "left")
        first = np.searchsorted(ends, self.lo, "right")
        return np.arange(first, np.searchsorted(ends, self.hi, "left") + 1)

    def _rows(self, first: int, last: int) -> "Region":
        if self.is_run:
            lo, hi = (min(self.hi, self.lo + unit * GRANULE) for unit in (first, last))
            return run(lo, hi)
        lo, hi = (self.lo + unit * self.width for unit in (first, last))
        return self._replace(lo=lo, hi=hi)


def run(lo: int, hi: int) -> Region:
    """All elements lo … hi."""
    return Region(lo, hi, max(1, hi - lo), 0, hi - lo)


@dataclass(frozen=True)
class Bucket:
    """A part of the gradient that travels as one, and comes back as weights.

    Attributes:
        number: in the order in which a forward pass needs it.
        position: of the block that completes it, in the order of a backward pass.
        needed_by: the blocks of columns that cannot be used without it.
        matrix: the number of the matrix that it is, where whole matrices are updated; else 0.
    """

    number: int
    position: int
    needed_by: tuple[Block, ...]
    region: Region
    matrix: int = 0


def backward_order(grids: Sequence[Grid]) -> list[Block]:
    """Blocks of rows in the order in which a backward pass completes them."""
    layers = range(len(grids), 0, -1)
    return [(layer, block) for layer in layers for block in range(len(grids[layer - 1][0]))]


def row_blocks(grids: Sequence[Grid]) -> dict[Block, tuple[int, int]]:
    """Where the blocks of rows of all matrices lie in the vector."""
    found, start = {}, 0
    for layer, (row_ends, column_ends) in enumerate(grids, 1):
        width = column_ends[-1]
        for block, (top, bottom) in enumerate(pairwise([0, *row_ends])):
            found[layer, block] = (start + top * width, start + bottom * width)
        start += row_ends[-1] * width
    return found


def plan_buckets(grids: Sequence[Grid], itemsize: int) -> list[Bucket]:
    """The buckets of a vector, in the order of the forward pass."""
    positions = {block: number for number, block in enumerate(backward_order(grids))}
    places = row_blocks(grids)
    buckets: list[Bucket] = []
    for region in _regions(grids, places, itemsize):
        inside = [block for block, (lo, hi) in places.items() if lo < region.hi and region.lo < hi]
        needed_by = tuple(sorted({
            (layer, column_block)
            for layer, _ in inside
            for column_block, (left, right) in enumerate(pairwise([0, *grids[layer - 1][1]]))
            if not is_cut(grids[layer - 1]) or left <= region.left < right
        }))  # fmt: skip
        position = max(positions[block] for block in inside)
        buckets.append(Bucket(len(buckets), position, needed_by, region))
    return buckets


def plan_matrix_buckets(grids: Sequence[Grid]) -> list[Bucket]:
    """A bucket for each matrix, where one rank needs the whole of it to update it."""
    positions = {block: number for number, block in enumerate(backward_order(grids))}
    places, buckets = row_blocks(grids), list[Bucket]()
    for number, (row_ends, column_ends) in enumerate(grids):
        layer, last, width = number + 1, len(row_ends) - 1, column_ends[-1]
        region = Region(places[layer, 0][0], places[layer, last][1], width, 0, width)
        needed_by = tuple((layer, block) for block in range(len(column_ends)))
        buckets.append(Bucket(number, positions[layer, last], needed_by, region, number))
    return buckets


def _regions(
    grids: Sequence[Grid], places: dict[Block, tuple[int, int]], itemsize: int
) -> Iterator[Region]:
    uncut: list[Block] = []  # blocks of rows of neighbouring matrices
    for layer, grid in enumerate(grids, 1):
        blocks = [(layer, block) for block in range(len(grid[0]))]
        if is_cut(grid):
            yield from _runs(uncut, places, itemsize)
            uncut = []
            yield from _rectangles([places[block] for block in blocks], grid, itemsize)
        else:
            uncut += blocks
    yield from _runs(uncut, places, itemsize)


def _rectangles(blocks: Sequence[tuple[int, int]], grid: Grid, itemsize: int) -> Iterator[Region]:
    """One matrix, by blocks of columns, and in these by blocks of rows."""
    width = grid[1][-1]
    for left, right in pairwise([0, *grid[1]]):
        most = max(1, BUCKET // ((right - left) * itemsize))
        for lo, hi in blocks:
            rows = (hi - lo) // width
            count = -(-rows // most)
            for k in range(count):
                top, bottom = bounds(rows, count, k)
                yield Region(lo + top * width, lo + bottom * width, width, left, right)


def _runs(
    blocks: Sequence[Block], places: dict[Block, tuple[int, int]], itemsize: int
) -> Iterator[Region]:
    """Neighbouring blocks of rows as runs of whole granules; small blocks go with neighbours."""
    if not blocks:
        return
    start, end = places[blocks[0]][0], places[blocks[-1]][1]
    edges = [start]
    for (layer, block), (next_layer, _) in pairwise(blocks):
        granules = (places[layer, block][1] - start) / GRANULE
        # a granule that lies in two blocks belongs to the one that is complete later
        edge = start + GRANULE * (ceil(granules) if next_layer > layer else floor(granules))
        if min(edge - edges[-1], end - edge) * itemsize >= SMALL:
            edges.append(edge)
    for lo, hi in pairwise([*edges, end]):
        granules, count = -(-(hi - lo) // GRANULE), -(-(hi - lo) * itemsize // BUCKET)
        for k in range(count):
            first, last = bounds(granules, count, k)
            yield run(lo + first * GRANULE, min(hi, lo + last * GRANULE))
