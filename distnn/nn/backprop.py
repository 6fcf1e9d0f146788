"""Forward and backward pass over one slice, as matrices.

    A[0] = rows with a column of ones in front                        (b, 1 + n_0)
    Z[l] = A[l-1] @ W[l]                                              (b, n_l)
    A[l] = h(Z[l]) with a column of ones in front                     (b, 1 + n_l)
    D[L] = dE/dZ[L]                                                   (b, n_L)
    dW[l] = A[l-1].T @ D[l]                                           (1 + n_{l-1}, n_l)
    D[l-1] = (D[l] @ W[l][1:].T) * h'(Z[l-1])                         (b, n_{l-1})

Document 002, eq. (1) and (2), with the rows of a batch in place of its single point (document 000,
sections 1.2 and 2.3).
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from distnn.nn import products
from distnn.nn.activations import ACTIVATIONS, Space, make_space
from distnn.nn.dropout import Dropout
from distnn.nn.layout import Array, Shapes, aligned, blocks, grid
from distnn.nn.outputs import make_output
from distnn.nn.products import Product

Hook = Callable[[int, int], None]
"""Called with a layer, from 1, and the number of one of its blocks, from 0; see `layout.grid`."""


class Model(Protocol):
    """What a pass needs of a `Network`."""

    layers: tuple[int, ...]
    activation: str
    output: str
    loss: str
    dropout: float
    seed: int
    dtype: np.dtype
    shapes: Shapes

    @property
    def weights(self) -> list[Array]:
        """``[W[1], ..., W[L]]``, wherever they lie at the time."""


class SlicePass:
    """Forward and backward pass over up to ``rows`` batch items; nothing is allocated per step.

    The products of a large layer are made in blocks, net inputs by columns of its weights and
    gradients by rows, so that weights can be waited for and gradients sent to another machine block
    by block. How BLAS computes an element depends on the product that it is a part of, so that
    products are cut alike wherever a network is trained, by the shapes of its weights alone.

    Args:
        network: whose weights are used.
        rows: the most rows a slice has.

    Attributes:
        product: ``product(X, Y, out)``, at first that of `products` in use.

    The result for b rows depends on their content and on b alone. A caller silences numpy's
    overflow and underflow warnings around its loop: exp may do either, and both are meant.
    """

    def __init__(self, network: Model, rows: int) -> None:
        self.network = network
        self.rows = rows
        self.product: Product = products.product
        self._buffers = _Buffers(network, rows)
        self._views: dict[int, _Views] = {}
        self._dropout = Dropout(network.dropout, network.seed) if network.dropout > 0 else None
        self._h = ACTIVATIONS[network.activation]
        self._weights: list[Array] = []
        self._transposed: list[Array] = []
        self._A0 = self._T = np.empty((0, 0), network.dtype)
        grids = [grid(shape, network.dtype.itemsize) for shape in network.shapes]
        self._rows = [blocks(row_ends) for row_ends, _ in grids]
        self._columns = [blocks(column_ends) for _, column_ends in grids]

    def input(self, b: int) -> Array:
        """The input buffer A[0] (b, 1 + n_0), with its ones column."""
        return self._view(b).A0

    def target(self, b: int) -> Array:
        """The target buffer T (b, n_L)."""
        return self._view(b).T

    @property
    def output(self) -> Array:
        """A[L] (b, n_L) of the last forward pass: good until the next."""
        return self._v.out.A

    def forward(
        self,
        A0: Array,
        T: Array,
        dropout: tuple[int, int] | None = None,
        before_weights: Hook | None = None,
    ) -> float:
        """Compute the outputs and the loss of b rows.

        Args:
            A0: (b, 1 + n_0) with its ones column: ``input(b)`` or a view of a data set.
            T: (b, n_L) targets. Both are looked at again by ``backward``.
            dropout: (step, slice) in training, to draw the masks from.
            before_weights: called before a block of columns of a layer's weights is used.

        Returns:
            The loss, summed over the rows.
        """
        self._T = T
        self._to_last_net_input(A0, dropout, before_weights)
        return self._v.out.loss(T)

    def outputs(self, A0: Array) -> Array:
        """Compute the outputs A[L] (b, n_L) of b rows, without targets: good until the next."""
        self._to_last_net_input(A0, None, None)
        return self._v.out.activate()

    def backward(
        self, dW: Sequence[Array], scale: float | Array, after_gradient: Hook | None = None
    ) -> None:
        """Compute scale * dE/dW of the rows of the last forward pass, from the last layer down.

        Args:
            dW: matrices shaped as ``network.weights``, layer l at index l - 1; overwritten.
            scale: 1 / items of the whole batch, for gradients of the mean; quickest as a 0-d array.
            after_gradient: called when a block of rows of a layer's gradient is complete.
        """
        v, layers = self._v, len(dW)
        D = v.D
        v.out.sensitivity(self._T, D[layers], scale)
        for l in range(layers, 1, -1):
            self._gradient(l, v.At[l - 1], D[l], dW[l - 1], after_gradient)
            self.product(D[l], self._transposed[l - 1], D[l - 1])
            if self._dropped:
                np.multiply(D[l - 1], v.M[l - 1], D[l - 1])
            self._h.times_derivative(D[l - 1], v.H[l - 1], v.Z[l - 1], v.space[l - 1])
        self._gradient(1, self._A0.T, D[1], dW[0], after_gradient)

    def _to_last_net_input(
        self, A0: Array, dropout: tuple[int, int] | None, before_weights: Hook | None
    ) -> None:
        self._v = v = self._view(len(A0))
        self._A0 = A0
        self._dropped = dropout is not None and self._dropout is not None
        A, last = A0, len(self._see_weights())
        for l in range(1, last):
            self._net_input(l, A, v.Z[l], before_weights)
            self._h.value(v.Z[l], v.H[l], v.space[l])
            if dropout is not None and self._dropout is not None:
                self._dropout.draw(*dropout, l, v.M[l])
                np.multiply(v.H[l], v.M[l], v.A_inner[l])
            else:
                np.copyto(v.A_inner[l], v.H[l])
            A = v.A[l]
        self._net_input(last, A, v.out.Z, before_weights)

    def _net_input(self, l: int, A: Array, Z: Array, before_weights: Hook | None) -> None:
        """Z[l] = A[l-1] @ W[l], by blocks of columns."""
        W = self._weights[l - 1]
        for block, columns in enumerate(self._columns[l - 1]):
            if before_weights is not None:
                before_weights(l, block)
            if columns is None:
                self.product(A, W, Z)
            else:
                self.product(A, W[:, columns], Z[:, columns])

    def _gradient(
        self, l: int, At: Array, D: Array, dW: Array, after_gradient: Hook | None
    ) -> None:
        """dW[l] = A[l-1].T @ D[l], by blocks of rows."""
        for block, rows in enumerate(self._rows[l - 1]):
            if rows is None:
                self.product(At, D, dW)
            else:
                self.product(At[rows], D, dW[rows])
            if after_gradient is not None:
                after_gradient(l, block)

    def _view(self, b: int) -> "_Views":
        v = self._views.get(b)
        if v is None:
            v = self._views[b] = _Views(self._buffers, self.network, b)
        return v

    def _see_weights(self) -> list[Array]:
        W = self.network.weights
        if W is not self._weights:
            self._weights = W
            self._transposed = [w[1:].T for w in W]
        return W


class _Buffers:
    """The memory of a pass: room for ``rows`` rows in every layer.

    h(Z) is kept in a contiguous H and copied into A beside the ones: every pass over a contiguous
    array costs a third of one over A[:, 1:], and with dropout the derivative needs the undropped
    H. Index 0 and, for what only hidden layers have, index L are unused.
    """

    def __init__(self, network: Model, rows: int) -> None:
        dtype, hidden = network.dtype, network.layers[1:-1]
        from_net_input = ACTIVATIONS[network.activation].from_net_input
        nothing = np.empty((0, 0), dtype)
        self.A0 = aligned((rows, 1 + network.layers[0]), dtype)
        self.A0[:, 0] = 1
        self.T = aligned((rows, network.layers[-1]), dtype)
        self.A = [nothing] + [aligned((rows, 1 + n), dtype) for n in hidden]
        for A in self.A[1:]:
            A[:, 0] = 1
        self.H = [nothing] + [aligned((rows, n), dtype) for n in hidden]
        self.Z = self.H
        if from_net_input:
            self.Z = [nothing] + [aligned((rows, n), dtype) for n in hidden]
        self.M = self.H
        if network.dropout > 0:
            self.M = [nothing] + [aligned((rows, n), dtype) for n in hidden]
        self.D = [nothing] + [aligned((rows, n), dtype) for n in network.layers[1:]]
        self.space = make_space(rows, max(hidden, default=0), dtype)


class _Views:
    """The first b rows of every buffer. Made once for each b: there are two or three."""

    def __init__(self, buffers: _Buffers, network: Model, b: int) -> None:
        self.A0, self.T = buffers.A0[:b], buffers.T[:b]
        self.A = [A[:b] for A in buffers.A]
        self.A_inner = [A[:b, 1:] for A in buffers.A]
        self.At = [A[:b].T for A in buffers.A]
        self.H = [H[:b] for H in buffers.H]
        self.Z = self.H if buffers.Z is buffers.H else [Z[:b] for Z in buffers.Z]
        self.M = [M[:b] for M in buffers.M]
        self.D = [D[:b] for D in buffers.D]
        self.space = [_part(buffers.space, H.shape) for H in self.H]
        self.out = make_output(network.output, network.loss, b, network.layers[-1], network.dtype)


def _part(space: Space, shape: tuple[int, ...]) -> Space:
    """Contiguous arrays of this shape, at the front of the larger ones."""
    size = int(np.prod(shape))
    return Space(
        space.scratch.reshape(-1)[:size].reshape(shape),
        space.mask.reshape(-1)[:size].reshape(shape),
        space.zeros.reshape(-1)[:size].reshape(shape),
    )
