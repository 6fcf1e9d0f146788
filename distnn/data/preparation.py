"""How the columns of a table become the numbers of a network's input.

It is learnt from the training set in one pass, kept in the checkpoint, and applied to every other
set: a column of numbers gives one feature, a column of categories one for each category. Where the
training set had gaps in a column, a feature more says where.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from distnn.data.categories import canonical, is_number, numbered
from distnn.data.rows import Array, Rows
from distnn.data.table import Table, missing
from distnn.errors import InputError, printable

NUMBER, CATEGORY = "number", "category"
MOST_CATEGORIES = 100  # of a column: the most frequent ones
LEAST_ROWS = 5  # a rarer category is none
MOST_DISTINCT = 1_000_000  # texts that are counted in a column
MEDIAN_ROWS = 1 << 17  # above so many rows, the median is that of some

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Column:
    """One column of the table.

    Attributes:
        name: its name, or its number where the table has no header.
        kind: "number" or "category".
        fill: what stands for a missing number: the median; None: nothing does.
        gaps: whether the training set had some; then a feature of 0 and 1 says where.
        categories: those with a feature of their own, sorted. Every other one has none of them.
    """

    name: str
    kind: str
    fill: float | None = None
    gaps: bool = False
    categories: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """How many features it gives."""
        return (1 if self.kind == NUMBER else len(self.categories)) + self.gaps

    @property
    def features(self) -> list[str]:
        """Their names."""
        own = [self.name]
        if self.kind == CATEGORY:
            own = [f"{self.name}={category}" for category in self.categories]
        return own + [f"{self.name} is missing"] * self.gaps


@dataclass
class Unfamiliar:
    """What a pass over a table met that the training set had not, for one line."""

    unseen: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    filled: Counter[str] = field(default_factory=Counter)

    def line(self) -> str:
        """It in words; empty if there was nothing."""
        parts = [
            f"{n} values of column {name!r} are rare or unseen in training (as"
            f" {self.examples[name][:40]!r}) and count as none of its categories"
            for name, n in self.unseen.items()
        ]
        parts += [
            f"{n} values of column {name!r} are missing, as none was in training, and take the"
            " median"
            for name, n in self.filled.items()
        ]
        return "; ".join(parts)


@dataclass(frozen=True)
class Preparation:
    """The columns of a table that are used, and how.

    Attributes:
        columns: in the order of the features.
        named: whether the table had a header, so that columns are found by name.
    """

    columns: tuple[Column, ...]
    named: bool

    @property
    def width(self) -> int:
        """How many features all columns give."""
        return sum(column.width for column in self.columns)

    @property
    def features(self) -> list[str]:
        """Names of all features."""
        return [name for column in self.columns for name in column.features]

    @property
    def is_scaled(self) -> Array:
        """(features,) bool: those that are standardised, the numbers."""
        return np.concatenate([
            [column.kind == NUMBER and j == 0 for j in range(column.width)]
            for column in self.columns
        ]).astype(bool)  # fmt: skip

    @property
    def sources(self) -> list[int]:
        """For each feature, which of `columns` it comes from."""
        return [k for k, column in enumerate(self.columns) for _ in range(column.width)]

    @classmethod
    def of_numbers(cls, names: Sequence[str] | None, columns: int) -> Self:
        """Every column is a number, and none may be missing."""
        known = names or [str(j) for j in range(columns)]
        return cls(tuple(Column(name, NUMBER) for name in known), names is not None)

    def places(self, table: Table, taken: Sequence[int] = ()) -> list[int]:
        """Where a table has the columns: by name, or, where one has no header, by position.

        Args:
            taken: columns that are none of them, where there are no names.

        Raises:
            InputError: one is missing.
        """
        if self.named and table.names is not None:
            return [table.column(column.name) for column in self.columns]
        left = [j for j in range(table.columns) if j not in {*taken, *table.index}]
        if len(left) != len(self.columns):
            what = f"{len(left)} columns, the training set has {len(self.columns)}"
            raise InputError(what, table.where, "give rows with the training set's columns")
        return left

    def rows(self, table: Table, places: Sequence[int], n: int, logs: bool = True) -> Rows:
        """A table's rows as features (n, width), not scaled yet.

        Args:
            places: of `places`.
            n: the number of rows.
            logs: whether what the training set did not have is logged, in one line after a pass.
        """
        source = self.sources

        def chunks() -> Iterator[Array]:
            start, met = 0, Unfamiliar()
            for block in table.blocks(places):
                yield self.transform(table, places, block, start, met)
                start += len(block[0])
                if start > n:
                    break
            if start != n:
                raise InputError("changed while it was read", table.where, "start again")
            if logs and met.line():
                log.warning("%s", printable(f"{table.where}: {met.line()}"))

        def place(row: int, feature: int) -> str:
            return table.place(row, places[source[feature]])

        return Rows((n, self.width), np.dtype(np.float64), chunks, table.where, place)

    def transform(
        self, table: Table, places: Sequence[int], block: list[Array], start: int, met: Unfamiliar
    ) -> Array:
        """A block of raw columns as features (b, width), not scaled yet.

        Args:
            places: of `places`; `block` has one array (b,) for each.
            start: the block's first row in the table, for messages.
            met: what the training set had not is counted there.
        """
        out = np.zeros((len(block[0]), self.width))
        at = 0
        for column, place, values in zip(self.columns, places, block, strict=True):
            part = out[:, at : at + column.width]
            at += column.width
            if column.kind == NUMBER:
                try:
                    _numbers(column, values, part, met)
                except _Unusable as error:
                    row, what, remedy = error.args
                    where = f"{table.where}, {table.place(start + row, place)}"
                    raise InputError(what, where, remedy) from None
            else:
                _one_hot(column, values, part, met)
        return out

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        columns = [{**vars(column), "categories": list(column.categories)}
                   for column in self.columns]  # fmt: skip
        return {"named": self.named, "columns": columns}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`; InputError if it is none."""
        try:
            columns = [_checked_column(**column) for column in kept["columns"]]
            if type(kept["named"]) is bool and columns and set(kept) == {"named", "columns"}:
                return cls(tuple(columns), kept["named"])
        except (TypeError, KeyError, AttributeError):
            pass
        raise InputError("is damaged", "preparation")


