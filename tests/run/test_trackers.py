"""Trackers: what they are given, resumes without doubled points, failures that end nothing."""

import importlib.util
import logging
import sqlite3
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from distnn import SGD, Network, Trainer
from distnn.errors import InputError
from distnn.run import metrics, trackers
from distnn.training import run_writer
from tests.small import classes, rows

ROOT = Path(__file__).parents[2]
X, Y = rows(60), classes(60)


class Listed:
    """Keeps what it is given."""

    calls: ClassVar[list[Any]] = []

    def start(self, run: trackers.Run) -> None:
        self.calls.append(("start", run.epochs, run.options["batch_size"]))

    def log(self, epoch: int, measures: Any) -> None:
        self.calls.append((epoch, measures))

    def finish(self, outcome: str, summary: Any) -> None:
        self.calls.append((outcome, summary.get("steps")))


class Failing(Listed):
    """Has no room after the first epoch."""

    def log(self, epoch: int, measures: Any) -> None:
        if epoch > 1:
            raise OSError("no space left")


class Hanging(Listed):
    """Waits for a server that does not answer."""

    never = threading.Event()

    def log(self, epoch: int, measures: Any) -> None:
        self.never.wait()


def fit(tracker: str, run_dir: Path | None, epochs: int, **options: Any) -> Trainer:
    network = Network([4, 3, 3], seed=0)
    where = None if run_dir is None else str(run_dir)
    options = {"batch_size": 20, "slices": 2, "run_dir": where} | options
    trainer = Trainer(network, SGD(0.1), tracker=tracker, **options)
    trainer.fit(X, Y, epochs)
    return trainer


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """The name of a class of this file, as ``--tracker`` takes it."""
    spec = importlib.util.spec_from_loader("trackers_of_this_test", None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    vars(module).update(Listed=Listed, Failing=Failing, Hanging=Hanging)
    monkeypatch.setitem(__import__("sys").modules, spec.name, module)
    Listed.calls.clear()
    return lambda name: f"{spec.name}:{name}"


def test_a_tracker_is_given_what_the_files_hold(here: Callable[[str], str], tmp_path: Path) -> None:
    fit(here("Listed"), tmp_path / "r", 3)
    start, *epochs, end = Listed.calls
    assert start == ("start", 0, 20)
    assert end == ("finished", 9)
    assert [epoch for epoch, _ in epochs] == [1, 2, 3]
    for (_, given), written in zip(epochs, metrics.read(tmp_path / "r/metrics.jsonl"), strict=True):
        assert {name: given[name] for name in written} == written
        assert given["samples_per_second"] > 0
    fit(here("Listed"), tmp_path / "r", 4, resume=True)
    assert Listed.calls[5] == ("start", 3, 20)
    assert [call[0] for call in Listed.calls[6:]] == [4, "finished"]


@pytest.mark.parametrize("kind", ["Failing", "Hanging"])
def test_one_that_fails_or_hangs_ends_nothing(
    kind: str, here: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(run_writer, "SECONDS", 0.2)
    monkeypatch.setattr(Hanging, "never", threading.Event())
    with caplog.at_level(logging.WARNING, "distnn"):
        fit(f"{here(kind)},{here('Listed')}", tmp_path / "r", 3)
    said = [record.getMessage() for record in caplog.records if "tracker" in record.getMessage()]
    assert len(said) == 1
    assert ("no space left" if kind == "Failing" else "has not ended") in said[0]
    assert ("finished", 9) in Listed.calls  # the other one has everything
    assert len(metrics.read(tmp_path / "r/metrics.jsonl")) == 3
    Hanging.never.set()  # its thread ends


@pytest.mark.parametrize(
    ("tracker", "message"),
    [("tensorbord", "no such tracker 'tensorbord'"), ("nowhere_at_all:A", "No module named"),
     ("json:Nothing", "Nothing"), ("fractions:Fraction,decimal:Context:x", "Context:x")],
)  # fmt: skip
def test_what_is_no_tracker_is_refused_before_anything_is_made(
    tracker: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        fit(tracker, tmp_path / "r", 1)
    assert not (tmp_path / "r").exists()
    with pytest.raises(InputError, match="give run_dir"):
        fit("json:JSONDecoder", None, 1)


def test_the_example_with_another_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.chdir(tmp_path)
    for epochs in (2, 4):
        fit("own_tracker:SQLite", tmp_path / "r", epochs, resume=True)
    with sqlite3.connect("runs.db") as file:
        found = file.execute("select value from figures where name = 'train_loss' order by epoch")
        losses = [value for (value,) in found]
    assert losses == [one["train_loss"] for one in metrics.read(tmp_path / "r/metrics.jsonl")]


def events(folder: Path) -> Iterator[Any]:
    """The events of TensorBoard's files in the order they were written (TFRecord's layout)."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.iterdir()):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (size,) = struct.unpack_from("<Q", content, at)
            yield Event.FromString(content[at + 12 : at + 12 + size])
            at += size + 16


def curve(folder: Path, name: str) -> list[tuple[int, float]]:
    """As TensorBoard reads it: a session's start removes what is at its step and after it."""
    points: list[tuple[int, float]] = []
    for event in events(folder):
        if event.HasField("session_log"):
            points = [point for point in points if point[0] < event.step]
        for value in event.summary.value:
            if value.tag == name:
                points.append((event.step, value.simple_value))
    return points


def test_tensorboard_has_every_epoch_once_after_a_resume_from_before(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    run = tmp_path / "r"
    fit("tensorboard", run, 5, keep=3)
    for lost in sorted(run.glob("checkpoints/step-*"))[1:]:
        lost.unlink()  # of epochs 4 and 5: the run goes on from epoch 3
    (run / "summary.json").unlink()
    fit("tensorboard", run, 6, resume=True)
    written = metrics.read(run / "metrics.jsonl")
    expected = [(one["epoch"], one["train_loss"]) for one in written]
    assert len(expected) == 6
    found = curve(run / "tensorboard", "train_loss")
    assert [epoch for epoch, _ in found] == [epoch for epoch, _ in expected]
    np.testing.assert_allclose(found, expected, rtol=1e-7)  # events hold float32
    if importlib.util.find_spec("tensorboard") is None:
        return
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(run / "tensorboard"))
    reader.Reload()
    assert [point.step for point in reader.Scalars("train_loss")] == [1, 2, 3, 4, 5, 6]


def test_mlflow_has_one_run_and_every_epoch_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="pip install mlflow-skinny")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    from mlflow import MlflowClient

    run = tmp_path / "r"
    fit("mlflow", run, 4)
    for lost in sorted(run.glob("checkpoints/step-*"))[1:]:
        lost.unlink()
    (run / "summary.json").unlink()
    fit("mlflow", run, 5, resume=True)
    client = MlflowClient()
    experiment = client.get_experiment_by_name("distnn")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.status, found.data.params["batch_size"]) == ("FINISHED", "20")
    points = client.get_metric_history(found.info.run_id, "train_loss")
    written = [one["train_loss"] for one in metrics.read(run / "metrics.jsonl")]
    assert [(point.step, point.value) for point in points] == list(enumerate(written, 1))
