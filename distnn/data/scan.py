"""One pass over the training table: what its columns hold, and how they are to be prepared."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distnn.data.categories import canonical, check_different, is_number
from distnn.data.preparation import (
    CATEGORY,
    LEAST_ROWS,
    MEDIAN_ROWS,
    MOST_CATEGORIES,
    MOST_DISTINCT,
    NUMBER,
    Column,
    Preparation,
)
from distnn.data.rows import Array
from distnn.data.table import Table, as_objects, missing
from distnn.errors import InputError

SHOWN = 5  # columns that a message names
THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+")
DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")


class Sample:
    """Numbers of evenly spaced rows: all up to MEDIAN_ROWS, of more every 2nd, 4th, ... row.

    Which rows they are depends on their number alone, not on the blocks they come in.
    """

    def __init__(self) -> None:
        self._stride, self._kept = 1, 0
        self._parts: list[Array] = []

    def add(self, values: Array, start: int) -> None:
        """The numbers (b,) of the rows from `start` on."""
        part = values[-start % self._stride :: self._stride]
        self._parts.append(part.astype(np.float64))
        self._kept += len(part)
        while self._kept > MEDIAN_ROWS:
            whole = np.concatenate(self._parts)[::2]
            self._stride, self._parts, self._kept = 2 * self._stride, [whole], len(whole)

    def median(self) -> float:
        """The median of those that are not NaN; 0 if there are none."""
        values = np.concatenate(self._parts)
        values = values[np.isfinite(values)]
        # halves: of two very large numbers in the middle, the sum would be infinite
        return float(np.median(values * 0.5) * 2) if len(values) else 0.0


@dataclass
class Seen:
    """What one column holds.

    Attributes:
        as_text: whether numbers count as categories.
        rows, numbers, gaps: how many, so far.
        counts: of its texts, canonical.
        text_row, gap_row: the first one; -1 for none.
    """

    as_text: bool
    rows: int = 0
    numbers: int = 0
    gaps: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    text_row: int = -1
    gap_row: int = -1
    sample: Sample = field(default_factory=Sample)

    def add(self, values: Array) -> None:
        """The next block (b,) of the column."""
        holes = missing(values)
        gaps = int(holes.sum())
        if gaps and self.gap_row < 0:
            self.gap_row = self.rows + int(holes.argmax())
        self.gaps += gaps
        if values.dtype.kind == "O" or self.as_text:
            self._add_texts(values)
        else:
            self.numbers += len(values) - gaps
            self.sample.add(values, self.rows)
        self.rows += len(values)

    def _add_texts(self, values: Array) -> None:
        if values.dtype.kind == "O":
            found: Counter[Any] = Counter(v for v in values if v is not None)
        else:
            different, times = np.unique(values[~missing(values)], return_counts=True)
            found = Counter(dict(zip(different.tolist(), times.tolist(), strict=True)))
        for value, count in found.items():
            if values.dtype.kind == "O" and not self.as_text and is_number(value):
                self.numbers += count
                continue
            if self.text_row < 0:
                self.text_row = self.rows + values.tolist().index(value)
            self.counts[canonical(value) or ""] += count


@dataclass(frozen=True)
class Scan:
    """What a table holds.

    Attributes:
        rows: how many.
        preparation: of the columns that are features.
        collected: whole columns (rows,), as they were asked for.
        notes: what somebody should know of gaps and rare categories, in lines.
    """

    rows: int
    preparation: Preparation
    collected: list[Array]
    notes: tuple[str, ...]


def scan(
    table: Table,
    features: Sequence[int],
    collected: Sequence[int] = (),
    categorical: Sequence[int] = (),
    impute: bool = True,
    keep: Array | None = None,
) -> Scan:
    """Read a table once.

    Args:
        features: the columns to be prepared.
        collected: columns that are wanted as a whole, such as targets and weights.
        categorical: features whose numbers are categories.
        impute: whether missing values are filled in, else refused.
        keep: which rows (n,) the features are looked at in; None: in all.

    Raises:
        InputError: a column cannot be used; a missing value that is refused; no rows.
    """
    for j in (*features, *collected):
        if table.declared[j] not in (None, "number", "text"):
            what = f"{table.title(j)} is of type {table.declared[j]}, which is no number or text"
            remedy = f"leave it out with --drop {_name(table, j)}, or convert it"
            raise InputError(what, table.where, remedy)
    as_written: dict[int, dict[str, None]] = {
        j: {} for j in features if table.declared[j] == "text"
    }
    seen = {j: Seen(as_text=j in set(categorical) or j in as_written) for j in features}
    parts: list[list[Array]] = [[] for _ in collected]
    rows = 0
    for block in table.blocks([*features, *collected]):
        here = slice(rows, rows + len(block[0]))
        for j, values in zip(features, block, strict=False):
            seen[j].add(_as_booleans(values if keep is None else values[keep[here]]))
            if len(seen[j].counts) > MOST_DISTINCT:
                raise _identifier(table, j, seen[j])
            if j in as_written:
                as_written[j] |= dict.fromkeys(v for v in values if v is not None and is_number(v))
        for part, values in zip(parts, block[len(features) :], strict=True):
            part.append(values)
        rows += len(block[0])
    if rows == 0:
        remedy = "give at least one row"
        raise InputError("no rows below the header", table.where, remedy)
    for j, texts in as_written.items():
        check_different(texts, f"{table.where}, {table.title(j)}")
    columns = tuple(_column(table, j, seen[j], j in set(categorical), impute) for j in features)
    preparation = Preparation(columns, table.names is not None)
    notes = tuple(_notes(preparation, list(seen.values())))
    if left := [table.title(j) for j in table.index - {*features, *collected}]:
        notes = (f"{', '.join(left)} is left out: it numbers or names the rows", *notes)
    return Scan(rows, preparation, [joined(part) for part in parts], notes)


def joined(parts: list[Array]) -> Array:
    """Blocks of a column as one array: integers if all are, else real numbers, else text."""
    kinds = {part.dtype.kind for part in parts}
    if "O" not in kinds:
        return np.concatenate(parts)
    values = (v for part in parts for v in (part.tolist() if part.dtype.kind == "O" else
              [canonical(v) for v in part.tolist()]))  # fmt: skip
    return as_objects(list(values))


def _as_booleans(values: Array) -> Array:
    """Booleans are categories, True and False, whatever holds them."""
    return as_objects([str(v) for v in values.tolist()]) if values.dtype.kind == "b" else values


def _column(table: Table, j: int, seen: Seen, is_chosen: bool, impute: bool) -> Column:
    name = _name(table, j)
    if seen.gaps and not impute:
        remedy = "fill it in, leave this row out, or use --missing impute"
        where = f"{table.where}, {table.place(seen.gap_row, j)}"
        raise InputError("the value is missing", where, remedy)
    if seen.gaps == seen.rows:
        what = f"{table.title(j)} holds no value at all"
        raise InputError(what, table.where, f"leave it out with --drop {name}")
    if not seen.counts:
        return Column(name, NUMBER, seen.sample.median() if impute else None, seen.gaps > 0)
    if all(DECIMAL_COMMA.fullmatch(text) or THOUSANDS.fullmatch(text) for text in seen.counts):
        example = next(iter(seen.counts))
        if all(map(THOUSANDS.fullmatch, seen.counts)):
            what = f"{table.title(j)} holds numbers with commas, as {example!r}"
            remedy = f"write {example.replace(',', '')}, or if these are decimals, a point"
        else:
            what = f"{table.title(j)} holds numbers with decimal commas, as {example!r}"
            remedy = "write decimal points, or separate the fields by semicolons"
        raise InputError(what, table.where, remedy)
    if seen.numbers and not seen.as_text:
        where = f"{table.where}, {table.place(seen.text_row, j)}"
        what = (
            f"text {next(iter(seen.counts))[:40]!r} in a numeric column"
            f" ({seen.numbers} numbers, {seen.counts.total()} texts)"
        )
        remedy = f"write a number or leave the field empty, or use --categorical {name} or --drop"
        raise InputError(what, where, remedy)
    frequent = [text for text, n in seen.counts.items() if n >= LEAST_ROWS]
    frequent.sort(key=lambda text: (-seen.counts[text], text))
    frequent = frequent[:MOST_CATEGORIES]
    many = len(seen.counts) > max(MOST_CATEGORIES, seen.rows // 2)
    if not frequent or (many and not is_chosen):
        raise _identifier(table, j, seen)
    return Column(name, CATEGORY, None, seen.gaps > 0, tuple(sorted(frequent)))


def _identifier(table: Table, j: int, seen: Seen) -> InputError:
    what = (
        f"{table.title(j)} holds {len(seen.counts)} different texts in {seen.rows} rows: too few"
        " rows of each to learn from"
    )
    return InputError(what, table.where, f"leave it out with --drop {_name(table, j)}")


def _notes(preparation: Preparation, seen: Sequence[Seen]) -> Iterator[str]:
    """One line for gaps and one for rare categories, where there are some."""
    pairs = list(zip(preparation.columns, seen, strict=True))
    gaps = [f"{column.name} ({one.gaps})" for column, one in pairs if one.gaps]
    if gaps:
        yield f"missing values are filled in (numbers: the median) and marked: {_listed(gaps)}"
    rare = [
        f"{column.name} ({len(one.counts) - len(column.categories)} of {len(one.counts)})"
        for column, one in pairs
        if len(one.counts) > len(column.categories)
    ]
    if rare:
        yield (
            f"categories in fewer than {LEAST_ROWS} rows, or beyond the {MOST_CATEGORIES} most"
            f" frequent, count as none: {_listed(rare)}"
        )


def _name(table: Table, j: int) -> str:
    return str(j) if table.names is None else table.names[j]


def _listed(parts: list[str]) -> str:
    more = f" and {len(parts) - SHOWN} more columns" if len(parts) > SHOWN else ""
    return ", ".join(parts[:SHOWN]) + more
