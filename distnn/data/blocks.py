"""A training set in files, read block by block in any order, so that it need not fit into memory.

A block is what the storage wants to be read together: a row group of Parquet, some rows of an npy
file, some chunks of HDF5. It comes in pieces, of which one at a time is in memory.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from distnn.data.array_files import RowArray
from distnn.data.folder import Folder
from distnn.data.parquet import ParquetTable
from distnn.data.preparation import Preparation, Unfamiliar
from distnn.data.rows import Array, place_of
from distnn.data.table import Table
from distnn.data.target_columns import checked_targets
from distnn.errors import InputError

BLOCK_VALUES = 1 << 18  # of a block of an array
MOST_LABELS = 1 << 16  # different targets that are remembered
SAMPLE = 1 << 17  # rows of a sample of targets


class Piece(NamedTuple):
    """Some consecutive rows of a block.

    Attributes:
        start: where in the data set they begin.
        x: (b, features) numbers, prepared but not scaled.
        y: (b,) or (b, k) targets as the file has them.
        weights: (b,) as the file has them, or None.
    """

    start: int
    x: Array
    y: Array
    weights: Array | None


class Blocks:
    """A training set in files.

    Attributes:
        where, y_where: file and arrays of rows and of targets, for messages.
        sizes: rows of each block, at least one.
        features: numbers per row.
        is_weighted: whether the rows have weights.
    """

    where: str
    y_where: str
    sizes: list[int]
    features: int
    is_weighted: bool

    def __len__(self) -> int:
        """Rows of all blocks."""
        return sum(self.sizes)

    def read(self, block: int) -> Iterator[Piece]:
        """A block in pieces; InputError where the file is damaged or has changed."""
        raise NotImplementedError

    def targets(self) -> Iterator[Array]:
        """All targets in the order of the file, in parts; one that is missing is an InputError."""
        raise NotImplementedError

    def place(self, row: int, column: int) -> str:
        """A value's place in words; row and column count in the whole data set."""
        return place_of(row, column)


class ArrayBlocks(Blocks):
    """Arrays of rows, of targets, and of weights or None."""

    def __init__(self, x: RowArray, y: RowArray, weights: RowArray | None) -> None:
        self.where, self.y_where, self.features = x.where, y.where, x.features
        self._x, self._y, self._weights, self.is_weighted = x, y, weights, weights is not None
        self._step = max(1, BLOCK_VALUES // x.features)
        block = -(-self._step // x.step) * x.step
        self._starts = range(0, len(x), block)
        self.sizes = [min(block, len(x) - start) for start in self._starts]

    def read(self, block: int) -> Iterator[Piece]:
        """See `Blocks.read`."""
        first = self._starts[block]
        last = first + self.sizes[block]
        for start in range(first, last, self._step):
            end = min(start + self._step, last)
            x = self._x.read(start, end).reshape(end - start, -1)
            weights = None if self._weights is None else self._weights.read(start, end)
            yield Piece(start, x, self._y.read(start, end), weights)

    def targets(self) -> Iterator[Array]:
        """See `Blocks.targets`."""
        step = max(1, BLOCK_VALUES // self._y.features)
        for start in range(0, len(self._y), step):
            yield self._y.read(start, min(start + step, len(self._y)))


class TableBlocks(Blocks):
    """The row groups of a Parquet file, or of all in a folder.

    Args:
        table: one that has `groups`.
        features, targets, weights: its columns; of weights one or none.
    """

    def __init__(
        self,
        table: Table,
        preparation: Preparation,
        features: Sequence[int],
        targets: Sequence[int],
        weights: Sequence[int],
    ) -> None:
        self._table, self._preparation = table, preparation
        self._features, self._targets, self._weights = list(features), list(targets), list(weights)
        self.where, self.features = table.where, preparation.width
        self.y_where = f"{table.where}, " + ", ".join(table.title(j) for j in targets)
        self.is_weighted = bool(weights)
        self._groups = [(t, k) for t in files_of(table) for k, rows in enumerate(t.groups) if rows]
        self.sizes = [t.groups[k] for t, k in self._groups]
        self._starts = np.cumsum([0, *self.sizes]).tolist()
        self._columns = preparation.sources

    def read(self, block: int) -> Iterator[Piece]:
        """See `Blocks.read`."""
        file, group = self._groups[block]
        start, k, m = self._starts[block], len(self._features), len(self._targets)
        for columns in file.group(group, [*self._features, *self._targets, *self._weights]):
            x = self._preparation.transform(
                self._table, self._features, columns[:k], start, Unfamiliar()
            )
            y = checked_targets(self._table, self._targets, columns[k : k + m], start)
            yield Piece(start, x, y, columns[-1] if self._weights else None)
            start += len(x)

    def targets(self) -> Iterator[Array]:
        """See `Blocks.targets`."""
        start = 0
        for columns in self._table.blocks(self._targets):
            yield checked_targets(self._table, self._targets, columns, start)
            start += len(columns[0])

    def place(self, row: int, column: int) -> str:
        """See `Blocks.place`."""
        return self._table.place(row, self._features[self._columns[column]])


def files_of(table: Table) -> list[ParquetTable]:
    """The files of a table whose row groups can be read on their own; none if one cannot."""
    tables = list(table.tables) if isinstance(table, Folder) else [table]
    files = [one for one in tables if isinstance(one, ParquetTable)]
    return files if len(files) == len(tables) else []


def sample_of_targets(parts: Iterable[Array], where: str) -> Array:
    """A few targets from which the task is deduced as from all of them.

    They are the different ones, of numbers no more than one beyond `MOST_LABELS`, which are no
    classes then, repeated to no more rows than there are; of several targets per row, the first
    rows.

    Raises:
        InputError: several targets per row that are one-hot classes; too many different texts.
    """
    different: Array | None = None
    rows = 0
    for part in parts:
        rows += len(part)
        if part.ndim > 1 and part[0].size > 1:
            if different is None:
                different = _first_rows(part.reshape(len(part), -1), where)
            continue
        if different is None or len(different) <= MOST_LABELS:
            found = np.unique(part)
            different = found if different is None else np.union1d(different, found)
            if different.dtype.kind in "UO" and len(different) > MOST_LABELS:
                what = f"more than {MOST_LABELS} different texts are no classes"
                raise InputError(what, where, "choose another column with --target")
            different = different[: MOST_LABELS + 1].copy()
    if different is None:
        raise InputError("empty: no rows", where, "give at least one row")
    if different.ndim > 1:
        return different
    return np.resize(different, min(rows, max(2 * len(different), SAMPLE)))


def _first_rows(part: Array, where: str) -> Array:
    if part.dtype.kind != "f" and ((part == 0) | (part == 1)).all() and (part.sum(1) == 1).all():
        what = "one-hot rows, where the training set does not fit into memory"
        raise InputError(what, where, "give class numbers, or use --window 0")
    return part[:SAMPLE].astype(np.float64)
