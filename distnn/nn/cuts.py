"""How the products of large layers are cut, and what may be told of them meanwhile.

The gradient of a large layer is computed in blocks of rows of its weights, its net input in blocks
of columns: so gradients can set out for another machine, and weights be waited for, block by block.
How BLAS computes an element depends on the product that it is a part of, so products are cut in
the same way wherever the network is trained, by the shape of the weights alone.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from distnn.nn.backprop import SlicePass
from distnn.nn.layout import Array, Block

if TYPE_CHECKING:
    from distnn.nn.network import Network


Call = Callable[[int, int], object]
"""What is called with a layer and the number of a block."""


class Traffic(Protocol):
    """What is told of the passes, and asked. Layers are counted from 1, blocks from 0."""

    def need(self, layer: int, block: int) -> None:
        """A block of columns of the layer's weights is about to be used."""

    def ready(self, layer: int, block: int) -> None:
        """A block of rows of the layer's gradient is complete."""


class HookedPass(SlicePass):
    """A pass that asks for weights before it uses them, and tells which gradients are complete.

    Attributes:
        announces: whether the gradients of the next backward pass are the step's.
    """

    def __init__(self, network: "Network", rows: int, traffic: Traffic) -> None:
        super().__init__(network, rows)
        self.announces = True
        self._traffic = traffic
        need, ready = self._ask, self._announce
        self._columns = [Asked(layer, cut, need) for layer, cut in enumerate(self._columns, 1)]
        self._rows = [Told(layer, cut, ready) for layer, cut in enumerate(self._rows, 1)]

    def forward(self, A0: Array, T: Array, dropout: tuple[int, int] | None = None) -> float:
        """See `SlicePass.forward`."""
        if not len(A0):
            _run_through(self._columns)
        return super().forward(A0, T, dropout)

    def backward(self, dW: Sequence[Array], scale: float | Array) -> None:
        """See `SlicePass.backward`."""
        super().backward(dW, scale)
        if not len(self._A0):
            _run_through(reversed(self._rows))

    def _ask(self, layer: int, block: int) -> None:
        self._traffic.need(layer, block)

    def _announce(self, layer: int, block: int) -> None:
        if self.announces:
            self._traffic.ready(layer, block)


class Asked:
    """A layer's blocks, each of them asked for before it is used."""

    def __init__(self, layer: int, blocks: Iterable[Block], need: Call) -> None:
        self._layer, self._blocks, self._need = layer, blocks, need

    def __iter__(self) -> Iterator[Block]:
        for number, block in enumerate(self._blocks):
            self._need(self._layer, number)
            yield block


class Told:
    """A layer's blocks, each of them told of after it is used: when the next one is wanted."""

    def __init__(self, layer: int, blocks: Iterable[Block], ready: Call) -> None:
        self._layer, self._blocks, self._ready = layer, blocks, ready

    def __iter__(self) -> Iterator[Block]:
        for number, block in enumerate(self._blocks):
            yield block
            self._ready(self._layer, number)


def _run_through(layers: Iterable[Iterable[Block]]) -> None:
    for blocks in layers:
        for _ in blocks:
            pass
