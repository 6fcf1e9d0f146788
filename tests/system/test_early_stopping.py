"""Early stopping on the command line: killed and resumed on other ranks, the same end."""

import sys
import time
from pathlib import Path

import datasets
import kills
import numpy as np

from launch import kill_session, mpirun, run_metrics, run_summary, train

FLAGS = [
    *("--slices", 6, "--batch-size", 16, "--epochs", 300, "--validation", 0.2, "--progress", "off"),
    *("--metric", "balanced-accuracy", "--patience", 25, "--class-weight", "balanced"),
    *("--checkpoint-every", "10s", "--label-smoothing", 0.05, "--weight", "w"),
]
SAME = (
    "weights_sha256", "optimizer_sha256", "best_weights_sha256", "best_epoch", "epochs",
    "stopped_early", "validation_balanced_accuracy", "test_loss", "test_auc", "test_confusion",
)  # fmt: skip


def weighted(path: Path) -> Path:
    with np.load(datasets.classes(path)) as arrays:
        held = dict(arrays)
    draw = np.random.default_rng(0)
    held |= {f"w_{part}": draw.uniform(0, 2, len(held[f"y_{part}"])) for part in ("train", "test")}
    np.savez(path, **held)
    return path


def test_a_run_that_is_killed_stops_early_at_the_same_epoch_on_other_ranks(tmp_path: Path) -> None:
    flags = ["--data", weighted(tmp_path / "set.npz"), *FLAGS]
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    train(1, *flags, "--run-dir", straight)
    job = kills.Job(sys.executable, 2, killed, list(map(str, flags)))
    while not (killed / "metrics.jsonl").exists() and job.process.poll() is None:
        time.sleep(0.005)
    kill_session(job.process.pid)
    job.process.wait()
    train(3, *flags, "--run-dir", killed, "--resume")

    one, other = run_summary(straight), run_summary(killed)
    assert {name: one[name] for name in SAME} == {name: other[name] for name in SAME}
    assert one["stopped_early"]
    assert one["epochs"] == one["best_epoch"] + 25
    assert run_metrics(straight) == run_metrics(killed)
    again = mpirun(2, *flags, "--run-dir", killed, "--resume")
    assert (again.code, again.stderr.count("nothing was left to do")) == (0, 1)
    shown = mpirun(3, killed, "--checkpoint", "best", module="distnn.evaluate")
    assert f"{one['test_balanced_accuracy']:.4f}" in shown.stderr


def test_what_needs_a_validation_set_says_so_once(tmp_path: Path) -> None:
    data = datasets.classes(tmp_path / "set.npz")
    for flags, message in (
        (["--patience", 3], "there is no validation set to watch"),
        (["--validation", 0.2, "--metric", "r2"], "r2 is not one of classification"),
        (["--validation", 1.5], "must be below 1"),
        (["--validation", "nowhere.csv"], "no such file"),
        (["--weight", "w"], "array w is missing"),
    ):
        result = mpirun(2, "--data", data, "--run-dir", tmp_path / "r", *flags)
        assert (result.code, len(result.stderr.splitlines())) == (2, 1), result.stderr
        assert message in result.stderr
        assert not (tmp_path / "r").exists()
