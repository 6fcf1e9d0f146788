"""The target columns of a table, checked: every value is there, and all are of one kind."""

from collections.abc import Callable, Sequence

import numpy as np

from distnn.data.categories import is_number
from distnn.data.rows import Array, check_finite
from distnn.data.table import Table, missing
from distnn.data.targets import FEW_VALUES
from distnn.errors import InputError


def checked_targets(
    table: Table, columns: Sequence[int], values: Sequence[Array], start: int = 0
) -> Array:
    """Targets (b,) of one column, or (b, k) of several.

    Args:
        columns: which they are.
        values: one array (b,) for each, see `Table.blocks`.
        start: the first row's number in the table, for messages.

    Raises:
        InputError: one is missing, NaN or infinite; text in several columns.
    """
    for j, column in zip(columns, values, strict=True):

        def place(row: int, _: int, j: int = j) -> str:
            return f"{table.where}, {table.place(start + row, j)}"

        gaps = missing(column)
        if gaps.any():
            remedy = "fill it in, or leave rows without a target out"
            what = f"the target is missing ({int(gaps.sum())} of these {len(gaps)} rows)"
            raise InputError(what, place(int(gaps.argmax()), 0), remedy)
        if len(columns) > 1 and column.dtype.kind == "O":
            what = "text as one of several targets"
            raise InputError(what, f"{table.where}, {table.title(j)}", "give one target of text")
        if column.dtype.kind == "f":
            check_finite(column[:, None], place)
    return values[0] if len(columns) == 1 else np.column_stack(values)


def check_mixture(y: Array, place: Callable[[int], str]) -> None:
    """InputError where targets of numbers have text in some row: it would become a class.

    Args:
        y: (n,), or (n, k) numbers.
        place: of the value with a number from 0 to n - 1, in words.
    """
    if y.dtype.kind != "O":
        return
    texts = [row for row, value in enumerate(y) if not is_number(value)]
    different = len(set(y))
    if 0 < len(texts) < len(y) and (different > FEW_VALUES or len(y) < 2 * different):
        what = f"text {y[texts[0]][:40]!r} in a numeric column"
        raise InputError(what, place(texts[0]), "write a number, or leave such rows out")
