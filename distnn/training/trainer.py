"""Trains a network on arrays, or for the commands: sets up, runs the loop, and writes the files."""

import dataclasses
import logging
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from distnn.blas_threads import one_thread_per_rank
from distnn.checks import LARGEST_COUNT, choice, instance, number
from distnn.config.options import ARRAYS, TrainConfig
from distnn.errors import InputError
from distnn.nn.network import Network
from distnn.nn.optimizers import Adam, Optimizer
from distnn.nn.products import in_use, slow_precision_message
from distnn.parallel.comm.communicator import Communicator, mpi_of
from distnn.parallel.comm.shared_memory import SharedMemory, closing
from distnn.parallel.comm.status import STALL_TIMEOUT
from distnn.parallel.watchdog.watchdog import watched
from distnn.run.position import Position
from distnn.training import slices as slicing
from distnn.training.batches import check_growth
from distnn.training.best import BestWeights, shared_at_end
from distnn.training.consistency import (
    agree_on_blas,
    agreed,
    check_rows,
    check_run_dir,
    count_rows,
    joined,
    must_agree,
)
from distnn.training.dataset import Dataset, digests
from distnn.training.factory import with_network
from distnn.training.loop import Loop, Record
from distnn.training.session import Session
from distnn.training.trace import Trace, tracing
from distnn.training.training_data import Arrays, TrainingData
from distnn.training.vectors import vector_bytes

if TYPE_CHECKING:  # what writes files, or takes data frames, is loaded where it does
    from distnn.data.preparation import Preparation
    from distnn.training.framed import Framed
    from distnn.training.run_files import RunFiles

FAILURES = ("raise", "abort")

log = logging.getLogger(__name__)


