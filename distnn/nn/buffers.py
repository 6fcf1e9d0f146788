"""The arrays of a pass: made once, and seen in the shape of the slices that go through."""

from copy import copy
from math import prod
from typing import Protocol

import numpy as np

from distnn.nn.activations import ACTIVATIONS, Space, make_space
from distnn.nn.layout import Array, Shapes, aligned
from distnn.nn.outputs import make_output
from distnn.nn.products import Arithmetic

Shape = tuple[int, ...]
"""(b,) of one slice, (k, b) of a stack."""


class Model(Protocol):
    """What a pass needs of a `Network`."""

    layers: tuple[int, ...]
    activation: str
    output: str
    loss: str
    dropout: float
    seed: int
    precision: str
    dtype: np.dtype
    shapes: Shapes

    @property
    def weights(self) -> list[Array]:
        """``[W[1], ..., W[L]]``, wherever they lie at the time."""


class Buffers:
    """The memory of a pass: room for ``rows`` rows in every layer.

    h(Z) is kept in a contiguous H and copied into A beside the ones: every pass over a contiguous
    array costs a third of one over A[:, 1:], and with dropout the derivative needs the undropped
    H. A and D_factor are the factors of products, D before it is rounded; A[0] is A0 where nothing
    is rounded. Index 0 and, for what only hidden layers have, index L are unused otherwise.
    """

    def __init__(self, network: Model, rows: int, arithmetic: Arithmetic) -> None:
        dtype, hidden = network.dtype, network.layers[1:-1]
        from_net_input = ACTIVATIONS[network.activation].from_net_input
        nothing = np.empty((0, 0), dtype)
        self.A0 = aligned((rows, 1 + network.layers[0]), dtype)
        self.A0[:, 0] = 1
        self.T = aligned((rows, network.layers[-1]), dtype)
        factor = arithmetic.dtype
        self.A = [self.A0] + [aligned((rows, 1 + n), factor) for n in hidden]
        for A in self.A[1:]:
            A[:, :1] = arithmetic.factor(np.ones((1, 1), dtype))
        self.H = [nothing] + [aligned((rows, n), dtype) for n in hidden]
        self.Z = self.H
        if from_net_input:
            self.Z = [nothing] + [aligned((rows, n), dtype) for n in hidden]
        self.M = self.H
        if network.dropout > 0:
            self.M = [nothing] + [aligned((rows, n), dtype) for n in hidden]
        self.D = [nothing] + [aligned((rows, n), dtype) for n in network.layers[1:]]
        self.D_factor = self.D
        if arithmetic.round:
            self.A[0] = aligned(self.A0.shape, factor)
            self.D_factor = [aligned(D.shape, factor) for D in self.D]
        self.space = make_space((rows, max(hidden, default=0)), dtype)

    def after(self, rows: int) -> "Buffers":
        """What is left of it after so many rows; the working space is the same."""
        rest = copy(self)
        rest.A0, rest.T = self.A0[rows:], self.T[rows:]
        rest.A, rest.H, rest.Z, rest.M, rest.D = (
            [X[rows:] for X in Xs] for Xs in (self.A, self.H, self.Z, self.M, self.D)
        )
        if self.Z is self.H:
            rest.Z = rest.H
        rest.D_factor = rest.D
        if self.D_factor is not self.D:
            rest.D_factor = [X[rows:] for X in self.D_factor]
        return rest


class Views:
    """The first rows of every buffer, in one of the shapes (b,) or (k, b).

    Made once for each shape: there are two or three.
    """

    def __init__(self, buffers: Buffers, network: Model, shape: Shape) -> None:
        def part(X: Array) -> Array:
            return X[: prod(shape)].reshape(*shape, X.shape[1])

        self.A0, self.T = part(buffers.A0), part(buffers.T)
        nothing = buffers.D[0]
        self.A = [part(X) for X in buffers.A]
        self.A_inner = [X[..., 1:] for X in self.A]
        self.At = [X.mT for X in self.A]
        self.H = [nothing] + [part(X) for X in buffers.H[1:]]
        self.Z = self.H
        if buffers.Z is not buffers.H:
            self.Z = [nothing] + [part(X) for X in buffers.Z[1:]]
        self.M = [nothing] + [part(X) for X in buffers.M[1:]]
        self.D = [nothing] + [part(X) for X in buffers.D[1:]]
        self.D_factor = self.D
        if buffers.D_factor is not buffers.D:
            self.D_factor = [nothing] + [part(X) for X in buffers.D_factor[1:]]
        self.space = [_part(buffers.space, H.shape) for H in self.H]
        n_out = network.layers[-1]
        self.out = make_output(network.output, network.loss, shape, n_out, network.dtype)


def _part(space: Space, shape: tuple[int, ...]) -> Space:
    """Contiguous arrays of this shape, at the front of the larger ones."""
    size = prod(shape)
    return Space(
        space.scratch.reshape(-1)[:size].reshape(shape),
        space.mask.reshape(-1)[:size].reshape(shape),
        space.zeros.reshape(-1)[:size].reshape(shape),
    )
