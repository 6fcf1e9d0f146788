"""The exchange of one node: sums and updates in memory that its ranks share."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from distnn.parallel.comm.shared_memory import SharedMemory
from distnn.parallel.reduction import cache_lines, ordered_sum
from distnn.parallel.reduction.cache_lines import CacheLines
from distnn.parallel.reduction.exchange import Exchange, Layout
from distnn.parallel.reduction.gradients import PrivateGradients, SharedGradients
from distnn.parallel.reduction.granules import (
    Squares,
    block_ranges,
    clip_factor,
    norm,
    part,
    plan_squares,
    sum_squares,
)


class Block(NamedTuple):
    """One block of a rank's own part: views made once, so that a step only computes."""

    lines: list[np.ndarray]  # of the other ranks' gradients, see `cache_lines`
    additions: list[ordered_sum.Addition]
    gradient: np.ndarray
    weights: np.ndarray
    state: tuple[np.ndarray, ...]
    scratch: tuple[np.ndarray, ...]
    copies: list[np.ndarray]  # where other ranks get the new weights, see `cache_lines`
    squares: Squares
    matrix: int = 0  # whose rule it is


class NodeExchange(Exchange):
    """Ranks that share memory. No message is sent.

    Every rank writes the partial sums of its slices where the others read them. The owner of a part
    of the vector adds them up in the order of the tree, block by block, and updates the weights of
    that part. With "sharded" each rank owns a part, else the leader owns all; but where many ranks
    make much to be added, each rank adds up a part, and the leader updates from these sums.
    """

    def __init__(
        self,
        memory: SharedMemory,
        layout: Layout,
        *,
        update: str,
        clip_norm: float | None,
    ) -> None:
        super().__init__(memory, layout, update)
        self._clip_norm, ranks = clip_norm, self.comm.node_size
        self._wire = layout.make_wire()
        self._sharded = self.update == "sharded"
        self._splits = self._sharded or splits_sum(
            layout.size, ranks, self.barrier.is_oversubscribed
        )
        self._gradients = self._make_gradients(memory)
        self.tasks, self.vectors = self._gradients.tasks, self._gradients.vectors
        self._lo, self._hi = self._part(self.comm.node_rank)
        self._squares = memory.array((len(layout.ends),), np.float64)
        self._shared = memory.array((layout.size,), layout.dtype)
        self.weights, self._lines = self._place_weights(memory)
        self.state = {name: memory.array((layout.size,), layout.dtype) for name in layout.state}
        self._blocks = self._plan_blocks()
        same = self._sharded == self._splits and not layout.by_matrix
        self._updates = self._blocks if same else self._plan_updates()

    def finish(self) -> int:
        """Sum the gradients of all ranks and update the weights; see `Exchange.finish`."""
        barrier = self.barrier
        if self.comm.node_size == 1:
            self._update()
            return self._stop
        if self._splits:
            return self._ranks_take_parts()
        barrier.arrive(self._stop)
        self._lines.take_weights()
        self.phase("wait")
        if barrier.is_leader:
            stop = barrier.wait_all(self._stop)
            self._update()
            barrier.release(stop)
        else:
            stop = barrier.wait_release()
        self.phase("sum")
        self._lines.receive_weights()
        return stop

    def _ranks_take_parts(self) -> int:
        """Each rank adds up its part, and updates it unless the leader updates all."""
        barrier = self.barrier
        barrier.arrive(self._stop)
        self._lines.take_weights()
        self.phase("wait")
        if barrier.is_leader:
            stop = barrier.wait_all(self._stop)
            barrier.release(stop)
        else:
            stop = barrier.wait_release()
        self._update()
        self.phase("wait")
        barrier.wait()
        self.phase("sum")
        self._lines.receive_weights()
        return stop

    def _update(self) -> None:
        """Sum and update the owned part, block by block."""
        if self._clip_norm is not None or self._updates is not self._blocks:
            self._update_after_sums()
            return
        for block in self._blocks:
            self.phase("sum")
            for lines in block.lines:
                cache_lines.take(lines)
            ordered_sum.run(block.additions, self._wire.add)
            self.phase("update")
            self._rules[block.matrix](block.weights, block.gradient, block.state, block.scratch)
            for copy in block.copies:
                np.copyto(copy, block.weights)

    def _update_after_sums(self) -> None:
        """All sums before the first update, as a norm and an update by the leader alone need them;
        the vector passes through the cache twice."""
        self.phase("sum")
        for block in self._blocks:
            for lines in block.lines:
                cache_lines.take(lines)
            ordered_sum.run(block.additions, self._wire.add)
            sum_squares(block.squares)
        if self._splits:
            self.phase("wait")
            self.barrier.wait()
        self.phase("update")
        factor = None
        if self._clip_norm is not None:
            length = norm(self._squares)
            factor = clip_factor(length, self._clip_norm, self.weights.dtype)
            if self.norms is not None:
                self.norms.append(length)
        for block in self._updates:
            if factor is not None:
                np.multiply(block.gradient, factor, out=block.gradient)
            self._rules[block.matrix](block.weights, block.gradient, block.state, block.scratch)
            for copy in block.copies:
                np.copyto(copy, block.weights)

    # --- what is made once -----------------------------------------------------------------------

    def _make_gradients(self, memory: SharedMemory) -> SharedGradients | PrivateGradients:
        return SharedGradients(memory, self.ownership, self.layout.size, self.layout.dtype)

    def _part(self, node_rank: int) -> tuple[int, int]:
        """The part of the vector that a rank of this node adds up."""
        if self._splits:
            return part(self.layout.ends, self.comm.node_size, node_rank)
        return (0, self.layout.size) if node_rank == 0 else (0, 0)

    def _place_weights(self, memory: SharedMemory) -> tuple[np.ndarray, CacheLines]:
        """The weights, once per node or once per rank, and what is to be done for their lines.

        Small weights have a copy on each rank, which gets new ones in its gradient vector. The
        leader alone would have to write them for every other rank: it does so for one.
        """
        size, dtype, node_size = self.layout.size, self.layout.dtype, self.comm.node_size
        if node_size == 1 or self.barrier.is_oversubscribed:
            return self._shared, CacheLines()
        sums, own, me = self._gradients.partial_sums, self.ownership, self.comm.node_rank
        others = [rank for rank in range(node_size) if rank != me]
        gradients = [sums[piece] for rank in others for piece in own.pieces(rank)]
        if self.layout.by_matrix:  # who adds up a part is not who updates it
            return self._shared, CacheLines(None, gradients)
        few = self._sharded or (node_size == 2 and not self._splits)
        if not few or size * dtype.itemsize > cache_lines.CACHE:
            updates_part = self._sharded == self._splits
            lines = self._shared[self._lo : self._hi] if updates_part else None
            return self._shared, CacheLines(lines, gradients)
        weights = memory.private(size, dtype)
        boxes = [sums[own.pieces(rank)[0]] for rank in range(node_size)]
        outside = [(0, self._lo), (self._hi, size)] if self._lo < self._hi else [(0, size)]
        inbox = [(boxes[me][lo:hi], weights[lo:hi]) for lo, hi in outside if lo < hi]
        return weights, CacheLines(None, gradients, [boxes[rank] for rank in others], inbox)

    def share_weights(self) -> None:
        """Rank 0's weights are everybody's; see `Exchange.share_weights`."""
        if self.weights is not self._shared and self.barrier.is_leader:
            np.copyto(self._shared, self.weights)
        super().share_weights()
        if self.weights is not self._shared:
            np.copyto(self.weights, self._shared)
        self.barrier.wait()

    def _plan_blocks(self) -> list[Block]:
        root, leaves = (0, self.layout.slices), self._gradients.partial_sums
        ranges = block_ranges(self.layout.ends, self._lo, self._hi)
        longest = max((hi - lo for lo, hi in ranges), default=0)
        depth = ordered_sum.scratch_needed(root, list(leaves))
        scratch = [np.empty(longest, self.layout.dtype) for _ in range(depth + 2)]
        return [self._plan_block(root, lo, hi, scratch) for lo, hi in ranges]

    def _plan_block(
        self, root: tuple[int, int], lo: int, hi: int, scratch: Sequence[np.ndarray]
    ) -> Block:
        layout = self.layout
        leaves = {leaf: vector[lo:hi] for leaf, vector in self._gradients.partial_sums.items()}
        first, second, *spare = [vector[: hi - lo] for vector in scratch]
        clips = self._clip_norm is not None
        keep = clips or self._sharded != self._splits or layout.by_matrix
        additions, gradient = ordered_sum.plan(root, leaves, spare, keep=keep)
        return Block(
            self._lines.gradient_lines(lo, hi),
            additions,
            gradient,
            self.weights[lo:hi],
            tuple(vector[lo:hi] for vector in self.state.values()),
            (first, second),
            self._lines.outgoing(lo, hi),
            plan_squares(gradient, layout.ends, lo, self._squares) if clips else [],
        )

    def _plan_updates(self) -> list[Block]:
        """Updates from the sums that the ranks leave in the first leaf: the leader's, of all of the
        vector, or whole matrices by their owners."""
        layout = self.layout
        if layout.by_matrix:
            owners = layout.owners(self.comm.node_size if self._sharded else 1)
            ranges = [
                (*place, matrix)
                for matrix, place in enumerate(layout.places)
                if owners[matrix] == self.comm.node_rank
            ]
        else:
            size = layout.size if self.barrier.is_leader else 0
            ranges = [(lo, hi, 0) for lo, hi in block_ranges(layout.ends, 0, size)]
        longest = max((hi - lo for lo, hi, _ in ranges), default=0)
        scratch = [np.empty(longest, layout.dtype) for _ in range(layout.scratch)]
        return [self._plan_update(lo, hi, matrix, scratch) for lo, hi, matrix in ranges]

    def _plan_update(self, lo: int, hi: int, matrix: int, scratch: list[np.ndarray]) -> Block:
        layout, sums = self.layout, self._gradients.partial_sums
        shape = layout.shapes[matrix] if layout.by_matrix else (hi - lo,)
        total, weights, *state = [
            vector[lo:hi].reshape(shape)
            for vector in (sums[min(sums)], self.weights, *self.state.values())
        ]
        temporary = tuple(vector[: hi - lo].reshape(shape) for vector in scratch)
        return Block([], [], total, weights, tuple(state), temporary, [], [], matrix)


