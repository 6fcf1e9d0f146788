"""Targets: the task (classification or regression) is deduced from them, and they are checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from distnn.data.categories import canonical, check_different, numbered
from distnn.data.rows import Array, check_finite, check_numeric, check_shape, place_of
from distnn.errors import InputError, printable

CLASSIFICATION = "classification"
REGRESSION = "regression"

LABEL_LOSSES = ("cross-entropy", "binary-cross-entropy")
REAL_LOSSES = ("mean-absolute-error", "huber")
FEW_CLASSES = 1000
MANY_CLASSES = 100  # above which whole numbers are asked about
FEW_VALUES = 20  # whole numbers written as reals: up to so many may be classes
ASK = "say --task classification if each is a class, or --task regression if they are amounts"


@dataclass(frozen=True)
class Targets:
    """Checked targets of the training set.

    Attributes:
        task: "classification" or "regression".
        values: class numbers (n,) int64; or soft labels (n, n_out) float64; or real targets
            (n, n_out) float64.
        n_out: outputs the network needs: the number of classes; 1 for two classes with a single
            sigmoid output; the number of real targets.
        classes: number of classes, 0 for regression.
        where: file and array, for error messages.
        names: of the classes, in order; None: they are numbers from 0 on.
    """

    task: str
    values: Array
    n_out: int
    classes: int
    where: str
    names: tuple[str, ...] | None = None

    @classmethod
    def deduce(
        cls,
        y: npt.ArrayLike,
        output: str | None = None,
        loss: str | None = None,
        where: str = "targets",
        task: str | None = None,
        by_value: bool = False,
    ) -> Self:
        """Deduce the task from the targets, and from output and loss as far as they are given.

        Integer (or bool) targets, one per row, are class numbers, and integer rows with a single
        1 among zeros are one-hot classes: classification, unless the output is identity or the
        loss is one of regression's without softmax. Real targets are regression, unless the loss
        is a cross-entropy (or the output softmax, with no loss given): then several per row are
        soft labels, and one per row must be whole numbers.

        By value, as a table has them, classes are the different values, text or numbers, in sorted
        order, and real numbers that are whole and at most two different ones are classes, too.

        Args:
            y: (n,) or (n, ...) numbers.
            output: name of the output activation, if given.
            loss: name of the loss, if given.
            where: file and array, for error messages.
            task: if it is given, it decides.
            by_value: whether classes are the different values, not numbers from 0 on. Text is
                always taken by value.

        Raises:
            InputError: no numbers, NaN or infinity, labels negative or not integers, an
                implausible number of classes; whole numbers that may be either, where no task,
                output or loss decides.
        """
        if is_text(y):
            if task == REGRESSION or output == "identity" or _are_amounts(output, loss):
                what = f"text, as {_first(y)!r}, where numbers are expected"
                raise InputError(what, where, "choose another target, or --task classification")
            return cls._by_value(np.asarray(y), output, loss, where)
        Y = _checked(y, where)  # (n, k)
        by_value = (by_value or Y.dtype.kind == "b") and Y.shape[1] == 1
        if task is None and output is None and loss is None and Y.shape[1] == 1:
            task = _plausible(Y[:, 0], by_value, where)
        labels = _are_labels(Y, output, loss) if task is None else task == CLASSIFICATION
        if labels and by_value:
            return cls._by_value(Y[:, 0], output, loss, where)
        if not labels:
            return cls(REGRESSION, Y.astype(np.float64), Y.shape[1], 0, where)
        if Y.shape[1] > 1:
            values = _classes_of_rows(Y, loss, where)
            return cls(CLASSIFICATION, values, Y.shape[1], Y.shape[1], where)
        values = _class_numbers(Y[:, 0], where)
        classes = _count_classes(values, where)
        n_out = _outputs(classes, output, loss)
        return cls(CLASSIFICATION, values, n_out, classes, where)

    @classmethod
    def _by_value(cls, y: Array, output: str | None, loss: str | None, where: str) -> Self:
        """Classes from the different values of ``y`` (n,)."""
        y = y.reshape(-1)
        if is_text(y):
            check_different(dict.fromkeys(map(str, y.tolist())), where)
        different, values = np.unique(_sortable(y), return_inverse=True)
        if len(different) == 1:
            what = f"every label is {different[0]}: there is only one class"
            remedy = "give at least two classes, or use --task regression"
            raise InputError(what, where, remedy)
        if is_text(y) and _too_many(len(different), len(y)):
            what = f"{len(different)} different texts in {len(y)} rows are no classes"
            raise InputError(what, where, "choose another column with --target")
        names = tuple(canonical(value) or "" for value in different.tolist())
        n_out = _outputs(len(names), output, loss)
        return cls(CLASSIFICATION, values.astype(np.int64), n_out, len(names), where, names)

    def check(self, y: npt.ArrayLike, where: str = "test targets") -> Array:
        """Targets of another set (test, evaluation), checked against these: as ``values``.

        Raises:
            InputError: as ``deduce``; a label beyond the training classes; another number of
                targets per row.
        """
        return check_like(y, self.task, self.n_out, self.classes, where, self.names)

    def description(self) -> str:
        """Task, classes or number of targets, in words."""
        if self.task == REGRESSION:
            k = self.values.shape[1]
            return "regression" if k == 1 else f"regression, {k} targets"
        names = list(self.names or map(str, range(self.classes)))
        shown = names if len(names) <= 6 else [*names[:3], "...", names[-1]]
        return printable(
            f"classification, {self.classes} classes ({', '.join(n[:30] for n in shown)})"
        )


def check_like(
    y: npt.ArrayLike,
    task: str,
    n_out: int,
    classes: int,
    where: str,
    names: Sequence[str] | None = None,
) -> Array:
    """Targets for a network that was trained for ``task`` with ``n_out`` outputs.

    Returns:
        class numbers (n,) int64, soft labels (n, n_out) or real targets (n, n_out) float64.

    Raises:
        InputError: they do not fit.
    """
    if is_text(y) and names is None:
        what = f"text, as {_first(y)!r}, where the training set had numbers"
        raise InputError(what, where, "give the training set's targets")
    if names is not None and np.ndim(y) == 1:
        return _numbered(np.asarray(y), names, where)
    Y = _checked(y, where)  # (n, k)
    if task == CLASSIFICATION and Y.shape[1] == 1:
        labels = _class_numbers(Y[:, 0], where)
        _refuse(
            labels >= classes,
            labels,
            f"is beyond the {classes} classes of the training set (0 to {classes - 1})",
            where,
            "use the training set's class numbers, or train with this class",
        )
        return labels
    if Y.shape[1] != n_out:
        raise InputError(
            f"{Y.shape[1]} targets per row, the training set has {n_out}",
            where=where,
            remedy="give the same target columns as in training",
        )
    return _classes_of_rows(Y, None, where) if task == CLASSIFICATION else Y.astype(np.float64)


def is_text(y: npt.ArrayLike) -> bool:
    """Whether targets are text: numpy's, or Python's strings in an array of objects."""
    try:
        array = np.asarray(y)
    except (ValueError, TypeError):  # rows of several lengths: refused later
        return False
    texts = array.dtype.kind == "O" and any(isinstance(value, str) for value in array.flat)
    return array.dtype.kind == "U" or texts


def _first(y: npt.ArrayLike) -> str:
    return next(str(value)[:40] for value in np.asarray(y).flat if isinstance(value, str))


def _numbered(y: Array, names: Sequence[str], where: str) -> Array:
    """Class numbers (n,) int64 of labels by their names."""
    index = numbered(names)
    if tuple(names) == ("False", "True") and y.dtype.kind in "iu":
        index = {"0": 0, "1": 1}
    different, inverse = np.unique(_sortable(y), return_inverse=True)
    numbers = np.array([index.get(canonical(value), -1) for value in different.tolist()])
    unknown = numbers[inverse] < 0
    if unknown.any():
        row = int(unknown.argmax())
        listed = ", ".join(names[:20])
        what = f"class {str(y[row])[:40]!r} is none of the training set's {len(names)}"
        place = f"{where}, row {row} (counted from 0)"
        raise InputError(what, place, f"they are {listed[:200]}; leave such rows out")
    return numbers[inverse].astype(np.int64)


def _sortable(y: Array) -> Array:
    """Labels that numpy can sort: text as it is canonical, numbers as they are."""
    if y.dtype.kind == "U" or y.dtype.kind == "O":
        return np.array([canonical(value) for value in y.tolist()], object)
    return y


def _plausible(y: Array, by_value: bool, where: str) -> str | None:
    """The task that values (n,) leave no doubt of; None: their type says it.

    Raises:
        InputError: whole numbers that may be classes or amounts.
    """
    if y.dtype.kind == "b" or (y.dtype.kind == "f" and not by_value):
        return None
    if y.dtype.kind == "f":
        if not (y == np.trunc(y)).all():
            return REGRESSION
        different = len(np.unique(y))
        if different <= 2:
            return CLASSIFICATION
        if different > FEW_VALUES or _too_many(different, len(y)):
            return REGRESSION
        what = f"{different} different whole numbers, written as real ones"
        raise InputError(what, where, ASK)
    classes = len(np.unique(y))
    if classes > MANY_CLASSES or (by_value and _too_many(classes, len(y))):
        what = f"{classes} different whole numbers in {len(y)} rows"
        raise InputError(what, where, ASK)
    return None


def _too_many(classes: int, rows: int) -> bool:
    """Whether classes have fewer than two rows on average."""
    return rows < 2 * classes


def _outputs(classes: int, output: str | None, loss: str | None) -> int:
    """Outputs that a network needs for so many classes."""
    sigmoid = output == "sigmoid" or (output is None and loss == "binary-cross-entropy")
    return 1 if sigmoid and classes == 2 else classes


def _checked(y: npt.ArrayLike, where: str) -> Array:
    try:
        Y = np.asarray(y)
    except (ValueError, TypeError) as error:
        raise InputError("not an array", where=where, remedy="give numbers (n,)") from error
    check_numeric(Y.dtype, where)
    check_shape(Y.shape, where)
    Y = Y.reshape(len(Y), -1)
    if Y.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            Y = Y.astype(np.float64, copy=False)
        check_finite(Y, lambda row, column: f"{where}, {place_of(row, column)}")
    return Y


def _are_labels(Y: Array, output: str | None, loss: str | None) -> bool:
    if loss in LABEL_LOSSES or (loss is None and output == "softmax"):
        return True
    if output == "identity" or _are_amounts(output, loss) or Y.dtype.kind == "f":
        return False
    return Y.shape[1] == 1 or _one_hot(Y)


def _are_amounts(output: str | None, loss: str | None) -> bool:
    """Whether the loss is one of regression; but softmax, which is for classes, takes any."""
    return loss in REAL_LOSSES and output != "softmax"


def _one_hot(Y: Array) -> bool:
    return bool(((Y == 0) | (Y == 1)).all() and (np.count_nonzero(Y, axis=1) == 1).all())


def _classes_of_rows(Y: Array, loss: str | None, where: str) -> Array:
    """Class numbers of one-hot integers, otherwise soft labels as float64, checked."""
    if Y.dtype.kind != "f" and _one_hot(Y):
        return Y.argmax(axis=1)
    most = 1 if loss == "binary-cross-entropy" else np.inf
    bad = (Y < 0) | (Y > most)  # noqa: SIM300
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise InputError(
            f"soft label {Y[row, column]:g} is no probability",
            where=f"{where}, {place_of(row, column)}",
            remedy="give probabilities, or use --task regression",
        )
    return Y.astype(np.float64)


def _class_numbers(y: Array, where: str) -> Array:
    """Labels (n,) as int64, checked; not yet against a number of classes."""
    remedy = "class numbers start at 0; use --task regression if this is one"
    if y.dtype.kind == "f":
        _refuse(y != np.floor(y), y, "is no class number: labels must be integers", where, remedy)
    if y.dtype.kind != "b":
        _refuse(y < 0, y, "is negative: labels are class numbers", where, remedy)
    beyond = np.zeros(len(y), bool) if y.dtype.kind == "b" else y >= 2**31
    _refuse(beyond, y, "is too large for a class number", where, remedy)
    return y.astype(np.int64)


def _count_classes(labels: Array, where: str) -> int:
    classes = int(labels.max()) + 1
    if classes > max(FEW_CLASSES, len(labels)):
        raise InputError(
            f"the largest label {classes - 1} means {classes} classes for {len(labels)} rows",
            where=where,
            remedy="number the classes from 0 without gaps,"
            " or use --task regression if this is one",
        )
    if classes == 1:
        raise InputError(
            "every label is 0: there is only one class",
            where=where,
            remedy="give at least two classes, or use --task regression",
        )
    return classes


def _refuse(bad: Array, y: Array, what: str, where: str, remedy: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(
            f"label {y[row]:g} {what}", where=f"{where}, row {row} (counted from 0)", remedy=remedy
        )
