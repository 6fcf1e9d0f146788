"""The files of a `GradientTrainer`'s run. Rank 0 alone has them.

config.toml, metrics.jsonl and checkpoints are those of `run_files`, with the vector as ``W1``.
"""

import dataclasses
import logging
import math
import secrets
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from distnn.config.options import TrainConfig, merge_resumed
from distnn.config.toml_file import read_recorded, to_toml
from distnn.errors import DistnnError, InputError
from distnn.run import checkpoint
from distnn.run.checkpoint import Checkpoint
from distnn.run.position import Position
from distnn.training.run_writer import RunWriter
from distnn.training.session import Session

Array = NDArray[Any]

log = logging.getLogger(__name__)


class GradientFiles(RunWriter):
    """Opens a new run's directory, or claims the run that is to be resumed.

    Args:
        config: run_dir, resume and the rest of the options.
        about: what a resumed run must have as well: size and dtype of the vector, optimizer, rows.

    Raises:
        InputError: the directory holds a run that is not to be resumed, is in use, or was started
            with something else; no checkpoint can be read.
    """

    def __init__(self, config: TrainConfig, about: Mapping[str, Any]) -> None:
        super().__init__(config.run_dir or "")
        self.load_trackers(config)
        self._about = dict(about)
        self._checkpoint: Checkpoint | None = None
        self._loss = math.inf
        is_resumed = config.resume and self.directory.holds_run()
        if is_resumed:
            self.directory.require_run()
        else:
            self.directory.refuse_run()
            self.directory.make_folders()
        self.claim()
        try:
            self.directory.remove_leftovers()
            if is_resumed:
                self._find(config)
        except InputError:
            self.close()
            raise

    def _find(self, config: TrainConfig) -> None:
        recorded = read_recorded(self.directory.config)
        epochs = max(config.epochs, recorded.epochs)
        merge_resumed(recorded, dataclasses.replace(config, epochs=epochs))
        folder = self.directory.checkpoints
        self._checkpoint = checkpoint.newest(folder, lambda error: log.warning("%s", error))
        for name, value in self._about.items() if self._checkpoint else ():
            assert self._checkpoint is not None
            if self._checkpoint.meta.get(name) != value:
                what = f"{value} was given, the run has {self._checkpoint.meta.get(name)}"
                raise InputError(what, name, "give the same, or another run_dir")

    def position(self) -> dict[str, Any] | None:
        """Where the checkpoint continues; None without one."""
        return None if self._checkpoint is None else self._checkpoint.meta["position"]

    def vectors(self) -> tuple[Array, dict[str, Array]]:
        """The vector and the optimizer's state of the checkpoint."""
        assert self._checkpoint is not None
        return self._checkpoint.weights(), self._checkpoint.state()

    def begin(self, config: TrainConfig, session: Session, epochs: int, rows: int) -> None:
        """Write config.toml: the run exists from now on."""
        config = dataclasses.replace(config, epochs=epochs)
        identity = self.directory.identity() or secrets.token_hex(16)
        self.directory.record(to_toml(config), identity)
        self._about["run"] = identity
        known = () if self._checkpoint is None else self._checkpoint.meta.get("records", ())
        self._checkpoint = None
        self.start_writing(config, session.position, known, rows)

    def epoch_done(self, record: Mapping[str, Any], seconds: float, items: int) -> None:
        """See `RunWriter.epoch_done`."""
        self._loss = record["train_loss"]
        super().epoch_done(record, seconds, items)

    def save_checkpoint(
        self, weights: list[Array], state: Mapping[str, Array], position: Position, stopping: None
    ) -> None:
        """Save a checkpoint beside the training; a failure is logged, and training continues."""
        vectors = {"W1": weights[0]}
        vectors |= {f"optimizer.{name}": vector for name, vector in state.items()}
        is_epoch = position.step == 0 and math.isfinite(self._loss)
        meta = self._about | {"records": self.lines}
        if is_epoch:
            meta["score"] = self._loss
        self.writer.save(vectors, {}, meta, position)

    def record_end(self, outcome: str, error: DistnnError) -> None:
        """For trackers alone: only a network's run is shown by a report."""
        self.finish_trackers(outcome)
