"""The passes cut into panels: runs of columns of a layer's weights, in products of their own.

A panel's weights are asked for right before its product, and its gradient is announced right after
it, so that both can be on their way to and from another machine meanwhile.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import numpy as np

from distnn.nn import blas
from distnn.nn.backprop import SlicePass
from distnn.nn.layout import Array

if TYPE_CHECKING:
    from distnn.nn.network import Network

ROW_BLOCKS = 8  # products without panels are cut so often, to let things move in between
LEAST_ROWS = 32  # of such a block


class Traffic(Protocol):
    """What is told of the passes, and asked. Panels are numbered from layer 1 on."""

    def need(self, number: int) -> None:
        """The weights of a panel are about to be used."""

    def ready(self, number: int) -> None:
        """The gradient of a panel is complete. Layer by layer from the last, as in each layer."""

    def poke(self) -> None:
        """Another product is done."""


class CutPass(SlicePass):
    """A pass whose products are cut, with the same bits.

    Args:
        cuts: of each layer, first and one-past-last column of its panels.
        traffic: is asked and told.

    Attributes:
        announces: whether the gradients of the next backward pass are the step's.

    How BLAS computes a column could depend on how many there are. So the first time that a product
    of a shape is made, it is made in both ways, and left whole if a single bit differs.
    """

    def __init__(
        self,
        network: "Network",
        rows: int,
        cuts: Sequence[Sequence[tuple[int, int]]],
        traffic: Traffic,
    ) -> None:
        super().__init__(network, rows)
        self.announces = True
        self._cuts, self._traffic = cuts, traffic
        firsts = np.cumsum([0, *map(len, cuts)]).tolist()
        self._numbers = [range(a, b) for a, b in pairwise(firsts)]
        self._same_bits: dict[tuple[object, ...], bool] = {}

    def forward(self, A0: Array, T: Array, dropout: tuple[int, int] | None = None) -> float:
        """See `SlicePass.forward`."""
        if not len(A0):
            for numbers in self._numbers:
                self._need_all(numbers)
        return super().forward(A0, T, dropout)

    def backward(self, dW: Sequence[Array], scale: float | Array) -> Iterator[int]:
        """See `SlicePass.backward`; gradients are announced panel by panel."""
        for l in super().backward(dW, scale):
            if not len(self._A0):
                self._announce(*self._numbers[l - 1])
            yield l

    def _net_input(self, l: int, A: Array, out: Array) -> None:
        numbers, cuts, W = self._numbers[l - 1], self._cuts[l - 1], self._weights[l - 1]
        if len(cuts) == 1 or not self._may_cut("forward", l, A, W, out, cuts):
            self._need_all(numbers)
            blas.product(A, W, out)
            self._traffic.poke()
            return
        for number, (lo, hi) in zip(numbers, cuts, strict=True):
            self._traffic.need(number)
            _part(A, W[:, lo:hi], out[:, lo:hi])
            self._traffic.poke()

    def _gradient(self, l: int, At: Array, D: Array, dW: Array) -> None:
        numbers, cuts = self._numbers[l - 1], self._cuts[l - 1]
        if len(cuts) == 1 or not self._may_cut("gradient", l, At, D, dW, cuts):
            blas.product(At, D, dW)
            self._announce(*numbers)
            return
        for number, (lo, hi) in zip(numbers, cuts, strict=True):
            _part(At, D[:, lo:hi], dW[:, lo:hi])
            self._announce(number)

    def _sensitivity_below(self, l: int, D: Array, Wt: Array, out: Array) -> None:
        rows = len(D)
        ends = [rows * k // ROW_BLOCKS for k in range(ROW_BLOCKS + 1)]
        blocks = list(pairwise(ends))
        cut = len(self._cuts[l - 1]) > 1 and rows >= ROW_BLOCKS * LEAST_ROWS
        if not cut or not self._may_cut("below", l, D, Wt, out, blocks, rows=True):
            blas.product(D, Wt, out)
            self._traffic.poke()
            return
        for lo, hi in blocks:
            _part(D[lo:hi], Wt, out[lo:hi])
            self._traffic.poke()

    def _need_all(self, numbers: range) -> None:
        for number in numbers:
            self._traffic.need(number)

    def _announce(self, *numbers: int) -> None:
        for number in numbers if self.announces else ():
            self._traffic.ready(number)
        self._traffic.poke()

    def _may_cut(
        self,
        kind: str,
        l: int,
        X: Array,
        Y: Array,
        like: Array,
        cuts: Sequence[tuple[int, int]],
        rows: bool = False,
    ) -> bool:
        key = (kind, l, X.shape, Y.shape)
        if key not in self._same_bits:
            self._same_bits[key] = _same_bits(X, Y, like, cuts, rows)
        return self._same_bits[key]


def _part(X: Array, Y: Array, out: Array) -> None:
    """A product into a part of a matrix, whose rows numpy's dot would not take."""
    (np.matmul if blas.product is blas.by_numpy else blas.product)(X, Y, out)


def _same_bits(
    X: Array, Y: Array, like: Array, cuts: Sequence[tuple[int, int]], rows: bool
) -> bool:
    """Whether X @ Y has the same bits in blocks of columns, or of rows, tried on other numbers."""
    draw = np.random.default_rng(0)
    X, Y = (_as(M, draw.standard_normal(M.shape, np.float32)) for M in (X, Y))
    whole, parts = np.empty_like(like), np.empty_like(like)
    blas.product(X, Y, whole)
    for lo, hi in cuts:
        if rows:
            _part(X[lo:hi], Y, parts[lo:hi])
        else:
            _part(X, Y[:, lo:hi], parts[:, lo:hi])
    return bool(np.array_equal(whole.view(np.uint8), parts.view(np.uint8)))


def _as(M: Array, values: Array) -> Array:
    """The values with the type and the order in memory of M."""
    if M.strides[0] < M.strides[1]:
        return np.ascontiguousarray(values.T, M.dtype).T
    return np.ascontiguousarray(values, M.dtype)
