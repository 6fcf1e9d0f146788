"""The files of a run, and that a full disk does not end it."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from distnn import Adam, Network
from distnn.config.options import TrainConfig
from distnn.errors import DistnnError
from distnn.run import checkpoint, metrics
from distnn.run.position import Position
from distnn.training.run_files import RunFiles

W = [np.arange(6, dtype=np.float32).reshape(3, 2)]
STATE = {"m": np.ones(6, np.float32), "v": np.ones(6, np.float32)}
ABOUT = {"task": "regression", "classes": 0, "data": {"training rows": "ab"}}
TENSORS = {"scaling.shift": np.zeros(2), "scaling.scale": np.ones(2)}


class Disk:
    """A run's files, without a training that fills them."""

    def __init__(self, path: Path) -> None:
        self.files = RunFiles(path)
        self.directory, self.path = self.files.directory, path
        self.config = TrainConfig(keep=2, slices=1, progress="off", epochs=9)
        self.begin(Position())

    def begin(self, position: Position, resume: bool = False) -> None:
        self.session: Any = SimpleNamespace(
            network=Network([2, 2]), optimizer=Adam(), position=position, slices=1,
            config=self.config, comm=SimpleNamespace(size=1, nodes=1),
            exchange=SimpleNamespace(state=STATE, update="rank0"),
        )  # fmt: skip
        self.files.open(TrainConfig(resume=resume))
        self.files.make()
        self.files.begin(self.config, self.session, 10, ABOUT, TENSORS)

    def epoch(self, number: int, loss: float, steps: int = 4) -> None:
        record = {"epoch": number, "step": number * steps, "train_loss": loss}
        self.files.epoch_done(record, seconds=1.0, items=10)
        self.checkpoint(Position(epoch=number, steps=number * steps))

    def checkpoint(self, position: Position) -> str:
        """Saved when this returns, or why not."""
        self.files.save_checkpoint(W, STATE, position)
        return self.files.unsaved_message()

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.directory.checkpoints.glob("*"))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "run")
    yield disk
    disk.files.close()


def test_the_newest_and_the_best_are_kept(disk: Disk) -> None:
    for number, loss in enumerate([3.0, 1.0, 2.0, 4.0], start=1):
        disk.epoch(number, loss)
    assert disk.names == ["best.safetensors", "step-0000000012.safetensors",
                          "step-0000000016.safetensors"]  # fmt: skip
    best = checkpoint.read(disk.directory.checkpoints / "best.safetensors")
    assert (best.meta["position"]["epoch"], best.meta["score"]) == (2, 1.0)


def test_what_a_checkpoint_holds_is_what_comes_back(disk: Disk) -> None:
    disk.epoch(1, 0.5)
    disk.files.close()
    again = RunFiles(disk.path)
    again.open(TrainConfig(resume=True))
    assert again.position == Position(epoch=1, steps=4)
    weights, state = again.vectors()
    assert np.array_equal(weights, W[0].reshape(-1))
    assert np.array_equal(state["m"], STATE["m"])
    assert again.checkpoint is not None
    assert again.checkpoint.meta["task"] == "regression"
    again.close()


def test_no_checkpoint_is_the_beginning(disk: Disk) -> None:
    disk.files.close()
    again = RunFiles(disk.path)
    again.open(TrainConfig(resume=True))
    assert (again.position, again.vectors()) == (Position(), (None, {}))
    again.close()


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_never_the_best(disk: Disk, loss: float) -> None:
    disk.epoch(1, loss)
    assert disk.names == ["step-0000000004.safetensors"]


