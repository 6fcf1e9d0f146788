"""Gradients that travel between two nodes while the passes go on.

As soon as a panel of the gradient is complete on all ranks of a node, one of them adds it up and
sends it to its counterpart on the other node. Both nodes add the same sums in the order of the
tree and update the same weights, so that nothing has to be sent back; and a panel is waited for no
earlier than the next forward pass needs its weights. Lower layers, needed first, overtake others.
"""

import heapq
import math
import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from distnn.parallel.comm.mpi import MPI
from distnn.parallel.comm.shared_memory import SharedMemory
from distnn.parallel.reduction import tree
from distnn.parallel.reduction.ownership import Ownership
from distnn.parallel.reduction.panels import Grid, backward, cut
from distnn.parallel.reduction.parcel import Parcel, Space
from distnn.parallel.reduction.progress_thread import ProgressThread

LINE = 8  # int64 numbers in a cache line
POLLS = 1_000  # some milliseconds: how often whoever waits looks whether others still live
WINDOW = 1 << 19  # bytes under way: more than a slow link carries in a tick; what is more urgent
# has to wait behind them
CALLS = 2  # of MPI in a tick: each takes in no more than a part of what has come meanwhile
COUNT, WORD = 0, 1  # in a rank's line: gradients completed, and what it has to tell

Rule = Callable[[np.ndarray, np.ndarray, Sequence[np.ndarray], Sequence[np.ndarray]], None]
"""An update rule on one block, in place: rule(weights, gradient, state, scratch)."""


