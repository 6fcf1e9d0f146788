"""The last layer: output activation and loss together, from the net input Z to D = dE/dZ.

Together, because some pairs have a short and stable form that neither has alone. An ``Output``
holds the buffers of one slice of b rows, or of a stack of k slices: then all arrays have an axis
more in front, and a loss is k numbers. Nothing is allocated per step.
"""

from typing import Protocol

import numpy as np
from numpy.typing import DTypeLike

from distnn.checks import choice
from distnn.errors import InputError
from distnn.nn.activations import ACTIVATIONS, make_space, sigmoid
from distnn.nn.layout import Array, aligned
from distnn.nn.losses import LOSSES, Total, total

Shape = tuple[int, ...]
"""(b,) of one slice, (k, b) of a stack."""

OUTPUTS: tuple[str, ...] = (*ACTIVATIONS, "softmax")


class Output(Protocol):
    """What the last layer does with its net input Z of shape (b, n_out)."""

    Z: Array

    def activate(self) -> Array:
        """Compute the outputs A (b, n_out) of Z, without a loss. Overwrites Z."""
        ...

    def loss(self, T: Array) -> Total:
        """Compute the outputs of Z and the loss, summed over the rows. Overwrites Z."""
        ...

    def sensitivity(self, T: Array, D: Array, scale: float | Array) -> None:
        """Write scale * dE/dZ into D, after ``loss``."""
        ...

    @property
    def A(self) -> Array:
        """The outputs (b, n_out), after ``loss``."""
        ...


class ElementwiseOutput:
    """Any element-wise activation with any loss: D = dE/dA * h'(Z) (document 003, eq. 5 and 17)."""

    def __init__(self, output: str, loss: str, shape: Shape, n: int, dtype: DTypeLike) -> None:
        self._h = ACTIVATIONS[output]
        self._loss = LOSSES[loss]
        self.Z = aligned((*shape, n), dtype)
        self._A = aligned((*shape, n), dtype)
        self._space = make_space((*shape, n), dtype)
        self._scratch = (self._space.scratch, aligned((*shape, n), dtype))

    @property
    def A(self) -> Array:
        """The outputs (b, n_out)."""
        return self._A

    def activate(self) -> Array:
        """A = h(Z)."""
        self._h.value(self.Z, self._A, self._space)
        return self._A

    def loss(self, T: Array) -> Total:
        """E(A, T), summed over the rows."""
        return self._loss.value(self.activate(), T, self._scratch)

    def sensitivity(self, T: Array, D: Array, scale: float | Array) -> None:
        """D = scale * dE/dA * h'(Z)."""
        self._loss.gradient(self._A, T, D)
        np.multiply(D, scale, D)
        self._h.times_derivative(D, self._A, self.Z, self._space)


class SigmoidCrossEntropy:
    """Sigmoid outputs with binary cross-entropy, from Z: no logarithm of an output that is 0.

    -y ln a - (1 - y) ln(1 - a) = max(z, 0) - y z + ln(1 + exp(-|z|)), and D = A - T.
    """

    def __init__(self, shape: Shape, n: int, dtype: DTypeLike) -> None:
        self.Z = aligned((*shape, n), dtype)
        self._A = aligned((*shape, n), dtype)
        self._space = make_space((*shape, n), dtype)

    @property
    def A(self) -> Array:
        """The outputs (b, n_out)."""
        return self._A

    def activate(self) -> Array:
        """A = sigmoid(Z)."""
        sigmoid(self.Z, self._A, self._space)
        return self._A

    def loss(self, T: Array) -> Total:
        """Binary cross-entropy, summed over rows and outputs. Overwrites Z."""
        self.activate()
        Z, E = self.Z, self._space.scratch
        np.absolute(Z, E)
        np.negative(E, E)
        np.exp(E, E)
        np.log1p(E, E)  # ln(1 + exp(-|z|))
        loss = total(E)
        np.maximum(Z, self._space.zeros, out=E)
        np.multiply(Z, T, Z)
        np.subtract(E, Z, E)  # max(z, 0) - y z
        return loss + total(E)

    def sensitivity(self, T: Array, D: Array, scale: float | Array) -> None:
        """D = scale * (A - T)."""
        np.subtract(self._A, T, D)
        np.multiply(D, scale, D)


