"""What rank 0 alone looks at for a training run: the command line and the files it names."""

import dataclasses
import os
import sys
from collections.abc import Sequence
from typing import Any

from distnn.config.options import TrainConfig, parse_train
from distnn.data.sources import open_data
from distnn.run.directory import RunDirectory, default_path
from distnn.training.factory import resolve
from distnn.training.loading import Loader
from distnn.training.logbook import Logbook, merged
from distnn.training.recorder import Recorder
from distnn.training.session import Session, check_slices

RUN_DIR = "DISTNN_RUN_DIR"  # of a job script, which cannot see what the config says


@dataclasses.dataclass
class Desk:
    """Everything that can be wrong with flags, files and directory is found here, before any work.

    Attributes:
        config: with everything chosen that was left to the task.
    """

    config: TrainConfig
    loader: Loader
    logbook: Logbook

    @classmethod
    def open(cls, argv: Sequence[str], ranks: int) -> "Desk":
        """Look at the command line and all that it names; raises InputError."""
        config = parse_train(argv)
        chosen = config.run_dir or os.environ.get(RUN_DIR)
        directory = RunDirectory(chosen or default_path(config.data))
        if config.resume and not chosen:
            line = f"--resume without --run-dir: a new run begins in {directory.path}"
            print(f"distnn.train: {line}", file=sys.stderr)
        config, resumed = merged(config, directory)
        config = dataclasses.replace(config, slices=config.slices or ranks)
        check_slices(config.slices or ranks, ranks, recorded=resumed)
        source = open_data(config.data, config.test_data, config.target)
        loader = Loader.open(source, config.output, config.loss)
        config = resolve(config, loader.shape())
        return cls(config, loader, Logbook.open(directory, resumed))

    def tell(self) -> dict[str, Any]:
        """What all ranks must know."""
        return {
            "settings": self.config.to_dict(),
            "shape": dataclasses.asdict(self.loader.shape()),
            "position": vars(self.logbook.position),
        }

    def recorder(self, session: Session, items: int) -> Recorder:
        """Begin to record the run; raises InputError."""
        data = {
            "task": self.loader.targets.task,
            "classes": self.loader.targets.classes,
            "feature_names": self.loader.train.feature_names,
            "target_names": self.loader.train.target_names,
        }
        return self.logbook.recorder(self.config, session, items, data, self.loader.tensors)

    def finish(self, recorder: Recorder, session: Session, samples: int, seconds: float) -> None:
        """Write the summary and tell it; see `Logbook.finish`."""
        reduce = self.config.reduce
        summary = self.logbook.finish(recorder, session, reduce, samples, seconds)
        print(_told(summary, self.logbook.directory))


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
