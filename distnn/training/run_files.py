"""The files of a run: its directory from the first claim to the summary. Rank 0 alone has them."""

import json
import logging
import math
import secrets
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from distnn.config.options import TrainConfig, merge_resumed
from distnn.config.toml_file import read_recorded, to_toml
from distnn.data.preparation import Preparation
from distnn.errors import DistnnError, InputError
from distnn.nn import products
from distnn.run import checkpoint, metrics
from distnn.run.checkpoint import Checkpoint, CheckpointError
from distnn.run.files import reason
from distnn.run.fingerprint import fingerprint
from distnn.run.kernels import kernels_message
from distnn.run.position import Position
from distnn.training.batches import Batches
from distnn.training.consistency import reduction_facts, start_messages
from distnn.training.early_stopping import EarlyStopping
from distnn.training.run_writer import RunWriter
from distnn.training.saved import (
    ANOTHER,
    check_data,
    check_identity,
    check_settings,
    checked_network,
    evaluated_weights,
    preparation_of,
)
from distnn.training.session import Session

Array = NDArray[Any]

log = logging.getLogger(__name__)


class RunFiles(RunWriter):
    """What one training reads from a run's directory, and writes to it.

    In order: `open`, `make`, `begin`, then `epoch_done` and `save_checkpoint`, `finish`, `close`.

    Attributes:
        is_resumed: after `open`, whether the directory holds a run to continue.
        checkpoint: what a resumed run continues from; None for a new run, and after `begin`.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.is_resumed = False
        self.checkpoint: Checkpoint | None = None
        self._meta: dict[str, Any] = {}
        self._tensors: dict[str, Array] = {}
        self._record: Mapping[str, Any] = {}  # of the last epoch

    @property
    def position(self) -> Position:
        """Where the checkpoint continues; the start without one."""
        return Position(**self.checkpoint.meta["position"]) if self.checkpoint else Position()

    def open(self, config: TrainConfig) -> TrainConfig:
        """Claim the run to be resumed, if there is one, and find its checkpoint.

        Nothing of a new run is touched before `make`, so that bad input leaves nothing behind.

        Returns:
            The configuration to train with: the recorded one with what may change.

        Raises:
            InputError: the directory holds a run that is not to be resumed, is in use, or was
                started with other options; no checkpoint can be read.
        """
        self.load_trackers(config)
        self.is_resumed = config.resume and self.directory.holds_run()
        if not self.is_resumed:
            self.directory.refuse_run()
            return config
        self.directory.require_run()
        self.claim()
        try:
            config = merge_resumed(read_recorded(self.directory.config), config)
            self.directory.make_folders()
            self.directory.remove_leftovers()
            self.checkpoint = checkpoint.newest(
                self.directory.checkpoints, lambda error: log.warning("%s (skipped)", error)
            )
            if self.checkpoint is None:
                self._start_over()
            else:
                checked_network(self.checkpoint)
                check_identity(self.checkpoint, self.directory.identity())
                check_settings(self.checkpoint, config)
        except InputError:
            self.close()
            raise
        return config

    def make(self) -> None:
        """Make and claim the directory of a new run; raises InputError."""
        if self.is_resumed:
            return
        self.directory.make_folders()
        self.claim()
        try:
            self.directory.refuse_run()  # that another job began before the claim
            self.directory.remove_leftovers()
        except InputError:
            self.close()
            raise

    def vectors(self) -> tuple[Array | None, dict[str, Array]]:
        """Weights and optimizer state of the checkpoint, as flat vectors; None and none without."""
        if self.checkpoint is None:
            return None, {}
        return self.checkpoint.weights(), self.checkpoint.state()

    def best_weights(self, stopping: EarlyStopping) -> Array | None:
        """The weights of the best epoch that a checkpoint names, as one flat vector.

        Returns:
            None if a later epoch was the best already, before newer checkpoints were lost: the run
            reaches it again.

        Raises:
            CheckpointError: they are gone or damaged.
        """
        if self.checkpoint is None or stopping.value is None:
            return None
        if (stopping.epoch, 0) == (self.position.epoch, self.position.step):
            return self.checkpoint.weights()
        best = checkpoint.read(checkpoint.find(self.directory.checkpoints, checkpoint.BEST))
        checked_network(best)
        check_identity(best, self.directory.identity())
        state = best.meta.get("watch") or {"epoch": 0}
        if state["epoch"] < stopping.epoch:
            what = f"is of epoch {state['epoch']}, and the best one is {stopping.epoch}"
            raise CheckpointError(what, str(best.path), ANOTHER)
        return evaluated_weights(best) if state["epoch"] == stopping.epoch else None

    def scaled_as(self, config: TrainConfig) -> dict[str, Array]:
        """What holds the scaling of the data, where they are not to be measured again.

        Without digests of all values, as distnn recorded none once, moments that are measured
        again help to find a change.
        """
        if self.checkpoint is None or not (
            config.allow_changed_data or "data" in self.checkpoint.meta
        ):
            return {}
        return self.checkpoint.tensors

    def preparation(self) -> Preparation | None:
        """How the run that goes on prepares the columns of its table; None: not yet known."""
        return None if self.checkpoint is None else preparation_of(self.checkpoint)

    def begin(
        self,
        config: TrainConfig,
        session: Session,
        items: int,
        data: Mapping[str, Any],
        tensors: Mapping[str, Array],
    ) -> None:
        """Write config.toml: the run exists from now on.

        Args:
            items: of the training set.
            data: what a checkpoint says of the data set; ``data`` are its digests.
            tensors: what a checkpoint holds of the data set.

        Raises:
            InputError: the data are not those that the run was started with; no permission.
        """
        recorded = self.checkpoint.meta if self.checkpoint else {}
        if self.checkpoint is not None and not config.allow_changed_data:
            steps = Batches.of(config, items).steps(session.position.epoch)
            check_data(self.checkpoint, config.data, data["data"], tensors, steps)
        identity = self.directory.identity() or recorded.get("run") or secrets.token_hex(16)
        self.directory.record(to_toml(config), identity)
        self.directory.forget_outcome()
        self._tensors = dict(tensors)
        here = fingerprint(products.in_use())
        before = recorded.get("fingerprints", [recorded.get("fingerprint", here)])
        self._meta = {
            "run": identity,
            "network": session.network.config(),
            "optimizer": {"name": session.optimizer.name, **session.optimizer.config()},
            **data,
            "settings": config.with_full_paths().to_dict(),
            **reduction_facts(config.reduce, session.comm.size),
            "fingerprint": here,
            "fingerprints": before if here in before else [*before, here],
        }
        self.start_writing(config, session.position, recorded.get("records", []), items)
        self._record = {}
        for line in filter(None, (kernels_message(here), *start_messages(self._meta, recorded))):
            log.warning("%s", line)
        position = session.position
        if self.checkpoint is not None and position.epoch < config.epochs:
            log.info("resumed at step %d, in epoch %d", position.steps, position.epoch + 1)
        self.checkpoint = None

    def epoch_done(self, record: Mapping[str, Any], seconds: float, items: int) -> None:
        """See `RunWriter.epoch_done`."""
        self._record = dict(record)
        super().epoch_done(self._record, seconds, items)

    def save_checkpoint(
        self,
        weights: list[Array],
        state: Mapping[str, Array],
        position: Position,
        stopping: EarlyStopping | None = None,
    ) -> None:
        """Save a checkpoint beside the training; a failure is logged, and training continues.

        The best one is chosen by what is watched on the validation set. Without one it has the
        least training loss: a test set chooses nothing.
        """
        vectors = {f"W{l}": W for l, W in enumerate(weights, 1)}
        vectors |= {f"optimizer.{name}": vector for name, vector in state.items()}
        meta = self._meta | {"records": self.lines}
        score = math.inf
        if stopping is not None:
            meta = meta | {"watch": stopping.state()}
            score = stopping.score if stopping.epoch == position.epoch else score
        elif position.step == 0:  # only then the last record is of these weights
            score = self._record.get("train_loss", score)
        if position.step == 0 and math.isfinite(score):
            meta = meta | {"score": float(score)}
        self.writer.save(vectors, self._tensors, meta, position)

    def finish(
        self, session: Session, items: int, started: float, report: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Write and return the summary.

        That of a run which was finished before stays as it is.

        Args:
            items: how many were trained on since `started`, a time of `time.perf_counter`.
            report: what the validation and the test set say in the end, and of which weights.

        Raises:
            DistnnError: no space, no permission.
        """
        records = metrics.read(self.directory.metrics)
        measures = {key: value for record in records[-1:] for key, value in record.items()}
        if "noise_scale" in measures:  # that of the last epochs grows without bound
            known = [one["noise_scale"] for one in records if one.get("noise_scale") is not None]
            measures["noise_scale"] = statistics.median(known) if known else None
        for key in ("epoch", "step", "learning_rate"):
            measures.pop(key, None)
        seconds = time.perf_counter() - started
        summary = {
            "weights_sha256": checkpoint.weights_sha256(session.network.weights),
            "optimizer_sha256": checkpoint.optimizer_sha256(session.exchange.state),
            "steps": session.position.steps,
            "epochs": session.position.epoch,
            **reduction_facts(session.config.reduce, session.comm.size),
            "nodes": session.comm.nodes,
            "slices": session.slices,
            "update": session.exchange.update,
            **measures,
            **(report or {}),
            "seconds": seconds,
            "samples_per_second": self.samples_per_second,
            "fingerprints": self._meta["fingerprints"],
        }
        if items == 0:
            summary |= self._rates_before()
            if self._is_finished(summary):
                log.warning("%s: the run is finished, nothing was left to do", self.directory)
                self.finish_trackers("finished", summary)
                return summary | {"samples_per_second": None}
        try:
            metrics.write_summary(self.directory.summary, summary)
        except OSError as error:
            what = f"{self.directory.summary}: cannot be written: {reason(error)}"
            raise DistnnError(f"training is done and saved, but {what}") from error
        self.finish_trackers("finished", summary)
        return summary

    def record_end(self, outcome: str, error: DistnnError) -> None:
        """Record why the training ends before its end, for those who look at the run later."""
        self.finish_trackers(outcome)
        said = {"outcome": outcome, "message": str(error)}
        try:
            metrics.write_summary(self.directory.outcome, said)
        except OSError as problem:
            log.warning("%s: cannot be written: %s", self.directory.outcome, reason(problem))

    def _rates_before(self) -> dict[str, Any]:
        """Seconds and samples per second of the last epoch, for a job that trained nothing."""
        last = metrics.read(self.directory.timings)[-1:]
        names = ("seconds", "samples_per_second")
        return {name: one[name] for one in last for name in names if type(one.get(name)) is float}

    def _is_finished(self, summary: Mapping[str, Any]) -> bool:
        """Whether the summary of these weights is there already."""
        try:
            there = json.loads(self.directory.summary.read_bytes())
        except (OSError, ValueError, RecursionError):
            return False
        same = ("weights_sha256", "optimizer_sha256", "steps")
        return isinstance(there, dict) and all(there.get(key) == summary[key] for key in same)

    def _start_over(self) -> None:
        """A run without a checkpoint: it was stopped before the first, or somebody removed them.

        Raises:
            InputError: the run was finished, so that there were some; its results would be lost.
        """
        where = str(self.directory.checkpoints)
        if self.directory.summary.exists():
            remedy = "restore them, or start another run with --run-dir"
            raise InputError("the checkpoints of this finished run are gone", where, remedy)
        log.warning("%s: holds no checkpoint; the run begins anew, at step 0", where)
