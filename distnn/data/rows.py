"""An array read in blocks of rows, so that a file is never held twice in memory."""

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from distnn.errors import InputError

Array = npt.NDArray[Any]

BLOCK_BYTES = 8 << 20


def rows_per_block(row_bytes: int, block_bytes: int = BLOCK_BYTES) -> int:
    """How many rows of ``row_bytes`` bytes make one block: at least one."""
    return max(1, block_bytes // max(1, row_bytes))


def place_of(row: int, column: int) -> str:
    """A value's place in words, where the format has no better ones."""
    return f"row {row}, column {column} (counted from 0)"


@dataclass(frozen=True)
class Rows:
    """An array whose shape and type are known and whose rows come in blocks.

    Attributes:
        shape: (n, ...), the array's own shape.
        dtype: the type of the source; bool, integer or floating.
        chunks: called once per pass; yields consecutive blocks (b, features) of about 8 MB, each
            valid until the next is asked for. Raises InputError where the file is damaged.
        where: file and array, for error messages.
        place: (row, column) in words, for error messages.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: Callable[[], Iterator[Array]]
    where: str
    place: Callable[[int, int], str] = field(default=place_of)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def features(self) -> int:
        """Values per row: (n,) has 1, (n, 8, 8) has 64."""
        return math.prod(self.shape[1:])

    @classmethod
    def of(cls, array: npt.ArrayLike, where: str) -> Self:
        """An array that is in memory already; nothing is copied but what a block needs.

        Raises:
            InputError: no numbers, no rows or no features in it.
        """
        try:
            X = np.asarray(array)
        except (ValueError, TypeError) as error:
            raise InputError(
                "not an array", where=where, remedy="rows must have the same length"
            ) from error
        check_numeric(X.dtype, where)
        check_shape(X.shape, where)
        step = rows_per_block(X.nbytes // len(X))

        def chunks() -> Iterator[Array]:
            for a in range(0, len(X), step):
                block = X[a : a + step]
                yield block.reshape(len(block), -1)  # (b, features)

        return cls(X.shape, X.dtype, chunks, where)

    def read(self) -> Array:
        """The whole array, in its own shape and the machine's byte order.

        Raises:
            InputError: it is larger than the machine's memory; a damaged file.
        """
        needed = len(self) * self.features * self.dtype.itemsize
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > memory:
            raise InputError(
                f"needs {needed >> 20} MB of memory, this machine has {memory >> 20} MB",
                where=self.where,
                remedy="give fewer rows, or use a machine with more memory",
            )
        out = np.empty((len(self), self.features), self.dtype.newbyteorder("="))
        start = 0
        for block in self.chunks():
            out[start : start + len(block)] = block
            start += len(block)
        return out.reshape(self.shape)


def check_numeric(dtype: np.dtype[Any], where: str) -> None:
    """InputError unless ``dtype`` is bool, integer or real."""
    if dtype.hasobject:
        raise InputError(
            "holds Python objects; pickled arrays are refused",
            where=where,
            remedy="save plain numbers, for example with array.astype('float32')",
        )
    if dtype.kind not in "biuf" or dtype.subdtype is not None:
        raise InputError(
            f"type {dtype} is not a number's",
            where=where,
            remedy="use bool, integers or floats (classes are 0, 1, 2, ...)",
        )


def check_shape(shape: tuple[int, ...], where: str) -> None:
    """InputError unless there is at least one row and one value in it."""
    if len(shape) == 0:
        raise InputError("a single value, not rows", where=where, remedy="give an array (n, ...)")
    if shape[0] == 0:
        raise InputError("empty: no rows", where=where, remedy="give at least one row")
    if math.prod(shape[1:]) == 0:
        raise InputError(
            f"empty: shape {shape} has no features", where=where, remedy="give at least one column"
        )


def check_unique(names: Iterable[str], kind: str, where: str) -> None:
    """InputError if two of a file's columns or arrays have the same name."""
    for name, count in Counter(names).items():
        if count > 1:
            what = f"two {kind} are named {name[:60]!r}"
            raise InputError(what, where=where, remedy="rename one of them")


def check_finite(
    values: Array, place: Callable[[int, int], str], given: Array | None = None
) -> None:
    """InputError that names the first value that is NaN or infinite.

    Args:
        values: (n, k) floats.
        place: (row, column) in words, file and array included.
        given: what the values were converted from, to distinguish infinity from a type too small.
    """
    finite = np.isfinite(values)
    if finite.all():
        return
    row, column = (int(i) for i in np.argwhere(~finite)[0])
    value = (values if given is None else given)[row, column]
    if np.isfinite(value):
        what = f"{value:g} is beyond the range of {values.dtype}"
        remedy = "use --precision float64 or rescale the column"
    else:
        what = f"the value is {'NaN' if np.isnan(value) else 'infinity'}"
        remedy = "remove such rows or fill in a number"
    raise InputError(what, where=place(row, column), remedy=remedy)


def convert(values: Array, out: Array, place: Callable[[int, int], str]) -> None:
    """Write values (n, k) into ``out`` (n, k) of another type.

    Raises:
        InputError: NaN, infinity, or a value beyond the range of ``out``'s type; see
            ``check_finite``.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        out[...] = values
    if values.dtype.kind == "f":
        check_finite(out, place, values)


def fill(rows: Rows, out: Array) -> None:
    """Write the rows, flattened, into ``out``, with ones in column 0.

    Args:
        rows: n rows of n0 features.
        out: (n, 1 + n0), float32 or float64, overwritten.

    Raises:
        InputError: a value is NaN or infinite, or beyond the range of ``out``'s type; the message
            names file, array, row and column.
    """
    if out.shape != (len(rows), 1 + rows.features):
        raise ValueError(f"out is {out.shape}, the rows need {(len(rows), 1 + rows.features)}")
    out[:, 0] = 1
    start = 0

    def place(row: int, column: int) -> str:
        return f"{rows.where}, {rows.place(start + row, column)}"

    for block in rows.chunks():
        convert(block, out[start : start + len(block), 1:], place)
        start += len(block)
