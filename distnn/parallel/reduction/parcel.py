"""A panel on its journey: the node's sums of it go out, the other node's come in."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from distnn.parallel.reduction import ordered_sum, tree
from distnn.parallel.reduction.panels import Panel

Pieces = tuple[list[tree.Node], list[tree.Node]]
"""The nodes of the tree that this node, and the other one, sums by itself."""


class Space:
    """Numbered arrays of a dtype, each with room for `size` numbers, to be used again and again."""

    def __init__(self, size: int, dtype: np.dtype) -> None:
        self._size, self._dtype = size, dtype
        self._vectors: list[np.ndarray] = []

    def arrays(self, first: int, count: int, shape: tuple[int, int]) -> list[np.ndarray]:
        """Arrays `first` … of this shape; one that was given out before is the same memory."""
        while len(self._vectors) < first + count:
            self._vectors.append(np.empty(self._size, self._dtype))
        size = shape[0] * shape[1]
        return [v[:size].reshape(shape) for v in self._vectors[first : first + count]]


class Parcel:
    """A panel that a rank exchanges with its counterpart, and updates.

    Args:
        number: of the panel, in the order of the forward pass.
        position: of its gradient, in the order of the backward pass.
        partial_sums: the node's vectors, by the node of the tree each is the sum of.
        state: the optimizer's vectors.
        space: for what lies between, shared by all parcels of a rank: used by one at a time.

    Attributes:
        size: in bytes.
        out, into: bytes to be sent, and received.
        gradient: the panel of the batch's gradient, once `add_up` was called.
        weights, state, scratch: what an update rule wants besides.
    """

    def __init__(
        self,
        number: int,
        position: int,
        panel: Panel,
        pieces: Pieces,
        partial_sums: Mapping[tree.Node, np.ndarray],
        weights: np.ndarray,
        state: Sequence[np.ndarray],
        space: "Space",
    ) -> None:
        self.number, self.position = number, position
        self.weights, self.state = panel.view(weights), [panel.view(vector) for vector in state]
        shape, dtype = panel.shape, weights.dtype
        self.size = shape[0] * shape[1] * dtype.itemsize
        self.scratch = space.arrays(0, 2, shape)
        self.out, own = _buffer(len(pieces[0]), shape, dtype)
        self.into, others = _buffer(len(pieces[1]), shape, dtype)
        self._packing: list[tuple[Callable[..., Any], tuple[np.ndarray, ...]]] = []
        for piece, sent in zip(pieces[0], own, strict=True):
            leaves = {node: panel.view(v) for node, v in partial_sums.items() if _in(node, piece)}
            spare = space.arrays(2, ordered_sum.scratch_needed(piece, list(leaves)), shape)
            additions, total = ordered_sum.plan(piece, leaves, spare, keep=False)
            if additions:
                additions[-1] = (*additions[-1][:2], sent)
            else:
                self._packing.append((np.copyto, (sent, total)))
            self._packing += [(np.add, addition) for addition in additions]
        sums = dict(zip(pieces[0], own, strict=True)) | dict(zip(pieces[1], others, strict=True))
        root = min(n[0] for n in sums), max(n[1] for n in sums)
        spare = space.arrays(2, ordered_sum.scratch_needed(root, list(sums)), shape)
        self._additions, self.gradient = ordered_sum.plan(root, sums, spare, keep=False)

    def pack(self, word: int) -> None:
        """The node's sums of this panel, and a word, ready to be sent."""
        for operation, arguments in self._packing:
            operation(*arguments)
        self.out[-8:].view(np.int64)[0] = word

    def add_up(self) -> None:
        """Both nodes' sums are there."""
        ordered_sum.run(self._additions)

    def word(self) -> int:
        """The word that came with the other node's sums."""
        return int(self.into[-8:].view(np.int64)[0])


def _buffer(
    count: int, shape: tuple[int, int], dtype: np.dtype
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Bytes for `count` matrices of a shape and a word, and views of the matrices."""
    size = shape[0] * shape[1] * dtype.itemsize
    buffer = np.zeros(count * size + 8, np.uint8)
    return buffer, [
        buffer[k * size : (k + 1) * size].view(dtype).reshape(shape) for k in range(count)
    ]


def _in(node: tree.Node, piece: tree.Node) -> bool:
    return piece[0] <= node[0] and node[1] <= piece[1]
