"""Rank 0's hold on a run's directory: where a run begins or goes on, and how it ends."""

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distnn.config.options import TrainConfig, merge_resumed, read_recorded, to_toml
from distnn.errors import InputError
from distnn.run import metrics
from distnn.run.checkpoint import Checkpoint
from distnn.run.directory import RunDirectory
from distnn.run.position import Position
from distnn.run.progress import Progress
from distnn.training.consistency import reduction_facts, start_messages
from distnn.training.recorder import Recorder, open_checkpoint
from distnn.training.session import Session

Array = NDArray[Any]


@dataclasses.dataclass
class Logbook:
    """One run's directory, claimed for this job.

    Attributes:
        checkpoint: what a resumed run goes on from, if there is one.
        position: where it goes on.
    """

    directory: RunDirectory
    checkpoint: Checkpoint | None
    position: Position

    @classmethod
    def open(cls, directory: RunDirectory, resumed: bool) -> "Logbook":
        """Claim the directory of a new run, or of one that is to go on; raises InputError."""
        directory.open() if resumed else directory.make()
        if not directory.claim():
            say(f"{directory}: no locks here, keep other jobs away")
        try:
            found, position = open_checkpoint(directory)
            if resumed and found is None:
                _begin_anew(directory)
        except InputError:
            directory.release()
            raise
        return cls(directory, found, position)

    def vectors(self) -> tuple[Array | None, dict[str, Array]]:
        """Weights and optimizer state of the checkpoint, as flat vectors; None and none without."""
        if self.checkpoint is None:
            return None, {}
        return self.checkpoint.weights(), self.checkpoint.state()

    def recorder(
        self,
        config: TrainConfig,
        session: Session,
        items: int,
        data: Mapping[str, Any],
        tensors: Mapping[str, Array],
    ) -> Recorder:
        """Begin to record the run, which exists from now on.

        Args:
            items: of the training set.
            data: what a checkpoint says of the data set.
            tensors: what it holds of it.

        Raises:
            InputError: the data are not those that the run was started with; no permission.
        """
        self._check_same_data(config.data, tensors)
        self.directory.record(to_toml(config))
        steps = -(-items // config.batch_size)
        progress = Progress(
            config.progress, sys.stderr, config.epochs, steps, session.position.epoch
        )
        meta = {
            "network": session.network.config(),
            "optimizer": {"name": session.optimizer.name, **session.optimizer.config()},
            **data,
            "settings": config.to_dict(),
            **reduction_facts(config.reduce, session.comm.size),
        }
        recorder = Recorder(self.directory, config.keep, meta, tensors, progress)
        recorder.resume(session.position)
        recorded = self.checkpoint.meta if self.checkpoint else None
        for line in start_messages(recorder.meta, recorded):
            say(line)
        return recorder

    def finish(
        self, recorder: Recorder, session: Session, reduce: str, samples: int, seconds: float
    ) -> dict[str, Any]:
        """Write the summary.

        Args:
            samples: how many items were trained on in this process.
            seconds: how long it took.
        """
        last = metrics.read(self.directory.metrics)[-1:]
        measures = {key: value for record in last for key, value in record.items()}
        for key in ("epoch", "step", "learning_rate"):
            measures.pop(key, None)
        facts = {
            "steps": session.position.steps,
            "epochs": session.position.epoch,
            **reduction_facts(reduce, session.comm.size),
            "nodes": session.comm.nodes,
            "slices": session.slices,
            **measures,
            "seconds": seconds,
            "samples_per_second": samples / seconds,
        }
        summary = recorder.summary(session.network.weights, session.exchange.state, facts)
        recorder.progress.close()
        return summary

    def _check_same_data(self, name: str, tensors: Mapping[str, Array]) -> None:
        if self.checkpoint is None:
            return
        for key, array in tensors.items():
            if not np.array_equal(self.checkpoint.tensors.get(key, ()), array):
                raise InputError(
                    "holds other data than when the run was started",
                    where=name,
                    remedy="give the same data, or start another run with --run-dir",
                )


def merged(config: TrainConfig, directory: RunDirectory) -> tuple[TrainConfig, bool]:
    """The config to go on with, and whether there is a run to go on with; raises InputError."""
    resumed = config.resume and directory.holds_run()
    if resumed:
        config = merge_resumed(read_recorded(directory.config), config)
    return config, resumed


def _begin_anew(directory: RunDirectory) -> None:
    """A run without a checkpoint: it was stopped before the first one, or somebody removed them.

    Raises:
        InputError: the run was finished, so that there were some; its results would be lost.
    """
    where = str(directory.checkpoints)
    if directory.summary.exists():
        remedy = "restore them, or start another run with --run-dir"
        raise InputError("the checkpoints of this finished run are gone", where, remedy)
    say(f"{where}: holds no checkpoint; the run begins anew, at step 0")


def say(line: str) -> None:
    """One line for the user, beside what is shown of the progress."""
    print(f"distnn: {line}", file=sys.stderr, flush=True)
