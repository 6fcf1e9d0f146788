"""Gradients that travel between two nodes while the passes go on.

As soon as a panel of the gradient is complete on all ranks of a node, one of them adds it up and
sends it to its counterpart on the other node. Both nodes add the same sums in the order of the
tree and update the same weights, so that nothing has to be sent back; and a panel is waited for no
earlier than the next forward pass needs its weights. Lower layers, needed first, overtake others.

MPI moves data when it is called, and not in between: `poke` is called between products.
"""

import heapq
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from . import ordered_sum, tree
from .memory import SharedMemory
from .mpi import MPI
from .ownership import Ownership
from .panels import Panel

LINE = 8  # int64 numbers in a cache line
POLLS = 1_000  # some milliseconds: how often whoever waits looks whether others still live
COUNT, WORD = 0, 1  # in a rank's line: gradients completed, and what it has to tell


class Parcel:
    """A panel that this rank exchanges with its counterpart, and updates.

    Args:
        number: of the panel, in the order of the forward pass.
        position: of the panel, in the order of the backward pass.
    """

    def __init__(
        self,
        number: int,
        position: int,
        panel: Panel,
        pieces: tuple[list[tree.Node], list[tree.Node]],
        partial_sums: Mapping[tree.Node, np.ndarray],
        dtype: np.dtype,
    ) -> None:
        self.number, self.position = number, position
        self.out, own = _buffer(len(pieces[0]), panel.shape, dtype)
        self.into, others = _buffer(len(pieces[1]), panel.shape, dtype)
        self.packing: list[tuple[Callable[..., Any], tuple[np.ndarray, ...]]] = []
        for piece, sent in zip(pieces[0], own, strict=True):
            leaves = {node: panel.view(v) for node, v in partial_sums.items() if _in(node, piece)}
            spare = _scratch(ordered_sum.scratch_needed(piece, list(leaves)), panel, dtype)
            additions, total = ordered_sum.plan(piece, leaves, spare, keep=False)
            if additions:
                additions[-1] = (*additions[-1][:2], sent)
            else:
                self.packing.append((np.copyto, (sent, total)))
            self.packing += [(np.add, addition) for addition in additions]
        sums = dict(zip(pieces[0], own, strict=True)) | dict(zip(pieces[1], others, strict=True))
        root = min(n[0] for n in sums), max(n[1] for n in sums)
        spare = _scratch(ordered_sum.scratch_needed(root, list(sums)), panel, dtype)
        self.additions, self.gradient = ordered_sum.plan(root, sums, spare, keep=False)

    def pack(self, word: int) -> None:
        """The node's sums of this panel, and a word, ready to be sent."""
        for operation, arguments in self.packing:
            operation(*arguments)
        self.out[-8:].view(np.int64)[0] = word

    def unpack(self) -> int:
        """The word that came with the other node's sums."""
        return int(self.into[-8:].view(np.int64)[0])


