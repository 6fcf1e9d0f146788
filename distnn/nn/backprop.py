"""Forward and backward pass over one slice, or a stack of equal slices, as matrices.

    A[0] = rows with a column of ones in front                        (b, 1 + n_0)
    Z[l] = A[l-1] @ W[l]                                              (b, n_l)
    A[l] = h(Z[l]) with a column of ones in front                     (b, 1 + n_l)
    D[L] = dE/dZ[L]                                                   (b, n_L)
    dW[l] = A[l-1].T @ D[l]                                           (1 + n_{l-1}, n_l)
    D[l-1] = (D[l] @ W[l][1:].T) * h'(Z[l-1])                         (b, n_{l-1})

The factors of these products are A, W and D themselves or, in another precision, A, W and D rounded
(`products.Arithmetic`): then Z, dW and D[l-1] are products of rounded numbers, and all else is as
above. Document 002, eq. (1) and (2), with the rows of a batch in place of its single point
(document 000, sections 1.2 and 2.3).

Equal slices may go through a pass together: every array then has an axis more in front, (k, b, n),
and all of the above is done slice by slice with fewer calls.
"""

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from typing import NamedTuple

import numpy as np

from distnn.nn import products
from distnn.nn.activations import ACTIVATIONS
from distnn.nn.buffers import Buffers, Model, Shape, Views
from distnn.nn.dropout import Dropout
from distnn.nn.layout import Array, Block, aligned, blocks, grid
from distnn.nn.products import Product
from distnn.nn.stacks import of_stacks

Hook = Callable[[int, int], None]
"""Called with a layer, from 1, and the number of one of its blocks, from 0; see `layout.grid`."""


