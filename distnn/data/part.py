"""One set of rows with their targets, from whatever file, and how it comes out of a table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from distnn.data.blocks import Blocks
from distnn.data.options import TableOptions
from distnn.data.preparation import Preparation
from distnn.data.rows import Array, Rows
from distnn.data.scan import Scan, scan
from distnn.data.table import Table
from distnn.data.target_columns import check_mixture, checked_targets
from distnn.errors import InputError


@dataclass(frozen=True)
class Part:
    """One set of rows with their targets: for training or for testing.

    Attributes:
        x: rows (n, ...), not scaled.
        y: targets (n,) or (n, k), in the type of the file; text as Python's strings.
        y_where: file and array of the targets, for error messages.
        feature_names, target_names: where the format has them.
        weights: of the rows, (n,) float64, finite, at least 0 and not all 0; None: all 1.
        preparation: of a table's columns, which `x` is after; None for other formats.
        notes: what was met when the preparation was learnt, in lines.
        blocks: where the rows of a training set are read anew in every epoch; None: they are held
            in memory. With it, `y` is what `blocks.sample_of_targets` gives, and `weights` is None.
    """

    x: Rows
    y: Array
    y_where: str
    feature_names: tuple[str, ...] | None = None
    target_names: tuple[str, ...] | None = None
    weights: Array | None = None
    preparation: Preparation | None = None
    notes: tuple[str, ...] = ()
    blocks: Blocks | None = None


@dataclass(frozen=True)
class Roles:
    """What the columns of a table are: indices.

    Attributes:
        categorical: those of the features whose numbers are categories.
        weight: one, or none.
    """

    features: list[int]
    targets: list[int]
    weight: list[int]
    categorical: list[int]

    @classmethod
    def of(
        cls,
        table: Table,
        target: str | None,
        options: TableOptions,
        preparation: Preparation | None = None,
    ) -> "Roles":
        """As flags have them; arguments as of `training_part`.

        Args:
            preparation: of a run that goes on, which says what the features are.

        Raises:
            InputError: a column is missing, or is two things at once.
        """
        dropped, weight, targets = _columns(table, target, options)
        if preparation is not None:
            return cls(
                preparation.places(table, [*dropped, *weight, *targets]), targets, weight, []
            )
        features = _others(table, [*dropped, *weight, *targets])
        categorical = _given(table, options.categorical, "--categorical")
        for j in categorical:
            if j not in features:
                what = f"{table.title(j)} is no feature"
                raise InputError(what, "--categorical", "name columns that are used as features")
        return cls(features, targets, weight, categorical)


RowChoice = Callable[["Part"], Array]
"""Gives, for a part with n rows, which of them (n,) are chosen, as bool."""


def training_part(
    table: Table, target: str | None, options: TableOptions, learnt_from: RowChoice | None = None
) -> Part:
    """A table to train on; its preparation is learnt from it.

    Args:
        target: its columns, joined by commas; None: the last one.
        learnt_from: chooses, of the part with all rows, those that the preparation is learnt from,
            at the cost of a second pass; None: all.

    Raises:
        InputError: a column is missing, or cannot be used as it is asked for.
    """
    of = Roles.of(table, target, options)
    wanted, how = [*of.targets, *of.weight], (of.categorical, options.impute)
    found = scan(table, of.features, wanted, *how)
    part = _part(table, of.features, of.targets, of.weight, found, found.preparation, False)
    if learnt_from is None:
        return part
    some = scan(table, of.features, (), *how, learnt_from(part))
    x = some.preparation.rows(table, of.features, found.rows)
    names = tuple(some.preparation.features) if some.preparation.named else None
    return replace(part, x=x, feature_names=names, preparation=some.preparation, notes=some.notes)


def like_part(
    table: Table,
    preparation: Preparation,
    target: str | None,
    target_names: Sequence[str] | None,
    options: TableOptions,
    logs: bool = True,
) -> Part:
    """A table with the columns of one that was trained on.

    Args:
        target: as for `training_part`, where either table has no header.
        target_names: of the training set.
        logs: whether values that the training set did not have are logged.

    A file without the column of weights has none.
    """
    if table.names is not None and target_names is not None:
        targets = [table.column(name) for name in target_names]
        weight = [table.names.index(name) for name in table.names if name == options.weight]
        dropped: list[int] = []
    else:
        dropped, weight, targets = _columns(table, target, options)
    features = preparation.places(table, [*dropped, *weight, *targets])
    found = scan(table, [], [*targets, *weight])
    return _part(table, features, targets, weight, found, preparation, logs)


def feature_rows(table: Table, preparation: Preparation) -> Rows:
    """A table without targets as prepared rows; columns that are none of the features are left."""
    places = preparation.places(table)
    rows = sum(len(block[0]) for block in table.blocks(places[:1]))
    if rows == 0:
        raise InputError("no rows below the header", table.where, "give at least one row")
    return preparation.rows(table, places, rows)


def _part(
    table: Table,
    features: list[int],
    targets: list[int],
    weight: list[int],
    found: Scan,
    preparation: Preparation,
    logs: bool,
) -> Part:
    y = checked_targets(table, targets, found.collected[: len(targets)])
    check_mixture(y, lambda row: f"{table.where}, {table.place(row, targets[0])}")
    weights = _weights(table, weight[0], found.collected[-1]) if weight else None
    return Part(
        x=preparation.rows(table, features, found.rows, logs),
        y=y,
        y_where=f"{table.where}, " + ", ".join(table.title(j) for j in targets),
        feature_names=tuple(preparation.features) if preparation.named else None,
        target_names=table.names and tuple(table.names[j] for j in targets),
        weights=weights,
        preparation=preparation,
        notes=found.notes,
    )


def _columns(
    table: Table, target: str | None, options: TableOptions
) -> tuple[list[int], list[int], list[int]]:
    """The columns that are dropped, of weights, and of targets."""
    dropped = _given(table, options.drop, "--drop")
    weight = _given(table, options.weight, "--weight")
    if len(weight) > 1:
        raise InputError("names several columns", "--weight", "give one")
    if target is not None:
        targets = table.columns_of(target)
    else:
        targets = _others(table, [*dropped, *weight])[-1:]
    for j in targets:
        if j in dropped or j in weight:
            what = f"{table.title(j)} is the target and something else"
            raise InputError(what, "--target", "name each column once")
    return dropped, weight, targets


def _given(table: Table, names: str | None, flag: str) -> list[int]:
    return [] if names is None else table.columns_of(names, flag)


def _others(table: Table, taken: Sequence[int]) -> list[int]:
    left = [j for j in range(table.columns) if j not in {*taken, *table.index}]
    if not left:
        what = f"{table.columns} columns, none is left for the features"
        remedy = "separate features and target by commas, or say --delimiter"
        raise InputError(what, table.where, remedy)
    return left


def _weights(table: Table, column: int, values: Array) -> Array:
    """Weights (n,) float64, checked."""
    remedy = "give a number of at least 0 for every row"
    bad = np.ones(len(values), bool) if values.dtype.kind == "O" else ~(values >= 0)
    bad |= False if values.dtype.kind == "O" else ~np.isfinite(values)
    if bad.any():
        row = int(bad.argmax())
        where = f"{table.where}, {table.place(row, column)}"
        raise InputError(f"{values[row]} is no weight", where, remedy)
    if not values.any():
        where = f"{table.where}, {table.title(column)}"
        raise InputError("all weights are 0", where, remedy)
    return values.astype(np.float64)
