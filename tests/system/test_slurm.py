"""launch/slurm.sbatch under a real Slurm of two nodes."""

from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
from slurm import Slurm, why_not

from launch import ROOT, run_summary, train

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


def test_bad_input_fails_the_job_with_its_code(slurm: Slurm, tmp_path: Path) -> None:
    job = submit(slurm, tmp_path, "--data", tmp_path / "none.npz")
    slurm.wait(job, ("COMPLETED", "FAILED"))
    assert slurm.state(job)["ExitCode"] == "2:0"
    assert "none.npz" in (tmp_path / "log").read_text()
