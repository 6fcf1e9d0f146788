"""What a run leaves behind, and that a full disk does not end it."""

import errno
import io
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distnn.errors import DistnnError
from distnn.run import checkpoint, metrics
from distnn.run.directory import RunDirectory
from distnn.run.position import Position
from distnn.run.progress import Progress
from distnn.training.recorder import Recorder, open_checkpoint

W = [np.arange(6, dtype=np.float32).reshape(3, 2)]
STATE = {"m": np.ones(6, np.float32)}


class Disk:
    def __init__(self, path: Path, keep: int = 2) -> None:
        self.directory, self.said = RunDirectory(path), io.StringIO()
        self.directory.make()
        progress = Progress("lines", self.said, 9, 4)
        self.recorder = Recorder(self.directory, keep, {"task": "x"}, {}, progress)

    def epoch(self, number: int, loss: float, steps: int = 4) -> None:
        record = {"epoch": number, "step": number * steps, "train_loss": loss}
        self.recorder.epoch(record, seconds=1.0, items=10)
        self.checkpoint(Position(epoch=number, steps=number * steps))

    def checkpoint(self, position: Position) -> str:
        """Saved when this returns, or why not."""
        self.recorder.checkpoint(W, STATE, position)
        return self.recorder.unsaved()

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.directory.checkpoints.glob("*"))


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "run")


def test_the_newest_and_the_best_are_kept(disk: Disk) -> None:
    for number, loss in enumerate([3.0, 1.0, 2.0, 4.0], start=1):
        disk.epoch(number, loss)
    assert disk.names == ["best.safetensors", "step-0000000012.safetensors",
                          "step-0000000016.safetensors"]  # fmt: skip
    best = checkpoint.read(disk.directory.checkpoints / "best.safetensors")
    assert (best.meta["position"]["epoch"], best.meta["loss"]) == (2, 1.0)


def test_what_a_checkpoint_holds_is_what_comes_back(disk: Disk) -> None:
    disk.epoch(1, 0.5)
    found, position = open_checkpoint(disk.directory)
    assert found is not None
    assert position == Position(epoch=1, steps=4)
    assert np.array_equal(found.weights(), W[0].reshape(-1))
    assert np.array_equal(found.state()["m"], STATE["m"])
    assert found.meta["task"] == "x"


def test_no_checkpoint_is_the_beginning(disk: Disk) -> None:
    assert open_checkpoint(disk.directory) == (None, Position())


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
def test_a_disk_that_takes_no_more_is_told_and_training_goes_on(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, call: str, number: int
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
        else:
            patched.setattr(checkpoint, "_write_all", refused)
            patched.setattr(metrics, "append", refused)
        for epoch in (2, 3):
            disk.epoch(epoch, 1.0)
        unsaved = disk.checkpoint(Position(epoch=3, steps=12))
    told = disk.said.getvalue()
    assert told.count("training goes on, the last good checkpoint stays") == 3  # at each attempt
    assert told.count("kept for the next attempt") == 2
    assert os.strerror(number) in unsaved
    assert "step-0000000004" in unsaved
    assert {name: (disk.directory.checkpoints / name).read_bytes() for name in disk.names} == good
    assert disk.directory.metrics.read_bytes() == lines

    disk.epoch(4, 0.5)
    assert disk.recorder.unsaved() == ""
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
        assert "quota" in disk.recorder.unsaved()
    assert disk.names == ["best.safetensors", "step-0000000004.safetensors"]


def test_training_does_not_wait_for_lines_on_a_slow_disk(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (time.sleep(0.1), flush(handle)))
    start = time.perf_counter()
    for epoch in range(1, 21):
        disk.recorder.epoch({"epoch": epoch, "train_loss": 1.0}, seconds=1.0, items=1)
    assert time.perf_counter() - start < 0.1
    assert disk.recorder.unsaved() == ""
    assert time.perf_counter() - start < 1.5  # lines that had to wait are flushed together
    epochs = [record["epoch"] for record in metrics.read(disk.directory.metrics)]
    assert epochs == list(range(1, 21))


def test_a_summary_that_cannot_be_written_is_told(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(metrics, "write_summary", refused)
    with pytest.raises(DistnnError, match=r"training is done and saved, but .*summary\.json"):
        disk.recorder.summary(W, STATE, {})


def test_resume_forgets_what_came_after(disk: Disk) -> None:
    for number in (1, 2, 3):
        disk.epoch(number, 1.0 / number)
    disk.recorder.resume(Position(epoch=1, steps=4))
    lines = disk.directory.metrics.read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1]
