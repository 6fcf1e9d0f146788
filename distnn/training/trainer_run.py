"""A run directory for `Trainer.fit`: the same files as the command's, from arrays in memory."""

import dataclasses
import time
from typing import TYPE_CHECKING, Any

from distnn.config.options import TrainConfig
from distnn.data.scaling import Scaling
from distnn.data.sources import ARRAYS
from distnn.data.targets import CLASSIFICATION, REGRESSION
from distnn.run.directory import RunDirectory
from distnn.run.position import Position
from distnn.training.dataset import Dataset, digest
from distnn.training.evaluation import are_classes
from distnn.training.logbook import Logbook, merged
from distnn.training.recorder import Recorder
from distnn.training.session import Session

if TYPE_CHECKING:
    from distnn.training.trainer import Trainer


@dataclasses.dataclass
class TrainerRun:
    """What a trainer was asked to write, and on rank 0 the logbook it writes to.

    Attributes:
        asked: run_dir, resume, checkpoint_every, keep and progress, as config.
        until: epochs that the run has, or had when it was stopped, after this trainer's fits.
    """

    asked: TrainConfig
    logbook: Logbook | None = None
    begun: bool = False
    until: int = 0
    started: float = 0.0
    before: Position = dataclasses.field(default_factory=Position)

    def __enter__(self) -> None:
        """For the time of a fit."""

    def __exit__(self, *_: object) -> None:
        """Others may write to the directory between two fits."""
        if self.logbook is not None:
            self.logbook.directory.release()

    def begin(self, trainer: "Trainer", epochs: int) -> int:
        """Open the directory at the first fit; the epoch until which to train. Collective.

        A fit begins where this trainer's fits before it ended. A run that goes on may be further:
        then that part of the script, or all of the fit, is behind it.

        Raises:
            InputError: on every rank, if the directory cannot be used.
        """
        if self.begun:
            trainer.comm.on_first(self._claim)
        else:
            told = trainer.comm.broadcast(
                trainer.comm.on_first(lambda: self._open(trainer, epochs))
            )
            if told is not None:
                vectors = self.logbook.vectors() if self.logbook else (None, {})
                trainer.load_state(Position(**told), *vectors)
            self.begun = True
        return min(self.until, trainer.position.epoch) + epochs

    def recorder(
        self, trainer: "Trainer", session: Session, samples: Dataset, until: int
    ) -> Recorder | None:
        """The recorder, on rank 0; None for a fit that is behind the run. Collective.

        Raises:
            InputError: on every rank, see `Logbook.recorder`.
        """
        position = session.position
        behind = (position.epoch, position.step) > (until, 0)
        recorder = None if behind else self._begin(trainer, session, samples, until)
        self.until = until
        return recorder

    def _begin(
        self, trainer: "Trainer", session: Session, samples: Dataset, until: int
    ) -> Recorder | None:
        self.started, self.before = time.perf_counter(), dataclasses.replace(session.position)

        def work() -> Recorder:
            assert self.logbook is not None
            classes = are_classes(trainer.network, samples)
            data = {
                "task": CLASSIFICATION if classes else REGRESSION,
                "classes": trainer.network.layers[-1] if classes else 0,
            }
            arrays = Scaling.none(trainer.network.layers[0]).arrays()  # rows are used as they are
            tensors = {f"scaling.{key}": array for key, array in arrays.items()}
            tensors["data"] = digest(samples)
            config = self._settings(trainer, until)
            recorder = self.logbook.recorder(config, session, len(samples), data, tensors)
            self.logbook.checkpoint = None  # the fits that follow may have other data
            return recorder

        return trainer.comm.on_first(work)

    def finish(
        self, trainer: "Trainer", recorder: Recorder | None, session: Session, samples: Dataset
    ) -> None:
        """Write the summary of what was reached. Collective; raises DistnnError."""
        seconds = time.perf_counter() - self.started
        done = session.items_since(self.before, len(samples))

        def work() -> None:
            if self.logbook is not None and recorder is not None:
                self.logbook.finish(recorder, session, trainer.config.reduce, done, seconds)

        trainer.comm.on_first(work)

    def _claim(self) -> None:
        assert self.logbook is not None
        self.logbook.directory.claim()

    def _open(self, trainer: "Trainer", epochs: int) -> dict[str, Any] | None:
        """Rank 0: claim the directory; the position of a run that goes on, None for a new one."""
        assert self.asked.run_dir is not None
        directory = RunDirectory(self.asked.run_dir)
        _, resumed = merged(self._settings(trainer, epochs), directory)
        self.logbook = Logbook.open(directory, resumed)
        return vars(self.logbook.position) if resumed else None

    def _settings(self, trainer: "Trainer", epochs: int) -> TrainConfig:
        """What config.toml says of a trainer."""
        network, optimizer, plan = trainer.network, trainer.optimizer, trainer.config
        config = network.config()
        values = {
            "data": ARRAYS,
            "hidden": list(network.layers[1:-1]),
            **{key: config[key] for key in ("activation", "output", "loss", "init", "dropout")},
            "precision": config["dtype"],
            "optimizer": optimizer.name,
            **{
                key: value
                for key, value in optimizer.config().items()
                if key in ("learning_rate", "weight_decay", "momentum")
            },
            "clip_norm": plan.clip_norm,
            "schedule": plan.schedule,
            "warmup": plan.warmup,
            "batch_size": plan.batch_size,
            "slices": plan.slices,
            "seed": plan.seed,
            "reduce": plan.reduce,
            "update": plan.update,
            "epochs": epochs,
        }
        given = frozenset(values) - {"data", "epochs"}
        return dataclasses.replace(self.asked, **values, given=given)
