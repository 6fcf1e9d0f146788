"""The buffers of one bucket between nodes, and what is computed on them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from distnn.parallel.reduction import ordered_sum, tree
from distnn.parallel.reduction.buckets import Bucket, Region
from distnn.parallel.reduction.exchange import Layout, Rule
from distnn.parallel.reduction.granules import granule_rows
from distnn.parallel.reduction.ownership import Ownership
from distnn.parallel.reduction.wire import Wire

KINDS = 3  # of messages of a bucket: pieces, sums, weights
Work = list[tuple[Callable[..., Any], tuple[Any, ...]]]
"""Functions and their arguments, to be called in order."""


class Roles(NamedTuple):
    """What each node does with its region of a bucket; a region may be empty.

    Attributes:
        adds: adds up the pieces of all nodes.
        updates: changes the weights.
        spreads: sends new weights to all nodes that do not update them.
    """

    adds: list[Region]
    updates: list[Region]
    spreads: list[Region]


def sharded_roles(region: Region, nodes: int) -> Roles:
    """Each node owns a part. Of two nodes both own all, and nothing comes back: as many bytes
    travel, in one message each way instead of two."""
    if nodes == 2:
        return Roles([region] * 2, [region] * 2, [region.empty()] * 2)
    parts = region.cut([1] * nodes)
    return Roles(parts, parts, parts)


def rank0_roles(region: Region, nodes: int) -> Roles:
    """All nodes add up, the first one updates, the others pass new weights on.

    The first node adds up 1 / (N - 1) of the bucket, so that (2N - 3) / (N - 1) gradients go over
    its link each way, where 2 (N - 1) / N do if all nodes update.
    """
    nothing, others = region.empty(), nodes - 1
    updates = [region] + [nothing] * others
    if nodes == 2:
        return Roles(updates, updates, updates)
    adds = region.cut([others] + [others - 1] * others)
    return Roles(adds, updates, [nothing, *region.cut([1] * others)])


def matrix_roles(region: Region, nodes: int, owner: int) -> Roles:
    """One node adds up and updates a whole matrix, and sends its new weights to all others."""
    parts = [region if node == owner else region.empty() for node in range(nodes)]
    return Roles(parts, parts, parts)


def everywhere_roles(region: Region, nodes: int) -> Roles:
    """Each node adds up a part, and all update everything from the sums: no weights travel."""
    nothing = [region.empty()] * nodes
    return Roles(sharded_roles(region, nodes).adds, [region] * nodes, nothing)


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
        self.piece_bytes = size = shape[0] * shape[1] * dtype.itemsize
        self.bytes = np.zeros(count * size + 8, np.uint8)
        self.matrices = [
            self.bytes[k * size : (k + 1) * size].view(dtype).reshape(shape) for k in range(count)
        ]
        self.stop = self.bytes[-8:].view(np.int64)


class Transfer:
    """One bucket as one rank handles it: what goes to other nodes, what comes, what is computed.

    Args:
        roles: of the nodes.
        own: divides the slices.
        node: this rank's.
        partial_sums: the node's vectors (n,), by the node of the tree each is the sum of.
        weights: (n,) of the node.
        scratch, wire: shared by a rank's transfers, which use them one at a time.
        keep: whether the sum must last until the weights are updated, because of clipping.

    Attributes:
        pieces_out, pieces_in: messages with gradients, by the other node.
        sums_out: what this node has added up for others, which update: (node, array).
        sums_in: what others have added up for this node, by node.
        weights_out: new weights for other nodes: (node, array).
        weights_in: new weights from other nodes, by node.
        passes_on: (node, array) that go out as soon as the first node's weights are there.
        bytes: of the bucket.
        matrix: whose rule updates it.
        state: the optimizer's, of the region that this node updates, by name.
        updates_at_once: the gradient is in scratch, and does not outlast the next bucket.
        is_packed: new weights are made apart, while a backward pass may need the old ones.
    """

    def __init__(
        self,
        bucket: Bucket,
        roles: Roles,
        layout: Layout,
        own: Ownership,
        node: int,
        partial_sums: Mapping[tree.Node, np.ndarray],
        weights: np.ndarray,
        scratch: Scratch,
        wire: Wire,
        *,
        keep: bool,
    ) -> None:
        self.number, self.position, self.roles = bucket.number, bucket.position, roles
        self.matrix = bucket.matrix
        self.bytes = bucket.region.size * wire.dtype.itemsize
        self._node, self._dtype, self._wire = node, layout.dtype, wire
        self._spare = layout.scratch
        self._others = [other for other in range(len(own.node_ranks)) if other != node]
        self._pieces = [own.node_pieces(each) for each in range(len(own.node_ranks))]
        self._make_pieces(partial_sums, scratch)
        self._make_sums(bucket.region, scratch, own.slices, keep)
        self._make_weights(bucket.region, weights)
        region = roles.updates[node]
        self.state = {name: np.zeros(region.shape, layout.dtype) for name in layout.state}
        self._granules = region.granules(layout.ends)
        self._rows = granule_rows(self._gradient) if region.is_run else [self._gradient]
        self._scratch = scratch.arrays(0, layout.scratch, region.shape)

    @property
    def updates_in_place(self) -> bool:
        """Whether adding up is at once an update of the weights that passes read."""
        return self.updates_at_once and not self.is_packed

    @property
    def updates(self) -> bool:
        """Whether this node updates any of it."""
        return self._gradient.size > 0

    @property
    def installs(self) -> list[int]:
        """The nodes from which new weights are installed, this one among them if it makes some."""
        return list(self._installs)

    def load_weights(self) -> None:
        """See the node's weights, as they are before the first step."""
        if self.is_packed:
            np.copyto(self._new, self._shared)

    def pack(self, stop: int) -> None:
        """The node's pieces of this bucket, ready to be sent to those who add them up."""
        for function, arguments in self._packing:
            function(*arguments)
        for message in (self._local, *self.pieces_out.values()):
            message.stop[0] = stop

    def add_up(self) -> None:
        """All nodes' pieces of the region that this node adds up are there."""
        ordered_sum.run(self._additions, self._wire.add)

    def take_in_sum(self, node: int) -> None:
        """A part of the sum that this node has added up, or that has come from another, to where it
        is used."""
        if node in self._sums:
            self._wire.copy(*self._sums[node])

    def sum_squares(self, squares: np.ndarray) -> None:
        """The squares of the granules that this node updates, once their sum is there."""
        if self._granules.size:
            squares[self._granules] = np.concatenate([np.vecdot(r, r) for r in self._rows])

    def update(self, rule: Rule, factor: np.floating | None) -> None:
        """New weights of the region that this node updates, from the gradient times a factor."""
        if factor is not None:
            np.multiply(self._gradient, factor, out=self._gradient)
        if self._gradient.size:
            rule(self._new, self._gradient, tuple(self.state.values()), self._scratch)

    def install(self, node: int) -> None:
        """New weights that a node has made or sent, to where this node's passes read them."""
        source, target = self._installs[node]
        np.copyto(target, source)

    def largest_stop(self) -> int:
        """Of all nodes, once their pieces are there."""
        return max(int(message.stop[0]) for message in (self._local, *self.pieces_in.values()))

    # --- what is made once -----------------------------------------------------------------------

    def _make_pieces(self, partial_sums: Mapping[tree.Node, np.ndarray], scratch: Scratch) -> None:
        adds, node, dtype = self.roles.adds, self._node, self._wire.dtype
        count, first = len(self._pieces[node]), self.number == 0
        # the first bucket's messages carry stop requests, whatever else is in them
        self.pieces_out = {
            other: Pieces(count, adds[other].shape, dtype)
            for other in self._others
            if adds[other].size or first
        }
        self.pieces_in = {
            other: Pieces(len(self._pieces[other]), adds[node].shape, dtype)
            for other in self._others
            if adds[node].size or first
        }
        # what another node adds up as well is in its message already
        same = [other for other in self.pieces_out if adds[other] == adds[node]]
        self._local = self.pieces_out[same[0]] if same else Pieces(count, adds[node].shape, dtype)
        targets = self.pieces_out | ({} if same else {node: self._local})
        self._packing: Work = []
        for other, message in targets.items():
            self._packing += _packing(
                self._pieces[node], partial_sums, adds[other], message.matrices, scratch,
                self._spare, self._wire,
            )  # fmt: skip

    def _make_sums(self, whole: Region, scratch: Scratch, slices: int, keep: bool) -> None:
        """The gradient that this node updates from, and the additions that it makes."""
        adds, updates = self.roles.adds[self._node], self.roles.updates[self._node]
        receivers = [other for other in self._others if adds.size and self._lacks_sum(other)]
        self.updates_at_once = adds == updates and not keep and not receivers
        self._gradient = np.empty((0, 0) if self.updates_at_once else updates.shape, self._dtype)
        total = np.empty(adds.shape, self._wire.dtype) if receivers else self._gradient
        self.sums_out = [(other, total) for other in receivers]
        self.sums_in: dict[int, np.ndarray] = {}
        self._sums: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # messages, and where they go
        if updates.size and self._lacks_sum(self._node):
            total = self._place_sums(_slices(self._gradient, whole, self.roles.adds), total)
        elif updates.size and receivers:
            self._sums[self._node] = (total, self._gradient)
        self._additions: list[ordered_sum.Addition] = []
        if not adds.size:
            return
        sums = dict(zip(self._pieces[self._node], self._local.matrices, strict=True))
        for other, message in self.pieces_in.items():
            sums |= dict(zip(self._pieces[other], message.matrices, strict=True))
        needed = ordered_sum.scratch_needed((0, slices), list(sums))
        spare = scratch.arrays(self._spare, needed, adds.shape)
        self._additions, where = ordered_sum.plan((0, slices), sums, spare, keep=False)
        if self.updates_at_once:
            self._gradient = where
        else:  # not in a message, which may still be on its way
            self._additions[-1] = (*self._additions[-1][:2], total)

    def _lacks_sum(self, node: int) -> bool:
        """Whether a node updates what others add up."""
        updates = self.roles.updates[node]
        return updates.size > 0 and self.roles.adds[node] != updates

    def _place_sums(self, parts: Sequence[np.ndarray], total: np.ndarray) -> np.ndarray:
        """Messages for the parts of the sum; where they are packed, apart from the gradient.

        Args:
            parts: of the gradient, by the node that adds it up.
            total: the message that this node sends, if it sends one.

        Returns:
            Where this node's sum goes.
        """
        own, is_packed = parts[self._node], self._wire.dtype != self._dtype
        for node in self._others:
            part = parts[node]
            if part.size:
                self.sums_in[node] = np.empty(part.size, self._wire.dtype) if is_packed else part
                if is_packed:
                    self._sums[node] = (self.sums_in[node], part)
        if not self.sums_out:
            return own.reshape(self.roles.adds[self._node].shape)
        self._sums[self._node] = (total.reshape(-1), own)
        return total

    def _make_weights(self, whole: Region, weights: np.ndarray) -> None:
        roles, node = self.roles, self._node
        spread = [other for other in range(len(roles.spreads)) if roles.spreads[other].size]
        updates = roles.updates[node]
        self.is_packed = bool(spread)
        self._shared = updates.view(weights)
        self._new = np.empty(updates.shape, self._dtype) if self.is_packed else self._shared
        self._installs = {node: (self._new, self._shared)} if updates.size and spread else {}
        self.weights_out: list[tuple[int, np.ndarray]] = []
        self.passes_on: list[tuple[int, np.ndarray]] = []
        self.weights_in: dict[int, np.ndarray] = {}
        if updates.size and updates == roles.spreads[node]:
            self.weights_out = [(other, self._new) for other in self._others]
        elif updates.size:  # of the first node, for others to pass on
            parts = _slices(self._new, whole, roles.spreads)
            self.weights_out = [(other, parts[other]) for other in spread]
        for source in spread:
            region = roles.spreads[source]
            if (source == node and updates.size) or updates == whole:
                continue
            origin = 0 if source == node else source
            self.weights_in[origin] = np.empty(region.shape, self._dtype)
            self._installs[origin] = (self.weights_in[origin], region.view(weights))
            if source == node:
                receivers = [other for other in self._others if other != 0]
                self.passes_on = [(other, self.weights_in[0]) for other in receivers]


