"""Lines of metrics and checkpoints, written by threads beside the training."""

import logging
import math
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distnn.run import checkpoint, metrics
from distnn.run.directory import RunDirectory
from distnn.run.files import reason
from distnn.run.position import Position

Array = NDArray[Any]

log = logging.getLogger(__name__)


class BackgroundWriter:
    """Writes a run's lines and checkpoints while training continues.

    A write that fails is logged and training continues; lines are kept for the next attempt. Any
    other exception of a thread rises in the next call.

    Args:
        directory: made already.
        keep: how many checkpoints stay, besides the best.
        position: the one that the directory holds; what was recorded after it is removed.
        known: lines of the metrics that its checkpoint holds, in case that they were lost.

    Attributes:
        lines: of the metrics when training begins.

    Raises:
        InputError: metrics or timings are damaged or cannot be written.
    """

    def __init__(
        self, directory: RunDirectory, keep: int, position: Position, known: Iterable[str]
    ) -> None:
        self._directory, self._keep = directory, keep
        metrics.truncate_after(directory.timings, position.epoch)
        self.lines = metrics.truncate_after(directory.metrics, position.epoch, known)
        self._saved_steps = position.steps
        self._best = checkpoint.best_score(directory.checkpoints, directory.identity())
        self._failure = ""
        self._lines: dict[Path, list[Mapping[str, Any]]] = {  # that are not in their files yet
            directory.metrics: [],
            directory.timings: [],
        }
        self._appending = threading.Lock()
        self._copies: dict[str, Array] = {}
        # two: lines go to the disk while the checkpoint before them is still being written
        self._threads = ThreadPoolExecutor(2, "distnn writer")
        self._tasks: list[Future[None]] = []
        self._save: Future[None] | None = None

    def append(self, record: Mapping[str, Any], timing: Mapping[str, Any]) -> None:
        """Add a line to the metrics and one to the timings."""
        self._lines[self._directory.metrics].append(record)
        self._lines[self._directory.timings].append(timing)
        self._start(self._try_to_append)

    def save(
        self,
        vectors: Mapping[str, Array],
        tensors: Mapping[str, Array],
        meta: Mapping[str, Any],
        position: Position,
    ) -> None:
        """Save a checkpoint, unless the position is saved already.

        Waits until the checkpoint before it is written, and then only for a copy of the vectors.

        Args:
            vectors: what training changes.
            tensors: what stays as it is.
            meta: with a finite ``score`` if the checkpoint may be the best; the least one is.
        """
        if self._save is not None:
            self._save.result()
        if position.steps == self._saved_steps:
            return
        content = {name: self._copy(name, vector) for name, vector in vectors.items()}
        content.update(tensors)
        meta = {**meta, "position": dict(vars(position))}
        steps = position.steps
        self._save = self._start(lambda: self._write(steps, content, meta))

    def unsaved_message(self) -> str:
        """Wait for all writes; why the last checkpoint could not be saved, empty if it was."""
        for task in self._tasks:
            task.result()
        self._tasks.clear()
        if not self._failure:
            return ""
        saved = checkpoint.saved(self._directory.checkpoints)
        last = f"the last checkpoint is {saved[0].name}" if saved else "there is no checkpoint"
        return f", but its end is not saved: {self._failure}; {last}"

    def close(self) -> None:
        """Let the threads end; what they are writing is written."""
        self._threads.shutdown(wait=False)

    def _start(self, work: Callable[[], None]) -> Future[None]:
        for task in [task for task in self._tasks if task.done()]:
            task.result()  # raises what was raised there
            self._tasks.remove(task)
        self._tasks.append(self._threads.submit(work))
        return self._tasks[-1]

    def _copy(self, name: str, array: Array) -> Array:
        """A copy in memory that was used before: fresh pages cost more than the copy itself."""
        if name not in self._copies:
            self._copies[name] = np.empty(array.shape, array.dtype)
        np.copyto(self._copies[name], array)
        return self._copies[name]

    # --- in the threads -------------------------------------------------------------------------

    def _try_to_append(self) -> None:
        try:
            self._append()
        except checkpoint.CheckpointError as error:
            log.warning("%s; kept for the next attempt", error)

    def _append(self) -> None:
        """All lines that are not in their files yet; raises CheckpointError."""
        with self._appending:
            for path, lines in self._lines.items():
                known = lines[:]  # more may come meanwhile
                try:
                    if known:
                        metrics.append(path, known)
                except OSError as error:
                    what = f"cannot be written: {reason(error)}"
                    raise checkpoint.CheckpointError(what, str(path)) from error
                del lines[: len(known)]

    def _write(self, steps: int, tensors: Mapping[str, Array], meta: Mapping[str, Any]) -> None:
        """Lines, file, the best one, and then what is too many.

        No checkpoint without the lines before it: nothing would bring them back after a stop.
        """
        folder, self._failure = self._directory.checkpoints, ""
        try:
            self._append()
            path = checkpoint.write(folder, checkpoint.step_name(steps), tensors, meta)
            self._saved_steps = steps
            score = meta.get("score", math.inf)
            if score < self._best:
                checkpoint.mark_best(path)
                self._best = score
        except checkpoint.CheckpointError as error:
            self._failure = "" if self._saved_steps == steps else str(error)
            log.warning("%s; training goes on, the last good checkpoint stays", error)
        if not self._failure:
            checkpoint.prune(folder, self._keep)
