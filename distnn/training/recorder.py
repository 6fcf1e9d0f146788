"""What a run leaves behind: metrics, checkpoints, summary, and what is shown of it meanwhile.

Only rank 0 has a recorder.
"""

import math
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distnn.errors import DistnnError
from distnn.nn import products
from distnn.run import checkpoint, metrics
from distnn.run.directory import RunDirectory
from distnn.run.files import reason
from distnn.run.fingerprint import fingerprint
from distnn.run.position import Position
from distnn.run.progress import Progress
from distnn.run.writer import Writer

Array = NDArray[Any]


class Recorder:
    """Writes one run's directory.

    Args:
        directory: made or opened already.
        keep: how many checkpoints stay, besides the best.
        meta: what every checkpoint says besides the position: the network, the optimizer, ...
        tensors: what every checkpoint holds besides weights and optimizer state.
        progress: shows how far the run is.
    """

    def __init__(
        self,
        directory: RunDirectory,
        keep: int,
        meta: Mapping[str, Any],
        tensors: Mapping[str, Array],
        progress: Progress,
    ) -> None:
        self.directory, self.keep = directory, keep
        self.meta, self.tensors, self.progress = dict(meta), dict(tensors), progress
        self.meta["fingerprint"] = fingerprint(products.in_use())
        self._saved_steps = -1
        self._record: dict[str, Any] = {}  # of the last epoch done
        self._best = math.inf
        self._lines: dict[Path, list[Mapping[str, Any]]] = {  # that are not in their files yet
            directory.metrics: [],
            directory.timings: [],
        }
        self._failed = ""
        self._copies: dict[str, Array] = {}
        # two: lines go to the disk while the checkpoint before them is still being written
        self._appending, self._saving = Writer(), Writer()
        self._one_at_a_time = threading.Lock()
        self._checkpoint = 0  # the number of the last one given to be saved

    def resume(self, position: Position) -> None:
        """Forget what was recorded after the position that a checkpoint holds."""
        metrics.truncate_after(self.directory.metrics, position.epoch)
        metrics.truncate_after(self.directory.timings, position.epoch)
        self._saved_steps = position.steps
        self._best = self._best_so_far()

    def epoch(self, record: Mapping[str, Any], seconds: float, items: int) -> None:
        """An epoch is done: its line is written beside the training, like all that follows."""
        rate = items / seconds if seconds > 0 else float("inf")
        self._record = dict(record)
        timing = {"epoch": record["epoch"], "seconds": seconds, "samples_per_second": rate}
        self._lines[self.directory.metrics].append(self._record)
        self._lines[self.directory.timings].append(timing)
        self._appending.give(self._try_to_append)
        self.progress.epoch(record, rate)

    def checkpoint(
        self, weights: list[Array], state: Mapping[str, Array], position: Position
    ) -> None:
        """Save the position, unless it is saved already. A failure is told and no more.

        Waits until the checkpoint before is written, and then only for a copy of the vectors: the
        file is written while training goes on.
        """
        self._saving.wait(self._checkpoint)
        if position.steps == self._saved_steps:
            return
        tensors = {f"W{l}": self._copy(f"W{l}", W) for l, W in enumerate(weights, 1)}
        for name, vector in state.items():
            tensors[f"optimizer.{name}"] = self._copy(name, vector)
        loss = _measured(self._record) if position.step == 0 else math.inf
        measured = {"loss": loss} if math.isfinite(loss) else {}
        meta = self.meta | {"position": dict(vars(position))} | measured
        arguments = (position.steps, tensors | self.tensors, meta)
        self._checkpoint = self._saving.give(lambda: self._write(*arguments))

    def unsaved(self) -> str:
        """Wait for the last checkpoint; why it could not be saved, and what is; empty if it was."""
        self._appending.wait()
        self._saving.wait()
        if not self._failed:
            return ""
        saved = checkpoint.saved(self.directory.checkpoints)
        last = f"the last checkpoint is {saved[0].name}" if saved else "there is no checkpoint"
        return f", but its end is not saved: {self._failed}; {last}"

    def _copy(self, name: str, array: Array) -> Array:
        """A copy in memory that was used before: fresh pages cost more than the copy itself."""
        if name not in self._copies:
            self._copies[name] = np.empty(array.shape, array.dtype)
        np.copyto(self._copies[name], array)
        return self._copies[name]

    # --- the writers' threads -------------------------------------------------------------------

    def _try_to_append(self) -> None:
        try:
            self._append()
        except checkpoint.CheckpointError as error:
            self.say(f"{error}; kept for the next attempt")

    def _append(self) -> None:
        """All lines that are not in their files yet; raises CheckpointError."""
        with self._one_at_a_time:
            for path, lines in self._lines.items():
                known = lines[:]  # more may come meanwhile
                try:
                    if known:
                        metrics.append(path, known)
                except OSError as error:
                    what = f"cannot be written: {reason(error)}"
                    raise checkpoint.CheckpointError(what, str(path)) from error
                del lines[: len(known)]

    def _write(self, steps: int, tensors: dict[str, Array], meta: dict[str, Any]) -> None:
        """Lines, file, the best one, and then what is too many.

        No checkpoint without the lines before it: nothing would bring them back after a stop.
        """
        folder, self._failed = self.directory.checkpoints, ""
        try:
            self._append()
            path = checkpoint.write(folder, checkpoint.step_name(steps), tensors, meta)
            self._saved_steps = steps
            loss = meta.get("loss", math.inf)
            if loss < self._best:
                checkpoint.mark_best(path)
                self._best = loss
        except checkpoint.CheckpointError as error:
            self._failed = "" if self._saved_steps == steps else str(error)
            self.say(f"{error}; training goes on, the last good checkpoint stays")
        if not self._failed:
            checkpoint.prune(folder, self.keep)

    def _best_so_far(self) -> float:
        """The loss of the best checkpoint; infinity if there is none that can be read."""
        path = checkpoint.find(self.directory.checkpoints, checkpoint.BEST)
        try:
            return float(checkpoint.read(path).meta.get("loss", math.inf))
        except checkpoint.CheckpointError:
            return math.inf

    def summary(
        self, weights: list[Array], state: Mapping[str, Array], facts: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Write and return the summary: hashes of what was reached, and the given facts.

        Raises:
            DistnnError: no space, no permission.
        """
        summary = {
            "weights_sha256": checkpoint.weights_sha256(weights),
            "optimizer_sha256": checkpoint.optimizer_sha256(state),
            **facts,
        }
        try:
            metrics.write_summary(self.directory.summary, summary)
        except OSError as error:
            what = f"{self.directory.summary}: cannot be written: {reason(error)}"
            raise DistnnError(f"training is done and saved, but {what}") from error
        return summary

    def say(self, line: str) -> None:
        """One line for the user."""
        self.progress.say(line)


def _measured(record: Mapping[str, Any]) -> float:
    """What the best checkpoint has least of: the test loss, or without a test set training's."""
    return float(record.get("test_loss", record.get("train_loss", math.inf)))


def open_checkpoint(
    directory: RunDirectory,
) -> tuple[checkpoint.Checkpoint | None, Position]:
    """The newest checkpoint that loads, and its position; damaged ones are named and skipped."""
    found = checkpoint.newest(
        directory.checkpoints, lambda error: print(f"{error} (skipped)", file=sys.stderr)
    )
    return found, Position(**found.meta["position"]) if found else Position()
