"""The loop. The only place where nn, data, parallel and run meet."""

import dataclasses
import sys
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from distnn.blas_threads import one_thread_per_rank
from distnn.config.options import BLAS, UPDATES, TrainConfig
from distnn.errors import DistnnError, DivergenceError, StopRequested
from distnn.nn.network import Network
from distnn.nn.optimizers import Adam, Optimizer
from distnn.nn.schedules import SCHEDULES
from distnn.parallel.comm.attached import communicator_of
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.shared_memory import SharedMemory, closing
from distnn.parallel.comm.status import STALL_TIMEOUT
from distnn.parallel.watchdog.watchdog import watched
from distnn.run.position import Position
from distnn.training.agreement import check_fit
from distnn.training.arguments import instance, one_of, pair, positive, whole
from distnn.training.bits import agree_on_blas
from distnn.training.dataset import Dataset, from_arrays, shared_bytes
from distnn.training.evaluation import Evaluation
from distnn.training.session import Session, check_slices, empty_slices_message
from distnn.training.session import shared_bytes as vector_bytes

if TYPE_CHECKING:  # what writes files is loaded where it does
    from distnn.training.recorder import Recorder
    from distnn.training.trainer_run import TrainerRun

Record = dict[str, Any]
FAILURES = ("raise", "abort")


