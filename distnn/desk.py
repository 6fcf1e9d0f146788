"""Rank 0's part in a training run: what it alone looks at, keeps and writes."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import bits
from .building import resolve
from .data import open_data
from .errors import InputError
from .loading import Loader
from .recorder import Recorder, open_checkpoint
from .run import metrics
from .run.checkpoint import Checkpoint
from .run.directory import RunDirectory, default_path
from .run.progress import Progress
from .run.settings import Settings, merge_resumed, parse_train, read_settings, to_toml
from .session import Position, Session, check_slices

Array = NDArray[Any]


@dataclasses.dataclass
class Desk:
    """Everything that can be wrong with flags, files and directory is found here, before any work.

    Attributes:
        settings: with everything chosen that was left to the task.
        checkpoint: what a resumed run goes on from, if there is one.
        position: where it goes on.
    """

    settings: Settings
    directory: RunDirectory
    loader: Loader
    checkpoint: Checkpoint | None
    position: Position

    @classmethod
    def open(cls, argv: Sequence[str], ranks: int) -> "Desk":
        """Look at the command line and all that it names; raises InputError."""
        settings = parse_train(argv)
        directory = RunDirectory(settings.run_dir or default_path(settings.data))
        resumed = settings.resume and directory.holds_run()
        if resumed:
            settings = merge_resumed(read_settings(directory.config), settings)
        settings = dataclasses.replace(settings, slices=settings.slices or ranks)
        check_slices(settings.slices or ranks, ranks)
        source = open_data(settings.data, settings.test_data, settings.target)
        loader = Loader.open(source, settings.output, settings.loss)
        settings = resolve(settings, loader.shape())
        directory.open() if resumed else directory.make()
        if not directory.claim():
            say(f"{directory}: no locks here, keep other jobs away")
        return cls(settings, directory, loader, *open_checkpoint(directory))

    def tell(self) -> dict[str, Any]:
        """What all ranks must know."""
        return {
            "settings": self.settings.to_dict(),
            "shape": dataclasses.asdict(self.loader.shape()),
            "position": vars(self.position),
        }

    def vectors(self) -> tuple[Array | None, dict[str, Array]]:
        """Weights and optimizer state of the checkpoint, as flat vectors; None and none without."""
        if self.checkpoint is None:
            return None, {}
        return self.checkpoint.weights(), self.checkpoint.state()

    def recorder(self, session: Session, items: int) -> Recorder:
        """Begin to record the run, which exists from now on.

        Raises:
            InputError: the data are not those that the run was started with; no permission.
        """
        self._check_same_data()
        self.directory.record(to_toml(self.settings))
        steps = -(-items // self.settings.batch_size)
        first_epoch = self.position.epoch
        progress = Progress(
            self.settings.progress, sys.stderr, self.settings.epochs, steps, first_epoch
        )
        meta = {
            "network": session.network.config(),
            "optimizer": {"name": session.optimizer.name, **session.optimizer.config()},
            "task": self.loader.targets.task,
            "classes": self.loader.targets.classes,
            "feature_names": self.loader.source.feature_names,
            "target_names": self.loader.source.target_names,
            "settings": self.settings.to_dict(),
            **bits.facts(self.settings.reduce, session.team.size),
        }
        recorder = Recorder(self.directory, self.settings.keep, meta, self.loader.tensors, progress)
        recorder.resume(self.position)
        recorded = self.checkpoint.meta if self.checkpoint else None
        for line in bits.told_at_start(recorder.meta, recorded):
            say(line)
        return recorder

    def finish(self, recorder: Recorder, session: Session, samples: int, seconds: float) -> None:
        """Write the summary and tell it.

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
            **bits.facts(self.settings.reduce, session.team.size),
            "nodes": session.team.nodes,
            "slices": session.plan.slices,
            **measures,
            "seconds": seconds,
            "samples_per_second": samples / seconds,
        }
        weights, state = session.network.weights, session.exchange.state
        summary = recorder.summary(weights, state, facts)
        recorder.progress.close()
        print(_told(summary, self.directory))

    def _check_same_data(self) -> None:
        if self.checkpoint is None:
            return
        for name, array in self.loader.tensors.items():
            if not np.array_equal(self.checkpoint.tensors.get(name, ()), array):
                raise InputError(
                    "holds other data than when the run was started",
                    where=self.settings.data,
                    remedy="give the same data, or start another run with --run-dir",
                )


def say(line: str) -> None:
    """One line for the user, beside what is shown of the progress."""
    print(f"distnn.train: {line}", file=sys.stderr, flush=True)


def _told(summary: dict[str, Any], directory: RunDirectory) -> str:
    """The summary for people: a few lines."""
    measures = ", ".join(
        f"{key.replace('_', ' ')} {value:.4g}"
        for key, value in summary.items()
        if key in ("train_loss", "test_loss", "test_accuracy", "test_r2") and value is not None
    )
    return (
        f"{summary['epochs']} epochs, {summary['steps']} steps on {summary['ranks']} ranks "
        f"({summary['nodes']} nodes, {summary['slices']} slices) in {summary['seconds']:.2f} s, "
        f"{summary['samples_per_second']:.0f} samples/s\n"
        f"{measures}\n"
        f"weights sha256 {summary['weights_sha256']}\n"
        f"run in {directory}"
    )
