"""How the products of large layers are cut, and what may be told of them meanwhile.

The gradient of a large layer is computed in blocks of rows of its weights, its net input in blocks
of columns: so gradients can set out for another machine, and weights be waited for, block by block.
How BLAS computes an element depends on the product that it is a part of, so products are cut in
the same way wherever the network is trained, by the shape of the weights alone.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from distnn.nn.backprop import SlicePass
from distnn.nn.layout import Array, Block

if TYPE_CHECKING:
    from distnn.nn.network import Network


class Traffic(Protocol):
    """What is told of the passes, and asked. Layers are counted from 1, blocks from 0."""

    def need(self, layer: int, block: int) -> None:
        """A block of columns of the layer's weights is about to be used."""

    def ready(self, layer: int, block: int) -> None:
        """A block of rows of the layer's gradient is complete."""


class WatchedPass(SlicePass):
    """A pass that asks for weights before it uses them, and tells which gradients are complete.

    Attributes:
        announces: whether the gradients of the next backward pass are the step's.
    """

    def __init__(self, network: "Network", rows: int, traffic: Traffic) -> None:
        super().__init__(network, rows)
        self.announces = True
        self._traffic = traffic

    def forward(self, A0: Array, T: Array, dropout: tuple[int, int] | None = None) -> float:
        """See `SlicePass.forward`."""
        if not len(A0):
            for l in range(1, len(self.network.shapes) + 1):
                _run_through(self._column_blocks(l))
        return super().forward(A0, T, dropout)

    def backward(self, dW: Sequence[Array], scale: float | Array) -> None:
        """See `SlicePass.backward`."""
        super().backward(dW, scale)
        if not len(self._A0):
            for l in range(len(dW), 0, -1):
                _run_through(self._row_blocks(l))

    def _column_blocks(self, l: int) -> Iterator[Block]:
        for number, block in enumerate(super()._column_blocks(l)):
            self._traffic.need(l, number)
            yield block

    def _row_blocks(self, l: int) -> Iterator[Block]:
        for number, block in enumerate(super()._row_blocks(l)):
            yield block
            if self.announces:
                self._traffic.ready(l, number)


def _run_through(blocks: Iterable[Block]) -> None:
    for _ in blocks:
        pass
