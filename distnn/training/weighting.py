"""Weights of rows and classes, as the passes use them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from distnn.errors import InputError
from distnn.nn.network import decide
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.shared_memory import SharedMemory
from distnn.training.dataset import Dataset

Array = NDArray[Any]

LARGEST, SMALLEST = 1e15, 1e-15  # of weights above 0: sums of their losses stay sound in float32


def checked_weights(weights: Any, n: int, where: str) -> Array:
    """Weights of n rows as (n,) float64.

    Raises:
        InputError: not n numbers, NaN, infinity or negative ones, or very large or small ones.
    """
    try:
        w = np.asarray(weights)
        w = w.astype(np.float64) if w.dtype.kind in "biuf" else np.empty(0)
    except (TypeError, ValueError):
        w = np.empty(0)
    if w.shape != (n,):
        raise InputError("is not one number for each row", where, f"give {n} weights")
    wrong = ~((w >= SMALLEST) & (w <= LARGEST) | (w == 0))
    if wrong.any():
        row = int(wrong.argmax())
        what = f"the weight {w[row]:g} of row {row} (counted from 0) cannot be used"
        remedy = f"weights are 0 or from {SMALLEST:g} to {LARGEST:g}"
        raise InputError(what, where, remedy)
    return w


def check_some(dataset: Dataset, where: str) -> None:
    """InputError if every row of a data set has the weight 0."""
    if dataset.weights is not None and not dataset.weights.any():
        raise InputError("every weight is 0", where, "give one row at least a weight above 0")


def balance(comm: Communicator, memory: SharedMemory, dataset: Dataset) -> None:
    """Multiply the weights of rows by those of their classes. Collective.

    The weight of class c is n / (C n_c), with n_c of the n rows and C classes that have any, as
    scikit-learn's ``class_weight="balanced"`` has it, so that classes weigh the same in all.
    """
    if dataset.weights is None:
        dataset.weights = memory.array((len(dataset),), np.float64)
        fresh = True
    else:
        fresh = False
    if comm.node_rank == 0:  # every node has all targets: each does the same
        labels = dataset.T[:, 0] if dataset.classes else decide(dataset.T)
        counts = np.bincount(labels)
        of_class = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))  # (C,)
        if fresh:
            dataset.weights[:] = 1
        dataset.weights *= of_class[labels]
    comm.node_comm.Barrier()


def check_smoothing(share: float, is_classification: bool) -> None:
    """InputError if labels are to be smoothed where there are none."""
    if share and not is_classification:
        raise InputError("a regression has no labels", "label-smoothing", "leave it out")


def check_class_weight(kind: str | None, is_classification: bool) -> None:
    """InputError if classes are to be balanced where there are none."""
    if kind is not None and not is_classification:
        raise InputError("a regression has no classes", "class-weight", "leave it out")