class Softmax:
    """Softmax outputs a_i = k_i / k, k_i = exp(z_i), k = sum of k_i (document 003, eq. 18).

    A row's largest z is subtracted first, which changes no a_i and keeps k_i in (0, 1].
    """

    def __init__(self, shape: Shape, n: int, dtype: DTypeLike) -> None:
        self.Z = aligned((*shape, n), dtype)
        self._A = aligned((*shape, n), dtype)
        self._K = aligned((*shape, n), dtype)  # k_i
        self._k, self._largest, self._y, self._row = (aligned(shape, dtype) for _ in range(4))
        self._largest_column, self._row_column = self._largest[..., None], self._row[..., None]
        self._ones = np.ones(n, dtype)
        self._is_stack = len(shape) > 1

    @property
    def A(self) -> Array:
        """The outputs (b, n_out), computed on access: D does not need them."""
        return np.divide(self._K, self._k[..., None], self._A)

    def activate(self) -> Array:
        """A = softmax(Z). Subtracts each row's largest element from Z."""
        self._numerators()
        return self.A

    def _numerators(self) -> None:
        Z, K = self.Z, self._K
        np.maximum.reduce(Z, axis=-1, out=self._largest)
        np.subtract(Z, self._largest_column, Z)
        np.exp(Z, K)
        self._sum_rows(K, self._k)

    def _sum_rows(self, X: Array, sums: Array) -> None:
        """Sums (..., b) of the rows of X (..., b, n), as a product with ones."""
        if self._is_stack:
            np.matmul(X, self._ones, sums)
        else:
            X.dot(self._ones, sums)


class SoftmaxCrossEntropy(Softmax):
    """Softmax with cross-entropy: the short form of document 003, eq. 19, soft labels included."""

    def loss(self, T: Array) -> Total:
        """Sum of -y ln a = y (ln k - z), by log-sum-exp."""
        self._numerators()
        row, y = self._row, self._y
        self._sum_rows(T, y)  # sum of y_i: 1, unless the labels are not probabilities
        np.log(self._k, row)
        if not self._is_stack:
            return float(y.dot(row)) - float(np.vdot(T, self.Z))
        slices = len(T)
        y_z = np.vecdot(T.reshape(slices, -1), self.Z.reshape(slices, -1))
        return np.vecdot(y, row).astype(np.float64) - y_z

    def sensitivity(self, T: Array, D: Array, scale: float | Array) -> None:
        """D = scale * (a_i sum(y) - y_i), with a_i = k_i / k."""
        row = self._row
        np.divide(self._y, self._k, row)
        np.multiply(self._K, self._row_column, D)
        np.subtract(D, T, D)
        np.multiply(D, scale, D)


class SoftmaxJacobian(Softmax):
    """Softmax with any other loss: D = H' dE/dA with the full Jacobian (document 003, eq. 5, 18).

    H'_ii = a_i (1 - a_i) and H'_ij = -a_i a_j, so (H' g)_i = a_i (g_i - sum of a_j g_j).
    """

    def __init__(self, loss: str, shape: Shape, n: int, dtype: DTypeLike) -> None:
        super().__init__(shape, n, dtype)
        self._loss = LOSSES[loss]
        self._scratch = (aligned((*shape, n), dtype), aligned((*shape, n), dtype))

    def loss(self, T: Array) -> Total:
        """E(A, T), summed over the rows."""
        return self._loss.value(self.activate(), T, self._scratch)

    def sensitivity(self, T: Array, D: Array, scale: float | Array) -> None:
        """D = scale * H' dE/dA."""
        A = self._A
        self._loss.gradient(A, T, D)
        np.vecdot(A, D, self._row)
        np.subtract(D, self._row_column, D)
        np.multiply(D, A, D)
        np.multiply(D, scale, D)


def check_pair(output: str, loss: str, n_out: int) -> None:
    """Check that this output activation and this loss make sense together.

    Raises:
        InputError: unknown name, or a pair that makes no sense; the remedy names one that does.
    """
    choice(output, "output", OUTPUTS)
    choice(loss, "loss", LOSSES)
    if output == "softmax" and n_out == 1:
        raise InputError(
            "softmax over one output is always 1",
            where="output",
            remedy="use output sigmoid with loss binary-cross-entropy, or two outputs",
        )
    fitting = {"cross-entropy": "softmax", "binary-cross-entropy": "sigmoid"}
    if loss in fitting and output != fitting[loss]:
        instead = {"softmax": "cross-entropy", "sigmoid": "binary-cross-entropy"}
        remedy = f"use output {fitting[loss]}, or loss {instead.get(output, 'squared-error')}"
        raise InputError(f"{loss} does not fit output {output}", where="loss", remedy=remedy)


def make_output(output: str, loss: str, shape: Shape, n: int, dtype: DTypeLike) -> Output:
    """The last layer with n outputs, for a slice (b,) or a stack (k, b)."""
    if (output, loss) == ("softmax", "cross-entropy"):
        return SoftmaxCrossEntropy(shape, n, dtype)
    if (output, loss) == ("sigmoid", "binary-cross-entropy"):
        return SigmoidCrossEntropy(shape, n, dtype)
    if output == "softmax":
        return SoftmaxJacobian(loss, shape, n, dtype)
    return ElementwiseOutput(output, loss, shape, n, dtype)
