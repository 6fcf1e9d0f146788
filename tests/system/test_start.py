"""One rank that goes wrong before its watchdog stands: the others end in time and name it."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import phases
import pytest

from launch import environment, kill_session, mpirun_command

STALL = 2
OPENMPI = os.environ.get("DISTNN_OPENMPI")
PYTHONS = {"mpirun": sys.executable, "openmpi": os.path.join(OPENMPI, "python") if OPENMPI else ""}

SCRIPT = """
import os, signal, sys, time
import numpy as np
from mpi4py import MPI
from distnn import InputError, Network, Trainer
from distnn.training.session import Session
RANK, kind, run = MPI.COMM_WORLD.rank, sys.argv[1], sys.argv[2]
ODD = RANK == 1
X, y = np.random.default_rng(0).normal(size=(40, 4)), np.arange(40) % 3
options = {"slices": 4, "stall_timeout": float(sys.argv[3])}

def trainer(network=None, **changes):
    return Trainer(Network([4, 5, 3]) if network is None else network, **options | changes)

def main():
    if kind == "epochs":
        trainer().fit(X, y, 0 if ODD else 1)
    elif kind == "test":
        trainer().fit(X, y, 1, test=3 if ODD else (X, y))
    elif kind == "network":
        trainer([4, 5, 3] if ODD else None)
    elif kind == "other batch_size":
        trainer(batch_size=8 if ODD else 4)
    elif kind == "run_dir":
        one = trainer(run_dir=None if RANK else run)
        one.fit(X, y, 1)
        one.fit(X, y, 1)
    elif kind == "no fit":
        one = trainer()
        time.sleep(60) if ODD else one.fit(X, y, 1)
    elif kind == "no trainer":
        sys.exit(0) if ODD else trainer()
    elif kind == "exit before fit":
        one = trainer()
        sys.exit(0) if ODD else one.fit(X, y, 1)
    elif kind in ("_exit", "SIGKILL", "SIGSTOP"):
        inner = Session.step
        def step(self, *arguments):
            if ODD and self.position.steps == 3:
                os._exit(0) if kind == "_exit" else os.kill(os.getpid(), getattr(signal, kind))
            return inner(self, *arguments)
        Session.step = step
        trainer(batch_size=4).fit(X, y, 5)
    elif kind == "stopped":
        if ODD:
            os.kill(os.getpid(), signal.SIGSTOP)
        trainer()
    else:
        name, value = kind.split("=")
        trainer(**{name: value} if ODD else {})
    print("done", flush=True)

try:
    main()
except InputError as error:
    os.write(1, f"{RANK}: {error}\\n".encode())
