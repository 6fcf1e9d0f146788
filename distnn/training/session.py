"""One training on all ranks: the vectors, the passes and the position reached.

This is where a batch goes through: its rows are gathered slice by slice, back-propagated into
gradient vectors, and the exchange turns those into new weights.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distnn.config.options import TrainConfig
from distnn.errors import DistnnError, DivergenceError
from distnn.nn.network import Network
from distnn.nn.optimizers import Optimizer, descend
from distnn.nn.optimizers.average import NAME as AVERAGE
from distnn.nn.optimizers.average import averaged, with_average
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.shared_memory import SharedMemory
from distnn.parallel.reduction.exchange import Exchange, Phase, Rule, no_phase
from distnn.parallel.reduction.loss_sums import LossSums
from distnn.parallel.reduction.strategies import make_exchange
from distnn.run.position import Position
from distnn.training.batches import Batches, EpochRates
from distnn.training.dataset import Dataset, Order
from distnn.training.noise_scale import NoiseScale, noise_scale
from distnn.training.slice_work import Profiler, SliceWork
from distnn.training.vectors import layout_of

Array = NDArray[Any]


class Session:
    """The state of a training, on every rank. All methods are collective.

    Args:
        network: or whatever has one flat vector of weights, see `own_gradient.FlatVector`.
        config: batch_size, slices (resolved), seed, shuffle, schedule, warmup, reduce, wire,
            update, clip_norm, average and how batches and their rates grow are used.
        make_work: what computes the gradients of this rank's slices, of the network, the exchange,
            the most items of a batch, and what observes them, or None.

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
        make_work: Callable[[Any, Exchange, int, Any], Any] = SliceWork,
    ) -> None:
        assert config.slices is not None
        self.comm, self.network, self.optimizer, self.config = comm, network, optimizer, config
        self.slices = config.slices
        self.position = Position()
        self._rate = optimizer.learning_rate
        # rounded gradients are those of the mean, whatever the learning rate
        is_rounded = config.wire != "float32"
        self._is_plain = optimizer.is_plain and config.clip_norm is None and not is_rounded
        self.dataset: Dataset
        self.batches: Batches
        self._batch_size: int  # of the epoch that is under way
        self._rates: EpochRates
        self._scale = np.array(1, network.dtype)  # of the gradients, at this step
        self._home = network.vector if network.has_weights else None
        self._phase: Phase = no_phase
        self.memory, observes = SharedMemory(comm), config.noise_scale
        self.exchange = make_exchange(
            self.memory,
            layout_of(network, optimizer, config),
            reduce=config.reduce,
            update=config.update,
            clip_norm=math.inf if observes and config.clip_norm is None else config.clip_norm,
        )
        self._noise = NoiseScale(comm, self.exchange.ownership) if observes else None
        if observes:
            self.exchange.keep_norms()
        averages = network.size if config.average is not None else 0
        self._averages = self.memory.array((averages,), network.dtype)
        self.work: SliceWork
        self._make_work = make_work
        self._loss_sums = LossSums(comm, self.exchange.ownership)
        self._order: Order

    # --- the vectors ---------------------------------------------------------------------------

    def start(self, weights: Array | None, dataset: Dataset) -> None:
        """Let the network's weights live in shared memory from now on.

        Args:
            weights: on rank 0, the weights to start with (size,); None for the network's initial
                ones. Not looked at on other ranks.
            dataset: what is trained on.
        """
        items = len(dataset)
        self.dataset, self.batches = dataset, Batches.of(self.config, items)
        self._order = dataset.order(self.memory)
        observe = None if self._noise is None else self._noise.observed
        most = min(self.config.batch_size, items)
        self.work = self._make_work(self.network, self.exchange, most, observe)
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
        if self.comm.is_first:
            for name, vector in self.exchange.state.items():
                vector[:] = state[name]
        self.exchange.share_state()
        self.position = dataclasses.replace(position)

    def collect_state(self) -> None:
        """Rank 0 can read the whole state of the optimizer after this."""
        self.exchange.collect_state()

    def close(self) -> None:
        """Give the shared memory back; the network's weights are where they were before it."""
        self.exchange.close()
        home = np.empty_like(self.exchange.weights) if self._home is None else self._home
        home[:] = self.exchange.weights
        self.exchange.barrier.wait()
        self.network.bind(home)
        self.memory.close()

    def finish(self) -> tuple[Position, dict[str, Array]]:
        """Close it; the position reached, and on rank 0 the optimizer's state vectors by name."""
        self.collect_state()
        state = self.exchange.state if self.comm.is_first else {}
        kept = {name: vector.copy() for name, vector in state.items()}
        self.close()
        return self.position, kept

    @contextmanager
    def closing(self, keep: Callable[[Position, dict[str, Array]], None]) -> Iterator[None]:
        """Close it at the end of the context.

        Args:
            keep: is given what `finish` gives, also after an error that all ranks have; not after a
                divergence, so that position and state stay those before.
        """
        try:
            yield
        except DivergenceError:
            self.close()
            raise
        except DistnnError:
            keep(*self.finish())
            raise
        finally:
            self.end_thread()
        keep(*self.finish())

    def end_thread(self) -> None:
        """The thread beside this rank ends, also after an error of this rank alone."""
        self.exchange.end_thread()

    # --- the loop ------------------------------------------------------------------------------

    def begin_epoch(self, epochs: int) -> int:
        """Draw the order of the epoch that is under way, of so many; its number of steps."""
        position, batches = self.position, self.batches
        self._order.begin_epoch(self.config.seed, position.epoch, self.config.shuffle)
        self.exchange.barrier.wait()
        self._batch_size = batches.size(position.epoch)
        self._rates = EpochRates.of(self.config, batches, position, epochs)
        return batches.steps(position.epoch)

    def step(self, stop: int = 0) -> int:
        """One batch, one update.

        Args:
            stop: this rank's stop request, 0 for none.

        Returns:
            The largest stop request of all ranks, see `Exchange.finish`.
        """
        position, exchange, phase = self.position, self.exchange, self._phase
        dataset, start = self.dataset, position.step * self._batch_size
        batch = self._order.batch(start, start + self._batch_size)
        t = position.steps + 1
        rules, scale = self._rules(t, self.learning_rate(t))
        self._scale[()] = scale / (_weight(dataset, batch) or 1)
        for stacks, backward, is_last in self.work.for_batch(len(batch)):
            for run, slices, items, A0, T, rows, is_first in stacks:
                phase("input")
                chosen = batch[items]
                dataset.gather(chosen, *rows)
                phase("forward")
                dropout, before = (position.steps, slices), exchange.before_weights
                w = self._weights(chosen, A0)
                loss = run.forward(A0, T, dropout, before, is_first, w)
                self._loss_sums.put(slices, loss)
            if is_last:
                exchange.start(rules, stop)
            phase("backward")
            backward.run(self._scale, exchange.after_gradient if is_last else None)
        stop = exchange.finish()
        phase("rest")
        if self._noise is not None:
            self._noise.next_step(len(batch), scale)
        position.step += 1
        position.steps = t
        self.comm.status.step(t)
        self._loss_sums.next_step()
        if self._loss_sums.full:
            self.collect_losses()
        return stop

    def _weights(self, rows: NDArray[np.intp], A0: Array) -> Array | None:
        """The weights of rows that go through a pass together, (..., b, 1) as A0; None for 1."""
        weights = self.dataset.weights
        if weights is None:
            return None
        return weights[rows].astype(self.network.dtype).reshape(*A0.shape[:-1], 1)

    def attach(self, profiler: Profiler | None) -> None:
        """Have the phases of all steps from now on measured; None: no longer."""
        self._phase = self.exchange.phase = no_phase if profiler is None else profiler.enter
        self.work.attach(profiler)

    def _rules(self, t: int, rate: float) -> tuple[list[Rule], float]:
        """The update rules of step t, and what the mean gradients are multiplied with for it."""
        self._rate = rate
        dtype, beta = self.network.dtype, self.config.average
        rules: list[Rule] = (
            [descend]
            if self._is_plain
            else self.optimizer.rules(t, rate, dtype, len(self.network.shapes))
        )
        if beta is not None:
            rules = [with_average(rule, beta, dtype) for rule in rules]
        return rules, rate if self._is_plain else 1.0

    def learning_rate(self, t: int) -> float:
        """The learning rate of step t = 1, 2, ... of the epoch that is under way."""
        return self._rates.rate(self.optimizer.learning_rate, t)

    def collect_losses(self) -> None:
        """Add the losses of the last steps to the position's.

        Raises:
            DivergenceError: on every rank, if one of them is not finite.
        """
        if self._noise is not None:
            self.exchange.flush()
            assert self.exchange.norms is not None
            self._noise.add_to(self.position, self.exchange.norms)
            self.exchange.norms.clear()
        losses = self._loss_sums.take()
        first = self.position.steps - len(losses) + 1
        for t, loss in enumerate(losses.tolist(), first):
            if not np.isfinite(loss):
                self.exchange.flush()
                what = f"the loss of step {t} is {loss}"
                rate = self.learning_rate(t)
                raise DivergenceError(self._divergence(what, rate))
            self.position.loss += loss

    def end_epoch(self) -> dict[str, float]:
        """Close the epoch; ``train_loss``, the mean over the items as they were trained on, and
        where it is asked for the ``noise_scale``."""
        self.exchange.flush()
        self.collect_losses()
        position = self.position
        measures = {"train_loss": position.loss / self.dataset.total_weight}
        if self._noise is not None:
            measures["noise_scale"] = noise_scale(position)
        position.epoch += 1
        position.step, position.loss, position.signal, position.noise = 0, 0.0, 0.0, 0.0
        return measures

    @property
    def measured_weights(self) -> Array:
        """On rank 0, the weights (n,) that the last `averaged` gave, or the network's own."""
        return self.exchange.weights if self.config.average is None else self._averages

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the network have the averaged weights meanwhile, if any are kept. Collective."""
        beta, network = self.config.average, self.network
        if beta is None:
            yield
            return
        self.collect_state()
        if self.comm.is_first:
            found = averaged(self.exchange.state[AVERAGE], beta, self.position.steps)
            self._averages[:] = found
        self.comm.broadcast_among_leaders(self._averages)
        self.exchange.barrier.wait()
        network.bind(self._averages)
        yield
        self.exchange.barrier.wait()
        network.bind(self.exchange.weights)

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


def _weight(dataset: Dataset, batch: NDArray[np.intp]) -> float:
    """What the sum over a batch is divided by, the same on every rank: each node has all weights.

    It is 0 where all rows have the weight 0: their gradient is 0, whatever divides it.
    """
    return len(batch) if dataset.weights is None else float(dataset.weights[batch].sum())


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
