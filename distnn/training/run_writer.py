"""Writing to a run's directory beside the training, whatever is trained. Rank 0 alone does it."""

import logging
import math
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from distnn.config.options import TrainConfig
from distnn.run import metrics
from distnn.run.background import BackgroundWriter
from distnn.run.directory import RunDirectory
from distnn.run.position import Position
from distnn.run.progress import Progress
from distnn.run.trackers import SECONDS, Run, Tracker, Trackers, loaded
from distnn.training.batches import Batches

LINES_KEPT = 100

log = logging.getLogger(__name__)


class RunWriter:
    """A run's directory, from the claim to `close`.

    Attributes:
        progress: shows how far the training is, after `start_writing`.
    """

    progress: Progress

    def __init__(self, path: str | Path) -> None:
        self.directory = RunDirectory(path)
        self._writer: BackgroundWriter | None = None
        self._loaded: list[tuple[str, Tracker]] = []
        self._trackers: Trackers | None = None
        self._items, self._seconds = 0, 0.0  # of the epochs that were completed here
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)

    def load_trackers(self, config: TrainConfig) -> None:
        """Make what the configuration names, before anything is written; raises InputError."""
        self._loaded = loaded(config.tracker)

    def claim(self) -> None:
        """Keep other jobs from writing here until `close`; raises InputError if one does."""
        if not self.directory.claim():
            log.warning("%s: no locks here, keep other jobs away", self.directory)

    def start_writing(
        self, config: TrainConfig, position: Position, known: Sequence[str], items: int
    ) -> None:
        """From now on lines and checkpoints are written.

        Args:
            known: `lines` of the checkpoint.
            items: of the training set.
        """
        self._writer = BackgroundWriter(self.directory, config.keep, position, known)
        self._keep_lines(self._writer.lines, position)
        identity, done = self.directory.identity() or "", position.epoch
        run = Run(self.directory.path, identity, done, config.recorded())
        # other ranks wait meanwhile: not for so long that it looks like a stall
        self._trackers = Trackers(self._loaded, run, min(SECONDS, config.stall_timeout / 3))
        steps_until = Batches.of(config, items).steps_until
        self.progress = Progress(
            config.progress, sys.stderr, config.epochs, steps_until, position.epoch, position.step
        )

    @property
    def lines(self) -> list[str]:
        """The last lines of the metrics, which every checkpoint holds, too."""
        return list(self._lines)

    def epoch_done(self, record: Mapping[str, Any], seconds: float, items: int) -> None:
        """Write the lines of an epoch, beside the training, and show its figures.

        "samples/s" is everywhere: rows of the training set that all ranks together trained on, by
        the seconds of the epochs, evaluation included; checkpoints are written beside them.

        Args:
            items: how many were trained on in `seconds`.
        """
        self._items, self._seconds = self._items + items, self._seconds + seconds
        rate = items / seconds if seconds > 0 else math.inf
        timing = {"epoch": record["epoch"], "seconds": seconds, "samples_per_second": rate}
        self._lines.append(metrics.line(record))
        self.writer.append(record, timing)
        if self._trackers is not None:
            self._trackers.log(record["epoch"], {**record, **timing})
        self.progress.epoch(record, rate)

    def _keep_lines(self, lines: Sequence[str], position: Position) -> None:
        """Keep the lines of the epochs before, and warn of those that are missing."""
        self._lines.clear()
        self._lines.extend(lines)
        if missing := position.epoch - len(lines):
            what = f"{missing} of {position.epoch} epochs have no line, nor has the checkpoint one"
            log.warning("%s: %s", self.directory.metrics, what)

    def unsaved_message(self) -> str:
        """Wait for all writes; why the last checkpoint could not be saved, empty if it was."""
        return self.writer.unsaved_message()

    @property
    def samples_per_second(self) -> float | None:
        """Of the epochs that were completed here; None without one."""
        return self._items / self._seconds if self._seconds > 0 else None

    def finish_trackers(
        self, outcome: str, summary: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        """The training ends; see `Tracker.finish`."""
        if self._trackers is not None:
            self._trackers.finish(outcome, summary)

    def close(self) -> None:
        """End the progress bar and the writing threads, and let other jobs write here."""
        self.finish_trackers("failed")  # where nothing else was said
        if self._writer is not None:
            self._writer.close()
            self.progress.close()
            self._writer = None
        self.directory.release()

    @property
    def writer(self) -> BackgroundWriter:
        """What writes, after `start_writing`."""
        assert self._writer is not None
        return self._writer
