"""Promise 3: stopped, and continued on other ranks, a run has the same bits."""

from pathlib import Path

import datasets
import pytest

from launch import mpirun, run_metrics, run_summary, train

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
        "--blas",
        "auto",
    ]
    train(2, *command)
    first = run_summary(tmp_path / "r")
    train(1, *command)
    again = run_summary(tmp_path / "r")
    assert again["weights_sha256"] == first["weights_sha256"]
    assert again["steps"] == first["steps"]


def test_without_its_checkpoints_a_run_begins_anew_and_says_so_or_is_refused(
    tmp_path: Path,
) -> None:
    data = datasets.classes(tmp_path / "classes.npz")
    command = ["--data", data, "--epochs", 2, "--slices", 4, "--run-dir", tmp_path / "r",
               "--resume", "--progress", "off"]  # fmt: skip
    assert mpirun(1, *command).stderr.count("\n") == 0  # what was understood of the data
    first, lines = run_summary(tmp_path / "r"), run_metrics(tmp_path / "r")
    for path in (tmp_path / "r" / "checkpoints").iterdir():
        path.unlink()

    refused = mpirun(3, *command)
    assert refused.code == 2
    assert refused.stderr.count("\n") == 0
    assert "checkpoints of this finished run are gone" in refused.stderr
    assert (run_summary(tmp_path / "r"), run_metrics(tmp_path / "r")) == (first, lines)

    (tmp_path / "r" / "summary.json").unlink()  # as of one that was stopped before a checkpoint
    again = mpirun(3, *command)
    assert again.code == 0
    assert [line for line in again.stderr.splitlines() if "no checkpoint; the run begins" in line]
    assert again.stderr.count("\n") == 1
    assert run_summary(tmp_path / "r")["weights_sha256"] == first["weights_sha256"]
    assert run_metrics(tmp_path / "r") == lines


def test_another_kernel_is_told_in_one_line_and_the_run_goes_on(tmp_path: Path) -> None:
    data = datasets.classes(tmp_path / "classes.npz")
    command = ["--data", data, "--run-dir", tmp_path / "r", "--resume", "--slices", 2]
    train(1, *command, "--epochs", 1)
    told = []
    for kernel in ("Nehalem", "Haswell"):  # at least one of them is not this machine's choice
        epochs = 1 + len(told) + 1
        env = {"OPENBLAS_CORETYPE": kernel}
        result = mpirun(2, *command, "--epochs", epochs, "--progress", "off", env=env)
        assert result.code == 0, result.stderr
        told.append([line for line in result.stderr.splitlines() if "bits may differ" in line])
    assert {len(lines) for lines in told} <= {0, 1}
    assert any("blas_kernel" in line for lines in told for line in lines)
    assert len(run_metrics(tmp_path / "r")) == 3


@pytest.mark.parametrize("update", ["rank0", "sharded"])
def test_a_run_by_mpis_own_sum_goes_on_and_says_what_it_depends_on(
    tmp_path: Path, update: str
) -> None:
    data = datasets.classes(tmp_path / "classes.npz")
    command = ["--data", data, "--run-dir", tmp_path / "r", "--resume", "--slices", 4,
               "--reduce", "mpi", "--update", update]  # fmt: skip
    said = [
        mpirun(ranks, *command, "--epochs", epochs, "--progress", "off").stderr.splitlines()
        for ranks, epochs in ((2, 2), (2, 3), (3, 4))
    ]
    assert [len([line for line in lines if "depend on the number of ranks" in line]) for lines in
            said] == [1, 1, 1]  # fmt: skip
    assert "the run was on 2 so far" in said[2][1]
    summary = run_summary(tmp_path / "r")
    assert (summary["reduce"], summary["ranks"], summary["depends_on_ranks"]) == ("mpi", 3, True)
    assert len(run_metrics(tmp_path / "r")) == 4
