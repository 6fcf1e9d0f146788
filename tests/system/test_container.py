"""What a container is like: 64 MB of shared memory."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launch import environment, mpirun_command, run_summary, train

TOOLS = ("unshare", "mount")
ARGS = ["--epochs", 1, "--slices", 4, "--progress", "off"]


def why_not() -> str:
    if os.geteuid() != 0:
        return "mounting a small /dev/shm needs root"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"no {', '.join(missing)} (Debian: util-linux)"
    trial = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True)
    return "" if trial.returncode == 0 else f"no namespaces here: {trial.stderr.strip()}"


REASON = why_not()
pytestmark = [pytest.mark.system, pytest.mark.skipif(bool(REASON), reason=REASON)]


@pytest.mark.parametrize(("hidden", "shares"), [(64, True), (24_000, False)])
def test_trains_in_64_megabytes(tmp_path: Path, hidden: int, shares: bool) -> None:
    """A network of 24,000 units needs more than there is: it trains without shared memory."""
    args = [*ARGS, "--hidden", hidden, "--batch-size", 1200 if hidden > 64 else 64]
    train(1, *args, "--run-dir", tmp_path / "one")
    command = [
        *mpirun_command(), "-n", 4, sys.executable, "-m", "distnn.train",
        *args, "--run-dir", tmp_path / "contained",
    ]  # fmt: skip
    small = 'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", small, "sh", *map(str, command)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert ("going on without it" in done.stderr) != shares, done.stderr
    expected = run_summary(tmp_path / "one")["weights_sha256"]
    assert run_summary(tmp_path / "contained")["weights_sha256"] == expected
