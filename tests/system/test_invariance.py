"""launch/invariance: the table that shows promises 2 and 3 to a user."""

import subprocess
import sys
from pathlib import Path

import datasets

import launch

# the tree joins 4 and 3 slices, two ranks own 3 and 4
ANY_ORDER = ("--reduce", "mpi", "--slices", 7)


def invariance(*args: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, launch.ROOT / "launch" / "invariance.py", *map(str, args)],
        capture_output=True, text=True, timeout=100, env=launch.environment(), check=False,
    )  # fmt: skip


def test_a_row_for_each_number_of_ranks_and_for_a_kill(tmp_path: Path) -> None:
    data = datasets.classes(tmp_path / "data.npz")
    shown = invariance("-n", "1 3", "--data", data, "--epochs", 4)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    title, _, *rows, verdict = shown.stdout.splitlines()
    assert title == "8 slices"
    assert len({row.split()[2] for row in rows}) == 1
    assert [row.split(maxsplit=3)[3].split(",")[0] for row in rows] == ["1", "3", "3"]
    assert verdict == "3 times the same weights, optimizer state and metrics"


def test_ends_with_1_where_bits_differ(tmp_path: Path) -> None:
    data = datasets.classes(tmp_path / "data.npz")
    shown = invariance("-n", "1 2", "--data", data, "--epochs", 2, *ANY_ORDER)
    assert shown.returncode == 1, shown.stdout + shown.stderr
    assert "differ from the first" in shown.stdout


def test_refuses_what_it_cannot_use() -> None:
    for flags in (["-n", "two"], ["-n", "0"], ["--epchs", "2"]):
        shown = invariance(*flags)
        assert shown.returncode == 2
        assert shown.stderr.startswith("launch/invariance: ")
        assert shown.stderr.count("\n") == 1
