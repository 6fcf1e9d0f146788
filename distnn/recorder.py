"""What a run leaves behind: metrics, checkpoints, summary, and what is shown of it meanwhile.

Only rank 0 has a recorder.
"""

import math
import sys
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from .nn import blas
from .run import checkpoint, metrics
from .run.directory import RunDirectory
from .run.fingerprint import fingerprint
from .run.progress import Progress
from .session import Position

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
        self.meta["fingerprint"] = fingerprint(blas.in_use())
        self._saved_steps = -1
        self._record: dict[str, Any] = {}  # of the last epoch done
        self._best = math.inf

    def resume(self, position: Position) -> None:
        """Forget what was recorded after the position that a checkpoint holds."""
        metrics.truncate_after(self.directory.metrics, position.epoch)
        metrics.truncate_after(self.directory.timings, position.epoch)
        self._saved_steps = position.steps
        self._best = self._best_so_far()

    def epoch(self, record: Mapping[str, Any], seconds: float, items: int) -> None:
        """An epoch is done: its line goes to the disk before the checkpoint that follows it."""
        rate = items / seconds if seconds > 0 else float("inf")
        self._record = dict(record)
        timing = {"epoch": record["epoch"], "seconds": seconds, "samples_per_second": rate}
        try:
            metrics.append(self.directory.metrics, record)
            metrics.append(self.directory.timings, timing)
        except OSError as error:
            self.say(f"{self.directory.metrics}: cannot be written: {error.strerror}; going on")
        self.progress.epoch(record, rate)

    def checkpoint(
        self, weights: list[Array], state: Mapping[str, Array], position: Position
    ) -> None:
        """Save the position, unless it is saved already. A failure is told and no more."""
        if position.steps == self._saved_steps:
            return
        tensors = {f"W{l}": W for l, W in enumerate(weights, 1)} | dict(self.tensors)
        tensors |= {f"optimizer.{name}": vector for name, vector in state.items()}
        loss = _measured(self._record) if position.step == 0 else math.inf
        measured = {"loss": loss} if math.isfinite(loss) else {}
        meta = self.meta | {"position": vars(position)} | measured
        name = checkpoint.step_name(position.steps)
        try:
            path = checkpoint.write(self.directory.checkpoints, name, tensors, meta)
            self._saved_steps = position.steps
            if loss < self._best:
                checkpoint.mark_best(path)
                self._best = loss
        except checkpoint.CheckpointError as error:
            self.say(f"{error}; training goes on, the last good checkpoint stays")
            return
        checkpoint.prune(self.directory.checkpoints, self.keep)

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
        """Write and return the summary: hashes of what was reached, and the given facts."""
        summary = {
            "weights_sha256": checkpoint.weights_sha256(weights),
            "optimizer_sha256": checkpoint.optimizer_sha256(state),
            **facts,
        }
        metrics.write_summary(self.directory.summary, summary)
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


def history(directory: RunDirectory, epoch: int) -> list[dict[str, Any]]:
    """The records of the epochs done before."""
    return [record for record in metrics.read(directory.metrics) if record["epoch"] <= epoch]
