"""Where the ranks meet once per step: gradients in, new weights out.

Every rank writes the partial sums of its own slices where its node's other ranks can read them.
The owner of a part of the vector adds them in the order of the tree, block by block, and applies
the update rule to the weights, which all ranks of the node share; or each has a copy of small ones,
and gets the new ones in the memory of its gradient. (With MPI's own sum in place of the tree, the
owner finds the whole sum there already.)
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from distnn.parallel.comm.barrier import Barrier
from distnn.parallel.comm.mpi import MPI
from distnn.parallel.comm.shared_memory import SharedMemory
from distnn.parallel.reduction import cache_lines, ordered_sum, tree
from distnn.parallel.reduction.blocks import (
    BLOCK,
    GRANULE,
    block_ranges,
    granule_range,
    norm,
    squares,
)
from distnn.parallel.reduction.internode import InterNode
from distnn.parallel.reduction.overlap import Overlap, Rule
from distnn.parallel.reduction.ownership import Ownership
from distnn.parallel.reduction.panels import Grid
from distnn.parallel.reduction.reductions import REDUCTIONS


class Block(NamedTuple):
    """One block of the owned part: views prepared once, so that a step only computes."""

    lines: list[np.ndarray]  # of what others wrote
    additions: list[ordered_sum.Addition]
    gradient: np.ndarray
    weights: np.ndarray
    copies: list[np.ndarray]  # in the others' gradients, see `claims`
    state: tuple[np.ndarray, ...]
    scratch: tuple[np.ndarray, ...]
    squares: np.ndarray


class Exchange:
    """The vectors of one run, and the meeting in which they change.

    Args:
        memory: gives the node-shared arrays.
        size: number of weights n.
        dtype: of weights, gradients and state.
        slices: S.
        state: names of the optimizer's state vectors.
        reduce: how gradients are added up, a name in `reductions.REDUCTIONS`.
        sharded: every rank updates its own part of the weights; else rank 0 updates all.
        clip_norm: the largest norm a gradient may have; None for no limit.
        grids: of the matrices that the vector holds one after the other. With them, and two
            nodes, the exchange may go on beside the passes: see `overlap`.

    Attributes:
        overlap: takes the place of `step` where it is not None. The norm of a gradient can only
            be known when all of it is there, so that clipping excludes it.
        weights: (n,) the weights, once per node; small ones once per rank, see `claims`.
        tasks: this rank's slices and what to add after each.
        vectors: this rank's gradient vectors (n,), numbered as in `tasks`.
        state: the optimizer's state vectors (n,) by name, once per node: `everywhere`, or on node
            0 alone. Only the node's own part of them is kept up to date.
        gradient_norm: norm of the last gradient before it was clipped, where it is clipped.
    """

    def __init__(
        self,
        memory: SharedMemory,
        size: int,
        dtype: Any,
        slices: int,
        *,
        state: Sequence[str] = (),
        reduce: str = "ordered",
        sharded: bool = False,
        clip_norm: float | None = None,
        grids: Sequence[Grid] = (),
    ) -> None:
        comm = memory.comm
        self.comm, self.clip_norm = comm, clip_norm
        self.gradient_norm = 0.0
        self.ownership = own = Ownership(size, slices, comm.node_ranks, sharded)
        self.barrier = Barrier(memory)
        self._claims = (
            comm.node_size > 1 and not self.barrier.is_oversubscribed and reduce == "ordered"
        )
        self._is_copy = self._claims and self._hands_over(size * np.dtype(dtype).itemsize)
        self.weights = (
            memory.private(size, dtype) if self._is_copy else memory.array((size,), dtype)
        )
        overlaps = bool(grids) and comm.nodes == 2 and clip_norm is None and reduce == "ordered"
        overlaps = overlaps and MPI.Query_thread() == MPI.THREAD_MULTIPLE
        self.everywhere = sharded or overlaps  # all nodes hold the state
        held = size if self.everywhere or comm.node == 0 else 0
        self.state = {name: memory.array((held,), dtype) for name in state}
        self._squares = memory.array((-(-size // GRANULE),), np.float64)

        self._reduction = REDUCTIONS[reduce](memory, own, dtype)
        self.tasks, self.vectors = self._reduction.tasks, self._reduction.vectors
        self._partial_sums = self._reduction.partial_sums
        lo, hi = own.part(comm.rank)
        self._own_lines = cache_lines.lines_of(self.weights[lo:hi])
        self._claim = self._claim_weights if self._claims and not self._is_copy else None
        self._incoming = self._plan_incoming(lo, hi) if self._is_copy else []
        self.overlap = self._make_overlap(memory, grids) if overlaps else None
        if not overlaps:
            self._internode = InterNode(memory, own, self._partial_sums, self.weights)
            self._blocks = self._plan_blocks()

    def share_weights(self) -> None:
        """Rank 0's weights are everybody's. Collective."""
        self.comm.broadcast_among_leaders(self.weights)
        if self._is_copy:
            on_the_way = self._inbox(0)
            if self.comm.is_first:
                cache_lines.copy(self.weights, on_the_way)
            self.barrier.meet()
            cache_lines.copy(on_the_way, self.weights)
            self.barrier.meet()

    def add_up(self, task: tree.SliceTask) -> None:
        """After a slice's gradient is in its vector: the additions that follow from it."""
        for left, right in task.additions:
            np.add(self.vectors[left], self.vectors[right], out=self.vectors[left])

    def step(self, rule: Rule, word: int = 0) -> int:
        """Sum the gradients of all ranks and update the weights.

        Collective. Before it, every rank has filled its pieces' vectors; after it, the weights
        are the new ones on every rank and the vectors may be written again.

        Args:
            rule: the update rule of this step.
            word: something each rank has to tell, such as a wish to stop.

        Returns:
            The largest word of all ranks, the same on every rank.
        """
        if self.comm.size == 1:  # nobody to meet
            self._update(rule)
            return word
        self._reduction.join()
        if not self.ownership.sharded:
            word = self.barrier.meet(word, lambda word: self._update_alone(rule, word), self._claim)
        else:
            word = self.barrier.meet(word, self._reduce, self._claim)
            self._update(rule)
            self.barrier.meet(alone=self._spread)
        self._take_in()
        return word

    def flush(self) -> None:
        """What is still on its way has arrived: all weights are the new ones. Collective."""
        if self.overlap is not None:
            self.overlap.flush()

    def close(self) -> None:
        """Before the memory is given back. Collective."""
        if self.overlap is not None:
            self.overlap.flush()
            self.overlap.close()

    def collect_state(self) -> None:
        """Node 0 has the whole of the optimizer's state after this. Collective."""
        if self.overlap is not None:
            self.overlap.flush()
            return
        parts = [self.ownership.node_part(node) for node in range(self.comm.nodes)]
        for vector in self.state.values():
            self._internode.collect(vector, parts)
        self.barrier.meet()

    def _update_alone(self, rule: Rule, word: int) -> int:
        """Leader, update by rank 0: everything that happens while the others wait."""
        word = self._reduce(word)
        if self._blocks:
            self._update(rule)
        return self._spread(word)

    def _reduce(self, word: int) -> int:
        """Leader: the gradients that this node's part needs are there; all nodes' largest word."""
        word = self._internode.largest(word)
        self._internode.reduce()
        return word

    def _spread(self, word: int) -> int:
        """Leader: the new weights are on every node."""
        self._internode.spread_weights()
        return word

    def _update(self, rule: Rule) -> None:
        """Sum and update the owned part, block by block."""
        if self.clip_norm is None:
            for block in self._blocks:
                self._add_up(block)
                self._apply(rule, block)
            return
        factor = self._sum_for_clipping(self.clip_norm)
        for block in self._blocks:
            if factor is not None:
                np.multiply(block.gradient, factor, out=block.gradient)
            self._apply(rule, block)

    def _add_up(self, block: Block) -> None:
        for lines in block.lines:
            cache_lines.claim(lines)
        ordered_sum.run(block.additions)

    def _apply(self, rule: Rule, block: Block) -> None:
        rule(block.weights, block.gradient, block.state, block.scratch)
        for copy in block.copies:
            cache_lines.copy(block.weights, copy)

    def _take_in(self) -> None:
        """The other parts' new weights into this rank's copy, if it has one."""
        for lines, new, weights in self._incoming:
            cache_lines.claim(lines)
            cache_lines.copy(new, weights)

    def _sum_for_clipping(self, clip_norm: float) -> np.floating | None:
        """Sum all blocks; the factor that shortens the gradient to `clip_norm` if it is longer.

        The norm needs the whole gradient before the first weight may change, so that the vector
        passes through the cache twice.
        """
        for block in self._blocks:
            self._add_up(block)
            squares(block.gradient, block.squares)
        if self.ownership.sharded:
            self.barrier.meet(alone=self._spread_squares)
        self.gradient_norm = norm(self._squares)
        if self.gradient_norm <= clip_norm:
            return None
        return self.weights.dtype.type(clip_norm / self.gradient_norm)

    def _spread_squares(self, word: int) -> int:
        """Leader: the squares of all granules are on every node."""
        parts = [granule_range(*self.ownership.node_part(node)) for node in range(self.comm.nodes)]
        self._internode.spread(self._squares, parts)
        return word

    def _make_overlap(self, memory: SharedMemory, grids: Sequence[Grid]) -> Overlap:
        additions = [(self.vectors[a], self.vectors[b]) for a, b in self.tasks[-1].additions]
        state = list(self.state.values())
        return Overlap(
            memory, self.ownership, self._partial_sums, self.weights, state, grids, additions
        )

    def _claim_weights(self) -> None:
        """This rank's part of the weights, which others have read."""
        cache_lines.claim(self._own_lines)

    def _hands_over(self, n_bytes: int) -> bool:
        """Whether each rank has a copy of the weights, and gets the new ones in its gradient.

        Rank 0 alone would have to write them for every other rank: it does for one.
        """
        few = self.ownership.sharded or self.comm.size == 2
        return self.comm.nodes == 1 and few and n_bytes <= cache_lines.CACHE

    def _inbox(self, rank: int) -> np.ndarray:
        """The gradient vector in which a rank gets new weights."""
        return self._partial_sums[self.ownership.pieces(rank)[0]]

    def _plan_incoming(self, lo: int, hi: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Lines, new weights and where they belong: all but this rank's own part."""
        inbox, weights = self._inbox(self.comm.rank), self.weights
        pairs = (inbox[:lo], weights[:lo]), (inbox[hi:], weights[hi:])
        return [(cache_lines.lines_of(new), new, old) for new, old in pairs if len(new)]

    def _plan_blocks(self) -> list[Block]:
        own = self.ownership
        lo, hi = own.part(self.comm.rank)
        if lo == hi:
            return []
        offset, _ = own.node_part(self.comm.node)
        received = self._internode.received
        leaves = [*self._partial_sums, *received]
        root = (0, own.slices)
        depth = ordered_sum.scratch_needed(root, leaves)
        there = [rank for rank in range(*own.node_ranks[self.comm.node]) if rank != self.comm.rank]
        others = [piece for rank in there for piece in own.pieces(rank)] if self._claims else []
        inboxes = [self._inbox(rank) for rank in there] if self._is_copy else []
        longest = min(BLOCK, hi - lo)
        scratch = [np.empty(longest, self.weights.dtype) for _ in range(depth + 2)]
        blocks = []
        for start, end in block_ranges(lo, hi):
            views = {leaf: vector[start:end] for leaf, vector in self._partial_sums.items()} | {
                leaf: vector[start - offset : end - offset] for leaf, vector in received.items()
            }
            cut = [vector[: end - start] for vector in scratch]
            keep = self.clip_norm is not None
            additions, gradient = ordered_sum.plan(root, views, cut[2:], keep=keep)
            state = tuple(vector[start:end] for vector in self.state.values())
            granules = self._squares[slice(*granule_range(start, end))]
            weights = self.weights[start:end]
            lines = [cache_lines.lines_of(views[leaf]) for leaf in others]
            copies = [inbox[start:end] for inbox in inboxes]
            spare = cut[0], cut[1]  # of the rule
            blocks.append(
                Block(lines, additions, gradient, weights, copies, state, spare, granules)
            )
        return blocks
