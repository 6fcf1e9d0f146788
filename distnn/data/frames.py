"""Data frames and arrays in memory as tables: pandas, polars, pyarrow, numpy; none is imported."""

from collections.abc import Iterator, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np

from distnn.data.rows import Array, check_unique
from distnn.data.table import MISSING, Table, as_objects, typed
from distnn.errors import InputError

STEP = 1 << 16
NUMBER = (int, float, np.number, Decimal)
NO_CATEGORY = (date, time, timedelta, list, tuple, dict, set, bytes, np.ndarray)
NO_VALUE = MISSING | {"nat"}  # what stands for no value, as text


class FrameTable(Table):
    """A data frame: pandas', polars' or pyarrow's, or what else has named columns with to_numpy.

    Raises:
        InputError: no rows, no columns, or two of one name.
    """

    def __init__(self, frame: Any, where: str = "X") -> None:
        self.where = where
        self.names = tuple(map(str, _names(frame)))
        self.columns = len(self.names)
        check_unique(self.names, "columns", where)
        self._values = [column_values(frame[name]) for name in _names(frame)]
        self.declared = tuple(map(_declared, self._values))
        if not self._values or not len(self._values[0]):
            raise InputError("empty: no rows or no columns", where, "give at least one row")

    def blocks(self, columns: Sequence[int]) -> Iterator[list[Array]]:
        """See `Table.blocks`."""
        for start in range(0, len(self._values[0]), STEP):
            yield [self._values[j][start : start + STEP] for j in columns]


class ArrayTable(Table):
    """An array (n, k) of numbers or of text as a table without a header."""

    def __init__(self, X: Any, where: str = "X") -> None:
        self.where, self.names = where, None
        try:
            values = np.asarray(X)
        except (ValueError, TypeError) as error:
            remedy = "rows must have the same length"
            raise InputError("not an array", where, remedy) from error
        if values.ndim < 2 or values.size == 0:
            what = f"shape {values.shape} is not rows of features"
            raise InputError(what, where, "give an array (n, features), n at least 1")
        self._values = values.reshape(len(values), -1)
        self.columns = self._values.shape[1]
        kinds = (_declared(column_values(self._values[:, j])) for j in range(self.columns))
        self.declared = tuple(None if kind == "text" else kind for kind in kinds)

    def blocks(self, columns: Sequence[int]) -> Iterator[list[Array]]:
        """See `Table.blocks`; text that spells numbers is numbers, as in a csv file."""
        for start in range(0, len(self._values), STEP):
            block = self._values[start : start + STEP]
            yield [_as_in_csv(column_values(block[:, j])) for j in columns]


def is_frame(X: Any) -> bool:
    """Whether something is a data frame: it has named columns."""
    return hasattr(X, "column_names") or (hasattr(X, "columns") and hasattr(X, "__getitem__"))


def table_of(X: Any, where: str = "X") -> Table:
    """A data frame or an array as a table; raises InputError."""
    return FrameTable(X, where) if is_frame(X) else ArrayTable(X, where)


def column_values(column: Any) -> Array:
    """A column (series, chunked array, sequence) as one array of a block, see `Table.blocks`."""
    values = np.asarray(column.to_numpy() if hasattr(column, "to_numpy") else column)
    if values.dtype.kind in "bf":
        return values if values.dtype.kind == "b" else values.astype(np.float64, copy=False)
    if values.dtype.kind in "iu":
        return values.astype(np.float64 if values.dtype == np.uint64 else np.int64, copy=False)
    if values.dtype.kind in "mM":
        return values
    return _from_objects(list(values))


def _from_objects(values: list[Any]) -> Array:
    """Python's values: numbers if all are numbers or missing, else text, or as they are."""
    found = [None if _is_missing(value) else value for value in values]
    present = [value for value in found if value is not None]
    if all(isinstance(value, NUMBER) and not isinstance(value, bool) for value in present):
        return np.array([np.nan if value is None else float(value) for value in found])
    if _other_type(present):
        return as_objects(found)
    return as_objects([None if value is None else str(value) for value in found])


def _is_missing(value: Any) -> bool:
    """None, NaN, pandas' NA and NaT; but no text, which is no gap in a frame."""
    if isinstance(value, str):
        return value == ""
    return value is None or str(value).lower() in NO_VALUE


def _other_type(present: list[Any]) -> str | None:
    """The type of the first value that is neither a number nor a category; None: there is none."""
    return next((type(value).__name__ for value in present if isinstance(value, NO_CATEGORY)), None)


def _declared(values: Array) -> str | None:
    """See `Table.declared`."""
    if values.dtype.kind in "mM":
        return str(values.dtype)
    if values.dtype.kind != "O":
        return None
    return _other_type([value for value in values if value is not None]) or "text"


def _as_in_csv(values: Array) -> Array:
    if values.dtype.kind != "O":
        return values
    return typed(["" if value is None else str(value) for value in values])


def _names(frame: Any) -> list[Any]:
    return list(frame.column_names if hasattr(frame, "column_names") else frame.columns)
