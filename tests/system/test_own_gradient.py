"""Examples of own gradients give one hash on any ranks; a function that fails ends the job."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch import ROOT, environment, kill_session, mpirun, mpirun_command

EXAMPLES = ROOT / "examples"
NEEDED = {"jax": "jax", "torch": "torch"}
FAULTY = """
import os, sys, time
import numpy as np
from mpi4py import MPI
from distnn import GradientTrainer

calls = 0

def gradient(theta, rows):
    global calls
    calls += 1
    if MPI.COMM_WORLD.rank == 1 and calls == 20:
        {fault}
    return 0.5 * len(rows) * float(theta @ theta), len(rows) * theta

GradientTrainer(np.ones(9), gradient, 100, batch_size=10, stall_timeout=3).fit(50)
"""


def script(ranks: int, *args: object) -> str:
    """The standard output of a script that must succeed."""
    result = mpirun(ranks, *args, module="mpi4py")
    assert result.code == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("name", ["mixture", "sparse", "jax", "torch"])
def test_examples_give_one_hash_on_any_ranks(name: str) -> None:
    if name in NEEDED:
        pytest.importorskip(NEEDED[name], reason=f"{NEEDED[name]} is not installed")
    outputs = [script(ranks, EXAMPLES / f"gradient_{name}.py") for ranks in (1, 2)]
    assert "sha256" in outputs[0]
    assert outputs[0] == outputs[1]


def test_a_killed_run_goes_on_with_other_ranks_to_the_same_hash(tmp_path: Path) -> None:
    example, run_dir = EXAMPLES / "gradient_mixture.py", tmp_path / "run"
    command = [*mpirun_command(), "-n", "3", sys.executable, "-m", "mpi4py", example, run_dir]
    process = subprocess.Popen(command, env=environment(), start_new_session=True)
    until = time.monotonic() + 30
    while not list(run_dir.glob("checkpoints/step-*")) and time.monotonic() < until:
        time.sleep(0.01)
    kill_session(process.pid)
    assert process.wait(10) == -signal.SIGKILL or (run_dir / "metrics.jsonl").exists()
    assert script(2, example, run_dir) == script(1, example)


FAULTS = [
    ("raise ZeroDivisionError('of the caller')", "of the caller"),
    ("time.sleep(1000)", "rank 1"),
    ("sys.exit(3)", "rank 1"),
    ("os._exit(3)", ""),  # the launcher ends the job, and may say nothing
]
IS_ALL = os.environ.get("DISTNN_FAULTS") == "all"


@pytest.mark.parametrize(("fault", "text"), FAULTS if IS_ALL else FAULTS[:2])
def test_a_function_that_fails_on_one_rank_ends_the_job(
    tmp_path: Path, fault: str, text: str
) -> None:
    path = tmp_path / "faulty.py"
    path.write_text(FAULTY.replace("{fault}", fault))
    result = mpirun(2, path, module="mpi4py", timeout=30)
    assert result.code != 0
    assert result.seconds < 20
    assert text in result.stderr
