"""Metrics of classes and of real targets, as pure functions of rows; weights as scikit-learn's.

Weights ``w`` (n,) are float64; without any, every row counts 1 and counts are exact.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Numbers = NDArray[np.integer[Any]]

CLASS_METRICS = ("accuracy", "balanced-accuracy", "f1", "auc")
REAL_METRICS = ("rmse", "mae", "r2")
SMALLER_IS_BETTER = ("loss", "rmse", "mae")

MOST_CONFUSED = 100  # classes of a confusion matrix, which has their square of numbers
MOST_LISTED = 1000  # classes or targets whose own figures are listed


class ClassCounts(NamedTuple):
    """For each of C classes, the summed weights of rows.

    Attributes:
        hits: decided for it, rightly.
        truths: of the class.
        decisions: decided for it.
    """

    hits: Array
    truths: Array
    decisions: Array

    @classmethod
    def of(cls, truth: Numbers, decided: Numbers, classes: int, w: Array | None) -> "ClassCounts":
        """Count rows (n,) by their class and the one that was decided for."""
        right = truth == decided
        return cls(
            _counted(truth[right], classes, None if w is None else w[right]),
            _counted(truth, classes, w),
            _counted(decided, classes, w),
        )

    @property
    def recall(self) -> Array:
        """hits / truths (C,), 0 where a class has no rows."""
        return _share(self.hits, self.truths)

    @property
    def precision(self) -> Array:
        """hits / decisions (C,), 0 where none was for the class."""
        return _share(self.hits, self.decisions)

    @property
    def f1(self) -> Array:
        """The harmonic mean of precision and recall (C,): 2 hits / (truths + decisions)."""
        return _share(2 * self.hits, self.truths + self.decisions)

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall of the classes that have rows."""
        return float(self.recall[self.truths > 0].mean())

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the classes that have rows, or decisions for them."""
        return float(self.f1[self.truths + self.decisions > 0].mean())


def confusion(truth: Numbers, decided: Numbers, classes: int, w: Array | None) -> Array:
    """The weight of rows (C, C) by class and by what was decided; integers without weights."""
    pairs = truth.astype(np.intp) * classes + decided
    return _counted(pairs, classes * classes, w).reshape(classes, classes)


def roc_auc(positive: NDArray[np.bool_], scores: Array, w: Array | None) -> float:
    """The chance that a positive row has a higher score than a negative one; ties count half.

    That is the area under the ROC curve, exactly (Hanley and McNeil 1982). NaN where there are not
    both kinds of rows, or a score is NaN.
    """
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])  # of equal scores
    weight = np.ones(len(scores), np.int64) if w is None else w[order]
    positives = np.add.reduceat(np.where(positive[order], weight, 0), starts)
    negatives = np.add.reduceat(np.where(positive[order], 0, weight), starts)
    below = np.cumsum(negatives) - negatives
    pairs = float(positives.sum()) * float(negatives.sum())
    if pairs == 0 or np.isnan(ordered[-1]):
        return float("nan")
    return float((positives * (below + 0.5 * negatives)).sum() / pairs)


def log_losses(A: Array, T: Array) -> Array:
    """-sum of t ln a of each row (b,) in float64, of outputs A and targets T (b, n_L).

    Outputs are kept off 0 and 1 by the spacing of their type at 1, as scikit-learn's ``log_loss``
    does. A single output a stands for the pair (1 - a, a).
    """
    least = np.finfo(A.dtype).eps
    P = np.clip(A.astype(np.float64), least, 1 - least)
    if A.shape[1] > 1:
        return -np.sum(T * np.log(P), axis=1)
    return -(T * np.log(P) + (1 - T) * np.log1p(-P))[:, 0]


def r2(residual: Array, deviation: Array) -> Array:
    """1 - residual / deviation of each target; NaN for one that is constant.

    Args:
        residual: sums of squared differences from the outputs.
        deviation: sums of squared differences from the mean.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return 1 - np.where(deviation > 0, residual / deviation, np.nan)


def deviation(T: Array, w: Array | None) -> Array:
    """Sum of squared differences of targets (n, k) from their mean, in float64 (k,)."""
    T = T.astype(np.float64)
    if w is None:
        return np.square(T - T.mean(axis=0)).sum(axis=0)
    column = w[:, None]
    mean = (column * T).sum(axis=0) / w.sum()
    return (column * np.square(T - mean)).sum(axis=0)


def _counted(numbers: Numbers, length: int, w: Array | None) -> Array:
    """bincount: int64 without weights; it adds weights in the order of the rows."""
    return np.bincount(numbers, w, length)


def _share(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
