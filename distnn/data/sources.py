"""Opening a data set by its path: which format it has, what it must hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distnn.data.npz import Npz, npy_file_rows
from distnn.data.rows import Array, Rows
from distnn.errors import InputError

DIGITS = Path(__file__).with_name("digits.npz")
FORMATS = "give digits, an .npz file, a folder of IDX files or a .csv file"


@dataclass(frozen=True)
class Part:
    """One set of rows with their targets."""

    x: Rows
    y: Array
    y_where: str
    feature_names: tuple[str, ...] | None = None
    target_names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Source:
    """A data set.

    Attributes:
        name: short, for the run's directory.
        x_train: Rows (n, ...).
        y_train: (n,) or (n, k), in the type of the file.
        x_test: Rows, or None without a test set.
        y_test: the same for its targets.
        y_train_where, y_test_where: file and array, for error messages.
        feature_names, target_names: where the format has them.
    """

    name: str
    x_train: Rows
    y_train: Array
    y_train_where: str
    x_test: Rows | None = None
    y_test: Array | None = None
    y_test_where: str = ""
    feature_names: tuple[str, ...] | None = None
    target_names: tuple[str, ...] | None = None


def open_data(path: str, test_path: str | None = None, target: str | None = None) -> Source:
    """Open a data set for training.

    Args:
        path: ``digits`` (bundled), an npz file, a folder of IDX files, or a csv file.
        test_path: a second data set to test on; it takes the place of the first one's test set.
        target: the target's array (npz) or its columns, joined by commas (csv).

    Raises:
        InputError: the file, or what it holds, cannot be used.
    """
    train, test = _open_parts(path, target)
    if test_path is not None:
        test = open_test_data(test_path, target, train.feature_names, train.target_names)
    if test is None:
        test_x, test_y, test_where = None, None, ""
    else:
        test_x, test_y, test_where = test.x, test.y, test.y_where
        check_features(test.x, train.x.features)
    return Source(
        name="digits" if path == "digits" else Path(path).resolve().stem,
        x_train=train.x,
        y_train=train.y,
        y_train_where=train.y_where,
        x_test=test_x,
        y_test=test_y,
        y_test_where=test_where,
        feature_names=train.feature_names,
        target_names=train.target_names,
    )


def open_test_data(
    path: str,
    target: str | None = None,
    feature_names: Sequence[str] | None = None,
    target_names: Sequence[str] | None = None,
) -> Part:
    """Open a data set to test on: its test part if it has one, otherwise all of it.

    Args:
        path, target: as for ``open_data``; an npz file may also hold just x and y.
        feature_names, target_names: those of the training set; a csv file's columns are found by
            them.
    """
    train, test = _open_parts(path, target, for_test=True)
    return test if test is not None else train


def open_features(
    path: str, expected_features: int | None = None, feature_names: Sequence[str] | None = None
) -> Rows:
    """Open rows to predict, without targets.

    Args:
        path: ``digits`` (its test set), an npz file (x, or x_test, or x_train, or its only array),
            an npy file, an IDX file or a folder of them, or a csv file.
        expected_features: what the network takes.
        feature_names: a csv file's columns are found by them; others are left out.

    Raises:
        InputError: as ``open_data``; another number of features than expected.
    """
    rows = _open_rows(path)
    if expected_features is not None:
        check_features(rows, expected_features)
    return rows


def check_features(x: Rows, expected: int) -> None:
    """InputError unless ``x`` has as many features as the training set."""
    if x.features != expected:
        raise InputError(
            f"{x.features} features per row, the training set has {expected}",
            where=x.where,
            remedy="give rows with the training set's columns",
        )


def _open_parts(path: str, target: str | None, for_test: bool = False) -> tuple[Part, Part | None]:
    if path == "digits":
        return _npz_parts(Npz(DIGITS), None, for_test)
    file = _existing(path)
    if file.suffix == ".npz":
        return _npz_parts(Npz(file), target, for_test)
    raise InputError("unknown format", where=path, remedy=FORMATS)


def _open_rows(path: str) -> Rows:
    if path == "digits":
        return Npz(DIGITS).rows("x_test")
    file = _existing(path)
    if file.suffix == ".npz":
        return _npz_features(Npz(file))
    if file.suffix == ".npy":
        return npy_file_rows(file)
    raise InputError("unknown format", where=path, remedy=FORMATS)


def _existing(path: str) -> Path:
    file = Path(path)
    try:
        if file.is_file() or file.is_dir():
            return file
        there = file.exists()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be opened ({error})", where=path, remedy=FORMATS) from error
    what = "neither a file nor a folder" if there else "no such file"
    raise InputError(what, where=path, remedy=FORMATS)


def _npz_parts(npz: Npz, target: str | None, for_test: bool) -> tuple[Part, Part | None]:
    y_train, y_test = _npz_targets(npz, target)
    test = _npz_part(npz, "x_test", y_test) if "x_test" in npz else None
    if for_test and test is not None:
        return test, test
    if for_test and "x_train" not in npz and "x" in npz:
        return _npz_part(npz, "x", target or "y"), None
    return _npz_part(npz, "x_train", y_train), test


def _npz_targets(npz: Npz, target: str | None) -> tuple[str, str]:
    """Names of the target arrays: ``--target z`` means z_train and z_test, or z itself."""
    if target is None:
        return "y_train", "y_test"
    stem = target.removesuffix("_train")
    return (target if target in npz else f"{stem}_train"), f"{stem}_test"


def _npz_part(npz: Npz, x_name: str, y_name: str) -> Part:
    x, y = npz.rows(x_name), npz.rows(y_name)
    if len(x) != len(y):
        raise InputError(
            f"{x_name} has {len(x)} rows, {y_name} has {len(y)}",
            where=str(npz.path),
            remedy="give one target for each row",
        )
    return Part(x, y.read(), y.where)


def _npz_features(npz: Npz) -> Rows:
    names = npz.names
    for name in ("x", "x_test", "x_train"):
        if name in npz:
            return npz.rows(name)
    return npz.rows(names[0] if len(names) == 1 else "x")