class SlicePass:
    """Forward and backward pass over up to ``rows`` batch items; nothing is allocated per step.

    The items are one slice, with arrays (b, n), or a stack of k equal slices, with arrays
    (k, b, n): A0 says which. Each slice of a stack has the bits that it has alone.

    The products of a large layer are made in blocks, net inputs by columns of its weights and
    gradients by rows, so that weights can be waited for and gradients sent to another machine block
    by block. How BLAS computes an element depends on the product that it is a part of, so that
    products are cut alike wherever a network is trained, by the shapes of its weights alone.

    Args:
        network: whose weights are used.
        rows: the most rows that go through together, of all slices.

    Attributes:
        product: ``product(X, Y, out)`` of factors, matrices or stacks, see `stacks.of_stacks`.

    The result for b rows depends on their content and on b alone. A caller silences numpy's
    overflow and underflow warnings around its loop: exp may do either, and both are meant.
    """

    def __init__(self, network: Model, rows: int) -> None:
        self.network = network
        arithmetic = products.arithmetic(network.precision)
        self.product: Product = of_stacks(arithmetic)
        self._round = arithmetic.round
        self._buffers = Buffers(network, rows, arithmetic)
        self._views: dict[Shape, Views] = {}
        self._dropout = Dropout(network.dropout, network.seed) if network.dropout > 0 else None
        self._h = ACTIVATIONS[network.activation]
        self._w: Array | None = None
        self._weights: list[Array] = []
        self._W: list[Array] = []  # factors; where they are rounded, also of the passes beside
        if arithmetic.round:
            self._W = [aligned(shape, arithmetic.dtype) for shape in network.shapes]
        self._transposed: list[Array] = []
        self._A0 = self._T = np.empty((0, 0), network.dtype)
        self._columns = [blocks(grid(W, network.dtype.itemsize)[1]) for W in network.shapes]

    def beside(self, rows: int) -> "SlicePass":
        """Another pass, in the rows of the same buffers that follow the first ``rows``."""
        other = copy(self)
        other._buffers, other._views = self._buffers.after(rows), {}
        return other

    def input(self, *shape: int) -> Array:
        """The input buffer A[0] (b, 1 + n_0) or (k, b, 1 + n_0), with its ones column."""
        return self._view(shape).A0

    def target(self, *shape: int) -> Array:
        """The target buffer T (b, n_L) or (k, b, n_L)."""
        return self._view(shape).T

    def factors(self, A0: Array) -> "list[Factors]":
        """(A[l-1].T, D[l]), layer l at index l - 1: what its gradient is the product of.

        They hold what the last forward and backward pass over A0 left in them.
        """
        v = self._view(A0.shape[:-1])
        At = v.At if self._round else [A0.mT, *v.At[1:]]
        return list(zip(At, v.D_factor[1:], strict=True))

    @property
    def output(self) -> Array:
        """A[L] (..., b, n_L) of the last forward pass: good until the next."""
        return self._v.out.A

    def forward(
        self,
        A0: Array,
        T: Array,
        dropout: tuple[int, int | Iterable[int]] | None = None,
        before_weights: Hook | None = None,
        are_new: bool = True,
        w: Array | None = None,
    ) -> float | Array:
        """Compute the outputs and the loss of b rows, or of k slices of b rows.

        Args:
            A0: (..., b, 1 + n_0) with its ones column: ``input(b)`` or a view of a data set.
            T: (..., b, n_L) targets. Both are looked at again by ``backward``.
            dropout: (step, slice) in training, to draw the masks from; (step, slices) of a stack.
            before_weights: called before a block of columns of a layer's weights is used.
            are_new: False: the weights are those of the last forward pass, or of that of the pass
                that this one is beside; what was rounded of them is used again.
            w: (..., b, 1), what each row's loss is multiplied with, and its gradient; None for 1.

        Returns:
            The loss, summed over the rows of the slice; (k,) of a stack.
        """
        self._T, self._w = T, w
        self._to_last_net_input(A0, dropout, before_weights, are_new)
        return self._v.out.loss(T, w)

    def outputs(self, A0: Array) -> Array:
        """Compute the outputs A[L] (..., b, n_L), without targets: good until the next."""
        self._to_last_net_input(A0, None, None, True)
        return self._v.out.activate()

    def backward(
        self, dW: Sequence[Array], scale: float | Array, after_gradient: Hook | None = None
    ) -> None:
        """Compute scale * dE/dW of the rows of the last forward pass, from the last layer down.

        Args:
            dW: matrices shaped as ``network.weights``, layer l at index l - 1, or stacks of them;
                overwritten.
            scale: 1 / items of the whole batch, for gradients of the mean; quickest as a 0-d array.
            after_gradient: called when a block of rows of a layer's gradient is complete.
        """
        share = Share(self.factors(self._A0), dW, ())
        BackwardPass([self], [share]).run(scale, after_gradient)

    def last_sensitivity(self, scale: float | Array) -> None:
        """D[L], after ``forward``."""
        v = self._v
        v.out.sensitivity(self._T, v.D[-1], scale)
        if self._w is not None:
            np.multiply(v.D[-1], self._w, v.D[-1])
        if self._round:
            self._round(v.D[-1], v.D_factor[-1])

    def sensitivity(self, l: int) -> None:
        """D[l] of a hidden layer, from D[l+1]."""
        v = self._v
        self.product(v.D_factor[l + 1], self._transposed[l], v.D[l])
        if self._dropped:
            np.multiply(v.D[l], v.M[l], v.D[l])
        self._h.times_derivative(v.D[l], v.H[l], v.Z[l], v.space[l])
        if self._round:
            self._round(v.D[l], v.D_factor[l])

    def _to_last_net_input(
        self,
        A0: Array,
        dropout: tuple[int, int | Iterable[int]] | None,
        before_weights: Hook | None,
        are_new: bool,
    ) -> None:
        self._v = v = self._view(A0.shape[:-1])
        self._A0 = A0
        self._dropped = dropout is not None and self._dropout is not None
        A, last = A0, len(self._see_weights())
        if self._round:
            A = v.A[0]
            self._round(A0, A)
        for l in range(1, last):
            self._net_input(l, A, v.Z[l], before_weights, are_new)
            self._h.value(v.Z[l], v.H[l], v.space[l])
            if dropout is not None and self._dropout is not None:
                self._dropout.draw(*dropout, l, v.M[l])
                dropped = v.space[l].scratch if self._round else v.A_inner[l]
                np.multiply(v.H[l], v.M[l], dropped)
                if self._round:
                    self._round(dropped, v.A_inner[l])
            elif self._round:
                self._round(v.H[l], v.A_inner[l])
            else:
                np.copyto(v.A_inner[l], v.H[l])
            A = v.A[l]
        self._net_input(last, A, v.out.Z, before_weights, are_new)

    def _net_input(
        self, l: int, A: Array, Z: Array, before_weights: Hook | None, are_new: bool
    ) -> None:
        """Z[l] = A[l-1] @ W[l], by blocks of columns."""
        W = self._W[l - 1]
        for block, columns in enumerate(self._columns[l - 1]):
            if before_weights is not None:
                before_weights(l, block)
            if self._round and are_new:
                part = slice(None) if columns is None else columns
                self._round(self._weights[l - 1][:, part], W[:, part])
            if columns is None:
                self.product(A, W, Z)
            else:
                self.product(A, W[:, columns], Z[..., columns])

    def _view(self, shape: Shape) -> "Views":
        v = self._views.get(shape)
        if v is None:
            v = self._views[shape] = Views(self._buffers, self.network, shape)
        return v

    def _see_weights(self) -> list[Array]:
        W = self.network.weights
        if W is not self._weights:
            self._weights = W
            if not self._round:
                self._W = W
            self._transposed = [w[1:].T for w in self._W]
        return W


