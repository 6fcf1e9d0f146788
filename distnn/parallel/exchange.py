"""Where the ranks meet once per step: gradients in, new weights out.

Every rank writes the partial sums of its own slices where its node's other ranks can read them.
The owner of a part of the vector adds them in the order of the tree, block by block, and applies
the update rule to the weights that all ranks of the node share. (With MPI's own sum in place of
the tree, the owner finds the whole sum there already.)
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from . import ordered_sum, tree
from .blocks import BLOCK, GRANULE, block_ranges, granule_range, norm, squares
from .claims import Claims
from .gates import Gates
from .internode import InterNode
from .memory import SharedMemory
from .mpi import MPI
from .overlap import Overlap, Rule
from .ownership import Ownership
from .panels import Grid
from .reductions import REDUCTIONS


class Block(NamedTuple):
    """One block of the owned part: views prepared once, so that a step only computes."""

    additions: list[ordered_sum.Addition]
    gradient: np.ndarray
    weights: np.ndarray
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
        weights: (n,) the weights, once per node.
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
        team = memory.team
        self.team, self.clip_norm = team, clip_norm
        self.gradient_norm = 0.0
        self.ownership = own = Ownership(size, slices, team.node_ranks, sharded)
        self.gates = Gates(memory)
        self.weights = memory.array((size,), dtype)
        overlaps = bool(grids) and team.nodes == 2 and clip_norm is None and reduce == "ordered"
        overlaps = overlaps and MPI.Query_thread() == MPI.THREAD_MULTIPLE
        self.everywhere = sharded or overlaps  # all nodes hold the state
        held = size if self.everywhere or team.node == 0 else 0
        self.state = {name: memory.array((held,), dtype) for name in state}
        self._squares = memory.array((-(-size // GRANULE),), np.float64)

        self._reduction = REDUCTIONS[reduce](memory, own, dtype)
        self.tasks, self.vectors = self._reduction.tasks, self._reduction.vectors
        self._partial_sums = self._reduction.partial_sums
        self._claims = self._make_claims()
        self.overlap = self._make_overlap(memory, grids) if overlaps else None
        if not overlaps:
            self._internode = InterNode(memory, own, self._partial_sums, self.weights)
            self._blocks = self._plan_blocks()

    def begin(self) -> None:
        """Before this step's gradients are written."""
        if self._claims is not None:
            self._claims.gradients()

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
        if self.team.size == 1:  # nobody to meet
            self._update(rule)
            return word
        self._reduction.join()
        claim = None if self._claims is None else self._claims.weights
        if not self.ownership.sharded:
            return self.gates.meet(word, lambda word: self._update_alone(rule, word), claim)
        word = self.gates.meet(word, self._reduce, claim)
        self._update(rule)
        self.gates.meet(alone=self._spread)
        return word

    def settle(self) -> None:
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
        parts = [self.ownership.node_part(node) for node in range(self.team.nodes)]
        for vector in self.state.values():
            self._internode.collect(vector, parts)
        self.gates.meet()

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
            for additions, gradient, weights, state, scratch, _ in self._blocks:
                ordered_sum.run(additions)
                rule(weights, gradient, state, scratch)
            return
        factor = self._sum_for_clipping(self.clip_norm)
        for block in self._blocks:
            if factor is not None:
                np.multiply(block.gradient, factor, out=block.gradient)
            rule(block.weights, block.gradient, block.state, block.scratch)

    def _sum_for_clipping(self, clip_norm: float) -> np.floating | None:
        """Sum all blocks; the factor that shortens the gradient to `clip_norm` if it is longer.

        The norm needs the whole gradient before the first weight may change, so that the vector
        passes through the cache twice.
        """
        for block in self._blocks:
            ordered_sum.run(block.additions)
            squares(block.gradient, block.squares)
        if self.ownership.sharded:
            self.gates.meet(alone=self._spread_squares)
        self.gradient_norm = norm(self._squares)
        if self.gradient_norm <= clip_norm:
            return None
        return self.weights.dtype.type(clip_norm / self.gradient_norm)

    def _spread_squares(self, word: int) -> int:
        """Leader: the squares of all granules are on every node."""
        parts = [granule_range(*self.ownership.node_part(node)) for node in range(self.team.nodes)]
        self._internode.spread(self._squares, parts)
        return word

    def _make_overlap(self, memory: SharedMemory, grids: Sequence[Grid]) -> Overlap:
        additions = [(self.vectors[a], self.vectors[b]) for a, b in self.tasks[-1].additions]
        state = list(self.state.values())
        return Overlap(
            memory, self.ownership, self._partial_sums, self.weights, state, grids, additions
        )

    def _make_claims(self) -> Claims | None:
        """Others read all weights, and of this rank's gradients all but its own part.

        Where ranks take turns on a core, and share its cache, claims cost more than they save.
        """
        if self.team.node_size == 1 or self.gates.is_crowded:
            return None
        lo, hi = self.ownership.part(self.team.rank)
        pieces = self.ownership.pieces(self.team.rank)
        vectors = [self._partial_sums[piece] for piece in pieces if piece in self._partial_sums]
        parts = [part for vector in vectors for part in (vector[:lo], vector[hi:])]
        return Claims(parts, self.weights[lo:hi])

    def _plan_blocks(self) -> list[Block]:
        own = self.ownership
        lo, hi = own.part(self.team.rank)
        if lo == hi:
            return []
        offset, _ = own.node_part(self.team.node)
        received = self._internode.received
        leaves = [*self._partial_sums, *received]
        root = (0, own.slices)
        depth = ordered_sum.scratch_needed(root, leaves)
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
            blocks.append(Block(additions, gradient, weights, state, (cut[0], cut[1]), granules))
        return blocks