class Overlap:
    """The exchange of one rank of two nodes. Every rank calls the same methods.

    Args:
        partial_sums: the node's vectors (n,), by the node of the tree each is the sum of.
        panels: of these vectors, in the order in which the forward pass needs them.
        additions: pairs of this rank's vectors to be added, panel by panel, when the step's last
            gradient is complete: left += right.
    """

    def __init__(
        self,
        memory: SharedMemory,
        own: Ownership,
        partial_sums: Mapping[tree.Node, np.ndarray],
        weights: np.ndarray,
        state: Sequence[np.ndarray],
        panels: Sequence[Panel],
        additions: Sequence[tuple[np.ndarray, np.ndarray]],
    ) -> None:
        team = memory.team
        here, there = team.node, 1 - team.node
        pieces = own.node_pieces(here), own.node_pieces(there)
        backward = sorted(range(len(panels)), key=lambda p: (-panels[p].layer, p))
        self._sync, self._here, self._panels = memory.sync, team.here, len(panels)
        lines = memory.array((team.node_size + 1, LINE), np.int64)
        self._flags = lines.data.cast("B").cast("q")
        self._done = memory.array((len(panels),), np.int64).data.cast("B").cast("q")
        self._mine, self._verdict = team.node_rank * LINE, team.node_size * LINE
        self._ranks = [rank * LINE for rank in range(team.node_size)]
        self._steps = self._count = 0
        self._additions = [
            [(panel.view(left), panel.view(right), panel.view(left)) for left, right in additions]
            for panel in panels
        ]
        self._parcels = [
            Parcel(number, position, panels[number], pieces, partial_sums, weights.dtype)
            for position, number in enumerate(backward)
            if number % team.node_size == team.node_rank
        ]
        self._views = {
            parcel.number: self._targets(panels[parcel.number], weights, state)
            for parcel in self._parcels
        }
        first, end = team.node_ranks[there]
        partner = {p.number: first + p.number % (end - first) for p in self._parcels}
        comm = self._comm = team.comm
        self._sends = {
            p.number: comm.Send_init(p.out, partner[p.number], p.number) for p in self._parcels
        }
        self._receives = {
            p.number: comm.Recv_init(p.into, partner[p.number], p.number) for p in self._parcels
        }
        self._unpacked: list[Parcel] = []  # the next one last
        self._queue: list[int] = []
        self._sending: MPI.Prequest | None = None
        self._open: list[Parcel] = []
        self._rule: Callable[..., None] | None = None

    def begin(self, rule: Callable[..., None], word: int) -> int:
        """Between a step's first forward pass and its last backward pass: gradients follow.

        Args:
            rule: the update rule of this step.
            word: what this rank has to tell.

        Returns:
            The largest word of all ranks in the step before.
        """
        self._drain()
        self._steps += 1
        self._rule = rule
        verdict = self._flags[self._verdict]
        self._flags[self._mine + WORD] = word
        self._unpacked = self._parcels[::-1]
        self._open = sorted(self._parcels, key=lambda parcel: parcel.number)
        MPI.Prequest.Startall(list(self._receives.values()))
        return verdict

    def ready(self, number: int) -> None:
        """The gradient of a panel, in the order of the backward pass, is complete."""
        ordered_sum.run(self._additions[number])
        self._count += 1
        self._sync()
        self._flags[self._mine + COUNT] = self._count
        self.poke()

    def need(self, number: int) -> None:
        """Wait until the weights of a panel are those of the last step begun."""
        if self._done[number] < self._steps:
            self._until(lambda: self._done[number] >= self._steps)
        self._sync()

    def poke(self) -> None:
        """Let things move: add up and send what is complete, take in what has arrived."""
        if self._unpacked:
            self._pack()
        if self._sending is None or self._sending.Test():
            self._sending = None
            if self._queue:
                self._sending = self._sends[heapq.heappop(self._queue)]
                self._sending.Start()
        self._comm.Iprobe()
        backward_is_done = not self._unpacked and self._slowest() == self._steps * self._panels
        if self._open and backward_is_done:
            self._open = [parcel for parcel in self._open if not self._updated(parcel)]

    def flush(self) -> None:
        """All weights and all state are those of the last step begun. Collective."""
        for number in range(self._panels):
            self.need(number)
        self._drain()

    def close(self) -> None:
        """Give the requests back, after `flush`."""
        for request in (*self._sends.values(), *self._receives.values()):
            request.Free()

    def _drain(self) -> None:
        self._until(lambda: not self._queue and self._sending is None)

    def _until(self, done: Callable[[], bool]) -> None:
        polls = 0
        with self._here.waiting():
            while not done():
                self.poke()
                os.sched_yield()
                polls += 1
                if polls % POLLS == 0:
                    self._here.check()

    def _slowest(self) -> int:
        return min([self._flags[line + COUNT] for line in self._ranks])

    def _pack(self) -> None:
        complete = self._slowest() - (self._steps - 1) * self._panels
        while self._unpacked and self._unpacked[-1].position < complete:
            self._sync()
            parcel = self._unpacked.pop()
            parcel.pack(max([self._flags[line + WORD] for line in self._ranks]))
            heapq.heappush(self._queue, parcel.number)

    def _updated(self, parcel: Parcel) -> bool:
        """Update the weights of a panel if it has arrived."""
        if not self._receives[parcel.number].Test():
            return False
        assert self._rule is not None
        self._sync()
        ordered_sum.run(parcel.additions)
        weights, state, scratch = self._views[parcel.number]
        self._rule(weights, parcel.gradient, state, scratch)
        if parcel.number == 0:
            words = [self._flags[line + WORD] for line in self._ranks]
            self._flags[self._verdict] = max(parcel.unpack(), *words)
        self._sync()
        self._done[parcel.number] = self._steps
        return True

    @staticmethod
    def _targets(
        panel: Panel, weights: np.ndarray, state: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
        views = [panel.view(vector) for vector in state]
        return panel.view(weights), views, _scratch(2, panel, weights.dtype)


def _buffer(
    count: int, shape: tuple[int, int], dtype: np.dtype
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Bytes for `count` matrices of a shape and a word, and views of the matrices."""
    size = shape[0] * shape[1] * dtype.itemsize
    buffer = np.zeros(count * size + 8, np.uint8)
    return buffer, [
        buffer[k * size : (k + 1) * size].view(dtype).reshape(shape) for k in range(count)
    ]


def _scratch(count: int, panel: Panel, dtype: np.dtype) -> list[np.ndarray]:
    return [np.empty(panel.shape, dtype) for _ in range(count)]


def _in(node: tree.Node, piece: tree.Node) -> bool:
    return piece[0] <= node[0] and node[1] <= piece[1]
