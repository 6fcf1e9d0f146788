"""Where the ranks of a run meet once per step: gradients in, new weights out.

What all exchanges have in common. `strategies.make_exchange` chooses one:

    NodeExchange       one node: sums and updates in shared memory, without a message
    BucketExchange     several nodes: buckets of the gradient travel beside the passes
    AllreduceExchange  reduce = "mpi": MPI's own sum
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np

from distnn.parallel.comm.barrier import Barrier
from distnn.parallel.comm.shared_memory import ArraySpec, SharedMemory
from distnn.parallel.reduction import tree
from distnn.parallel.reduction.granules import Ends, Grid, granule_ends, row_granule_ends
from distnn.parallel.reduction.ownership import Ownership, matrix_owners
from distnn.parallel.reduction.wire import Wire, make_wire

Rule = Callable[[np.ndarray, np.ndarray, Sequence[np.ndarray], Sequence[np.ndarray]], None]
"""An update rule in place, rule(weights, gradient, state, scratch), on one block of a vector or,
where the layout's scope is "matrix", on a whole matrix."""
Hook = Callable[[int, int], None]
"""Called with a layer, from 1, and the number of one of its blocks, from 0."""
Phase = Callable[[str], None]
"""Called with what the rank does from now on: "sum", "wait", "update", "exchange" (of parts of the
gradient, between nodes), or "elementwise": it goes on with the pass that it was at."""


SMALL = 4096  # weights; see ``chosen_update``


@dataclass(frozen=True)
class Layout:
    """The vectors of a run.

    Attributes:
        grids: of the matrices that a vector holds one after the other.
        dtype: of weights, gradients and state.
        slices: S.
        state: names of the optimizer's state vectors.
        scope: what a rule is given: a block of "element"s, or a whole "matrix", which then one
            rank updates.
        scratch: how many scratch vectors it is given.
        wire: in which numbers gradients are added up and travel, see `wire.make_wire`.
    """

    grids: tuple[Grid, ...]
    dtype: np.dtype
    slices: int
    state: tuple[str, ...] = ()
    scope: str = "element"
    scratch: int = 2
    wire: str = "float32"

    def make_wire(self) -> Wire:
        """The additions of a thread."""
        return make_wire(self.wire, self.dtype)

    @cached_property
    def size(self) -> int:
        """Number of weights n."""
        return sum(row_ends[-1] * column_ends[-1] for row_ends, column_ends in self.grids)

    @cached_property
    def ends(self) -> Ends:
        """The vector's granules."""
        return row_granule_ends(self.grids) if self.by_matrix else granule_ends(self.grids)

    @property
    def by_matrix(self) -> bool:
        """Whether rules get whole matrices."""
        return self.scope == "matrix"

    @cached_property
    def shapes(self) -> list[tuple[int, int]]:
        """Of the matrices."""
        return [(row_ends[-1], column_ends[-1]) for row_ends, column_ends in self.grids]

    @cached_property
    def places(self) -> list[tuple[int, int]]:
        """Where each matrix begins and ends in the vector."""
        return list(pairwise([0, *accumulate(rows * columns for rows, columns in self.shapes)]))

    def owners(self, ranks: int) -> tuple[int, ...]:
        """Which of so many ranks updates which matrix."""
        return matrix_owners([hi - lo for lo, hi in self.places], ranks)


def no_phase(phase: str) -> None:
    """Nobody measures."""


def chosen_update(update: str, nodes: int, ranks: int, size: int, is_oversubscribed: bool) -> str:
    """Who updates the weights where that is left open ("auto"): the bits are the same.

    Each rank its own part: an update by one rank is a pass over all weights in which the others
    wait, and between machines all gradients would flow to one. It takes a barrier more: rank 0 does
    it where that costs more than the update, of few weights, or where the ranks of one machine take
    turns on its cores (8 ranks on 2 cores: 1,537 instead of 1,038 microseconds a step of
    784-128-10).

    Args:
        ranks: of the node.
        size: number of weights n.
    """
    if update != "auto":
        return update
    is_quicker_alone = ranks == 1 or size < SMALL or is_oversubscribed
    return "rank0" if nodes == 1 and is_quicker_alone else "sharded"


