"""The buckets that one rank handles, from gradients of the node to new weights on the node.

The life of a bucket in a step:

    pack      all ranks of the node have completed its gradient: the node's pieces of the tree are
              added up, for each owner its region, and sent
    add up    the pieces of the own region have come from all nodes: they are added up in the order
              of the tree, and with clipping wait for the norm
    update    the own region's weights change, and go to the other nodes
    install   weights that have come are copied to where the passes read them, once no rank of the
              node needs the old ones for its backward pass

Buckets that a forward pass needs first overtake others.
"""

import heapq
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.parallel.reduction.exchange import Rule
from distnn.parallel.reduction.granules import clip_factor, norm
from distnn.parallel.reduction.norm_exchange import NormExchange
from distnn.parallel.reduction.ownership import Ownership
from distnn.parallel.reduction.step_flags import StepFlags
from distnn.parallel.reduction.transfer import KINDS, Transfer

WINDOW = 1 << 19  # bytes under way: more than a link of 1 Gbit/s carries in a tick of the thread;
# what is more urgent has to wait behind them
LARGE = 1 << 23  # bytes of a rank's buckets from which the window is twice as large, see `window`
PATIENCE = 0.005  # seconds without a message after which more is sent all the same


def window(total: int) -> int:
    """The bytes that a rank has under way of `total` in a step.

    Two hosts, 1 Gbit/s: 784-512-512-10 (2.7 MB) took 23.3 ms a step with 512 kB and 25.6 with 1 MB,
    because lower layers then overtake little; 784-2048-2048-10 (23 MB) 231 and 224, and on four
    hosts 358 and 334 (`tests/benchmarks/hosts.py`).
    """
    return WINDOW if total < LARGE else 2 * WINDOW


class Clipping:
    """What an engine needs to clip: the limit, the squares, and on the leader their exchange."""

    def __init__(
        self,
        clip_norm: float,
        dtype: np.dtype,
        squares: np.ndarray,
        exchange: NormExchange | None,
    ) -> None:
        self.squares, self.exchange = squares, exchange
        self._clip_norm, self._dtype = clip_norm, dtype
        self.length = 0.0

    def factor(self) -> np.floating | None:
        """What shortens the gradient, once the squares are complete; see `clip_factor`.

        The norm is ``length`` afterwards.
        """
        self.length = norm(self.squares)
        return clip_factor(self.length, self._clip_norm, self._dtype)


class Outgoing(NamedTuple):
    """A message to be sent, most urgent first: weights before gradients, lower buckets first.

    `size` counts one of the pieces that a message holds, as what comes is counted: nodes may have
    different numbers of pieces.
    """

    urgency: int
    serial: int
    request: "MPI.Prequest"
    size: int


