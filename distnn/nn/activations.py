"""Activation functions h and their derivatives, element by element, in place.

An activation is a pair: ``value`` computes A = h(Z), ``times_derivative`` computes D *= h'(Z).
The derivative is taken from the output A wherever h' can be written in A (documents 002 and 003:
tanh' = 1 - A*A; document 000: sigmoid' = A * (1 - A)), so that Z need not be kept.

All arrays are of one shape, (b, n) or (k, b, n); nothing is allocated. Where a constant is combined
with every element, it stands in an array: numpy's maximum and minimum are three times slower with a
scalar.
"""

from collections.abc import Callable
from math import pi, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from distnn.nn.layout import Array, aligned

# A 0-d array is the cheapest scalar for a ufunc; it serves float64 vectors, too.
ONE = np.array(1, np.float32)
LEAK = 0.01  # slope of leaky-relu left of 0 (Maas, Hannun, Ng 2013)


class Space(NamedTuple):
    """Working space (b, n) or (k, b, n): ``scratch``, ``mask`` to write to, ``zeros`` to read."""

    scratch: Array
    mask: NDArray[np.bool_]
    zeros: Array


class Activation(NamedTuple):
    """One row of the table.

    Attributes:
        value: ``value(Z, A, space)`` writes h(Z) into A; A may be Z.
        times_derivative: ``times_derivative(D, A, Z, space)`` does D *= h'(Z) from the output A.
            Where ``from_net_input`` is False, Z is not read (it may be A);
            where it is True, Z is overwritten as working space.
        initial: name of the initial weights that suit a layer with this activation.
        from_net_input: the derivative needs Z, which is then kept apart from A.
    """

    value: Callable[[Array, Array, Space], None]
    times_derivative: Callable[[Array, Array, Array, Space], None]
    initial: str
    from_net_input: bool = False


def sigmoid(Z: Array, A: Array, space: Space) -> None:
    """A = 1 / (1 + exp(-Z)). For Z << 0 the exponential is inf and A is 0, as it should be."""
    np.negative(Z, A)
    np.exp(A, A)
    np.add(A, ONE, A)
    np.divide(ONE, A, A)  # numpy's reciprocal takes twice as long


def times_sigmoid_derivative(D: Array, A: Array, Z: Array, space: Space) -> None:
    """D *= A * (1 - A)."""
    scratch = space.scratch
    np.subtract(ONE, A, scratch)
    np.multiply(scratch, A, scratch)
    np.multiply(D, scratch, D)


def tanh(Z: Array, A: Array, space: Space) -> None:
    """A = tanh(Z)."""
    np.tanh(Z, A)


def times_tanh_derivative(D: Array, A: Array, Z: Array, space: Space) -> None:
    """D *= 1 - A * A."""
    scratch = space.scratch
    np.multiply(A, A, scratch)
    np.subtract(ONE, scratch, scratch)
    np.multiply(D, scratch, D)


def relu(Z: Array, A: Array, space: Space) -> None:
    """A = max(Z, 0)."""
    np.maximum(Z, space.zeros, out=A)


def times_relu_derivative(D: Array, A: Array, Z: Array, space: Space) -> None:
    """D *= 1 where A > 0, else 0 (also at 0)."""
    np.multiply(D, _one_right_of_0(A, space), D)


def _one_right_of_0(A: Array, space: Space) -> Array:
    """1 where A > 0, else 0, as floats: a product with floats is the fast one."""
    np.greater(A, 0, space.mask)
    np.copyto(space.scratch, space.mask)
    return space.scratch


def leaky_relu(Z: Array, A: Array, space: Space) -> None:
    """A = Z where Z > 0, else LEAK * Z: the larger of the two."""
    scratch = space.scratch
    np.multiply(Z, LEAK, scratch)
    np.maximum(Z, scratch, out=A)


def times_leaky_relu_derivative(D: Array, A: Array, Z: Array, space: Space) -> None:
    """D *= 1 where A > 0, else LEAK."""
    slope = _one_right_of_0(A, space)
    np.maximum(slope, LEAK, out=slope)
    np.multiply(D, slope, D)


def elu(Z: Array, A: Array, space: Space) -> None:
    """A = Z where Z > 0, else exp(Z) - 1 (Clevert, Unterthiner, Hochreiter 2016, alpha = 1).

    exp(Z) - 1 >= Z everywhere, so left of 0 the larger of the two is the right one; right of 0
    the minimum keeps the exponential from overflowing.
    """
    scratch = space.scratch
    np.minimum(Z, space.zeros, out=scratch)
    np.expm1(scratch, scratch)
    np.maximum(Z, scratch, out=A)