def test_a_position_is_saved_once(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.epoch(1, 0.5)
    monkeypatch.setattr(checkpoint, "write", lambda *_: pytest.fail("saved again"))
    disk.checkpoint(Position(epoch=1, steps=4))


def test_in_the_middle_of_an_epoch_nothing_is_the_best(disk: Disk) -> None:
    disk.checkpoint(Position(epoch=0, step=2, steps=2))
    assert disk.names == ["step-0000000002.safetensors"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("call", ["write", "fsync", "open"])
def test_failed_writes_are_reported_each_time_and_training_goes_on(
    disk: Disk,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    call: str,
    number: int,
) -> None:
    """A quota may be met when a file is opened, written, or only when it is flushed."""
    disk.epoch(1, 2.0)
    good = {name: (disk.directory.checkpoints / name).read_bytes() for name in disk.names}
    lines = disk.directory.metrics.read_bytes()

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        if call == "fsync":
            patched.setattr(os, "fsync", refused)
        elif call == "open":
            patched.setattr(Path, "open", refused)
            patched.setattr(metrics, "without_links", refused)
        else:
            patched.setattr(checkpoint, "_write_all", refused)
            patched.setattr(metrics, "append", refused)
        for epoch in (2, 3):
            disk.epoch(epoch, 1.0)
        unsaved = disk.checkpoint(Position(epoch=3, steps=12))
    said = "\n".join(caplog.messages)  # although there is no progress to be seen
    assert said.count("training goes on, the last good checkpoint stays") == 3  # at each attempt
    assert said.count("kept for the next attempt") == 2
    assert os.strerror(number) in unsaved
    assert "step-0000000004" in unsaved
    assert {name: (disk.directory.checkpoints / name).read_bytes() for name in disk.names} == good
    assert disk.directory.metrics.read_bytes() == lines

    disk.epoch(4, 0.5)
    assert disk.files.unsaved_message() == ""
    assert [record["epoch"] for record in metrics.read(disk.directory.metrics)] == [1, 2, 3, 4]
    assert "step-0000000016.safetensors" in disk.names


def test_no_checkpoint_without_the_lines_before_it(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that went on from it would never write them."""
    disk.epoch(1, 2.0)
    with monkeypatch.context() as patched:

        def refused(*_: Any) -> None:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

        patched.setattr(metrics, "append", refused)
        disk.epoch(2, 1.0)
        assert "quota" in disk.files.unsaved_message()
    assert disk.names == ["best.safetensors", "step-0000000004.safetensors"]


def test_training_does_not_wait_for_lines_on_a_slow_disk(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (time.sleep(0.1), flush(handle)))
    start = time.perf_counter()
    for epoch in range(1, 21):
        disk.files.epoch_done({"epoch": epoch, "train_loss": 1.0}, seconds=1.0, items=1)
    assert time.perf_counter() - start < 0.1
    assert disk.files.unsaved_message() == ""
    assert time.perf_counter() - start < 1.5  # lines that had to wait are flushed together
    epochs = [record["epoch"] for record in metrics.read(disk.directory.metrics)]
    assert epochs == list(range(1, 21))


def test_a_summary_that_cannot_be_written_is_an_error(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(metrics, "write_summary", refused)
    with pytest.raises(DistnnError, match=r"training is done and saved, but .*summary\.json"):
        disk.files.finish(disk.session, 10, 0.0)


def test_resume_forgets_what_came_after(disk: Disk) -> None:
    for number in (1, 2, 3):
        disk.epoch(number, 1.0 / number)
    disk.files.close()
    disk.begin(Position(epoch=1, steps=4), resume=True)
    for path in (disk.directory.metrics, disk.directory.timings):
        lines = path.read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == [1]


def test_another_error_of_a_writing_thread_rises_at_the_next_call(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("injected")

    monkeypatch.setattr(metrics, "append", fail)
    disk.files.epoch_done({"epoch": 1, "train_loss": 1.0}, seconds=1.0, items=1)
    with pytest.raises(ZeroDivisionError):
        disk.files.unsaved_message()


def test_no_thread_outlives_the_files(disk: Disk) -> None:
    disk.epoch(1, 1.0)
    assert [one for one in threading.enumerate() if "writer" in one.name]
    disk.files.close()
    until = time.monotonic() + 5
    while [one for one in threading.enumerate() if "writer" in one.name]:
        assert time.monotonic() < until
        time.sleep(0.01)


INTRUDERS = """
import sys
from distnn.config.options import TrainConfig
from distnn.errors import InputError
from distnn.training.run_files import RunFiles
for number in range(int(sys.argv[2])):
    files = RunFiles(sys.argv[1])
    try:
        files.open(TrainConfig(resume=number % 2 == 0))
        files.make()
    except InputError as error:
        assert "is writing here" in str(error) or "already holds a run" in str(error), error
    else:
        raise SystemExit("was let in")
"""


def test_intruders_cost_no_checkpoint(disk: Disk) -> None:
    """They are refused before they clean up what killed writers left, which this one is writing."""
    command = [sys.executable, "-c", INTRUDERS, str(disk.path), "200"]
    with subprocess.Popen(command) as one, subprocess.Popen(command) as other:
        step = 0
        while one.poll() is None or other.poll() is None:
            step += 1
            assert disk.checkpoint(Position(step=step, steps=step)) == ""
            assert checkpoint.step_name(step) + ".safetensors" in disk.names
    assert (one.returncode, other.returncode) == (0, 0)
    assert step > 10
