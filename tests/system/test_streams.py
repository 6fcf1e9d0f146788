"""More rows than memory: one hash on any ranks, kill and resume in mid-epoch, damage told once."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from launch import ROOT, environment, kill_session, mpirun, mpirun_command, run_summary, train

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

FLAGS = ("--batch-size", 64, "--slices", 4, "--progress", "off")
STREAMED = (*FLAGS, "--window", 300)


def table(path: Path, rows: int = 1500) -> Path:
    """Numbers with gaps, text and three classes by name; row groups of 110 rows."""
    draw = np.random.default_rng(2)
    kind = draw.integers(0, 3, rows)
    columns = {
        "a": np.where(draw.random(rows) < 0.05, np.nan, draw.normal(size=rows) + 2 * kind),
        "b": draw.normal(size=rows) * 1e3,
        "c": np.where(draw.random(rows) < 0.7, np.array(["x", "y", "z"])[kind], "w"),
        "id": np.arange(rows),
        "w": draw.random(rows),
        "class": np.array(["low", "mid", "top"])[kind],
    }
    parquet.write_table(pa.table(columns), path, row_group_size=110)
    return path


def test_one_hash_on_any_ranks_and_evaluated_on_another_file(tmp_path: Path) -> None:
    data, test = table(tmp_path / "a.parquet"), table(tmp_path / "test.parquet", 200)
    same = ("--data", data, "--test-data", test, "--drop", "id", "--weight", "w", "--epochs", 3)
    same = (*same, *FLAGS)
    found = []
    for ranks in (1, 3):
        train(ranks, *same, "--window", 300, "--run-dir", tmp_path / f"r{ranks}")
        found.append(run_summary(tmp_path / f"r{ranks}"))
    for name in ("weights_sha256", "train_loss", "test_accuracy"):
        assert len({summary[name] for summary in found}) == 1, name
    assert found[0]["test_accuracy"] > 0.8
    memory = tmp_path / "memory"
    train(2, *same, "--window", 0, "--run-dir", memory)
    assert run_summary(memory)["weights_sha256"] != found[0]["weights_sha256"]  # another order
    assert abs(run_summary(memory)["test_accuracy"] - found[0]["test_accuracy"]) < 0.05


def test_killed_in_the_middle_of_an_epoch_and_gone_on_with_on_other_ranks(tmp_path: Path) -> None:
    data, run = table(tmp_path / "a.parquet"), tmp_path / "killed"
    same = ("--data", data, "--drop", "id", *STREAMED, "--epochs", 15, "--checkpoint-every", "5s")
    train(2, *same, "--run-dir", tmp_path / "whole")
    words = map(str, (*same, "--run-dir", run, "--resume"))
    process = subprocess.Popen(
        [*mpirun_command(), "-n", "3", sys.executable, "-m", "distnn.train", *words],
        env=environment(), stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    while not list(run.glob("checkpoints/step-*[1-9].safetensors")):
        assert process.poll() is None
        time.sleep(0.01)
    kill_session(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (run / "summary.json").exists()
    train(4, *same, "--run-dir", run, "--resume")
    for name in ("weights_sha256", "optimizer_sha256", "steps", "train_loss"):
        assert run_summary(run)[name] == run_summary(tmp_path / "whole")[name], name


def test_other_data_are_refused_on_a_resume(tmp_path: Path) -> None:
    data, run = table(tmp_path / "a.parquet"), tmp_path / "r"
    same = ("--data", data, "--drop", "id", *STREAMED, "--run-dir", run, "--resume")
    train(2, *same, "--epochs", 1)
    shutil.copy(table(tmp_path / "b.parquet", 1400), data)
    result = mpirun(2, *same)
    assert result.code == 2
    assert "--allow-changed-data" in result.stderr


def test_a_damaged_row_group_is_told_once_with_its_number(tmp_path: Path) -> None:
    data = table(tmp_path / "a.parquet")
    with parquet.ParquetFile(data) as file:
        offset = file.metadata.row_group(6).column(0).data_page_offset
    with data.open("r+b") as stream:
        stream.seek(offset)
        stream.write(b"\xff" * 40)
    result = mpirun(4, "--data", data, "--drop", "id", *STREAMED, "--run-dir", tmp_path / "r")
    assert result.code == 2
    assert result.stderr.count("a.parquet") == 1
    assert "damaged" in result.stderr


def test_a_file_cut_off_while_it_is_read_ends_the_training_on_every_rank(tmp_path: Path) -> None:
    folder, run = tmp_path / "arrays", tmp_path / "r"
    folder.mkdir()
    draw = np.random.default_rng(0)
    np.save(folder / "x_train.npy", draw.normal(size=(400_000, 4)))
    np.save(folder / "y_train.npy", draw.normal(size=400_000))
    words = ("--data", folder, "--window", 20_000, "--batch-size", 64, "--epochs", 1000, "--slices",
             4, "--checkpoint-every", "50s", "--run-dir", run, "--progress", "off")  # fmt: skip
    process = subprocess.Popen(
        [*mpirun_command(), "-n", "3", sys.executable, "-m", "distnn.train", *map(str, words)],
        env=environment(), stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    while not list(run.glob("checkpoints/step-*.safetensors")):
        assert process.poll() is None
        time.sleep(0.01)
    os.truncate(folder / "x_train.npy", 1_000_000)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 2
    assert stderr.count("x_train.npy: cut off") == 1


def test_a_reader_that_hangs_ends_the_job(tmp_path: Path) -> None:
    data = table(tmp_path / "a.parquet")
    words = ("--data", data, "--drop", "id", *STREAMED, "--epochs", 30, "--stall-timeout", 3)
    here = os.pathsep.join([str(Path(__file__).parent), str(ROOT)])
    env = {"PYTHONPATH": here, "DISTNN_FAULT": str(tmp_path / "fault")}
    fault = ("sleep", 2, "window", *words, "--run-dir", tmp_path / "r")
    result = mpirun(3, *fault, module="faulty", env=env)
    assert result.code not in (0, 2)
    assert (tmp_path / "fault").exists()
    # MPI's own line, "Abort(1) on node 2 (rank 2 in comm 0)", comes before the job's end or not.
    lines = [line for line in result.stderr.splitlines() if "rank 2 on" in line]
    assert len(lines) == 1
    assert "reading of data" in lines[0]


def test_options_that_need_all_rows_at_once_are_refused_with_a_remedy(tmp_path: Path) -> None:
    data = table(tmp_path / "a.parquet")
    for flags in (
        ("--validation", 0.1, "--window", 300),
        ("--class-weight", "balanced", "--window", 300),
        ("--window", 10),
    ):
        words = ("--data", data, "--drop", "id", *FLAGS, *flags, "--run-dir", tmp_path / "r")
        result = mpirun(0, *words)
        assert result.code == 2, flags
        assert flags[0].removeprefix("--") in result.stderr
    assert not (tmp_path / "r").exists()