Factors = tuple[Array, Array]
Sum = tuple[Sequence[Array], Sequence[Array], Sequence[Array]]
"""(left, right, out), each shaped as the weights: out = left + right."""


class Share(NamedTuple):
    """The part of a gradient that one slice, or one stack, contributes.

    Attributes:
        factors: of the slice, or of the stack; see `SlicePass.factors`.
        dW: where it goes, layer l at index l - 1.
        sums: what is added up once it is there, in this order.
    """

    factors: "list[Factors]"
    dW: Sequence[Array]
    sums: Sequence[Sum]


class BackwardPass:
    """The backward pass of one or more passes together, and the sum of their gradients.

    It goes from layer to layer, and in each from block to block, through all shares: what is added
    up is still in the cache, and a block of the sum is complete before the next is begun.

    Args:
        passes: whose last forward passes are gone through, as often as ``run`` is called.
        shares: what they contribute, in the order in which it is computed.

    Attributes:
        product: that of the first pass; of matrices alone, if no share is of a stack.
        add: numpy's, or one that is timed.
        takes_stacks: whether a share is of a stack.
    """

    def __init__(self, passes: "Sequence[SlicePass]", shares: Sequence[Share]) -> None:
        network = passes[0].network
        self._passes = passes
        self.product = passes[0].product
        self.add: Product = np.add
        self.takes_stacks = any(At.ndim > 2 for share in shares for At, _ in share.factors)
        rows = [blocks(grid(W, network.dtype.itemsize)[0]) for W in network.shapes]
        self._terms = [  # by layer and block
            [[_term(share, index, block) for share in shares] for block in of_layer]
            for index, of_layer in enumerate(rows)
        ]

    def run(self, scale: float | Array, after_gradient: Hook | None = None) -> None:
        """Compute scale * dE/dW of all shares and add it up, see `SlicePass.backward`."""
        product, add = self.product, self.add
        for one in self._passes:
            one.last_sensitivity(scale)
        for l in range(len(self._terms), 0, -1):
            for block, terms in enumerate(self._terms[l - 1]):
                for At, D, dW, sums in terms:
                    product(At, D, dW)
                    for left, right, out in sums:
                        add(left, right, out)
                if after_gradient is not None:
                    after_gradient(l, block)
            if l > 1:
                for one in self._passes:
                    one.sensitivity(l - 1)


Term = tuple[Array, Array, Array, list[tuple[Array, Array, Array]]]


def _term(share: Share, layer: int, rows: Block) -> Term:
    """dW = At @ D for some rows of a layer, and the sums of these rows."""
    part = slice(None) if rows is None else rows
    At, D = share.factors[layer]
    sums = [
        (left[layer][..., part, :], right[layer][..., part, :], out[layer][..., part, :])
        for left, right, out in share.sums
    ]
    return At[..., part, :], D, share.dW[layer][..., part, :], sums