def splits_sum(size: int, ranks: int, is_oversubscribed: bool) -> bool:
    """Whether the ranks of a node add up each a part, though one alone updates.

    One rank adds a vector of 5.8 million weights in about 1 ms (`python -m distnn.bench`, sum), so
    that this spares `(ranks - 1) * size` times 0.17 ns; it takes one barrier more, some 20
    microseconds where each rank has a core of its own, and a millisecond where not.
    """
    return ranks > 2 and not is_oversubscribed and (ranks - 1) * size > 120_000


class AllreduceExchange(NodeExchange):
    """MPI's own sum, for interconnects that add in hardware; the result depends on the ranks.

    All ranks have the whole sum afterwards (MPI gives all of them the same), so that every node
    updates its weights by itself.
    """

    def finish(self) -> int:
        """See `Exchange.finish`."""
        self.phase("sum")
        assert isinstance(self._gradients, PrivateGradients)
        self._gradients.allreduce()
        stop = super().finish()
        return self.comm.largest(stop) if self.comm.nodes > 1 else stop

    def _make_gradients(self, memory: SharedMemory) -> PrivateGradients:
        return PrivateGradients(self.comm, self.ownership, self.layout.size, self.layout.dtype)

    def _place_weights(self, memory: SharedMemory) -> tuple[np.ndarray, CacheLines]:
        return self._shared, CacheLines()
