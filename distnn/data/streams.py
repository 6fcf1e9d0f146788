"""Training sets that are read anew in every epoch, a window of blocks at a time.

They need not fit into memory.

They are Parquet, npy and HDF5: files of which any block can be read on its own.
"""

from pathlib import Path

from distnn.data.array_files import Store, is_store, open_store, train_name
from distnn.data.blocks import (
    MOST_LABELS,
    ArrayBlocks,
    Blocks,
    TableBlocks,
    files_of,
    sample_of_targets,
)
from distnn.data.folder import is_table, open_table
from distnn.data.options import TableOptions
from distnn.data.part import Part, Roles
from distnn.data.preparation import Preparation
from distnn.data.scan import scan
from distnn.data.target_columns import check_mixture
from distnn.data.targets import REGRESSION, Targets
from distnn.errors import InputError

LARGE = 1 << 28  # values: a training set of more is not held in memory, if nothing else is said
WINDOW_VALUES = 1 << 22  # of a window, where its rows are not given

WINDOW = "--window"
REMEDY = "use --window 0, or write it as Parquet, .npy or HDF5"


def stream(
    path: Path,
    target: str | None,
    options: TableOptions,
    preparation: Preparation | None,
    window: int | None,
) -> Part | None:
    """A training set to be read in windows; None if it is to be held in memory.

    Args:
        path: it is there.
        target, options: as for `sources.open_data`.
        preparation: of a run that goes on; None: it is learnt, in one pass.
        window: rows of a window, not 0; None: that is up to the file, which is read in windows if
            it has `LARGE` values or more and can be. This depends on the file alone and not on the
            machine, as the result does.

    Raises:
        InputError: a window is given, and the file cannot be read in blocks; it cannot be used.
    """
    if is_table(path):
        table = open_table(path, options.delimiter)
        files = files_of(table)
        rows = sum(sum(file.groups) for file in files)
        if files and (window is not None or rows * table.columns >= LARGE):
            of = Roles.of(table, target, options, preparation)
            notes: tuple[str, ...] = ()
            if preparation is None:
                found = scan(table, of.features, (), of.categorical, options.impute)
                preparation, notes = found.preparation, found.notes
            blocks = TableBlocks(table, preparation, of.features, of.targets, of.weight)
            y = sample_of_targets(blocks.targets(), blocks.y_where)
            check_mixture(y, lambda _: blocks.y_where)
            return Part(
                x=preparation.rows(table, of.features, len(blocks), logs=False),
                y=y,
                y_where=blocks.y_where,
                feature_names=tuple(preparation.features) if preparation.named else None,
                target_names=table.names and tuple(table.names[j] for j in of.targets),
                preparation=preparation,
                notes=notes,
                blocks=blocks,
            )
    elif is_store(path):
        store, name = open_store(path, target)
        x = store.array("x_train")
        if window is not None or len(x) * x.features >= LARGE:
            arrays = _array_blocks(store, name, options)
            y = sample_of_targets(arrays.targets(), arrays.y_where)
            return Part(x.rows(), y, arrays.y_where, blocks=arrays)
    if window is not None:
        raise InputError("cannot be read in windows", f"{WINDOW}, {path}", REMEDY)
    return None


def open_blocks(
    path: Path, target: str | None, options: TableOptions, preparation: Preparation | None
) -> Blocks:
    """The blocks of a training set for which `stream` gave a part, as any rank opens them.

    Args:
        preparation: of that part.

    Raises:
        InputError: it is not there or has changed.
    """
    if not path.exists():
        remedy = "put it where every machine can read it, at the same path"
        raise InputError("no such file here", str(path), remedy)
    if preparation is None:
        return _array_blocks(*open_store(path, target), options)
    table = open_table(path, options.delimiter)
    of = Roles.of(table, target, options, preparation)
    return TableBlocks(table, preparation, of.features, of.targets, of.weight)


def window_rows(features: int, batch_size: int, window: int | None) -> int:
    """Rows that a window has at least.

    Raises:
        InputError: those that are given are fewer than a batch has.
    """
    if window is None:
        return max(batch_size, WINDOW_VALUES // (1 + features))
    if window < batch_size:
        what = f"{window} rows are fewer than a batch has, which is {batch_size}"
        raise InputError(what, WINDOW, "give more rows, or a smaller --batch-size")
    return window


def check_classes(targets: Targets) -> None:
    """InputError where there are more classes than were looked for."""
    if targets.task != REGRESSION and targets.classes > MOST_LABELS:
        what = f"more than {MOST_LABELS} classes, in a training set that is read in windows"
        raise InputError(what, targets.where, f"use --task regression, or {WINDOW} 0")


def _array_blocks(store: Store, target: str | None, options: TableOptions) -> ArrayBlocks:
    x = store.array("x_train")
    y = store.array(train_name(store.names, target or "y_train"), text=True)
    weights = None
    if options.weight is not None:
        weights = store.array(train_name(store.names, options.weight))
    for other in (y, weights):
        if other is not None and len(other) != len(x):
            what = f"{len(other)} rows, {x.where} has {len(x)}"
            raise InputError(what, other.where, "give one for each row")
    return ArrayBlocks(x, y, weights)
