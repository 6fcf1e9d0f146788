"""Opening a data set by its path, in whichever format it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distnn.data.idx import idx_files, idx_pair, idx_rows
from distnn.data.npz import Npz, npy_file_rows
from distnn.data.rows import Array, Rows
from distnn.data.table import Table
from distnn.errors import InputError

DIGITS = Path(__file__).with_name("digits.npz")
ARRAYS = "arrays"  # stands for a path where the rows were a program's own
FORMATS = "give digits, an .npz file, a folder of IDX files or a .csv file"


@dataclass(frozen=True)
class Part:
    """One set of rows with their targets: for training or for testing.

    Attributes:
        x: rows (n, ...).
        y: targets (n,) or (n, k), in the type of the file.
        y_where: file and array of the targets, for error messages.
        feature_names, target_names: where the format has them.
        weight: (n,) of the rows, as the file has them; None where each counts 1.
    """

    x: Rows
    y: Array
    y_where: str
    feature_names: tuple[str, ...] | None = None
    target_names: tuple[str, ...] | None = None
    weight: Array | None = None


@dataclass(frozen=True)
class Source:
    """A data set: its training part and, if there is one, its test part."""

    train: Part
    test: Part | None


def open_data(
    path: str,
    test_path: str | None = None,
    target: str | None = None,
    weight: str | None = None,
) -> Source:
    """Open a data set for training.

    Args:
        path: ``digits`` (bundled), an npz file, a folder of IDX files, or a csv file.
        test_path: a second data set to test on; it takes the place of the first one's test set.
        target: the target's array (npz) or its columns, joined by commas (csv).
        weight: the array (npz) with a weight for each row.

    Raises:
        InputError: the file, or what it holds, cannot be used.
    """
    train, test = _open_parts(path, target, replaced=test_path is not None, weight=weight)
    if test_path is not None:
        names = train.feature_names, train.target_names
        test = open_test_data(test_path, target, *names, weight)
    if test is not None:
        check_features(test.x, train.x.features)
    return Source(train, test)


def open_test_data(
    path: str,
    target: str | None = None,
    feature_names: Sequence[str] | None = None,
    target_names: Sequence[str] | None = None,
    weight: str | None = None,
) -> Part:
    """Open a data set to test on: its test part if it has one, otherwise all of it.

    Args:
        path, target: as for ``open_data``; an npz file may also hold just x and y.
        feature_names, target_names: those of the training set; a csv file's columns are found by
            them.
        weight: as for ``open_data``.
    """
    file = _existing(path, target)
    if weight is not None and file.suffix != ".npz":
        raise _no_weights(path)
    if file.is_dir():
        files = idx_files(file)
        return _idx_part(file, files, "test" if "test-images" in files else "train")
    if file.suffix == ".csv":
        return _csv_part(Table(file), target, feature_names, target_names)
    if file.suffix == ".npz":
        npz = Npz(file)
        y_train, y_test = _npz_targets(npz, target)
        if "x_test" in npz:
            return _npz_part(npz, "x_test", y_test, weight)
        if "x" in npz and "x_train" not in npz:
            return _npz_part(npz, "x", target or "y", weight)
        return _npz_part(npz, "x_train", y_train, weight)
    raise InputError("unknown format", where=path, remedy=FORMATS)


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
    rows = _open_rows(_existing(path), feature_names)
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


def _no_weights(path: str) -> InputError:
    return InputError("has no weights by name", path, "give an .npz file with such an array")


def _open_parts(
    path: str, target: str | None, replaced: bool, weight: str | None
) -> tuple[Part, Part | None]:
    """Training part and test part, which is left out if another one replaces it."""
    file = _existing(path, target)
    if weight is not None and file.suffix != ".npz":
        raise _no_weights(path)
    if file.is_dir():
        files = idx_files(file)
        train = _idx_part(file, files, "train")
        has_test = not replaced and ("test-images" in files or "test-labels" in files)
        return train, _idx_part(file, files, "test") if has_test else None
    if file.suffix == ".csv":
        return _csv_part(Table(file), target, None, None), None
    if file.suffix == ".npz":
        npz = Npz(file)
        y_train, y_test = _npz_targets(npz, target)
        train = _npz_part(npz, "x_train", y_train, weight)
        has_test = not replaced and ("x_test" in npz or y_test in npz)
        return train, _npz_part(npz, "x_test", y_test, weight) if has_test else None
    raise InputError("unknown format", where=path, remedy=FORMATS)


def _open_rows(file: Path, feature_names: Sequence[str] | None) -> Rows:
    if file.suffix == ".npz":
        return _npz_features(Npz(file))
    if file.suffix == ".npy":
        return npy_file_rows(file)
    if file.suffix == ".csv":
        return _csv_features(Table(file), feature_names)
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
            if target is not None and (folder or path == "digits"):
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


def _npz_targets(npz: Npz, target: str | None) -> tuple[str, str]:
    """Names of the target arrays: ``--target z`` means z_train and z_test, or z itself."""
    if target is None:
        return "y_train", "y_test"
    stem = target.removesuffix("_train")
    if target in npz or f"{stem}_train" not in npz:
        return target, f"{stem}_test"
    return f"{stem}_train", f"{stem}_test"


def _npz_part(npz: Npz, x_name: str, y_name: str, weight: str | None = None) -> Part:
    x, y = npz.rows(x_name), npz.rows(y_name)
    if len(x) != len(y):
        raise InputError(
            f"{x_name} has {len(x)} rows, {y_name} has {len(y)}",
            where=str(npz.path),
            remedy="give one target for each row",
        )
    return Part(x, y.read(), y.where, weight=_npz_weights(npz, x_name, weight))


def _npz_weights(npz: Npz, x_name: str, weight: str | None) -> Array | None:
    """``--weight w`` means w_train beside x_train, w_test beside x_test, or w itself."""
    if weight is None:
        return None
    name = weight.removesuffix("_train") + x_name.removeprefix("x")
    return npz.rows(name if name in npz else weight).read()


def _npz_features(npz: Npz) -> Rows:
    names = npz.names
    for name in ("x", "x_test", "x_train"):
        if name in npz:
            return npz.rows(name)
    return npz.rows(names[0] if len(names) == 1 else "x")


def _idx_part(folder: Path, files: dict[str, Path], part: str) -> Part:
    x, y = idx_pair(folder, files, part)
    return Part(x, y.read(), y.where)


def _csv_part(
    table: Table,
    target: str | None,
    feature_names: Sequence[str] | None,
    target_names: Sequence[str] | None,
) -> Part:
    """Columns by the names of the training set, where both have names, otherwise by ``target``."""
    if table.names is not None and feature_names is not None and target_names is not None:
        targets = [table.column(name) for name in target_names]
        features = [table.column(name) for name in feature_names]
    else:
        targets = [table.columns - 1] if target is None else table.columns_of(target)
        features = [j for j in range(table.columns) if j not in set(targets)]
    if not features:
        raise InputError(
            f"{table.columns} columns, none is left for the features",
            where=str(table.path),
            remedy="separate features and target by commas",
        )
    y = table.read(targets)  # (n, k)
    where = f"{table.path}, " + ", ".join(table.title(j) for j in targets)
    return Part(
        x=table.rows(features, len(y)),
        y=y[:, 0] if len(targets) == 1 else y,
        y_where=where,
        feature_names=table.names and tuple(table.names[j] for j in features),
        target_names=table.names and tuple(table.names[j] for j in targets),
    )


def _csv_features(table: Table, feature_names: Sequence[str] | None) -> Rows:
    columns = list(range(table.columns))
    if table.names is not None and feature_names is not None:
        columns = [table.column(name) for name in feature_names]
    return table.rows(columns, len(table.read(columns[:1])))