class Trainer:
    """Trains a network data-parallel over MPI ranks. Every method is collective.

    Args:
        network: on every rank, built alike; rank 0's weights are the ones that are trained.
        optimizer: None means `Adam()`.
        comm: an MPI communicator; None means all ranks.
        on_failure: "raise": if a rank fails in `fit`, its exception rises there and `RankFailed` on
            the others; only ranks that are inside MPI, where nothing can reach them, end the job
            after some seconds. "abort": the job ends at once, with the traceback.
        config: all options at once, as the commands have them, in place of the keywords below.

    Keywords, checked as the flags of the same names:
        batch_size: B, global: over all ranks together; 64.
        slices: S; "auto" or None: 8 (no more than a batch has items), or the number of ranks where
            that is more. The result depends on it, not on the ranks.
        seed: of the order of the samples; 0.
        reduce: "ordered": the same bits on any number of ranks; "mpi": MPI's own Allreduce, whose
            result depends on it.
        wire: "float32": gradients travel and are added up as computed; "bfloat16": rounded to it,
            and so is each of their sums: half the bytes between machines.
        update: who updates the weights: "rank0", "sharded": each rank a part, or "auto". Same bits.
        blas: "numpy", "onednn", "mkl" or "auto": what multiplies matrices, in all that distnn does
            in this process from here on.
        clip_norm: the largest norm a gradient may have; None for no limit.
        metric: what is watched on the validation set of `fit`: "loss"; of classes "accuracy",
            "balanced-accuracy", "f1" or "auc"; of real targets "rmse", "mae" or "r2".
        patience: epochs without a better metric after which training ends; None: never. A later
            `fit` of the same trainer does nothing more.
        class_weight: "balanced": each class weighs the same in training; None: each row.
        label_smoothing: share of each label that is spread over all classes in training; 0.
        schedule, warmup, ...: the course of the learning rate, see `distnn.nn.schedules`.
        run_dir: where `fit` writes metrics, checkpoints and the summary; None: nowhere.
        allow_changed_data: with `resume`, go on although the rows or targets have changed.
        resume: continue the run that is in `run_dir`, if there is one. A script that is run again
            ends as it would have ended undisturbed: each `fit` continues to its own total of
            epochs; those that the run has done already are skipped.
        checkpoint_every: "N" epochs or "Ns" steps between two checkpoints; "1".
        keep: how many checkpoints stay, besides the best; 3.
        progress: "auto", "bar", "lines" or "off"; "off".
        stall_timeout: seconds without any movement in `fit` that are taken for a failure; 600.

    Attributes:
        report: after `fit` with a validation or test set, what they say in the end, as the summary
            has it: the measures of `Evaluation.report`, with a validation set those of the weights
            of ``best_epoch``.

    Raises:
        InputError: an argument cannot be used; more ranks than slices.
    """

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer | None = None,
        *,
        comm: Any = None,
        on_failure: str = "raise",
        config: TrainConfig | None = None,
        **options: Any,
    ) -> None:
        base, stall_timeout = mpi_of(comm), STALL_TIMEOUT
        problem: InputError | None = None
        values: dict[str, Any] = {}
        try:
            for name in options if config is not None else ():
                raise InputError("is given beside config", name, "give it in config")
            if config is None:
                config = TrainConfig.from_keywords(**options)
                config = dataclasses.replace(config, data=ARRAYS)
            stall_timeout = config.stall_timeout
            optimizer = Adam() if optimizer is None else optimizer
            self.network = instance(network, Network, "network", "Network([64, 32, 10])")
            self.optimizer = instance(optimizer, Optimizer, "optimizer", "Adam(0.001)")
            self.on_failure = choice(on_failure, "on_failure", FAILURES)
            slices = slicing.chosen_slices(config.slices, config.batch_size, base.size)
            slicing.check_slices(slices, base.size)
            check_growth(config)
            completed = with_network(config, self.network, self.optimizer)
            made = self.network.config()
            values = must_agree(completed, self.optimizer, self.on_failure, network=made)
        except InputError as error:
            problem = error
        with joined(comm, "Trainer(...)", stall_timeout, problem, values) as self.comm:
            assert config is not None  # else there was a problem
            check_run_dir(self.comm, config.run_dir)
            agree_on_blas(self.comm, config.blas, network.precision)
        messages = (
            slow_precision_message(network.precision),
            slicing.from_ranks_message(config.slices, config.batch_size, self.comm.size),
            slicing.empty_slices_message(config.batch_size, slices),
        )
        for message in filter(None, messages if self.comm.is_first else ()):
            log.warning("%s", message)
        self.config = dataclasses.replace(config, slices=slices)
        self.position = Position()
        self._until = 0  # epochs in all that were asked for
        self._state: dict[str, np.ndarray] = {}
        self._files: RunFiles | None = None  # of `fit`, on rank 0
        self._framed: Framed | None = None  # what the first data frame taught, on rank 0
        self._stop = 0
        self._best = BestWeights(self.config)
        self.report: dict[str, Any] = {}

    def fit(
        self,
        X: Any,
        T: Any,
        epochs: int,
        *,
        test: Any = None,
        partitioned: bool = False,
        validation: Any = None,
        sample_weight: Any = None,
        preparation: "Preparation | None" = None,
    ) -> list[Record]:
        """Train for some epochs; a second call goes on where the first one ended.

        Args:
            X: rows (n, n_0); T: targets as `Network.targets` takes them. The same on every rank,
                or, with `partitioned`, each rank its own rows; without it, X may be a data frame,
                which is prepared as a file is, and T text: `distnn.load` then takes raw rows.
            epochs: passes over the rows; with `resume`, less what the run has of them already.
            test: (X, T) or (X, T, weights) to measure the network on, the same on every rank:
                after each epoch, or with `validation` at the end, with the best weights.
            validation: what is measured and watched after each epoch: the same as `test`, or the
                share of the rows that is held out for it, drawn from (seed, row number) within each
                class, where rows are numbered over all ranks.
            sample_weight: (n,) of the rows of X, spread as they are.
            preparation: of a data frame, from `distnn.prepare`; None: it is learnt from X.

        Returns:
            One record per epoch, the same on every rank: epoch, step, learning_rate, train_loss,
            and loss and accuracy or r2 of `validation`, or without it of `test`. The network has
            the last weights, see `load_best`.

        Raises:
            InputError: X and T do not fit the network, on every rank.
            DivergenceError: a loss or a weight is not finite, on every rank. The weights are what
                they have become; position and optimizer state are those before the call.
            StopRequested: on every rank, see `request_stop`; the next call goes on from there.
            RankFailed: another rank failed; the training is lost. See `on_failure`.
        """
        problem: InputError | None = None
        values: dict[str, Any] = {}
        arrays = Arrays((X, T, sample_weight), None, None, partitioned)
        try:
            number(epochs, "epochs", whole=True, least=1, most=LARGEST_COUNT)
            arrays = Arrays.of(X, T, sample_weight, test, validation, partitioned)
            self.config = with_network(self.config, self.network, self.optimizer)
            network = self.network.config()
            values = must_agree(self.config, self.optimizer, self.on_failure, network=network)
            values |= {"epochs": epochs, **arrays.must_agree()}
        except InputError as error:
            problem = error
        seconds = self.comm.status.stall_timeout = self.config.stall_timeout
        with ExitStack() as stack:
            with agreed(mpi_of(self.comm), "Trainer.fit", seconds, problem, values):
                stack.enter_context(watched(self.comm, ends_job=self.on_failure == "abort"))
            if not partitioned:
                check_rows(self.comm, count_rows(X))
                arrays = self.comm.on_first(lambda: self._prepared(arrays, preparation)) or arrays
            return self._fit(arrays, epochs)

    def load_best(self) -> None:
        """Give the network the weights of the best epoch on the validation set. Collective.

        Without a validation set, or where no epoch had a finite metric, nothing changes.
        """
        self._best.load(self.comm, self.network)

    def request_stop(self) -> None:
        """Ask for a stop at the next step boundary; any rank may, all ranks stop together."""
        self._stop = 1

    # --- what the commands build on -----------------------------------------------------------

    def run(
        self,
        comm: Communicator,
        data: TrainingData,
        epochs: int,
        files: "RunFiles | None",
        started: float | None = None,
    ) -> tuple[list[Record], dict[str, Any] | None]:
        """One training, from a checkpoint or the weights reached, to the summary.

        Args:
            comm: this trainer's, or the one that `Communicator.with_memory` gave instead.
            epochs: as of `fit`.
            files: on rank 0, opened, if any are written.
            started: a time of `time.perf_counter` from which the summary's seconds count.

        Returns:
            One record per epoch completed here; on rank 0, the summary that was written, if any.

        Raises:
            DistnnError: on every rank, as `fit` does.
        """
        started = time.perf_counter() if started is None else started
        self._restore(comm, files)
        until = min(self._until, self.position.epoch) + epochs
        session = self.open_session(comm, data.train)
        before, batches = dataclasses.replace(session.position), session.batches
        if (before.epoch, before.step) > (until, 0):
            files = None  # the run is further than this fit goes

        def finish() -> dict[str, Any] | None:
            trained = batches.items_until(session.position) - batches.items_until(before)
            if files is None:
                return None
            return files.finish(session, trained, started + measured, self.report)

        try:
            with session.closing(self._keep), tracing(session, self.config, files) as trace:
                comm.on_first(lambda: self._begin(files, session, data, until))
                self._until = until
                comm.status.stop = self.request_stop
                records = self._loop(session, data, until, files, trace).run()
                session.collect_state()
                comm.status.enter("evaluation")
                trained_at, epoch = time.perf_counter(), session.position.epoch
                with session.averaged():
                    self.report = self._best.report(comm, self.network, data, epoch)
                measured = time.perf_counter() - trained_at
                summary = comm.on_first(finish)
        finally:
            self._stop = 0
        return records, summary

    def _loop(
        self,
        session: Session,
        data: TrainingData,
        until: int,
        files: "RunFiles | None",
        trace: Trace | None,
    ) -> Loop:
        """The loop, which measures the validation set after each epoch, else the test set."""
        data.train.smoothing = self.config.label_smoothing
        evaluations = data.evaluations(session.comm, self.network, self.config.metric)
        evaluation = evaluations[0] if evaluations else None
        best = None if data.validation is None else self._best
        return Loop(session, evaluation, until, files, lambda: self._stop, best, trace)

    def _fit(self, arrays: Arrays, epochs: int) -> list[Record]:
        """`fit`, once the ranks have agreed and are watched."""
        needed = vector_bytes(self.network, self.optimizer, self.comm, self.config)
        needed += arrays.bytes(self.comm, self.network) + shared_at_end(self.network, 0)
        comm = self.comm.with_memory(needed)
        memory = SharedMemory(comm)
        with one_thread_per_rank(in_use()), closing(memory):
            data = arrays.load(comm, memory, self.network, self.config, self._framed)
            try:
                comm.on_first(lambda: self._open_files(epochs))
                records, _ = self.run(comm, data, epochs, self._files)
            finally:
                if self._files is not None:
                    self._files.close()  # others may write there between two fits
        return records

    def load_state(
        self, position: Position, weights: np.ndarray | None, state: dict[str, np.ndarray]
    ) -> None:
        """Let the next session continue from a checkpoint.

        Args:
            position: on every rank.
            weights: on rank 0, the flat vector; None if there is no checkpoint.
            state: on rank 0, the optimizer's state vectors.
        """
        self.position, self._state, self._until = position, state, position.epoch
        if weights is not None:
            self.network.load(weights)

    def open_session(self, comm: Communicator, dataset: Dataset) -> Session:
        """The vectors of this training in shared memory, with the weights and position reached.

        Args:
            comm: this trainer's, or the one that `Communicator.with_memory` gave instead.
            dataset: what is trained on.
        """
        session = Session(comm, self.network, self.optimizer, self.config)
        session.start(self.network.vector if self.network.has_weights else None, dataset)
        if self.position.steps:
            session.restore(self._state, self.position)
        return session

    def _keep(self, position: Position, state: dict[str, np.ndarray]) -> None:
        """Keep what a session has reached: the next one begins there."""
        self.position, self._state = position, state

    def _open_files(self, epochs: int) -> None:
        """Rank 0: open the run's directory at the first fit, claim it again at the others."""
        if self._files is not None:
            self._files.claim()
        elif self.config.run_dir is None:
            if self.config.tracker is not None:
                raise InputError("there is no run to track", "tracker", "give run_dir, too")
        else:
            from distnn.training.run_files import RunFiles

            files = RunFiles(self.config.run_dir)
            files.open(dataclasses.replace(self.config, epochs=epochs))
            files.make()
            self._files = files

    def _restore(self, comm: Communicator, files: "RunFiles | None") -> None:
        """Take over position, weights and optimizer state of the files' checkpoint, if any."""

        def found(files: "RunFiles") -> list[dict[str, Any]] | None:
            if files.checkpoint is None:
                return None
            from distnn.training.saved import check_model

            check_model(files.checkpoint, self.network, self.optimizer)
            self._best.read(files)
            return [vars(files.position), self._best.stopping.state()]

        restored = comm.broadcast(comm.on_first(lambda: files and found(files)))
        if restored is not None:
            until, (position, watched_so_far) = self._until, restored
            self._best.stopping.restore(watched_so_far)
            self.load_state(Position(**position), *(files.vectors() if files else (None, {})))
            self._until = until  # a script that is run again counts its epochs from the start

    def _begin(
        self, files: "RunFiles | None", session: Session, data: TrainingData, until: int
    ) -> None:
        """Rank 0: begin the files of a run, if any are written."""
        if files is None or data.recorded is None:
            return
        about, tensors = data.recorded()
        sets = {"training": data.train, "test": data.test, "validation": data.validation}
        about = {**about, "data": digests(**sets)}
        config = dataclasses.replace(self.config, epochs=until)
        files.begin(config, session, len(data.train), about, tensors)

    def _prepared(self, arrays: Arrays, preparation: "Preparation | None") -> Arrays:
        """Rank 0: data frames and text labels as arrays; others stay as they are."""
        if arrays.are_plain:
            return arrays
        from distnn.training.framed import as_arrays

        pairs, self._framed = as_arrays(self.network, arrays.pairs, preparation, self._framed)
        return arrays.with_pairs(pairs)
