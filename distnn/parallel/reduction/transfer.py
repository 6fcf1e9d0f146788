"""The buffers of one bucket between nodes, and what is computed on them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from distnn.parallel.reduction import ordered_sum, tree
from distnn.parallel.reduction.buckets import Bucket, Region
from distnn.parallel.reduction.exchange import Layout, Rule
from distnn.parallel.reduction.granules import granule_rows
from distnn.parallel.reduction.ownership import Ownership

Work = list[tuple[Callable[..., Any], tuple[Any, ...]]]
"""Functions and their arguments, to be called in order."""


def owned_regions(region: Region, nodes: int) -> list[Region]:
    """What each node owns of a bucket: adds up and updates.

    Of three nodes or more, each owns a part and sends its new weights to the others. Of two, both
    own all: as many bytes travel, and in one message each way instead of two.
    """
    return [region] * nodes if nodes == 2 else region.cut(nodes)


class Scratch:
    """Numbered arrays of one dtype with room for `size` numbers, to be used again and again."""

    def __init__(self, size: int, dtype: np.dtype) -> None:
        self._size, self._dtype = size, dtype
        self._vectors: list[np.ndarray] = []

    def arrays(self, first: int, count: int, shape: tuple[int, int]) -> list[np.ndarray]:
        """Arrays `first` … of this shape; an array given out before is the same memory."""
        while len(self._vectors) < first + count:
            self._vectors.append(np.empty(self._size, self._dtype))
        size = shape[0] * shape[1]
        return [v[:size].reshape(shape) for v in self._vectors[first : first + count]]


class Pieces:
    """A message with a node's pieces of the tree of one region, and the node's stop request."""

    def __init__(self, count: int, shape: tuple[int, int], dtype: np.dtype) -> None:
        size = shape[0] * shape[1] * dtype.itemsize
        self.bytes = np.zeros(count * size + 8, np.uint8)
        self.matrices = [
            self.bytes[k * size : (k + 1) * size].view(dtype).reshape(shape) for k in range(count)
        ]
        self.stop = self.bytes[-8:].view(np.int64)


class Transfer:
    """One bucket as one rank handles it: what goes to other nodes, what comes, what is computed.

    Args:
        own: divides the slices.
        node: this rank's.
        partial_sums: the node's vectors (n,), by the node of the tree each is the sum of.
        weights: (n,) of the node.
        scratch: shared by a rank's transfers, which use it one at a time.
        keep: whether the sum must last until the weights are updated, because of clipping.

    Attributes:
        regions: what each node owns of the bucket.
        pieces_out, pieces_in: messages with gradients, by the other node.
        returns: whether new weights travel.
        weights_out: this node's new weights, for all others; weights_in: theirs, by node.
        state: the optimizer's, of the own region, by name.
        gradient: of the own region, once `add_up` was called.
    """

    def __init__(
        self,
        bucket: Bucket,
        layout: Layout,
        own: Ownership,
        node: int,
        partial_sums: Mapping[tree.Node, np.ndarray],
        weights: np.ndarray,
        scratch: Scratch,
        *,
        keep: bool,
    ) -> None:
        nodes, dtype = len(own.node_ranks), layout.dtype
        self.bucket, self.number, self.position = bucket, bucket.number, bucket.position
        self.regions = owned_regions(bucket.region, nodes)
        self.returns = nodes > 2
        others = [other for other in range(nodes) if other != node]
        mine, shape = self.regions[node], self.regions[node].shape
        self._node, self.region = node, mine
        pieces = [own.node_pieces(each) for each in range(nodes)]
        # the first bucket's messages carry stop requests, whatever else is in them
        receivers = [other for other in others if self.regions[other].size or not self.number]
        senders = others if mine.size or not self.number else []
        self.pieces_out = {
            other: Pieces(len(pieces[node]), self.regions[other].shape, dtype)
            for other in receivers
        }
        self.pieces_in = {other: Pieces(len(pieces[other]), shape, dtype) for other in senders}
        self._local = Pieces(len(pieces[node]), shape, dtype)

        self._packing: Work = []
        outgoing = {node: self._local} if self.returns else {}
        for other, message in (outgoing | self.pieces_out).items():
            self._packing += _packing(
                pieces[node], partial_sums, self.regions[other], message.matrices, scratch
            )
        if not self.returns:  # the other node gets what is needed here
            self._local = self.pieces_out[others[0]]

        self._additions: list[ordered_sum.Addition] = []
        self.gradient = np.empty(shape, dtype) if keep else np.empty((0, 0), dtype)
        self._granules, self._rows = np.empty(0, np.intp), [self.gradient]
        if mine.size:
            self._plan_sum(pieces, node, own.slices, scratch, keep)
            self._granules = mine.granules(layout.ends)
        self._scratch = scratch.arrays(0, 2, shape)

        self._shared = {other: self.regions[other].view(weights) for other in range(nodes)}
        self.weights_out = np.empty(shape, dtype) if self.returns else self._shared[node]
        filled = [other for other in others if self.returns and self.regions[other].size]
        self.weights_in = {other: np.empty(self.regions[other].shape, dtype) for other in filled}
        self.weights_to = others if self.returns and mine.size else []
        self.state = {name: np.zeros(shape, dtype) for name in layout.state}

    def load_weights(self) -> None:
        """See the node's weights, as they are before the first step."""
        if self.returns:
            np.copyto(self.weights_out, self._shared[self._node])

    def pack(self, stop: int) -> None:
        """The node's sums of this bucket, ready to be sent to their owners."""
        for function, arguments in self._packing:
            function(*arguments)
        for message in (self._local, *self.pieces_out.values()):
            message.stop[0] = stop

    def add_up(self) -> None:
        """All nodes' pieces of the own region are there."""
        ordered_sum.run(self._additions)

    def sum_squares(self, squares: np.ndarray) -> None:
        """The squares of the own region's granules, after `add_up`."""
        if self.region.size:
            sums = [np.vecdot(rows, rows) for rows in self._rows]
            squares[self._granules] = np.concatenate(sums)

    def update(self, rule: Rule) -> None:
        """New weights of the own region, in `weights_out`."""
        if self.region.size:
            rule(self.weights_out, self.gradient, tuple(self.state.values()), self._scratch)

    def install(self, node: int) -> None:
        """A node's new weights into this node's, where the passes read them."""
        np.copyto(self._shared[node], self.weights_in.get(node, self.weights_out))

    def largest_stop(self) -> int:
        """Of all nodes, once their pieces are there."""
        return max(int(message.stop[0]) for message in (self._local, *self.pieces_in.values()))

    def _plan_sum(
        self,
        pieces: Sequence[list[tree.Node]],
        node: int,
        slices: int,
        scratch: Scratch,
        keep: bool,
    ) -> None:
        """The additions that make the gradient of the own region."""
        sums = dict(zip(pieces[node], self._local.matrices, strict=True))
        for other, message in self.pieces_in.items():
            sums |= dict(zip(pieces[other], message.matrices, strict=True))
        needed = ordered_sum.scratch_needed((0, slices), list(sums))
        spare = scratch.arrays(2, needed, self.region.shape)
        self._additions, total = ordered_sum.plan((0, slices), sums, spare, keep=False)
        if keep:  # not in a message, which may still be on its way
            self._additions[-1] = (*self._additions[-1][:2], self.gradient)
        else:
            self.gradient = total
        self._rows = granule_rows(self.gradient) if self.region.is_run else [self.gradient]


def _packing(
    pieces: Sequence[tree.Node],
    partial_sums: Mapping[tree.Node, np.ndarray],
    region: Region,
    targets: Sequence[np.ndarray],
    scratch: Scratch,
) -> Work:
    """What leaves the sum of each piece of a region in its target."""
    work: Work = []
    for piece, target in zip(pieces, targets, strict=True):
        leaves = {
            leaf: region.view(vector)
            for leaf, vector in partial_sums.items()
            if piece[0] <= leaf[0] and leaf[1] <= piece[1]
        }
        spare = scratch.arrays(2, ordered_sum.scratch_needed(piece, list(leaves)), region.shape)
        additions, total = ordered_sum.plan(piece, leaves, spare, keep=False)
        if additions:
            additions[-1] = (*additions[-1][:2], target)
            work += [(np.add, addition) for addition in additions]
        else:
            work.append((np.copyto, (target, total)))
    return work
