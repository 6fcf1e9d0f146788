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
from collections.abc import Sequence

import numpy as np

from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.parallel.reduction.exchange import Rule
from distnn.parallel.reduction.granules import clip_factor, norm
from distnn.parallel.reduction.norm_exchange import NormExchange
from distnn.parallel.reduction.ownership import Ownership
from distnn.parallel.reduction.step_flags import StepFlags
from distnn.parallel.reduction.transfer import Transfer

WINDOW = 1 << 19  # bytes under way: more than a slow link carries in a tick of the thread; what is
# more urgent has to wait behind them


class Clipping:
    """What an engine needs to clip: the limit, the squares, and on the leader their exchange."""

    def __init__(
        self, clip_norm: float, squares: np.ndarray, exchange: NormExchange | None
    ) -> None:
        self.clip_norm, self.squares, self.exchange = clip_norm, squares, exchange

    def factor(self, dtype: np.dtype) -> np.floating | None:
        """What shortens the gradient, once the squares are complete; see `clip_factor`."""
        return clip_factor(norm(self.squares), self.clip_norm, dtype)


class Engine:
    """Takes a rank's buckets through their steps, a little whenever `move` is called.

    Args:
        transfers: in the order in which a backward pass completes them.
        events: blocks of gradients in a backward pass.
        clipping: None for no limit.

    Attributes:
        is_idle: nothing of this rank's is under way.
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
        self._is_leader = comm.node_rank == 0
        self._node = comm.node
        self._step = self._normed = 0
        self._rule: Rule
        self._make_requests(comm, own)
        self._unpacked: list[Transfer] = []  # the next one last
        self._missing: dict[int, int] = {}  # by bucket: nodes whose pieces are not there yet
        self._old_regions: dict[int, int] = {}  # by bucket: regions without their new weights
        self._complete: list[tuple[int, Transfer]] = []  # all pieces are there
        self._summed: list[tuple[int, Transfer]] = []  # waiting for the norm
        self._new: list[tuple[int, int, Transfer]] = []  # weights to be installed, from a node
        self._queue: list[tuple[int, int, int]] = []  # messages to be sent, most urgent first
        self._sending: list[int] = []
        self._ahead = self._open = self._unsummed = 0
        self._factor: np.floating | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing of this rank's is under way."""
        return not (self._open or self._queue or self._sending)

    def begin(self, rule: Rule) -> bool:
        """A step begins: its gradients follow."""
        self._step += 1
        self._rule = rule
        self._unpacked = list(reversed(self._transfers))
        self._missing = {t.number: 1 + len(t.pieces_in) for t in self._transfers}
        self._old_regions = {t.number: 1 + len(t.weights_in) for t in self._transfers}
        self._open = self._unsummed = len(self._transfers)
        self._ahead = 0
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
        return self._advance() or self._install() or packed

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
        for index in self._pieces_out[transfer.number]:
            heapq.heappush(self._queue, (2 * transfer.number + 1, self._sizes[index], index))
        self._pieces_came(transfer)
        return True

    def _receive(self) -> None:
        if not self._receives:
            return
        for index in MPI.Prequest.Testsome(self._receives) or ():
            transfer, node, is_weights = self._incoming[index]
            if is_weights:
                self._ahead -= transfer.weights_in[node].nbytes
                heapq.heappush(self._new, (transfer.number, node, transfer))
            else:
                self._ahead -= transfer.pieces_in[node].bytes.nbytes
                self._pieces_came(transfer)

    def _pieces_came(self, transfer: Transfer) -> None:
        self._missing[transfer.number] -= 1
        if self._missing[transfer.number]:
            return
        heapq.heappush(self._complete, (transfer.number, transfer))
        if transfer.number == 0:  # the leader's, and in it come the stop requests of all nodes
            self._flags.set_stop_of_nodes(transfer.largest_stop())

    def _send(self) -> None:
        self._sending = [index for index in self._sending if not self._sends[index].Test()]
        # about as much comes as goes; where less does, what was sent must have left first
        while self._queue and (self._ahead < WINDOW or not self._sending):
            _, size, index = heapq.heappop(self._queue)
            self._ahead += size
            self._sending.append(index)
            self._sends[index].Start()

    def _advance(self) -> bool:
        """Add up, or update, one bucket."""
        if self._clipping is None:
            return self._update(self._complete)
        return self._add_up(self._clipping) or (
            self._know_norm(self._clipping) and self._update(self._summed)
        )

    def _add_up(self, clipping: Clipping) -> bool:
        if not self._complete:
            return False
        number, transfer = heapq.heappop(self._complete)
        transfer.add_up()
        transfer.sum_squares(clipping.squares)
        heapq.heappush(self._summed, (number, transfer))
        self._unsummed -= 1
        if not self._unsummed:
            self._flags.buckets_summed(self._step)
        return True

    def _know_norm(self, clipping: Clipping) -> bool:
        """Whether the norm of the whole gradient is known."""
        if not self._summed or self._unsummed:
            return False
        flags, step = self._flags, self._step
        if self._is_leader and not flags.is_norm_known(step) and flags.all_summed(step):
            assert clipping.exchange is not None
            flags.sync()
            if clipping.exchange.move():
                flags.norm_known(step)
        if not flags.is_norm_known(step):
            return False
        if self._normed < step:
            flags.sync()
            self._factor = clipping.factor(self._transfers[0].gradient.dtype)
            self._normed = step
        return True

    def _update(self, ready: list[tuple[int, Transfer]]) -> bool:
        """Update the own region of one bucket, and send it where others do not do so themselves."""
        if not ready or not (ready[0][1].returns or self._is_backward_done()):
            return False
        number, transfer = heapq.heappop(ready)
        if self._clipping is None:
            transfer.add_up()
        elif self._factor is not None:
            np.multiply(transfer.gradient, self._factor, out=transfer.gradient)
        transfer.update(self._rule)
        if not transfer.returns:
            self._region_done(transfer)
            return True
        for index in self._weights_out[number]:
            heapq.heappush(self._queue, (2 * number, self._sizes[index], index))
        heapq.heappush(self._new, (number, self._node, transfer))
        return True

    def _install(self) -> bool:
        """The new weights of one region, to where the passes read them."""
        if not self._new or not self._is_backward_done():
            return False
        _, node, transfer = heapq.heappop(self._new)
        transfer.install(node)
        self._region_done(transfer)
        return True

    def _region_done(self, transfer: Transfer) -> None:
        self._old_regions[transfer.number] -= 1
        if not self._old_regions[transfer.number]:
            self._flags.bucket_done(transfer.number, self._step)
            self._open -= 1

    def _is_backward_done(self) -> bool:
        """Whether no rank of the node needs the old weights any more."""
        return self._flags.slowest() >= self._step * self._events

    # --- messages ------------------------------------------------------------------------------

    def _make_requests(self, comm: Communicator, own: Ownership) -> None:
        """Persistent requests, to and from whoever handles the same buckets on other nodes."""
        self._sends: list[MPI.Prequest] = []
        self._sizes: list[int] = []
        self._receives: list[MPI.Prequest] = []
        self._incoming: list[tuple[Transfer, int, bool]] = []
        self._pieces_out: dict[int, list[int]] = {}
        self._weights_out: dict[int, list[int]] = {}
        for transfer in self._transfers:
            partner = [own.handler(node, transfer.number) for node in range(comm.nodes)]
            tag = 2 * transfer.number
            self._pieces_out[transfer.number] = [
                self._add_send(comm.mpi.Send_init(message.bytes, partner[node], tag), message.bytes)
                for node, message in transfer.pieces_out.items()
            ]
            self._weights_out[transfer.number] = [
                self._add_send(
                    comm.mpi.Send_init(transfer.weights_out, partner[node], tag + 1),
                    transfer.weights_out,
                )
                for node in transfer.weights_to
            ]
            for node, message in transfer.pieces_in.items():
                self._receives.append(comm.mpi.Recv_init(message.bytes, partner[node], tag))
                self._incoming.append((transfer, node, False))
            for node, weights in transfer.weights_in.items():
                self._receives.append(comm.mpi.Recv_init(weights, partner[node], tag + 1))
                self._incoming.append((transfer, node, True))

    def _add_send(self, request: "MPI.Prequest", buffer: np.ndarray) -> int:
        self._sends.append(request)
        self._sizes.append(buffer.nbytes)
        return len(self._sends) - 1
