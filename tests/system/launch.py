"""Starts distnn's commands as a user does: `mpirun -n N python -m distnn.NAME ...`."""

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RULE = "-" * 74  # around Open MPI's own notes


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it said. stderr is without the notes of mpirun itself."""

    code: int
    stdout: str
    stderr: str
    seconds: float


@functools.cache
def mpirun_command(python: str = sys.executable) -> tuple[str, ...]:
    """mpirun of the environment of `python`, else the one on the PATH, with its options."""
    beside_python = Path(python).parent / "mpirun"
    mpirun = str(beside_python) if beside_python.exists() else shutil.which("mpirun")
    if mpirun is None:
        raise RuntimeError("no mpirun; pip install distnn[mpich]")
    version = subprocess.run([mpirun, "--version"], capture_output=True, text=True, check=True)
    if "Open MPI" not in version.stdout:
        return (mpirun,)
    as_root = ("--allow-run-as-root",) if os.geteuid() == 0 else ()
    return (mpirun, "--oversubscribe", *as_root)


def mpirun(
    ranks: int,
    *args: object,
    module: str = "distnn.train",
    timeout: float = 60,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    python: str = sys.executable,
) -> Result:
    """Runs a command on `ranks` ranks; ranks = 0: without mpirun.

    `python` is the one of the environment to run it in, whose mpirun is used.

    Raises TimeoutError, with all processes ended, when it takes longer than `timeout` seconds.
    """
    launcher = (*mpirun_command(python), "-n", str(ranks)) if ranks else ()
    command = [*launcher, python, "-m", module, *map(str, args)]
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment() | dict(env or {}),
        cwd=cwd,
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        kill_session(process.pid)
        stdout, stderr = process.communicate()
        raise TimeoutError(f"{' '.join(command)}: {timeout} s\n{stdout}\n{stderr}") from None
    return Result(process.returncode, stdout, without_notes(stderr), time.perf_counter() - start)


def train(ranks: int, *args: object, timeout: float = 60) -> Result:
    """A training run that must succeed."""
    result = mpirun(ranks, *args, timeout=timeout)
    assert result.code == 0, f"exit code {result.code}\n{result.stdout}\n{result.stderr}"
    return result


def environment() -> dict[str, str]:
    """This process's environment, less what an MPI started around the tests may have left."""
    launched = ("PMI_", "PMIX_", "HYDI_", "HYDRA_", "OMPI_COMM_", "MPI_LOCAL", "PRTE_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(launched)}
    paths = [str(ROOT), *filter(None, [kept.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(paths)}


def kill_session(session: int) -> None:
    """Kills every process of a session: Open MPI gives each rank a process group of its own."""
    for pid in session_members(session):
        with contextlib.suppress(ProcessLookupError):  # it ended by itself in the meantime
            os.kill(pid, signal.SIGKILL)


def session_members(session: int) -> list[int]:
    """The processes of a session."""
    members = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(int(path.name)) == session:
                members.append(int(path.name))
    return members


def without_notes(stderr: str) -> str:
    """Standard error without the notes that Open MPI's mpirun puts between two rules."""
    lines: list[str] = []
    inside = False
    for line in stderr.splitlines():
        if line == RULE:
            inside = not inside
        elif not inside:
            lines.append(line)
    return "\n".join(lines)


def run_summary(run_dir: Path) -> dict[str, Any]:
    """A finished run's summary.json."""
    summary: dict[str, Any] = json.loads((run_dir / "summary.json").read_text())
    return summary


def run_metrics(run_dir: Path) -> list[str]:
    """The lines of a run's metrics.jsonl, one per epoch; nothing in them is the clock's."""
    return (run_dir / "metrics.jsonl").read_text().splitlines()
