"""The confusion matrix of a classification, and each class's scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distnn.report.palette import DARK, LEVELS, LIGHT
from distnn.report.png import data_uri

MOST_CLASSES = 2000
MOST_CELLS = 24  # classes whose matrix is a table; more are a picture
PAIRS = 12  # of classes that are taken for each other
LONGEST_NAME = 60

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """How often a class was taken for one."""

    count: float
    level: int
    share: float


@dataclass(frozen=True)
class Scores:
    """One class's scores; NaN where a denominator is 0."""

    name: str
    precision: float
    recall: float
    f1: float
    items: float


@dataclass(frozen=True)
class Confusion:
    """What is shown of a confusion matrix.

    Attributes:
        rows: for few classes, one per true class.
        light, dark: for many, pictures of it.
        pairs: (true, predicted, count, share of the true class), the largest first.
    """

    names: tuple[str, ...]
    items: float
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    scores: tuple[Scores, ...]
    rows: tuple[tuple[Cell, ...], ...] = ()
    light: str = ""
    dark: str = ""
    pairs: tuple[tuple[str, str, float, float], ...] = ()


def confusion(counts: Any, names: Sequence[Any] | None) -> Confusion | None:
    """The view of a matrix [true class][predicted class]; None if it is none.

    Args:
        counts: (classes, classes), of numbers of items or sums of their weights.
        names: of the classes; None for their numbers.
    """
    C = _matrix(counts)
    if C is None:
        return None
    K = len(C)
    known = names if names is not None and len(names) == K else range(K)
    labels = tuple(str(name)[:LONGEST_NAME] for name in known)
    true, predicted, right = C.sum(axis=1), C.sum(axis=0), np.diag(C)
    with np.errstate(all="ignore"):
        recall, precision = right / true, right / predicted
        f1 = 2 * right / (true + predicted)
        shares = np.nan_to_num(C / true[:, None])
    scores = zip(
        labels, precision.tolist(), recall.tolist(), f1.tolist(), true.tolist(), strict=True
    )
    view = Confusion(
        labels,
        float(C.sum()),
        float(right.sum() / max(C.sum(), 1e-300)),
        float(np.nanmean(recall)) if np.isfinite(recall).any() else np.nan,
        float(np.nanmean(f1)) if np.isfinite(f1).any() else np.nan,
        tuple(Scores(*one) for one in scores),
        pairs=_pairs(C, shares, labels),
    )
    levels = _levels(shares)
    if K <= MOST_CELLS:
        return _with(view, rows=_cells(C, levels, shares))
    return _with(view, light=data_uri(levels, LIGHT.ramp), dark=data_uri(levels, DARK.ramp))


def _with(view: Confusion, **more: Any) -> Confusion:
    return Confusion(**{**vars(view), **more})


def _matrix(counts: Any) -> Matrix | None:
    if not isinstance(counts, list | np.ndarray) or not 2 <= len(counts) <= MOST_CLASSES:
        return None
    if any(not hasattr(row, "__len__") or len(row) != len(counts) for row in counts):
        return None
    try:
        C = np.array(counts, np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    sound = C.ndim == 2 and np.isfinite(C).all() and (C >= 0).all() and C.sum() < 1e300
    return C if sound else None


def _levels(shares: Matrix) -> NDArray[np.uint8]:
    """0 for none, else 1 to LEVELS - 1."""
    return np.minimum(np.ceil(shares * (LEVELS - 1)), LEVELS - 1).astype(np.uint8)


def _cells(C: Matrix, levels: NDArray[np.uint8], shares: Matrix) -> tuple[tuple[Cell, ...], ...]:
    return tuple(
        tuple(Cell(*one) for one in zip(*row, strict=True))
        for row in zip(C.tolist(), levels.tolist(), shares.tolist(), strict=True)
    )


def _pairs(
    C: Matrix, shares: Matrix, names: Sequence[str]
) -> tuple[tuple[str, str, float, float], ...]:
    wrong = C.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    places = zip(*np.unravel_index(order, C.shape), strict=True)
    return tuple(
        (names[t], names[p], float(C[t, p]), float(shares[t, p]))
        for t, p in places
        if wrong[t, p] > 0
    )
