"""Metrics: the same bits back, the same bytes after a resume."""

import errno
import json
import math
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distnn.errors import InputError
from distnn.run import metrics


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_numbers_come_back_to_the_last_bit(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("metrics") / "metrics.jsonl"
    for epoch, value in enumerate(values, 1):
        metrics.append(path, [{"epoch": epoch, "train_loss": value}])
    assert metrics.read(path) == [
        {"epoch": epoch, "train_loss": value} for epoch, value in enumerate(values, 1)
    ]


def test_numpy_scalars_and_what_is_not_finite(tmp_path):
    path = tmp_path / "metrics.jsonl"
    record = {"epoch": np.int64(1), "a": np.float32(0.1), "b": math.nan, "c": np.float64(-np.inf)}
    metrics.append(path, [record])
    assert metrics.read(path) == [{"epoch": 1, "a": float(np.float32(0.1)), "b": None, "c": None}]
    assert "NaN" not in path.read_text()


def test_truncate_keeps_bytes(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for epoch in (1, 2, 3, 4):
        metrics.append(path, [{"epoch": epoch, "train_loss": 1 / epoch}])
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(b'{"epoch": 5, "tr')
    assert len(metrics.read(path)) == 4
    metrics.truncate_after(path, 2)
    assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:2])
    for epoch in (3, 4):
        metrics.append(path, [{"epoch": epoch, "train_loss": 1 / epoch}])
    assert path.read_bytes() == whole
    metrics.truncate_after(path, 0)
    assert path.read_bytes() == b""


def test_truncate_before_any_epoch(tmp_path):
    metrics.truncate_after(tmp_path / "metrics.jsonl", 3)
    assert not list(tmp_path.iterdir())
    assert metrics.read(tmp_path / "metrics.jsonl") == []


@pytest.mark.parametrize(
    "line", [b"\n", b"[]\n", b"\xff\n", b"[" * 9999 + b"\n", b'{"epoch": []}\n']
)
def test_damaged_lines_are_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"epoch": 1}\n' + line + b'{"epoch": 3}\n')
    for action in (metrics.read, lambda path: metrics.truncate_after(path, 2)):
        with pytest.raises(InputError, match=r"metrics\.jsonl: line 2 "):
            action(path)


def test_unreadable(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        metrics.read(tmp_path)


def test_summary(tmp_path):
    path = tmp_path / "summary.json"
    metrics.write_summary(path, {"steps": 3, "train_loss": np.float32(0.5), "test_r2": math.nan})
    metrics.write_summary(path, {"steps": 4, "train_loss": np.float32(0.5), "test_r2": math.nan})
    assert json.loads(path.read_text()) == {"steps": 4, "train_loss": 0.5, "test_r2": None}
    assert [one.name for one in tmp_path.iterdir()] == ["summary.json"]


def test_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic links"):
        metrics.append(tmp_path / "metrics.jsonl", [{"epoch": 1}])
    assert not (tmp_path / "target").exists()


def test_a_line_that_cannot_be_kept_leaves_those_before(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    metrics.append(path, [{"epoch": 1}])
    before = path.read_bytes()

    def fail(handle):
        raise OSError(errno.EIO, "injected")

    with monkeypatch.context() as patched:
        patched.setattr(metrics.os, "fsync", fail)
        with pytest.raises(OSError, match="injected"):
            metrics.append(path, [{"epoch": 2}])
    assert path.read_bytes() == before


def test_lines_are_on_the_disk_and_so_is_the_name_of_a_new_file(tmp_path, monkeypatch):
    flushed = []
    path = tmp_path / "metrics.jsonl"
    monkeypatch.setattr(
        metrics.os, "fsync", lambda handle: flushed.append(os.readlink(f"/proc/self/fd/{handle}"))
    )
    metrics.append(path, [{"epoch": 1}])
    metrics.append(path, [{"epoch": 2}])
    assert flushed == [str(path), str(tmp_path), str(path)]
