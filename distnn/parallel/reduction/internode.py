"""What travels between nodes: one copy of a node's partial sums, and the new weights.

The leaders speak for their nodes. Each part of the vector goes to the node that owns it (a
reduce-scatter), where the top of the tree is evaluated on it; then the weights come back.
"""

from collections.abc import Mapping

import numpy as np

from distnn.parallel.comm.mpi import MPI
from distnn.parallel.comm.shared_memory import ArraySpec, SharedMemory
from distnn.parallel.reduction import ordered_sum, tree
from distnn.parallel.reduction.blocks import block_ranges
from distnn.parallel.reduction.ownership import Ownership


class InterNode:
    """The messages of one node. Every rank makes one; only leaders send.

    Attributes:
        received: other nodes' partial sums of this node's part, by their node of the tree. They
            stand in shared memory, for all ranks of this node to read.
    """

    def __init__(
        self,
        memory: SharedMemory,
        ownership: Ownership,
        partial_sums: Mapping[tree.Node, np.ndarray],
        weights: np.ndarray,
    ) -> None:
        self.comm, self.ownership, self.weights = memory.comm, ownership, weights
        here = self.comm.node
        self._others = [node for node in range(self.comm.nodes) if node != here]
        self._parts = [ownership.node_part(node) for node in range(self.comm.nodes)]
        first, last = self._parts[here]
        is_complete = (0, ownership.slices) in partial_sums  # then there is nothing to send
        senders = [] if is_complete else self._others
        nodes = [piece for node in senders for piece in ownership.node_pieces(node)]
        arrays = memory.arrays(
            ArraySpec(len(nodes) if first < last else 0, (last - first,), weights.dtype)
        )
        self.received = dict(zip(nodes, arrays, strict=False))
        self._own_pieces = [
            self._leaves(piece, partial_sums)
            for piece in ([] if is_complete else ownership.node_pieces(here))
        ]
        self._additions = self._plan(first, last)

    def reduce(self) -> None:
        """Leader: add up the node's partial sums of other nodes' parts and exchange them."""
        if not self._others:
            return
        ordered_sum.run(self._additions)
        self.comm.complete(self._receive() + self._send())

    def spread_weights(self) -> None:
        """Leader: every node's part of the weights to every node."""
        self.spread(self.weights, self._parts)

    def spread(self, vector: np.ndarray, parts: list[tuple[int, int]]) -> None:
        """Leader: each node's part of `vector` to every node."""
        if not self._others or self.comm.leader_comm is None:
            return
        if not self.ownership.sharded:
            self.comm.complete([self.comm.leader_comm.Ibcast(vector)])
            return
        counts = [last - first for first, last in parts]
        starts = [first for first, _ in parts]
        whole = [vector, (counts, starts)]
        self.comm.complete([self.comm.leader_comm.Iallgatherv(MPI.IN_PLACE, whole)])

    def collect(self, vector: np.ndarray, parts: list[tuple[int, int]]) -> None:
        """Each node's part of `vector` to the first node."""
        if not self._others or self.comm.leader_comm is None or not self.ownership.sharded:
            return
        first, last = parts[self.comm.node]
        whole = [vector, ([hi - lo for lo, hi in parts], [lo for lo, _ in parts])]
        own = MPI.IN_PLACE if self.comm.node == 0 else vector[first:last]
        whole_or_none = whole if self.comm.node == 0 else None
        self.comm.complete([self.comm.leader_comm.Igatherv(own, whole_or_none)])

    def largest(self, word: int) -> int:
        """Leader: the largest of all leaders' words."""
        if not self._others or self.comm.leader_comm is None:
            return word
        words = np.array(word, np.int64)
        self.comm.complete([self.comm.leader_comm.Iallreduce(MPI.IN_PLACE, words, MPI.MAX)])
        return int(words)

    @staticmethod
    def _leaves(
        piece: tree.Node, partial_sums: Mapping[tree.Node, np.ndarray]
    ) -> dict[tree.Node, np.ndarray]:
        return {
            leaf: vector
            for leaf, vector in partial_sums.items()
            if piece[0] <= leaf[0] and leaf[1] <= piece[1]
        }

    def _plan(self, first: int, last: int) -> list[ordered_sum.Addition]:
        """Additions that leave each piece of this node, outside its own part, in its first leaf."""
        if not self._others or self.comm.node_rank != 0:
            return []
        plan: list[ordered_sum.Addition] = []
        pieces = self.ownership.node_pieces(self.comm.node)
        ranges = block_ranges(0, first) + block_ranges(last, len(self.weights))
        longest = max((hi - lo for lo, hi in ranges), default=0)
        for piece, leaves in zip(pieces, self._own_pieces, strict=False):
            needed = ordered_sum.scratch_needed(piece, list(leaves))
            scratch = [np.empty(longest, self.weights.dtype) for _ in range(needed)]
            for lo, hi in ranges:
                views = {leaf: vector[lo:hi] for leaf, vector in leaves.items()}
                parts = [vector[: hi - lo] for vector in scratch]
                plan += ordered_sum.plan(piece, views, parts, keep=True)[0]
        return plan

    def _send(self) -> list["MPI.Request"]:
        assert self.comm.leader_comm is not None
        requests = []
        for node in self._others:
            lo, hi = self._parts[node]
            if lo == hi:
                continue
            for tag, leaves in enumerate(self._own_pieces):
                requests.append(self.comm.leader_comm.Isend(leaves[min(leaves)][lo:hi], node, tag))
        return requests

    def _receive(self) -> list["MPI.Request"]:
        assert self.comm.leader_comm is not None
        if not self.received:
            return []
        return [
            self.comm.leader_comm.Irecv(self.received[piece], node, tag)
            for node in self._others
            for tag, piece in enumerate(self.ownership.node_pieces(node))
        ]