def times_elu_derivative(D: Array, A: Array, Z: Array, space: Space) -> None:
    """D *= 1 where A > 0, else exp(Z) = A + 1."""
    scratch = space.scratch
    np.minimum(A, space.zeros, out=scratch)
    np.add(scratch, ONE, scratch)
    np.multiply(D, scratch, D)


def softplus(Z: Array, A: Array, space: Space) -> None:
    """A = ln(1 + exp(Z)) = max(Z, 0) + ln(1 + exp(-|Z|)): the exponential cannot overflow."""
    scratch = space.scratch
    np.absolute(Z, scratch)
    np.negative(scratch, scratch)
    np.exp(scratch, scratch)
    np.log1p(scratch, scratch)
    np.maximum(Z, space.zeros, out=A)
    np.add(A, scratch, A)


def times_softplus_derivative(D: Array, A: Array, Z: Array, space: Space) -> None:
    """D *= sigmoid(Z) = 1 - exp(-A)."""
    scratch = space.scratch
    np.negative(A, scratch)
    np.expm1(scratch, scratch)
    np.negative(scratch, scratch)
    np.multiply(D, scratch, D)


def identity(Z: Array, A: Array, space: Space) -> None:
    """A = Z."""
    if A is not Z:
        np.copyto(A, Z)


def times_identity_derivative(D: Array, A: Array, Z: Array, space: Space) -> None:
    """D *= 1."""


# gelu. The exact form is Z * Phi(Z) with the normal distribution function, which needs erf;
# numpy has none. This is the tanh form of the same paper (Hendrycks and Gimpel 2016, section 2),
# 0.5 Z (1 + tanh(u)), written with 0.5 (1 + tanh(u)) = sigmoid(2u). It differs from the exact
# form by less than 0.0005.
GELU_LINEAR = 2 * sqrt(2 / pi)  # 2u = GELU_LINEAR * Z + GELU_CUBIC * Z**3
GELU_CUBIC = GELU_LINEAR * 0.044715


def _gelu_gate(Z: Array, S: Array) -> None:
    """S = sigmoid(2u)."""
    np.multiply(Z, Z, S)
    np.multiply(S, GELU_CUBIC, S)
    np.add(S, GELU_LINEAR, S)
    np.multiply(S, Z, S)
    np.negative(S, S)
    np.exp(S, S)
    np.add(S, ONE, S)
    np.divide(ONE, S, S)


def gelu(Z: Array, A: Array, space: Space) -> None:
    """A = Z * sigmoid(2u), u = sqrt(2/pi) (Z + 0.044715 Z^3)."""
    scratch = space.scratch
    _gelu_gate(Z, scratch)
    np.multiply(Z, scratch, A)


def times_gelu_derivative(D: Array, A: Array, Z: Array, space: Space) -> None:
    """D *= S + A (1 - S) d(2u)/dZ, with S = sigmoid(2u) and A = Z S. Overwrites Z."""
    scratch = space.scratch
    _gelu_gate(Z, scratch)  # scratch = S
    np.multiply(Z, Z, Z)
    np.multiply(Z, 3 * GELU_CUBIC, Z)
    np.add(Z, GELU_LINEAR, Z)  # d(2u)/dZ
    np.multiply(Z, A, Z)
    np.multiply(Z, D, Z)  # D A d(2u)/dZ
    np.multiply(D, scratch, D)  # D S
    np.subtract(ONE, scratch, scratch)
    np.multiply(Z, scratch, Z)
    np.add(D, Z, D)


def make_space(shape: tuple[int, ...], dtype: DTypeLike) -> Space:
    """Working space for arrays of this shape."""
    return Space(aligned(shape, dtype), np.empty(shape, np.bool_), aligned(shape, dtype))


ACTIVATIONS: dict[str, Activation] = {
    "sigmoid": Activation(sigmoid, times_sigmoid_derivative, "glorot"),
    "tanh": Activation(tanh, times_tanh_derivative, "glorot"),
    "relu": Activation(relu, times_relu_derivative, "he"),
    "leaky-relu": Activation(leaky_relu, times_leaky_relu_derivative, "he"),
    "elu": Activation(elu, times_elu_derivative, "he"),
    "gelu": Activation(gelu, times_gelu_derivative, "he", from_net_input=True),
    "softplus": Activation(softplus, times_softplus_derivative, "lecun"),
    "identity": Activation(identity, times_identity_derivative, "lecun"),
}
