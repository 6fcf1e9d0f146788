"""launch/slurm.sbatch under a real Slurm of two nodes."""

from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
from slurm import Slurm, why_not

from launch import ROOT, run_metrics, run_summary, train

REASON = why_not()
pytestmark = [pytest.mark.system, pytest.mark.skipif(bool(REASON), reason=REASON)]

SCRIPT = ROOT / "launch" / "slurm.sbatch"
FLAGS = ["--slices", 4, "--batch-size", 20, "--progress", "lines"]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with Slurm(tmp_path_factory.mktemp("slurm")) as slurm:
        yield slurm


def submit(slurm: Slurm, tmp_path: Path, *args: object) -> int:
    options = ["--ntasks-per-node=2", f"--chdir={tmp_path}", f"--output={tmp_path}/log"]
    return slurm.sbatch(*options, SCRIPT, *args)


def test_a_job_runs_to_its_end(slurm: Slurm, tmp_path: Path) -> None:
    data = datasets.classes(tmp_path / "classes.npz")
    args = ["--data", data, "--epochs", 3, *FLAGS]
    train(1, *args, "--run-dir", tmp_path / "one")
    job = submit(slurm, tmp_path, *args)
    slurm.wait(job, ("COMPLETED", "FAILED"))
    assert slurm.state(job)["JobState"] == "COMPLETED", (tmp_path / "log").read_text()
    summary = run_summary(tmp_path / "runs" / f"slurm-{job}")
    assert summary["ranks"] == 4
    assert summary["weights_sha256"] == run_summary(tmp_path / "one")["weights_sha256"]


def test_a_run_directory_of_the_config_is_used(slurm: Slurm, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('epochs = 1\nrun_dir = "named/here"\n')
    job = submit(slurm, tmp_path, config, *FLAGS)
    slurm.wait(job, ("COMPLETED", "FAILED"))
    assert run_summary(tmp_path / "named" / "here")["ranks"] == 4
    assert not (tmp_path / "runs").exists()


def test_a_sweep_is_an_array_of_jobs(slurm: Slurm, tmp_path: Path) -> None:
    for folder in ("launch", "examples"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    data = datasets.classes(tmp_path / "classes.npz")
    job = slurm.sbatch(
        "--array=2,5", "--ntasks-per-node=2", f"--chdir={tmp_path}",
        ROOT / "examples/sweep/sweep.sbatch", "--data", data, "--epochs", 2, *FLAGS,
    )  # fmt: skip
    summaries = [tmp_path / f"runs/sweep-{job}/{task}/summary.json" for task in (2, 5)]
    slurm.until(lambda: all(path.exists() for path in summaries), 60)
    recorded = [(path.parent / "config.toml").read_text() for path in summaries]
    assert ["dropout = 0.2" in text for text in recorded] == [False, True]
    assert ["learning_rate = 0.003" in text for text in recorded] == [True, False]


def test_a_signal_saves_the_run_and_it_goes_on_from_the_queue(slurm: Slurm, tmp_path: Path) -> None:
    """As before the time limit: the script is told, and the same job starts again."""
    data = datasets.classes(tmp_path / "classes.npz")
    args = ["--data", data, "--epochs", 150, *FLAGS, "--checkpoint-every", 200]
    train(1, *args, "--run-dir", tmp_path / "one")
    job = submit(slurm, tmp_path, *args)
    run_dir = tmp_path / "runs" / f"slurm-{job}"
    slurm.until(lambda: len(metrics_so_far(run_dir)) > 5, 30)
    slurm.run("scancel", "--signal=USR1", "--batch", job)
    slurm.until(lambda: slurm.state(job)["Restarts"] == "1", 30)
    slurm.wait(job, ("PENDING",), 30)
    assert not (run_dir / "summary.json").exists()
    done = len(run_metrics(run_dir))
    assert done < 150
    slurm.run("scontrol", "update", f"job={job}", "StartTime=now+4")  # and not in two minutes
    slurm.wait(job, ("COMPLETED", "FAILED"), 90)
    log = (tmp_path / "log").read_text()
    assert slurm.state(job)["JobState"] == "COMPLETED", log
    assert "stopped on request" in log
    summary, expected = run_summary(run_dir), run_summary(tmp_path / "one")
    assert summary["weights_sha256"] == expected["weights_sha256"]


def test_a_cancelled_job_is_saved_and_stays_cancelled(slurm: Slurm, tmp_path: Path) -> None:
    data = datasets.classes(tmp_path / "classes.npz")
    job = submit(slurm, tmp_path, "--data", data, "--epochs", 100_000, *FLAGS)
    run_dir = tmp_path / "runs" / f"slurm-{job}"
    slurm.until(lambda: len(metrics_so_far(run_dir)) > 2, 30)
    slurm.run("scancel", job)
    slurm.until(lambda: not slurm.run("squeue", "--noheader"), 30)
    assert slurm.state(job)["JobState"] == "CANCELLED"
    assert slurm.state(job)["Restarts"] == "0"
    assert "stopped on request" in (tmp_path / "log").read_text()


def test_bad_input_fails_the_job_with_its_code(slurm: Slurm, tmp_path: Path) -> None:
    job = submit(slurm, tmp_path, "--data", tmp_path / "none.npz")
    slurm.wait(job, ("COMPLETED", "FAILED"))
    assert slurm.state(job)["ExitCode"] == "2:0"
    assert "none.npz" in (tmp_path / "log").read_text()


def metrics_so_far(run_dir: Path) -> list[str]:
    return run_metrics(run_dir) if (run_dir / "metrics.jsonl").exists() else []
