"""What a run's directory says of it, read for a page: nothing of it is trusted or needed."""

import json
import math
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distnn.config.toml_file import read_values
from distnn.errors import InputError
from distnn.run import checkpoint, metrics
from distnn.run.directory import RunDirectory
from distnn.run.files import reason
from distnn.training.saved import check_facts

LARGEST_LINES = 1 << 28  # bytes of metrics or timings: a million epochs
LARGEST_JSON = 1 << 26  # bytes of a summary: a confusion matrix of 3,000 classes
LARGEST_LINE = 1 << 16
MOST_COLUMNS = 200

FINISHED, UNDER_WAY, DIVERGED, STOPPED = "finished", "under way", "diverged", "stopped"


@dataclass(frozen=True)
class RunRecord:
    """What is known of one run. What its directory does not hold is empty.

    Attributes:
        name: of its directory.
        status: finished, under way, diverged or stopped.
        remark: of the status: who is writing, or why it ended early.
        config: config.toml by key.
        epochs: the columns of metrics.jsonl; NaN where a line has no number. All as long as
            ``epochs["epoch"]``.
        timings: the columns of timings.jsonl.
        summary: summary.json; of a run that is resumed, that of its part before.
        meta: what the newest checkpoint says.
        phases: phases.json: seconds of ranks by phase.
        missing: what could not be read, one line each.
    """

    name: str
    path: Path
    status: str
    remark: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    epochs: dict[str, array] = field(default_factory=dict)
    timings: dict[str, array] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    phases: dict[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    @property
    def done(self) -> int:
        """Epochs completed."""
        numbers = self.epochs.get("epoch")
        return int(numbers[-1]) if numbers else 0

    @property
    def is_classification(self) -> bool:
        """Whether the network decides for classes, as far as that is recorded."""
        if "task" in self.meta:
            return self.meta["task"] == "classification"
        return not any(key.endswith("_r2") for key in self.epochs)

    def last(self, name: str) -> float | None:
        """A measure at the end: of the summary, else of the last epoch; None if there is none."""
        value = self.summary.get(name) if self.status == FINISHED else None
        if value is None and self.epochs.get(name):
            value = self.epochs[name][-1]
        return float(value) if value is not None and is_number(value) else None


def read_run(path: str) -> RunRecord:
    """Read a run's directory, also while the run goes on.

    Raises:
        InputError: it holds no run, or a file is damaged or too large.
    """
    directory = RunDirectory(path)
    directory.require_run()
    missing: list[str] = []
    epochs, timings = read_columns(directory.metrics), read_columns(directory.timings)
    summary, outcome = read_object(directory.summary), read_object(directory.outcome)
    status, remark = _status(directory, epochs, summary, outcome)
    return RunRecord(
        name=directory.path.resolve().name,
        path=directory.path,
        status=status,
        remark=remark,
        config=read_values(directory.config),
        epochs=epochs,
        timings=timings,
        summary=summary,
        meta=_meta(directory, missing),
        phases=read_object(directory.phases),
        missing=tuple(missing),
    )


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a finite number."""
    return type(value) in (int, float) and math.isfinite(value)


def read_columns(path: Path) -> dict[str, array]:
    """The numbers of a file of JSON lines, column by column; none without a file.

    A torn last line, as a writer has it for a moment, is left out. Only the last line of an epoch
    counts.

    Raises:
        InputError: the file is too large, or a line is not a JSON object.
    """
    columns: dict[str, array] = {"epoch": array("d")}
    epochs = columns["epoch"]
    for number, _, record in metrics.records(path, LARGEST_LINES, LARGEST_LINE):
        epoch = record.pop("epoch", None)
        if not is_number(epoch):
            raise InputError(f"line {number} has no epoch", str(path), "remove the line")
        if epochs and epoch <= epochs[-1]:
            _forget(columns, epoch)
        for name in record.keys() - columns.keys():
            if len(columns) == MOST_COLUMNS:
                raise InputError(f"line {number} has too many measures", str(path))
            columns[name] = array("d", [math.nan]) * len(epochs)
        epochs.append(epoch)
        for name, values in columns.items():
            if name != "epoch":
                value = record.get(name)
                values.append(value if is_number(value) else math.nan)
    return columns


def read_object(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object; empty if there is none.

    Raises:
        InputError: it is too large or damaged.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_JSON + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"cannot be read: {reason(error)}", str(path)) from None
    if len(content) > LARGEST_JSON:
        raise InputError(f"larger than {LARGEST_JSON >> 20} MB", str(path))
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InputError("is not one that distnn writes", str(path), "move it away")
    return found


def _forget(columns: dict[str, array], epoch: float) -> None:
    """Remove the lines of an epoch and of those after it: a resumed run writes them anew."""
    epochs = columns["epoch"]
    kept = next(k for k, known in enumerate(epochs) if known >= epoch)
    for values in columns.values():
        del values[kept:]


def _status(
    directory: RunDirectory,
    epochs: dict[str, array],
    summary: dict[str, Any],
    outcome: dict[str, Any],
) -> tuple[str, str]:
    if writer := directory.writer():
        return UNDER_WAY, writer
    done = epochs["epoch"][-1] if epochs["epoch"] else 0
    said = str(outcome.get("message", ""))[:2000].removeprefix("training diverged: ")
    if outcome.get("outcome") == DIVERGED:
        return DIVERGED, said
    if summary and done <= summary.get("epochs", 0):
        return FINISHED, ""
    return STOPPED, said or "no job is writing here, and there is no summary of its end"


def _meta(directory: RunDirectory, missing: list[str]) -> dict[str, Any]:
    """What the newest checkpoint that can be read says; empty without one."""
    found = checkpoint.saved(directory.checkpoints)
    for path in found:
        try:
            meta = checkpoint.read_meta(path)
            check_facts(meta, path)
            return meta
        except checkpoint.CheckpointError as error:
            missing.append(str(error))
    if not found:
        missing.append("There is no checkpoint yet: data, network and builds are not known.")
    return {}
