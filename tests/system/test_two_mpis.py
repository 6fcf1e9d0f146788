"""The bits do not depend on the MPI: a run that changes it in the middle, and straight ones."""

import os
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from kills import Job, result

OTHER = "DISTNN_OTHER_PYTHON"  # the Python of an environment with another MPI


def library(python: str) -> str:
    """The name of the MPI that a Python's mpi4py finds."""
    ask = "from mpi4py import MPI; print(MPI.get_vendor()[0])"
    return subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout


def test_equal_hashes_with_two_mpis(tmp_path: Path) -> None:
    other = os.environ.get(OTHER)
    if other is None:
        pytest.skip(f"one MPI here; {OTHER} may name a Python with another")
    assert library(other) != library(sys.executable)
    data = datasets.classes(tmp_path / "classes.npz")
    runs = {
        "one": [(sys.executable, 2, 4)],
        "other": [(other, 3, 4)],
        "one, then other": [(sys.executable, 5, 2), (other, 2, 4)],
        "other, then one": [(other, 8, 1), (sys.executable, 1, 4)],
    }
    results = {}
    for name, parts in runs.items():
        for python, ranks, epochs in parts:
            flags = ["--data", str(data), "--slices", "8", "--epochs", str(epochs)]
            Job(python, ranks, tmp_path / name, flags).finish()
        results[name] = result(tmp_path / name)
    assert list(results.values()) == [results["one"]] * len(runs)