def _slices(array: np.ndarray, whole: Region, parts: Sequence[Region]) -> list[np.ndarray]:
    """The elements of consecutive parts of a region in a contiguous array of the whole."""
    assert array.shape == whole.shape
    ends = np.cumsum([part.size for part in parts])
    return np.split(array.reshape(-1), ends[:-1])


def _packing(
    pieces: Sequence[tree.Node],
    partial_sums: Mapping[tree.Node, np.ndarray],
    region: Region,
    targets: Sequence[np.ndarray],
    scratch: Scratch,
    first: int,
    wire: Wire,
) -> Work:
    """What leaves the sum of each piece of a region in its target."""
    work: Work = []
    for piece, target in zip(pieces, targets, strict=True):
        leaves = {
            leaf: region.view(vector)
            for leaf, vector in partial_sums.items()
            if piece[0] <= leaf[0] and leaf[1] <= piece[1]
        }
        needed = ordered_sum.scratch_needed(piece, list(leaves))
        spare = scratch.arrays(first, needed, region.shape)
        additions, total = ordered_sum.plan(piece, leaves, spare, keep=False)
        if additions:
            additions[-1] = (*additions[-1][:2], target)
            work += [(wire.add, addition) for addition in additions]
        else:
            work.append((wire.copy, (total, target)))
    return work