class Trainer:
    """Trains a network data-parallel over MPI ranks. Every method is collective.

    Args:
        network: on every rank, built alike; rank 0's weights are the ones that are trained.
        optimizer: None means `Adam()`.
        batch_size: B, global: over all ranks together.
        slices: S; None means one per rank. The result depends on it, not on the ranks.
        seed: of the order of the samples.
        comm: an MPI communicator; None means all ranks.
        reduce: "ordered": the same bits on any number of ranks; "mpi": MPI's own Allreduce, whose
            result depends on it.
        update: "rank0" or "sharded": who updates the weights. Same bits.
        blas: "numpy", "mkl" or "auto": what multiplies matrices, in all that distnn does in this
            process from here on.
        clip_norm: the largest norm a gradient may have; None for no limit.
        schedule, warmup: the course of the learning rate, see `distnn.nn.schedules`.
        run_dir: where `fit` writes metrics, checkpoints and the summary; None: nowhere.
        resume: go on with the run that is in `run_dir`, if there is one. A script that is run again
            ends as it would have ended undisturbed: its n-th `fit` trains until the run has the
            epochs of the first n; one that the run has behind it trains nothing.
        checkpoint_every: "N" epochs or "Ns" steps between two checkpoints.
        keep: how many checkpoints stay, besides the best.
        progress: "auto", "bar", "lines" or "off".
        on_failure: "raise": if a rank fails in `fit`, its exception rises there and `RankFailed` on
            the others; only ranks that are inside MPI, where nothing can reach them, end the job
            after some seconds. "abort": the job ends at once, with the traceback.
        stall_timeout: seconds without any movement in `fit` that are taken for a failure.

    Raises:
        InputError: an argument cannot be used; more ranks than slices.
    """

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer | None = None,
        *,
        batch_size: int = 64,
        slices: int | None = None,
        seed: int = 0,
        comm: Any = None,
        reduce: str = "ordered",
        update: str = "rank0",
        blas: str = "auto",
        clip_norm: float | None = None,
        schedule: str = "constant",
        warmup: int = 0,
        run_dir: str | None = None,
        resume: bool = False,
        checkpoint_every: str | int = "1",
        keep: int = 3,
        progress: str = "off",
        on_failure: str = "raise",
        stall_timeout: float = STALL_TIMEOUT,
    ) -> None:
        self.network = instance(Network, network, "network", "Network([64, 32, 10])")
        optimizer = Adam() if optimizer is None else optimizer
        self.optimizer = instance(Optimizer, optimizer, "optimizer", "Adam(0.001)")
        self.comm = comm if isinstance(comm, Communicator) else communicator_of(comm)
        agree_on_blas(self.comm, one_of(BLAS, blas, "blas"))
        asked = TrainConfig(
            run_dir=run_dir,
            resume=resume,
            checkpoint_every=str(checkpoint_every),
            keep=keep,
            progress=progress,
            reduce=one_of(("ordered", "mpi"), reduce, "reduce"),
            update=one_of(UPDATES, update, "update"),
            clip_norm=None if clip_norm is None else positive(clip_norm, "clip_norm"),
            batch_size=whole(batch_size, "batch_size", 1),
            slices=self.comm.size if slices is None else whole(slices, "slices", 1),
            schedule=one_of(tuple(SCHEDULES), schedule, "schedule"),
            warmup=whole(warmup, "warmup", 0),
        )
        asked.check()
        asked = dataclasses.replace(asked, seed=whole(seed, "seed", 0, 2**64 - 1))
        self.config = asked
        self._run = _run_of(asked)
        self.on_failure = one_of(FAILURES, on_failure, "on_failure")
        self.stall_timeout = positive(stall_timeout, "stall_timeout")
        assert asked.slices is not None
        check_slices(asked.slices, self.comm.size)
        line = empty_slices_message(asked.batch_size, asked.slices)
        if self.comm.is_first and line:
            _say(line)
        self.position = Position()
        self._state: dict[str, np.ndarray] = {}
        self._stop = 0

    def fit(
        self, X: Any, T: Any, epochs: int, *, test: Any = None, partitioned: bool = False
    ) -> list[Record]:
        """Train for some epochs; a second call goes on where the first one ended.

        Args:
            X: rows (n, n_0); T: targets as `Network.targets` takes them. The same on every rank,
                or, with `partitioned`, each rank its own rows.
            epochs: passes over the rows; with `resume`, less what the run has of them already.
            test: (X, T) to measure the network on after each epoch, the same on every rank.

        Returns:
            One record per epoch: epoch, step, learning_rate, train_loss, and with `test` also
            test_loss and test_accuracy or test_r2. The same on every rank.

        Raises:
            InputError: X and T do not fit the network, on every rank.
            DivergenceError: a loss or a weight is not finite, on every rank. The weights are what
                they have become; position and optimizer state are those before the call.
            StopRequested: on every rank, see `request_stop`; the next call goes on from there.
            RankFailed: another rank failed; the training is lost. See `on_failure`.
        """
        whole(epochs, "epochs", 1)
        self.comm.status.stall_timeout = self.stall_timeout
        with watched(self.comm, ends_job=self.on_failure == "abort"):
            return self._fit_arrays(X, T, epochs, test, partitioned)

    def _fit_arrays(
        self, X: Any, T: Any, epochs: int, test: Any, partitioned: bool
    ) -> list[Record]:
        check_fit(self, X, test, epochs, partitioned)
        data = [] if test is None else [pair(test, "test")]
        comm = self.comm.with_memory(self._needed(X, T, partitioned, data))
        memory = SharedMemory(comm)
        with one_thread_per_rank(), self._run or nullcontext(), closing(memory):
            samples = from_arrays(comm, memory, self.network, X, T, partitioned)
            test_samples = from_arrays(comm, memory, self.network, *data[0]) if data else None
            return self._fit(comm, samples, test_samples, epochs)

    def _fit(
        self, comm: Communicator, samples: Dataset, test: Dataset | None, epochs: int
    ) -> list[Record]:
        run, until, recorder = self._run, self.position.epoch + epochs, None
        if run is not None:
            until = run.begin(self, epochs)
        session = self.open_session(comm)
        try:
            if run is not None:
                recorder = run.recorder(self, session, samples, until)
            records = self.train(session, samples, test, until, recorder)
            session.collect_state()
            if run is not None:
                run.finish(self, recorder, session, samples)
        except DivergenceError:
            session.close()
            raise
        except DistnnError:
            self.close_session(session)
            raise
        else:
            self.close_session(session)
        finally:
            session.end_thread()
        return records

    def request_stop(self) -> None:
        """Ask for a stop at the next step boundary; any rank may, all ranks stop together."""
        self._stop = 1

    # --- what the commands build on -----------------------------------------------------------

    def load_state(
        self, position: Position, weights: np.ndarray | None, state: dict[str, np.ndarray]
    ) -> None:
        """Let the next session begin where a checkpoint ends.

        Args:
            position: on every rank.
            weights: on rank 0, the flat vector; None if there is no checkpoint.
            state: on rank 0, the optimizer's state vectors.
        """
        self.position, self._state = position, state
        if weights is not None:
            self.network.load(weights)

    def open_session(self, comm: Communicator) -> Session:
        """The vectors of this training in shared memory, holding the position reached.

        Args:
            comm: this trainer's, or the one that `Communicator.with_memory` gave instead.
        """
        session = Session(
            comm,
            self.network,
            self.optimizer,
            self.config,
        )
        session.start(self.network.vector if self.network.has_weights else None)
        if self.position.steps:
            session.restore(self._state, self.position)
        return session

    def close_session(self, session: Session) -> None:
        """Take position, weights and optimizer state out of shared memory and give it back."""
        session.collect_state()
        self.position = session.position
        if session.comm.is_first:
            self._state = {name: v.copy() for name, v in session.exchange.state.items()}
        session.close()

    def train(
        self,
        session: Session,
        samples: Dataset,
        test: Dataset | None,
        until: int,
        recorder: "Recorder | None" = None,
        classify: bool | None = None,
    ) -> list[Record]:
        """Train until so many epochs are done in all.

        Args:
            recorder: on rank 0, writes metrics and checkpoints.
            classify: whether the targets are classes; None: see `evaluation.are_classes`.

        Returns:
            One record per epoch that was completed in this call.

        Raises:
            DivergenceError, StopRequested: on every rank.
        """
        evaluation = None
        if test is not None:
            evaluation = Evaluation(session.comm, self.network, test, "test_", classify)
        session.comm.status.stop = self.request_stop
        try:
            with np.errstate(all="ignore"):  # what is not finite is looked for in the losses
                records = self._epochs(session, samples, evaluation, until, recorder)
        except StopRequested as error:
            raise StopRequested(f"{error}{self._unsaved(session, recorder)}") from None
        except DivergenceError:
            self._unsaved(session, recorder)
            raise
        finally:
            self._stop = 0
        if lost := self._unsaved(session, recorder):
            remedy = "make room and go on with --resume"
            raise DistnnError(f"training is done{lost}; {remedy}")
        return records

    def _epochs(
        self,
        session: Session,
        samples: Dataset,
        evaluation: Evaluation | None,
        until: int,
        recorder: "Recorder | None",
    ) -> list[Record]:
        records = []
        while session.position.epoch < until:
            start = time.perf_counter()
            done = session.position.step * self.config.batch_size
            record, stop = self._epoch(session, samples, evaluation, until, recorder)
            records.append(record)
            if recorder is not None:
                seconds = time.perf_counter() - start
                recorder.epoch(record, seconds, len(samples) - done)
            stop = stop and session.position.epoch < until
            if stop or self._due(session.position, until):
                self._checkpoint(session, recorder)
            if stop:
                raise StopRequested(self._stopped(session.position))
        return records

    def _epoch(
        self,
        session: Session,
        samples: Dataset,
        evaluation: Evaluation | None,
        until: int,
        recorder: "Recorder | None",
    ) -> tuple[Record, int]:
        """What is left of the epoch under way; its record, and whether to stop after it."""
        position, here = session.position, session.comm.status
        here.enter("step")
        steps = session.begin_epoch(samples)
        total, stop = until * steps, 0
        tell = recorder.progress.step if recorder is not None else _nothing
        while position.step < steps:
            stop = session.step(samples, total, self._stop)
            tell()
            if position.step == steps:
                break
            if stop or self._due(position, until):
                session.collect_losses(total)
                self._checkpoint(session, recorder)
                here.enter("step")
            if stop:
                raise StopRequested(self._stopped(position))
        rate = session.learning_rate(position.steps, total)
        loss = session.end_epoch(samples, total)
        record = {
            "epoch": position.epoch,
            "step": position.steps,
            "learning_rate": rate,
            "train_loss": loss,
        }
        here.enter("evaluation")
        return record | (evaluation.measure() if evaluation else {}), stop

    def _due(self, position: Position, until: int) -> bool:
        """Whether a checkpoint is due; one always is at the end."""
        unit, number = self.config.checkpoint_interval
        if unit == "steps":
            return position.steps % number == 0 or position.epoch == until
        return position.step == 0 and (position.epoch % number == 0 or position.epoch == until)

    def _checkpoint(self, session: Session, recorder: "Recorder | None") -> None:
        session.comm.status.enter("checkpoint")
        session.collect_state()
        session.check_finite()
        if recorder is not None:
            state = session.exchange.state
            with session.comm.status.working():
                recorder.checkpoint(self.network.weights, state, session.position)

    def _unsaved(self, session: Session, recorder: "Recorder | None") -> str:
        """Wait until the last checkpoint is on the disk; what to tell if it is not. Collective."""
        session.comm.status.enter("checkpoint")
        unsaved = session.comm.on_first(recorder.unsaved if recorder is not None else str)
        return session.comm.broadcast(unsaved)

    def _stopped(self, position: Position) -> str:
        return f"stopped on request after epoch {position.epoch}, step {position.step}"

    def _needed(self, X: Any, T: Any, partitioned: bool, more: list[Any]) -> int:
        """Bytes that a node is going to share, about."""
        layers, itemsize = self.network.layers, self.network.dtype.itemsize
        sets = [(X, T), *more]
        items = [len(rows) if hasattr(rows, "__len__") else 0 for rows, _ in sets]
        if partitioned:
            items[0] = self.comm.total(items[0])
        columns = [layers[-1] if np.ndim(targets) == 1 else 0 for _, targets in sets]
        data = sum(
            shared_bytes(n, layers[0], layers[-1], classes, itemsize)
            for n, classes in zip(items, columns, strict=True)
        )
        return data + vector_bytes(self.network, self.optimizer, self.comm, self.config)


def _nothing() -> None:
    pass


def _run_of(asked: TrainConfig) -> "TrainerRun | None":
    if asked.run_dir is None:
        return None
    from distnn.training.trainer_run import TrainerRun

    return TrainerRun(asked)


def _say(line: str) -> None:
    print(f"distnn: {line}", file=sys.stderr)