class Engine:
    """Takes a rank's buckets through their steps, a little whenever `move` is called.

    Args:
        own: says which ranks of other nodes handle the same buckets.
        transfers: in the order in which a backward pass completes them.
        events: blocks of gradients in a backward pass.
        clipping: None for no limit.
    """

    def __init__(
        self,
        comm: Communicator,
        own: Ownership,
        transfers: Sequence[Transfer],
        flags: StepFlags,
        events: int,
        clipping: Clipping | None,
    ) -> None:
        self._transfers, self._flags, self._events = transfers, flags, events
        self._clipping = clipping
        self._is_leader, self._node = comm.node_rank == 0, comm.node
        self._step = self._normed = 0
        self.norms: list[float] | None = None  # where each step's norm is added
        self._rules: Sequence[Rule]
        self._make_requests(comm, own)
        self._unpacked: list[Transfer] = []  # the next one last
        self._missing: dict[int, int] = {}  # by bucket: nodes whose pieces are not there yet
        self._parts: dict[int, int] = {}  # by bucket: parts of the sum that are not there yet
        # by bucket: regions without their new weights; the first one also waits for all nodes' stop
        # requests, which are in their pieces, also where no piece of it is added up here
        self._old: dict[int, int] = {}
        self._complete: list[tuple[int, Transfer]] = []  # all pieces are there
        self._summed: list[tuple[int, Transfer]] = []  # the sum is there
        self._new: list[tuple[int, int, Transfer]] = []  # weights to be installed, from a node
        self._queue: list[Outgoing] = []
        self._sending: list[Outgoing] = []
        self._ahead = self._open = self._unsummed = 0
        self._window = window(sum(transfer.bytes for transfer in transfers))
        self._moved = 0.0  # when something was sent or came
        self._factor: np.floating | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing of this rank's is under way; the leader has the norm to exchange."""
        has_norm = self._clipping is None or not self._is_leader or self._normed == self._step
        return has_norm and not (self._open or self._queue or self._sending)

    def begin(self, rules: Sequence[Rule]) -> bool:
        """A step begins: its gradients follow."""
        self._step += 1
        self._rules = rules
        self._unpacked = list(reversed(self._transfers))
        self._missing = {t.number: 1 + len(t.pieces_in) for t in self._transfers}
        self._parts = {t.number: 1 + len(t.sums_in) for t in self._transfers}
        self._old = {t.number: (len(t.installs) or 1) + (t.number == 0) for t in self._transfers}
        self._open = self._unsummed = len(self._transfers)
        self._ahead, self._moved = 0, time.monotonic()
        if not self._transfers:
            self._flags.buckets_summed(self._step)
        if self._receives:
            MPI.Prequest.Startall(self._receives)
        return True

    def move(self) -> bool:
        """Do what has become possible; whether there may be more to do at once."""
        packed = self._pack()
        self._receive()
        self._send()
        return self._add_up() or self._update_one() or self._install() or packed

    def close(self) -> None:
        """Give the requests back, when idle."""
        for request in (*self._sends, *self._receives):
            request.Free()
        if self._clipping is not None and self._clipping.exchange is not None:
            self._clipping.exchange.close()

    # --- the steps of a bucket -------------------------------------------------------------------

    def _pack(self) -> bool:
        """Make one bucket ready to be sent, if there is one whose gradient is complete."""
        complete = self._flags.slowest() - (self._step - 1) * self._events
        if not self._unpacked or self._unpacked[-1].position >= complete:
            return False
        transfer = self._unpacked.pop()
        self._flags.sync()
        transfer.pack(self._flags.stop_of_node())
        self._enqueue(self._pieces_out[transfer.number])
        self._pieces_came(transfer, self._node)
        return True

    def _receive(self) -> None:
        if not self._receives:
            return
        for index in MPI.Prequest.Testsome(self._receives) or ():
            take_in, transfer, node, size = self._incoming[index]
            self._ahead -= size
            self._moved = time.monotonic()
            take_in(transfer, node)

    def _pieces_came(self, transfer: Transfer, node: int) -> None:
        self._missing[transfer.number] -= 1
        if self._missing[transfer.number]:
            return
        heapq.heappush(self._complete, (transfer.number, transfer))
        if transfer.number == 0:  # the leader's, and in it come the stop requests of all nodes
            self._flags.set_stop_of_nodes(transfer.largest_stop())

    def _send(self) -> None:
        self._sending = [message for message in self._sending if not message.request.Test()]
        while self._queue and (self._ahead < self._window or self._is_stuck()):
            message = heapq.heappop(self._queue)
            self._ahead += message.size
            self._moved = time.monotonic()
            self._sending.append(message)
            message.request.Start()

    def _is_stuck(self) -> bool:
        """Whether nothing comes although all that was sent has left.

        In a step a node gets as much as it sends, but not at all times: others may wait for what
        the window keeps back.
        """
        return not self._sending and time.monotonic() - self._moved > PATIENCE

    def _add_up(self) -> bool:
        """The sum of the pieces of one bucket; where nothing stands against it, the update, too."""
        if not self._complete:
            return False
        if self._complete[0][1].updates_in_place and not self._is_backward_done():
            return False
        _, transfer = heapq.heappop(self._complete)
        transfer.add_up()
        if transfer.updates_at_once:
            self._update(transfer, None)
        else:
            self._enqueue(self._sums_out[transfer.number])
            self._sum_came(transfer, self._node)
        if transfer.number == 0:
            self._region_done(transfer)
        return True

    def _sum_came(self, transfer: Transfer, node: int) -> None:
        """A part of the sum, of this node or from another."""
        transfer.take_in_sum(node)
        self._parts[transfer.number] -= 1
        if self._parts[transfer.number]:
            return
        self._unsummed -= 1
        if transfer.updates:
            if self._clipping is not None:
                transfer.sum_squares(self._clipping.squares)
            heapq.heappush(self._summed, (transfer.number, transfer))
        if not self._unsummed:
            self._flags.buckets_summed(self._step)

    def _update_one(self) -> bool:
        """Update from a sum that was waiting for other parts, or for the norm."""
        if self._clipping is not None and not self._know_norm(self._clipping):
            return False
        if not self._summed:
            return False
        if not self._summed[0][1].is_packed and not self._is_backward_done():
            return False
        self._update(heapq.heappop(self._summed)[1], self._factor)
        return True

    def _know_norm(self, clipping: Clipping) -> bool:
        """Whether the norm of the whole gradient is known."""
        flags, step = self._flags, self._step
        if self._unsummed:
            return False
        if self._is_leader and not flags.is_norm_known(step) and flags.all_summed(step):
            assert clipping.exchange is not None
            flags.sync()
            if clipping.exchange.move():
                flags.norm_known(step)
        if not flags.is_norm_known(step):
            return False
        if self._normed < step:
            flags.sync()
            self._factor = clipping.factor()
            if self.norms is not None:
                self.norms.append(clipping.length)
            self._normed = step
        return True

    def _update(self, transfer: Transfer, factor: np.floating | None) -> None:
        """New weights of one bucket, to be installed here and sent."""
        transfer.update(self._rules[transfer.matrix], factor)
        self._enqueue(self._weights_out[transfer.number])
        if self._node in transfer.installs:
            heapq.heappush(self._new, (transfer.number, self._node, transfer))
        elif not transfer.is_packed:
            self._region_done(transfer)

    def _weights_came(self, transfer: Transfer, node: int) -> None:
        heapq.heappush(self._new, (transfer.number, node, transfer))
        if node == 0:
            self._enqueue(self._passed_on[transfer.number])

    def _install(self) -> bool:
        """The new weights of one region, to where the passes read them."""
        if not self._new or not self._is_backward_done():
            return False
        _, node, transfer = heapq.heappop(self._new)
        transfer.install(node)
        self._region_done(transfer)
        return True

    def _region_done(self, transfer: Transfer) -> None:
        self._old[transfer.number] -= 1
        if not self._old[transfer.number]:
            self._flags.bucket_done(transfer.number, self._step)
            self._open -= 1

    def _is_backward_done(self) -> bool:
        """Whether no rank of the node needs the old weights any more."""
        return self._flags.slowest() >= self._step * self._events

    # --- messages ------------------------------------------------------------------------------

    def _enqueue(self, messages: Sequence[Outgoing]) -> None:
        for message in messages:
            heapq.heappush(self._queue, message)

    def _make_requests(self, comm: Communicator, own: Ownership) -> None:
        """Persistent requests, to and from whoever handles the same buckets on other nodes."""
        self._sends: list[MPI.Prequest] = []
        self._receives: list[MPI.Prequest] = []
        self._incoming: list[tuple[Callable[[Transfer, int], None], Transfer, int, int]] = []
        self._pieces_out: dict[int, list[Outgoing]] = {}
        self._sums_out: dict[int, list[Outgoing]] = {}
        self._weights_out: dict[int, list[Outgoing]] = {}
        self._passed_on: dict[int, list[Outgoing]] = {}
        for transfer in self._transfers:
            for kind, known, outgoing in (
                (0, self._pieces_out, [(n, m.bytes) for n, m in transfer.pieces_out.items()]),
                (1, self._sums_out, transfer.sums_out),
                (2, self._weights_out, transfer.weights_out),
                (2, self._passed_on, transfer.passes_on),
            ):
                known[transfer.number] = [
                    self._outgoing(comm, own, transfer, kind, node, buffer)
                    for node, buffer in outgoing
                    if buffer.size
                ]
            for kind, take_in, incoming in (
                (0, self._pieces_came, [(n, m.bytes) for n, m in transfer.pieces_in.items()]),
                (1, self._sum_came, list(transfer.sums_in.items())),
                (2, self._weights_came, list(transfer.weights_in.items())),
            ):
                for node, buffer in incoming:
                    source, tag = own.handler(node, transfer.number), KINDS * transfer.number + kind
                    size = transfer.pieces_in[node].piece_bytes if kind == 0 else buffer.nbytes
                    self._receives.append(comm.mpi.Recv_init(buffer, source, tag))
                    self._incoming.append((take_in, transfer, node, size))

    def _outgoing(
        self,
        comm: Communicator,
        own: Ownership,
        transfer: Transfer,
        kind: int,
        node: int,
        buffer: np.ndarray,
    ) -> Outgoing:
        tag = KINDS * transfer.number + kind
        size = transfer.pieces_out[node].piece_bytes if kind == 0 else buffer.nbytes
        request = comm.mpi.Send_init(buffer, own.handler(node, transfer.number), tag)
        self._sends.append(request)
        return Outgoing(tag - 2 * kind, len(self._sends), request, size)