class _Unusable(Exception):
    """The row of a block, what is wrong with a value there, and what to do."""


def as_numbers(values: Array) -> Array:
    """A column's values as float64 (b,), NaN where they are missing."""
    if values.dtype.kind != "O":
        return values.astype(np.float64, copy=False)
    for row, value in enumerate(values):
        if value is not None and not is_number(value):
            what = f"text {value[:40]!r} in a numeric column"
            raise _Unusable(row, what, "write a number, or leave this row or column out")
    return np.array([np.nan if value is None else float(value) for value in values])


def _numbers(column: Column, values: Array, out: Array, met: Unfamiliar) -> None:
    """A column of numbers as out (b, 1 or 2)."""
    values = as_numbers(values)
    gaps = missing(values)
    out[:, 0] = values
    if not gaps.any():
        return
    if column.fill is None:
        remedy = "fill it in, leave this row out, or train with --missing impute"
        raise _Unusable(int(gaps.argmax()), "the value is missing", remedy)
    out[gaps, 0] = column.fill
    if column.gaps:
        out[:, 1] = gaps
    else:
        met.filled[column.name] += int(gaps.sum())


def _one_hot(column: Column, values: Array, out: Array, met: Unfamiliar) -> None:
    """A column of categories as out (b, width)."""
    index = numbered(column.categories)
    gap = len(column.categories) if column.gaps else -1
    distinct, inverse = _distinct(values)
    codes = np.array([gap if text is None else index.get(text, -1) for text in distinct])
    rows = codes[inverse]
    out[np.flatnonzero(rows >= 0), rows[rows >= 0]] = 1
    others = np.flatnonzero(codes == -1)
    if len(others):
        met.unseen[column.name] += int((rows == -1).sum())
        met.examples.setdefault(column.name, distinct[others[0]] or "no value")


def _distinct(values: Array) -> tuple[list[str | None], Array]:
    """The different values as canonical text (None: missing), and which one each row has."""
    if values.dtype.kind != "O":
        different, inverse = np.unique(values, return_inverse=True)
        return [canonical(value) for value in different.tolist()], inverse
    known: dict[str | None, int] = {}
    inverse = np.fromiter((known.setdefault(v, len(known)) for v in values), np.intp, len(values))
    return [None if text is None else canonical(text) for text in known], inverse


def _checked_column(name: Any, kind: Any, fill: Any, gaps: Any, categories: Any) -> Column:
    sound = (
        isinstance(name, str)
        and kind in (NUMBER, CATEGORY)
        and (fill is None or (type(fill) is float and np.isfinite(fill)))
        and type(gaps) is bool
        and isinstance(categories, list)
        and len(categories) <= MOST_CATEGORIES
        and all(isinstance(category, str) for category in categories)
        and (kind == CATEGORY) == bool(categories)
    )
    if not sound:
        raise TypeError
    return Column(name, kind, fill, gaps, tuple(categories))
