"""Losses E(A, T) of the outputs A against the targets T, and dE/dA.

An item's loss is the sum over its outputs (documents 002 and 004: ||a - y||^2), the loss of a
slice the sum over its items, added up in float64. All arrays are of one shape: (b, n_out) of a
slice, or (k, b, n_out) of a stack of slices, whose loss is k numbers.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distnn.nn.layout import Array

Total = float | NDArray[np.float64]
"""Of a slice; (k,) of a stack."""
Pair = tuple[Array, Array]  # working space: two arrays shaped as A

HUBER_DELTA = 1.0  # where huber turns from a parabola into a line (Huber 1964)


class Loss(NamedTuple):
    """One row of the table.

    The backward pass uses the short forms in ``outputs`` for cross-entropy, which stands behind a
    softmax, and for binary cross-entropy, which stands behind a sigmoid.

    Attributes:
        value: ``value(A, T, scratch)``, the sum over the slice.
        gradient: ``gradient(A, T, D)`` writes dE/dA into D.
        lowest, highest: the range of targets the loss is made for.
    """

    value: Callable[[Array, Array, Pair], Total]
    gradient: Callable[[Array, Array, Array], None]
    lowest: float = -np.inf
    highest: float = np.inf


def total(rows: Array) -> Total:
    """Sum of all elements of each slice, added up in float64."""
    if rows.ndim > 2:  # not in one call: numpy might add in another order
        return np.array([total(one) for one in rows])
    return float(np.add.reduce(rows, None, np.float64))


def squared_error(A: Array, T: Array, scratch: Pair) -> Total:
    """Sum of (a - y)^2 (documents 002 and 004)."""
    r = scratch[0]
    np.subtract(A, T, r)
    np.multiply(r, r, r)
    return total(r)


def squared_error_gradient(A: Array, T: Array, D: Array) -> None:
    """D = 2 (A - T)."""
    np.subtract(A, T, D)
    np.add(D, D, D)


def half_squared_error(A: Array, T: Array, scratch: Pair) -> Total:
    """Sum of (t - psi)^2 / 2 (document 000, section 1.1)."""
    return 0.5 * squared_error(A, T, scratch)


def half_squared_error_gradient(A: Array, T: Array, D: Array) -> None:
    """D = psi - t.

    Erratum: section 2.3 of document 000 writes dE/dpsi = psi - E^ with the *error* matrix E^.
    The derivative of (t - psi)^2 / 2 is psi - t, with the target; this is what stands here.
    """
    np.subtract(A, T, D)


def mean_absolute_error(A: Array, T: Array, scratch: Pair) -> Total:
    """Sum of |a - y|; the mean is the one over the batch, as for every loss."""
    r = scratch[0]
    np.subtract(A, T, r)
    np.absolute(r, r)
    return total(r)


def mean_absolute_error_gradient(A: Array, T: Array, D: Array) -> None:
    """D = sign(A - T): 0 where they are equal."""
    np.subtract(A, T, D)
    np.sign(D, D)


def huber(A: Array, T: Array, scratch: Pair) -> Total:
    """Sum of r^2 / 2 where |r| <= delta, else delta (|r| - delta / 2); r = a - y (Huber 1964).

    With c = min(|r|, delta) both are c |r| - c^2 / 2.
    """
    r, c = scratch
    np.subtract(A, T, r)
    np.absolute(r, r)
    np.minimum(r, HUBER_DELTA, out=c)
    np.multiply(r, c, r)
    np.multiply(c, c, c)
    return total(r) - 0.5 * total(c)


def huber_gradient(A: Array, T: Array, D: Array) -> None:
    """D = A - T, clipped to [-delta, delta]."""
    np.subtract(A, T, D)
    np.clip(D, -HUBER_DELTA, HUBER_DELTA, out=D)


def cross_entropy(A: Array, T: Array, scratch: Pair) -> Total:
    """Sum of -y ln a (document 003, eq. 2)."""
    r = scratch[0]
    np.log(A, r)
    np.multiply(r, T, r)
    return -total(r)


def cross_entropy_gradient(A: Array, T: Array, D: Array) -> None:
    """D = -y / a (document 003, eq. 3)."""
    np.divide(T, A, D)
    np.negative(D, D)


def binary_cross_entropy(A: Array, T: Array, scratch: Pair) -> Total:
    """Sum of -y ln a - (1 - y) ln(1 - a)."""
    hit, miss = scratch
    np.log(A, hit)
    np.multiply(hit, T, hit)
    loss = -total(hit)
    np.negative(A, miss)
    np.log1p(miss, miss)
    np.subtract(1, T, hit)
    np.multiply(hit, miss, hit)
    return loss - total(hit)


def binary_cross_entropy_gradient(A: Array, T: Array, D: Array) -> None:
    """D = (a - y) / (a (1 - a))."""
    np.subtract(A, T, D)
    np.divide(D, A, D)
    np.divide(D, 1 - A, D)


LOSSES: dict[str, Loss] = {
    "cross-entropy": Loss(cross_entropy, cross_entropy_gradient, lowest=0),
    "binary-cross-entropy": Loss(
        binary_cross_entropy, binary_cross_entropy_gradient, lowest=0, highest=1
    ),
    "half-squared-error": Loss(half_squared_error, half_squared_error_gradient),
    "squared-error": Loss(squared_error, squared_error_gradient),
    "mean-absolute-error": Loss(mean_absolute_error, mean_absolute_error_gradient),
    "huber": Loss(huber, huber_gradient),
}