class Overlap:
    """The exchange of one rank of two nodes. Every rank calls the same methods.

    Args:
        partial_sums: the node's vectors (n,), by the node of the tree each is the sum of.
        grids: of the matrices in these vectors.
        additions: pairs of this rank's vectors to be added, block by block, when the step's last
            gradient is complete: left += right.
    """

    def __init__(
        self,
        memory: SharedMemory,
        own: Ownership,
        partial_sums: Mapping[tree.Node, np.ndarray],
        weights: np.ndarray,
        state: Sequence[np.ndarray],
        grids: Sequence[Grid],
        additions: Sequence[tuple[np.ndarray, np.ndarray]],
    ) -> None:
        comm = memory.comm
        panels, events = cut(grids, weights.itemsize), backward(grids)
        self._sync, self._here = memory.sync, comm.status
        self._panels, self._events = len(panels), len(events)
        lines = memory.array((comm.node_size + 1, LINE), np.int64)
        self._flags = lines.data.cast("B").cast("q")
        self._done = memory.array((len(panels),), np.int64).data.cast("B").cast("q")
        self._mine, self._verdict = comm.node_rank * LINE, comm.node_size * LINE
        self._ranks = [rank * LINE for rank in range(comm.node_size)]
        self._steps = self._count = 0
        blocks = _blocks(grids)
        self._additions = {
            event: [(left[blocks[event]], right[blocks[event]]) for left, right in additions]
            for event in events
        }
        self._needed: dict[tuple[int, int], list[int]] = {}
        for number, panel in enumerate(panels):
            self._needed.setdefault((panel.layer, panel.column_block), []).append(number)

        here, there = comm.node, 1 - comm.node
        pieces = own.node_pieces(here), own.node_pieces(there)
        space = Space(max(math.prod(panel.shape) for panel in panels), weights.dtype)
        position = {event: number for number, event in enumerate(events)}
        parcels = [
            Parcel(
                number, position[panel.layer, panel.row_block], panel, pieces,
                partial_sums, weights, state, space,
            )
            for number, panel in enumerate(panels)
            if number % comm.node_size == comm.node_rank
        ]  # fmt: skip
        self._parcels = sorted(parcels, key=lambda parcel: (parcel.position, parcel.number))
        first, end = comm.node_ranks[there]
        partner = {p.number: first + p.number % (end - first) for p in self._parcels}
        mpi = self._comm = comm.mpi
        self._sends = {
            p.number: mpi.Send_init(p.out, partner[p.number], p.number) for p in self._parcels
        }
        self._receives = [mpi.Recv_init(p.into, partner[p.number], p.number) for p in self._parcels]
        self._unpacked: list[Parcel] = []  # the next one last
        self._queue: list[tuple[int, Parcel]] = []
        self._sending: list[MPI.Prequest] = []
        self._arrived: list[tuple[int, Parcel]] = []
        self._ahead = self._open = 0
        self._rule: Rule | None = None
        self._ticker = ProgressThread(self._tick)

    def begin(self, rule: Rule, word: int) -> int:
        """Between a step's first forward pass and its last backward pass: gradients follow.

        Args:
            rule: the update rule of this step.
            word: what this rank has to tell.

        Returns:
            The largest word of all ranks in the step before.
        """
        self._drain()
        verdict = self._flags[self._verdict]
        self._flags[self._mine + WORD] = word
        self._ticker.work(lambda: self._begin(rule))
        self._ticker.wake()
        return verdict

    def ready(self, layer: int, block: int) -> None:
        """A block of rows of the layer's gradient is complete. In the order of `backward`."""
        for left, right in self._additions[layer, block]:
            np.add(left, right, out=left)
        self._count += 1
        self._sync()
        self._flags[self._mine + COUNT] = self._count
        self._ticker.work(self._move)

    def need(self, layer: int, block: int) -> None:
        """Wait until a block of columns of the layer's weights is that of the last step begun."""
        numbers, done, steps = self._needed[layer, block], self._done, self._steps
        if min([done[number] for number in numbers]) < steps:
            self._until(lambda: min([done[number] for number in numbers]) >= steps)
        self._sync()

    def flush(self) -> None:
        """All weights and all state are those of the last step begun. Collective."""
        for layer, block in self._needed:
            self.need(layer, block)
        self._drain()

    def close(self) -> None:
        """Give the requests back, after `flush`."""
        self.end_thread()
        for request in (*self._sends.values(), *self._receives):
            request.Free()

    def end_thread(self) -> None:
        """Nothing moves beside the passes any more; nobody is waited for."""
        self._ticker.close()

    def _begin(self, rule: Rule) -> bool:
        self._steps += 1
        self._rule = rule
        self._open = len(self._parcels)
        self._unpacked = self._parcels[::-1]
        MPI.Prequest.Startall(self._receives)
        return True

    def _drain(self) -> None:
        """Nothing of this rank's is under way any more."""
        self._until(lambda: not (self._open or self._queue or self._sending))
        self._ticker.rest()

    def _until(self, done: Callable[[], bool]) -> None:
        polls = 0
        self._ticker.rest()
        with self._here.waiting():
            while not done():
                if not self._ticker.work(self._move):
                    os.sched_yield()
                polls += 1
                if polls % POLLS == 0:
                    self._here.check()
        self._ticker.wake()

    def _tick(self) -> bool:
        """While this rank computes: as much as has come together since the last tick."""
        for _ in range(CALLS):
            self._comm.Iprobe()
        return self._move()

    def _move(self) -> bool:
        """Let things move: add up and send what is complete, take in what has arrived.

        Returns:
            Whether there may be more to do at once.
        """
        packed = self._pack()
        for number in MPI.Prequest.Testsome(self._receives) or ():
            parcel = self._parcels[number]
            self._ahead -= parcel.size
            heapq.heappush(self._arrived, (parcel.number, parcel))
        self._sending = [request for request in self._sending if not request.Test()]
        while self._queue and self._ahead < WINDOW:
            number, parcel = heapq.heappop(self._queue)
            self._ahead += parcel.size
            self._sending.append(self._sends[number])
            self._sending[-1].Start()
        return self._update() or packed

    def _slowest(self) -> int:
        return min([self._flags[line + COUNT] for line in self._ranks])

    def _pack(self) -> bool:
        """Make one panel ready to be sent, if there is one that is complete."""
        complete = self._slowest() - (self._steps - 1) * self._events
        if not self._unpacked or self._unpacked[-1].position >= complete:
            return False
        self._sync()
        parcel = self._unpacked.pop()
        parcel.pack(max([self._flags[line + WORD] for line in self._ranks]))
        heapq.heappush(self._queue, (parcel.number, parcel))
        return True

    def _update(self) -> bool:
        """Update the weights of one panel that has arrived, once no backward pass needs them.

        And once all panels are packed: whoever finds them updated may write its gradient again.
        """
        if self._unpacked or not self._arrived or self._slowest() < self._steps * self._events:
            return False
        _, parcel = heapq.heappop(self._arrived)
        assert self._rule is not None
        self._sync()
        parcel.add_up()
        self._rule(parcel.weights, parcel.gradient, parcel.state, parcel.scratch)
        if parcel.number == 0:
            words = [self._flags[line + WORD] for line in self._ranks]
            self._flags[self._verdict] = max(parcel.word(), *words)
        self._sync()
        self._done[parcel.number] = self._steps
        self._open -= 1
        return True


def _blocks(grids: Sequence[Grid]) -> dict[tuple[int, int], slice]:
    """Where the blocks of rows of all matrices lie in the vector, by (layer, block)."""
    found, start = {}, 0
    for layer, (row_ends, column_ends) in enumerate(grids, 1):
        width = column_ends[-1]
        lo = 0
        for block, hi in enumerate(row_ends):
            found[layer, block] = slice(start + lo * width, start + hi * width)
            lo = hi
        start += lo * width
    return found