"""
BAD = [
    "epochs", "test", "network", "other batch_size", "batch_size=x", "blas=x", "keep=x",
    "stall_timeout=x", "batchsize=1",
]  # fmt: skip
MISSING = {
    "no fit": "Trainer.fit", "no trainer": "Trainer(...)", "exit before fit": "Trainer.fit",
    "stopped": "Trainer(...)",
}  # fmt: skip


IS_ALL = os.environ.get("DISTNN_FAULTS") == "all"  # else every other case, for the time it takes


def started(launcher: str, ranks: int, *words: object) -> subprocess.Popen[str]:
    python = PYTHONS[launcher]
    if not python:
        pytest.skip("DISTNN_OPENMPI names no environment with Open MPI")
    return subprocess.Popen(
        [*mpirun_command(python), "-n", str(ranks), python, *map(str, words)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=environment(), start_new_session=True,
    )  # fmt: skip


def ended(job: subprocess.Popen[str], seconds: float) -> tuple[str, str]:
    try:
        return job.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        kill_session(job.pid)
        raise AssertionError(f"it hangs: {job.communicate()}") from None


@pytest.mark.parametrize("launcher", PYTHONS)
@pytest.mark.parametrize("kind", BAD if IS_ALL else BAD[::2])
def test_what_one_rank_is_given_is_an_error_on_all(
    kind: str, launcher: str, tmp_path: Path
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    job = started(launcher, 3, tmp_path / "script.py", kind, tmp_path / "run", 60)
    out, err = ended(job, 30)
    lines = sorted(out.splitlines())
    assert job.returncode == 0, err
    assert [line[0] for line in lines] == ["0", "1", "2"], out + err
    assert len({line[3:] for line in lines}) == 1, out
    assert "rank 1" in lines[0]
    assert kind.split("=")[0].split()[-1] in lines[0]


@pytest.mark.parametrize("launcher", PYTHONS)
@pytest.mark.parametrize("kind", list(MISSING)[0 if IS_ALL else 2 :])
def test_who_does_not_come_is_named(kind: str, launcher: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    start = time.monotonic()
    job = started(launcher, 3, tmp_path / "script.py", kind, tmp_path / "run", STALL)
    out, err = ended(job, 30)
    assert time.monotonic() - start < STALL + 8  # with the start of Python, and the launcher's end
    assert job.returncode != 0
    assert "done" not in out
    assert re.search(rf"rank 1 on \S+ \(process \d+\) has not arrived at "
                     rf"{re.escape(MISSING[kind])}", err), err  # fmt: skip
    assert ("it is stopped by a signal" in err) == (kind == "stopped")
    assert err.count("has not arrived") == 1, err


@pytest.mark.parametrize("launcher", PYTHONS)
@pytest.mark.parametrize(("kind", "ranks"), [("_exit", 2), ("SIGKILL", 3)])
def test_who_dies_in_a_fit_is_named(kind: str, ranks: int, launcher: str, tmp_path: Path) -> None:
    """On two ranks the exit code 0 of one could be that of the job."""
    (tmp_path / "script.py").write_text(SCRIPT)
    job = started(launcher, ranks, tmp_path / "script.py", kind, tmp_path / "run", 60)
    out, err = ended(job, 30)
    assert "done" not in out
    assert re.search(r"rank 1 on \S+ \(process \d+\) in step \d+.* died; the job ends", err), err
    assert job.returncode != 0


@pytest.mark.parametrize("launcher", PYTHONS)
def test_after_a_stall_in_a_fit_the_program_ends(launcher: str, tmp_path: Path) -> None:
    """`RankFailed` is not caught; MPI would wait at the end for the rank that is stopped."""
    (tmp_path / "script.py").write_text(SCRIPT)
    job = started(launcher, 3, tmp_path / "script.py", "SIGSTOP", tmp_path / "run", STALL)
    out, err = ended(job, STALL + 10 + 3)  # with the start of Python
    assert "done" not in out
    assert job.returncode != 0
    assert re.search(r"rank 1 on .* has not arrived: it is stopped by a signal", err), err


@pytest.mark.parametrize("launcher", PYTHONS)
def test_only_rank_0_names_the_directory(launcher: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    job = started(launcher, 3, tmp_path / "script.py", "run_dir", tmp_path / "run", 60)
    out, err = ended(job, 30)
    assert (job.returncode, out.count("done")) == (0, 3), err
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("launcher", PYTHONS)
@pytest.mark.parametrize("delay", [0.02, 0.05, 0.1, 0.15, 0.2, 0.3] if IS_ALL else [0.02, 0.15])
def test_a_command_whose_rank_is_stopped_at_its_start(
    delay: float, launcher: str, tmp_path: Path
) -> None:
    words = ["--epochs", 100000, "--progress", "off", "--run-dir", tmp_path / "run"]
    job = started(launcher, 3, "-m", "distnn.train", *words, "--stall-timeout", STALL)
    until = time.monotonic() + 20
    while (process := rank_of(tmp_path / "run", 1)) is None and time.monotonic() < until:
        continue
    if process is None:
        kill_session(job.pid)
        raise AssertionError(f"no rank 1: {job.communicate()}")
    time.sleep(delay)
    os.kill(process, signal.SIGSTOP)
    start = time.monotonic()
    _, err = ended(job, 30)
    assert time.monotonic() - start < STALL + 2 + 6 * (launcher == "openmpi"), err
    assert job.returncode != 0
    assert re.search(rf"rank 1 on \S+ \(process {process}\)", err), err
    assert "stopped by a signal" in err


@pytest.mark.parametrize("launcher", PYTHONS)
@pytest.mark.parametrize(
    ("kind", "rank", "place"),
    [("_exit", 2, "start-up"), ("exception", 0, "start-up"),
     ("SIGSTOP", 0, "first line"), ("_exit", 0, "arguments"), ("SIGSTOP", 0, "finish")],
)  # fmt: skip
def test_a_rank_that_goes_wrong_at_a_commands_start_or_end(
    kind: str, rank: int, place: str, launcher: str, tmp_path: Path
) -> None:
    if not PYTHONS[launcher]:
        pytest.skip("DISTNN_OPENMPI names no environment with Open MPI")
    assert phases.fault(PYTHONS[launcher], kind, rank, place, STALL, tmp_path) == []


def rank_of(folder: Path, rank: int) -> int | None:
    """The process of a rank of the job that writes to a folder, once its Python runs."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environ = (path / "environ").read_bytes().split(b"\0")
            line = (path / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        names = (b"PMI_RANK=%d" % rank, b"OMPI_COMM_WORLD_RANK=%d" % rank)
        is_ours = str(folder).encode() in line and b"python" in line[0]
        if is_ours and any(name in environ for name in names):
            return int(path.name)
    return None
