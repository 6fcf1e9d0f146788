"""Promise 3: stopped, and continued on other ranks, a run has the same bits."""

from pathlib import Path

import datasets
import pytest

from launch import run_metrics, run_summary, train

FLAGS = {
    "adam": "--optimizer adam",
    "momentum, dropout, float64": "--optimizer momentum --dropout 0.2 --precision float64",
}


@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS.keys())
def test_stopped_after_epoch_2_on_4_ranks_and_resumed_on_3(tmp_path: Path, flags: str) -> None:
    data = datasets.classes(tmp_path / "classes.npz")
    same = ["--data", data, "--slices", 8, "--batch-size", 50, *flags.split()]
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"

    train(2, *same, "--epochs", 4, "--run-dir", straight)
    train(4, *same, "--epochs", 2, "--run-dir", stopped)
    train(3, *same, "--epochs", 4, "--run-dir", stopped, "--resume")

    for name in ("weights_sha256", "optimizer_sha256", "steps", "train_loss", "test_accuracy"):
        assert run_summary(stopped)[name] == run_summary(straight)[name], name
    assert run_metrics(stopped) == run_metrics(straight)


def test_resume_starts_a_run_that_is_not_there_and_leaves_a_finished_one(tmp_path: Path) -> None:
    data = datasets.classes(tmp_path / "classes.npz")
    command = [
        "--data",
        data,
        "--epochs",
        2,
        "--slices",
        2,
        "--run-dir",
        tmp_path / "r",
        "--resume",
    ]
    train(2, *command)
    first = run_summary(tmp_path / "r")
    train(1, *command)
    again = run_summary(tmp_path / "r")
    assert again["weights_sha256"] == first["weights_sha256"]
    assert again["steps"] == first["steps"]
