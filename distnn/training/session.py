"""One network being trained by one comm: the vectors, the passes and the position reached.

This is where a batch goes through: its rows are gathered slice by slice, back-propagated into
gradient vectors, and the exchange turns those into new weights.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distnn.config.options import TrainConfig
from distnn.data.order import epoch_order
from distnn.errors import DivergenceError, InputError
from distnn.nn.backprop import SlicePass
from distnn.nn.cuts import HookedPass
from distnn.nn.layout import grid
from distnn.nn.network import Network
from distnn.nn.optimizers import Optimizer, descend
from distnn.nn.schedules import factor
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.shared_memory import SharedMemory
from distnn.parallel.reduction.exchange import Exchange, Rule
from distnn.parallel.reduction.loss_sums import LossSums
from distnn.parallel.reduction.ownership import Ownership
from distnn.parallel.reduction.partition import slice_rows
from distnn.parallel.reduction.tree import SliceTask
from distnn.run.position import Position
from distnn.training.dataset import Dataset

Array = NDArray[Any]

MARGIN = 1 << 20  # bytes of shared memory for what is small, and for whole pages


class SliceWork(NamedTuple):
    """One of this rank's slices of a batch of a certain size: the views are made once for each."""

    task: SliceTask
    lo: int
    hi: int
    A0: Array
    T: Array
    dW: list[Array]