class Exchange:
    """The vectors of one run on one rank. Every rank calls the same methods in the same order.

    In a step, a rank computes its slices in the order of `tasks`, each into its vector, and adds up
    as its task says. It calls `start` before its last backward pass, of one slice or several, and
    `finish` after it. Where `before_weights` is not None it is called before a block of weights is
    used, and `after_gradient` when a block is complete in all its vectors, sums included.

    Attributes:
        weights: (n,) the weights, once per node or once per rank.
        tasks: this rank's slices, and what to add after each.
        vectors: this rank's gradient vectors (n,), numbered as in `tasks`.
        state: the optimizer's state vectors (n,) by name, on the first node; rank 0's are whole
            after `collect_state`.
        before_weights: called with a layer and a block of its columns.
        update: "rank0" or "sharded".
        norms: of the gradient of each step since they were last taken out, before clipping, on rank
            0; None: not kept. Complete after `flush`.
        phase: called with what the rank does from now on, for a profile.
        after_gradient: called with a layer and a block of its rows, in the order of a backward
            pass: from the last layer down, in each the blocks upwards.
    """

    weights: np.ndarray
    tasks: list[tree.SliceTask]
    vectors: list[np.ndarray]
    state: dict[str, np.ndarray]
    norms: list[float] | None = None
    before_weights: Hook | None = None
    after_gradient: Hook | None = None

    def __init__(self, memory: SharedMemory, layout: Layout, update: str) -> None:
        self.comm, self.layout = memory.comm, layout
        self.phase: Phase = no_phase
        self.barrier = Barrier(memory)
        is_oversubscribed, ranks = self.barrier.is_oversubscribed, self.comm.node_size
        self.update = chosen_update(update, self.comm.nodes, ranks, layout.size, is_oversubscribed)
        self.ownership = Ownership(layout.slices, self.comm.node_ranks)
        self._rules: Sequence[Rule]
        self._stop = 0

    def start(self, rules: Sequence[Rule], stop: int) -> None:
        """A step's last gradient follows.

        Args:
            rules: the update rules of this step: with scope "matrix" one for each matrix, else the
                first is used for all.
            stop: this rank's stop request, 0 for none.
        """
        self._rules, self._stop = rules, stop

    def finish(self) -> int:
        """Sum the gradients of all ranks and update the weights, or see that it is under way.

        Returns:
            The largest stop request of all ranks, the same on every rank: of this step, or where
            the exchange goes on beside the passes, of the step before.
        """
        raise NotImplementedError

    def share_weights(self) -> None:
        """Rank 0's weights are everybody's. Collective."""
        self.comm.broadcast_among_leaders(self.weights)

    def share_state(self) -> None:
        """Whoever updates has rank 0's state. Collective."""
        for vector in self.state.values():
            self.comm.broadcast_among_leaders(vector)

    def collect_state(self) -> None:
        """Rank 0 has the whole of the optimizer's state after this. Collective."""
        self.barrier.wait()

    def keep_norms(self) -> None:
        """From now on add the norm of each step's gradient to ``norms``; needs a clip_norm."""
        self.norms = []

    def flush(self) -> None:
        """All weights are those of the last step. Collective."""

    def close(self) -> None:
        """Give back what is not memory. Collective."""

    def end_thread(self) -> None:
        """End the thread beside this rank, if there is one, also after an error of this rank."""


def shared_vectors(layout: Layout, own: Ownership, node: int, states: int) -> dict[str, ArraySpec]:
    """What every exchange shares on a node: weights, partial sums, state, squares of granules."""
    vector = (layout.size,)
    return {
        "weights": ArraySpec(1, vector, layout.dtype),
        "gradients": ArraySpec(len(own.rank_pieces(node)), vector, layout.dtype),
        "state": ArraySpec(states, vector, layout.dtype),
        "squares": ArraySpec(1, (len(layout.ends),), np.float64),
    }
