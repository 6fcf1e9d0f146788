"""Targets: the task (classification or regression) is deduced from them, and they are checked."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from distnn.data.rows import Array, check_finite, check_numeric, check_shape, place_of
from distnn.errors import InputError

CLASSIFICATION = "classification"
REGRESSION = "regression"

LABEL_LOSSES = ("cross-entropy", "binary-cross-entropy")
REAL_LOSSES = ("mean-absolute-error", "huber")
FEW_CLASSES = 1000


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
    """

    task: str
    values: Array
    n_out: int
    classes: int
    where: str

    @classmethod
    def deduce(
        cls,
        y: npt.ArrayLike,
        output: str | None = None,
        loss: str | None = None,
        where: str = "targets",
    ) -> Self:
        """Deduce the task from the targets, and from output and loss as far as they are given.

        Integer (or bool) targets, one per row, are class numbers, and integer rows with a single
        1 among zeros are one-hot classes: classification, unless the output is identity or the
        loss is one of regression's. Real targets are regression, unless the loss is a
        cross-entropy (or the output softmax, with no loss given): then several per row are soft
        labels, and one per row must be whole numbers.

        Args:
            y: (n,) or (n, ...) numbers.
            output: name of the output activation, if given.
            loss: name of the loss, if given.
            where: file and array, for error messages.

        Raises:
            InputError: no numbers, NaN or infinity, labels negative or not integers, an
                implausible number of classes.
        """
        Y = _checked(y, where)  # (n, k)
        if not _are_labels(Y, output, loss):
            return cls(REGRESSION, Y.astype(np.float64), Y.shape[1], 0, where)
        if Y.shape[1] > 1:
            values = _classes_of_rows(Y, loss, where)
            return cls(CLASSIFICATION, values, Y.shape[1], Y.shape[1], where)
        labels = _class_numbers(Y[:, 0], where)
        classes = _count_classes(labels, where)
        sigmoid = output == "sigmoid" or (output is None and loss == "binary-cross-entropy")
        n_out = 1 if sigmoid and classes == 2 else classes
        return cls(CLASSIFICATION, labels, n_out, classes, where)

    def check(self, y: npt.ArrayLike, where: str = "test targets") -> Array:
        """Targets of another set (test, evaluation), checked against these: as ``values``.

        Raises:
            InputError: as ``deduce``; a label beyond the training classes; another number of
                targets per row.
        """
        return check_like(y, self.task, self.n_out, self.classes, where)


def check_like(y: npt.ArrayLike, task: str, n_out: int, classes: int, where: str) -> Array:
    """Targets for a network that was trained for ``task`` with ``n_out`` outputs.

    Returns:
        class numbers (n,) int64, soft labels (n, n_out) or real targets (n, n_out) float64.

    Raises:
        InputError: they do not fit.
    """
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
    if output == "identity" or loss in REAL_LOSSES or Y.dtype.kind == "f":
        return False
    return Y.shape[1] == 1 or _one_hot(Y)


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
            remedy="give probabilities, or use --output identity for regression",
        )
    return Y.astype(np.float64)


def _class_numbers(y: Array, where: str) -> Array:
    """Labels (n,) as int64, checked; not yet against a number of classes."""
    remedy = "class numbers start at 0; use --output identity if this is a regression"
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
            " or use --output identity if this is a regression",
        )
    if classes == 1:
        raise InputError(
            "every label is 0: there is only one class",
            where=where,
            remedy="give at least two classes, or use --output identity for a regression",
        )
    return classes


def _refuse(bad: Array, y: Array, what: str, where: str, remedy: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(
            f"label {y[row]:g} {what}", where=f"{where}, row {row} (counted from 0)", remedy=remedy
        )
