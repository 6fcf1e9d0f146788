"""Opening a data set by its path, in whichever format it is."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from distnn.data.array_files import NpyArray, Store, is_store, open_store, test_name, train_name
from distnn.data.folder import is_table, open_table
from distnn.data.idx import idx_files, idx_pair, idx_rows
from distnn.data.npz import Npz
from distnn.data.options import TableOptions
from distnn.data.part import Part, RowChoice, feature_rows, like_part, training_part
from distnn.data.preparation import Preparation
from distnn.data.rows import Array, Rows
from distnn.data.streams import stream
from distnn.errors import InputError

DIGITS = Path(__file__).with_name("digits.npz")
ARRAYS = "arrays"  # stands for a path where the rows were a program's own
FORMATS = (
    "give digits, an .npz or .h5 file, a folder of .npy or of IDX files, a .csv, .tsv (.gz) or"
    " .parquet file, or a folder of such tables"
)
NO_OPTIONS = TableOptions()
TRAIN, TEST, ALL = "train", "test", "all"  # sets of a file; all: it has one, of no name


@dataclass(frozen=True)
class Source:
    """A data set: its training part and, if there is one, its test part."""

    train: Part
    test: Part | None


def open_data(
    path: str,
    test_path: str | None = None,
    target: str | None = None,
    options: TableOptions = NO_OPTIONS,
    preparation: Preparation | None = None,
    window: int | None = 0,
    learnt_from: RowChoice | None = None,
) -> Source:
    """Open a data set for training.

    Args:
        path: ``digits`` (bundled), an npz or HDF5 file, a folder of npy or of IDX files, an npy
            file with its targets beside it, or a table (csv, Parquet, a folder of either).
        test_path: a second data set to test on; it takes the place of the first one's test set.
        target: the target's array (npz) or its columns, joined by commas (tables).
        options: of tables.
        preparation: of a run that goes on; None: it is learnt from the training set.
        window: see `streams.stream`; 0: the training set is to be held in memory.
        learnt_from: see `training_part`.

    Raises:
        InputError: the file, or what it holds, cannot be used.
    """
    train = None
    if window != 0:
        train = stream(_existing(path, target), target, options, preparation, window)
    replaced, test = test_path is not None, None
    if train is None:
        train, test = _open_parts(path, target, replaced, options, preparation, learnt_from)
    elif not replaced and is_store(file := Path(path)):
        sets = _sets(file, target, options.weight)
        test = sets[TEST]() if TEST in sets else None
    if test_path is not None:
        test = open_test_data(test_path, target, train.preparation, train.target_names, options)
    if test is not None:
        check_features(test.x, train.x.features)
    return Source(train, test)


def open_test_data(
    path: str,
    target: str | None = None,
    preparation: Preparation | None = None,
    target_names: Sequence[str] | None = None,
    options: TableOptions = NO_OPTIONS,
) -> Part:
    """Open a data set to test on: its test part if it has one, otherwise all of it.

    Args:
        path, target, options: as for ``open_data``; an npz file may also hold just x and y.
        preparation, target_names: those of the training set; a table's columns are found by
            them.
    """
    file = _existing(path, target)
    if is_table(file):
        table = open_table(file, options.delimiter)
        if preparation is None:
            return training_part(table, target, options)
        return like_part(table, preparation, target, target_names, options)
    sets = _sets(file, target, options.weight)
    return next(sets[name] for name in (TEST, ALL, TRAIN) if name in sets)()


def open_features(
    path: str,
    expected_features: int | None = None,
    preparation: Preparation | None = None,
    delimiter: str | None = None,
) -> Rows:
    """Open rows to predict, without targets.

    Args:
        path: ``digits`` (its test set), an npz file (x, or x_test, or x_train, or its only array),
            an npy file, an IDX file or a folder of them, or a table.
        expected_features: what the network takes.
        preparation: of the training set; a table's columns are found by it, others are left out.
        delimiter: of a csv file; None: it is found.

    Raises:
        InputError: as ``open_data``; another number of features than expected.
    """
    file = _existing(path)
    if is_table(file):
        table = open_table(file, delimiter)
        columns = table.columns - len(table.index)
        rows = feature_rows(table, preparation or Preparation.of_numbers(None, columns))
    else:
        rows = _open_rows(file)
    if expected_features is not None:
        check_features(rows, expected_features)
    return rows


def read_texts(path: str, name: str, delimiter: str | None = None) -> list[str]:
    """A column of a table as it is written there, for example of identifiers.

    Raises:
        InputError: no table, or it has no such column.
    """
    file = _existing(path)
    if not is_table(file):
        raise InputError("is no table, and has no columns with names", path, "leave --id out")
    table = open_table(file, delimiter)
    return [text for block in table.texts(table.column(name)) for text in block]


def check_features(x: Rows, expected: int) -> None:
    """InputError unless ``x`` has as many features as the training set."""
    if x.features != expected:
        raise InputError(
            f"{x.features} features per row, the training set has {expected}",
            where=x.where,
            remedy="give rows with the training set's columns",
        )


def _open_parts(
    path: str,
    target: str | None,
    replaced: bool,
    options: TableOptions,
    preparation: Preparation | None,
    learnt_from: RowChoice | None,
) -> tuple[Part, Part | None]:
    """Training part and test part, which is left out if another one replaces it."""
    file = _existing(path, target)
    if is_table(file):
        table = open_table(file, options.delimiter)
        if preparation is None:
            return training_part(table, target, options, learnt_from), None
        return like_part(table, preparation, target, None, options, logs=False), None
    if options.named:
        what = f"{path} is no table, and has no columns with names"
        raise InputError(what, options.named, "leave this out")
    sets = _sets(file, target, options.weight)
    return sets[TRAIN](), sets[TEST]() if TEST in sets and not replaced else None


def _sets(file: Path, target: str | None, weight: str | None) -> dict[str, Callable[[], Part]]:
    """How the sets of a file that is no table are opened, by name; a training set always.

    Its arrays are x, y and weights with _train or _test behind, or just x, y and weights.

    Args:
        target, weight: as given: the name of an array, with or without _train.

    Raises:
        InputError: it is of no known format, or weights are named and its arrays have no names.
    """
    if file.suffix == ".npz" or is_store(file):
        arrays, target = _arrays(file, target)
        names, y = arrays.names, target or "y"
        sets = {
            TRAIN: ("x_train", train_name(names, target or "y_train"),
                    weight and train_name(names, weight)),
            TEST: ("x_test", test_name(y), _optional(names, weight and test_name(weight))),
            ALL: ("x", y, _optional(names, weight)),
        }  # fmt: skip
        if not {"x_test", test_name(y)} & set(names):
            del sets[TEST]
        if "x" not in names or "x_train" in names:
            del sets[ALL]
        return {name: partial(_array_part, arrays, *which) for name, which in sets.items()}
    if weight is not None:
        what = "has no weights by name"
        raise InputError(what, str(file), "give a table or an .npz file that has them")
    if not file.is_dir():
        raise InputError("unknown format", str(file), FORMATS)
    files = idx_files(file)
    kinds = (TRAIN, TEST) if {"test-images", "test-labels"} & set(files) else (TRAIN,)
    return {name: partial(_idx_part, file, files, name) for name in kinds}


def _optional(names: Sequence[str], name: str | None) -> str | None:
    """The weights of rows to test on need not be there."""
    return name if name in names else None


def _arrays(file: Path, target: str | None) -> tuple[Npz | Store, str | None]:
    """Arrays by name, and the name of the targets among them as far as it is given."""
    return (Npz(file), target) if file.suffix == ".npz" else open_store(file, target)


def _open_rows(file: Path) -> Rows:
    if file.suffix == ".npy":
        return NpyArray(file).rows()
    if file.suffix == ".npz" or is_store(file):
        return _array_features(_arrays(file, None)[0])
    if not file.is_dir():
        return idx_rows(file)
    files = idx_files(file)
    for part in ("test-images", "train-images"):
        if part in files:
            return idx_rows(files[part])
    raise InputError("no IDX file of images", where=str(file), remedy=FORMATS)


def _existing(path: str, target: str | None = None) -> Path:
    file = DIGITS if path == "digits" else Path(path)
    try:
        folder, there = file.is_dir(), file.exists()
        if folder or file.is_file():
            if folder and is_table(file) and (is_store(file) or idx_files(file)):
                what = "holds tables and arrays, and is one data set"
                raise InputError(what, path, "name the file, or move one kind away")
            of_idx = folder and not is_table(file) and not is_store(file)
            if target is not None and (of_idx or path == "digits"):
                raise InputError(
                    f"{path} has its own targets", where="--target", remedy="leave this flag out"
                )
            return file
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be opened ({error})", where=path, remedy=FORMATS) from error
    if path == ARRAYS and not there:
        what = "the run was trained on arrays of a program, which are in no file"
        raise InputError(what, "data", "go on with that program, or give a file with --data")
    what = "neither a file nor a folder" if there else "no such file"
    raise InputError(what, where=path, remedy=FORMATS)


def _array_part(arrays: Npz | Store, x_name: str, y_name: str, weight: str | None) -> Part:
    x, y = arrays.rows(x_name), arrays.labels(y_name)
    if len(x) != len(y):
        raise InputError(
            f"{x_name} has {len(x)} rows, {y_name} has {len(y)}",
            where=str(arrays.path),
            remedy="give one target for each row",
        )
    weights = None if weight is None else arrays.rows(weight).read()
    return Part(x, _readable(y.read(), y.where), y.where, weights=weights)


def _readable(y: Array, where: str) -> Array:
    """Targets; InputError where text holds what is no character, as in a damaged file."""
    if y.dtype.kind == "U" and (np.ascontiguousarray(y).view(np.uint32) > sys.maxunicode).any():
        raise InputError("damaged text", where, "copy or make the file again")
    return y


def _array_features(npz: Npz | Store) -> Rows:
    names = npz.names
    for name in ("x", "x_test", "x_train"):
        if name in npz:
            return npz.rows(name)
    return npz.rows(names[0] if len(names) == 1 else "x")


def _idx_part(folder: Path, files: dict[str, Path], part: str) -> Part:
    x, y = idx_pair(folder, files, part)
    return Part(x, y.read(), y.where)