class Session:
    """The state of a training, on every rank. All methods are collective.

    Args:
        config: batch_size, slices (resolved), seed, schedule, warmup, reduce, update and clip_norm
            are used.

    Attributes:
        position: how far it is.
        network: its weights live in the exchange's shared vector while the session is open.
    """

    def __init__(
        self,
        comm: Communicator,
        network: Network,
        optimizer: Optimizer,
        config: TrainConfig,
    ) -> None:
        assert config.slices is not None
        self.comm, self.network, self.optimizer, self.config = comm, network, optimizer, config
        self.slices = config.slices
        self.position = Position()
        self._rate = optimizer.learning_rate
        self._is_plain = optimizer.is_plain and config.clip_norm is None
        self._scale = np.array(1, network.dtype)  # of the gradients, at this step
        self._home = network.vector if network.has_weights else None
        self.memory = SharedMemory(comm)
        self.exchange = Exchange(
            self.memory,
            network.size,
            network.dtype,
            self.slices,
            state=optimizer.state,
            reduce=config.reduce,
            sharded=config.update == "sharded",
            clip_norm=config.clip_norm,
            grids=[grid(shape, network.dtype.itemsize) for shape in network.shapes],
        )
        self.passes: SlicePass
        self._gradients = [network.views(vector) for vector in self.exchange.vectors]
        self._work_on: dict[int, list[SliceWork]] = {}
        self._tally = LossSums(comm, self.exchange.ownership)
        self._order_memory = SharedMemory(comm)
        self._order = np.empty(0, np.intp)

    # --- the vectors ---------------------------------------------------------------------------

    def start(self, weights: Array | None) -> None:
        """Let the network's weights live in shared memory from now on.

        Args:
            weights: on rank 0, the weights to start with (size,); None for the network's initial
                ones. Not looked at on other ranks.
        """
        if self.comm.is_first:
            if weights is None:
                self.network.draw(self.exchange.weights)
            else:
                self.exchange.weights[:] = weights
        self.exchange.share_weights()
        self.network.bind(self.exchange.weights)

    def restore(self, state: dict[str, Array], position: Position) -> None:
        """Go on from a checkpoint, after `start` with its weights.

        Args:
            state: on rank 0, the optimizer's state vectors by name.
            position: on every rank, the position reached.
        """
        for name, vector in self.exchange.state.items():
            if self.comm.is_first:
                vector[:] = state[name]
            if self.exchange.everywhere:
                self.comm.broadcast_among_leaders(vector)
        self.position = dataclasses.replace(position)

    def collect_state(self) -> None:
        """Rank 0 can read the whole state of the optimizer after this."""
        self.exchange.collect_state()

    def close(self) -> None:
        """Give the shared memory back; the network's weights are where they were before it."""
        self.exchange.close()
        home = np.empty_like(self.exchange.weights) if self._home is None else self._home
        home[:] = self.exchange.weights
        self.comm.node_comm.Barrier()
        self.network.bind(home)
        self._order_memory.close()
        self.memory.close()

    def end_thread(self) -> None:
        """The thread beside this rank ends, also after an error of this rank alone."""
        if self.exchange.overlap is not None:
            self.exchange.overlap.end_thread()

    # --- the loop ------------------------------------------------------------------------------

    def begin_epoch(self, samples: Dataset) -> int:
        """Draw the order of the epoch that is under way; its number of steps."""
        if len(self._order) != len(samples):
            self._order_memory.close()
            self._order = self._order_memory.array((len(samples),), np.intp)
            items = min(self.config.batch_size, len(samples))
            self.passes = self._make_pass(-(-items // self.slices))
            self._work_on.clear()
        if self.comm.node_rank == 0:
            epoch_order(len(samples), self.config.seed, self.position.epoch, self._order)
        self.exchange.barrier.wait()
        return -(-len(samples) // self.config.batch_size)

    def step(self, samples: Dataset, steps_total: int, word: int = 0) -> int:
        """One batch, one update.

        Args:
            steps_total: of the whole training, for the schedule.
            word: what this rank has to tell the others.

        Returns:
            The largest word of all ranks.
        """
        start = self.position.step * self.config.batch_size
        batch = self._order[start : start + self.config.batch_size]
        t = self.position.steps + 1
        self._rate = rate = self.learning_rate(t, steps_total)
        rule, scale = self._rule(t, rate)
        self._scale[()] = scale / len(batch)
        if self.exchange.overlap is None:
            self._back_propagate(samples, batch)
            word = self.exchange.step(rule, word)
        else:
            word = self._step_overlapped(samples, batch, rule, word)
        self.position.step += 1
        self.position.steps = t
        self.comm.status.step(t)
        if self._tally.full:
            self.collect_losses(steps_total)
        return word

    def _rule(self, t: int, rate: float) -> tuple[Rule, float]:
        """The update rule of step t, and what the mean gradients are multiplied with for it."""
        if self._is_plain:
            return descend, rate
        return self.optimizer.rule(t, rate, self.network.dtype), 1.0

    def _back_propagate(self, samples: Dataset, batch: NDArray[np.intp]) -> None:
        """The gradients of this rank's slices of the batch, added up as far as they are here."""
        items, slice_pass, step = len(batch), self.passes, self.position.steps
        scale = self._scale
        for task, lo, hi, A0, T, dW in self._work_on.get(items) or self._prepare(items):
            samples.gather(batch[lo:hi], A0, T)
            loss = slice_pass.forward(A0, T, (step, task.slice))
            slice_pass.backward(dW, scale)
            self._tally.put(task.slice, loss)
            self.exchange.add_up(task)
        self._tally.next_step()

    def _prepare(self, items: int) -> list[SliceWork]:
        """This rank's slices of a batch of so many items: there are two sizes at most."""
        work = []
        for task in self.exchange.tasks:
            lo, hi = slice_rows(task.slice, self.slices, items)
            A0, T = self.passes.input(hi - lo), self.passes.target(hi - lo)
            work.append(SliceWork(task, lo, hi, A0, T, self._gradients[task.vector]))
        self._work_on[items] = work
        return work

    def _step_overlapped(
        self, samples: Dataset, batch: NDArray[np.intp], rule: Rule, word: int
    ) -> int:
        """The same, with the exchange beside the passes; the largest word of the step before."""
        overlap, tasks = self.exchange.overlap, self.exchange.tasks
        assert overlap is not None
        assert isinstance(self.passes, HookedPass)
        largest = 0
        work, step = self._work_on.get(len(batch)) or self._prepare(len(batch)), self.position.steps
        for task, lo, hi, A0, T, dW in work:
            self.passes.announces = task is tasks[-1]
            samples.gather(batch[lo:hi], A0, T)
            loss = self.passes.forward(A0, T, (step, task.slice))
            if self.passes.announces:
                largest = overlap.begin(rule, word)
            self.passes.backward(dW, self._scale)
            self._tally.put(task.slice, loss)
            if not self.passes.announces:
                self.exchange.add_up(task)
        self._tally.next_step()
        return largest

    def _make_pass(self, rows: int) -> SlicePass:
        overlap = self.exchange.overlap
        if overlap is None:
            return SlicePass(self.network, rows)
        return HookedPass(self.network, rows, overlap)

    def learning_rate(self, t: int, steps_total: int) -> float:
        """The learning rate of step t = 1, 2, ..."""
        course = factor(self.config.schedule, t, steps_total, self.config.warmup)
        return self.optimizer.learning_rate * course

    def collect_losses(self, steps_total: int) -> None:
        """Add the losses of the last steps to the position's.

        Raises:
            DivergenceError: on every rank, if one of them is not finite.
        """
        losses = self._tally.take()
        first = self.position.steps - len(losses) + 1
        for t, loss in enumerate(losses.tolist(), first):
            if not np.isfinite(loss):
                self.exchange.flush()
                what = f"the loss of step {t} is {loss}"
                rate = self.learning_rate(t, steps_total)
                raise DivergenceError(self._divergence(what, rate))
            self.position.loss += loss

    def end_epoch(self, samples: Dataset, steps_total: int) -> float:
        """Close the epoch; its training loss, the mean over the items as they were trained on."""
        self.exchange.flush()
        self.collect_losses(steps_total)
        loss = self.position.loss / len(samples)
        self.position.epoch += 1
        self.position.step, self.position.loss = 0, 0.0
        return loss

    def items_since(self, before: Position, per_epoch: int) -> int:
        """How many items were trained on since a position, each epoch's counted anew."""

        def items(position: Position) -> int:
            in_epoch = min(position.step * self.config.batch_size, per_epoch)
            return position.epoch * per_epoch + in_epoch

        return items(self.position) - items(before)

    def check_finite(self) -> None:
        """Before the weights are kept: see that they and the optimizer's state are finite.

        A gradient that was not finite is seen here, too, because it makes the weights so.

        Raises:
            DivergenceError: on every rank, if some of it is not finite.
        """

        def check() -> None:
            vectors = (self.exchange.weights, *self.exchange.state.values())
            if not all(_is_finite(vector) for vector in vectors):
                what = f"weights or optimizer state are no longer finite after step {t}"
                raise DivergenceError(self._divergence(what, self._rate))

        t = self.position.steps
        self.comm.on_first(check)

    def _divergence(self, what: str, rate: float) -> str:
        return (
            f"training diverged: {what}, at learning rate {rate:g}; "
            f"{_worst(self.network.weights)}; "
            "use a smaller --learning-rate, a --warmup or --clip-norm"
        )


def _is_finite(vector: Array) -> bool:
    # one pass without an array of its own; the sum of finite numbers may still be infinite
    return bool(np.isfinite(vector.sum()) or np.isfinite(vector).all())


def _worst(weights: Sequence[Array]) -> str:
    """The layers that are no longer finite; if all are, the one with the largest weight."""
    lost = [f"W{l}" for l, W in enumerate(weights, 1) if not _is_finite(W)]
    if lost:
        return f"no longer finite: {', '.join(lost)}"
    largest = [float(max(W.max(), -W.min())) for W in weights]
    size = max(largest)
    return f"the largest weight is {size:.3g}, in W{largest.index(size) + 1}"


def check_slices(slices: int, ranks: int, recorded: bool = False) -> None:
    """InputError if some rank would have no slice; those of a recorded run cannot be changed."""
    if slices < ranks:
        more = f"or {'begin another run with' if recorded else 'use'} --slices {ranks} or more"
        raise InputError(
            f"{ranks} ranks for {slices} slices: a rank needs at least one",
            where="slices",
            remedy=f"start at most {slices} ranks, {more}",
        )


def empty_slices_message(size: int, slices: int) -> str:
    """One line if no batch of `size` items has an item for each slice, else nothing."""
    if slices <= size:
        return ""
    return (
        f"{slices} slices for batches of {size}: {slices - size} of each step are empty "
        f"and only cost time; at most {size} slices and ranks, or a larger --batch-size, cost less"
    )


def needed_bytes(
    network: Network, optimizer: Optimizer, comm: Communicator, slices: int, update: str, data: int
) -> int:
    """About what a node shares: `data` bytes of data sets, and the vectors of a session."""
    own = Ownership(network.size, slices, comm.node_ranks, update == "sharded")
    vectors = own.shared_elements(comm.node, len(optimizer.state)) * network.dtype.itemsize
    return data + vectors + MARGIN
