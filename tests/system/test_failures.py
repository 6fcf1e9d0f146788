"""A rank that goes wrong, in any way and at any place, ends the job, and nothing is lost.

The table has every kind of fault on the first and the last rank at every place, on one host and
on three; the suite runs a part of it, and all of it with DISTNN_FAULTS=all. `pytest -s` prints
each case with its time.

DISTNN_OPENMPI is the bin directory of an environment with distnn and Open MPI, to run the same
there.
"""

import dataclasses
import itertools
import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import datasets
import pytest
from cluster import Cluster, why_not
from safetensors.numpy import load_file

from launch import ROOT, Result, mpirun, run_summary

RANKS, LAST = 4, 3
STALL = 5  # seconds of --stall-timeout
KINDS = ("exception", "SIGKILL", "SIGSEGV", "SIGSTOP", "exit", "_exit")
PLACES = ("start", "step", "checkpoint", "evaluation")
SOME = [
    ("exception", 0, "start"), ("exception", 0, "checkpoint"), ("exception", LAST, "step"),
    ("SIGSEGV", LAST, "evaluation"), ("SIGSTOP", LAST, "step"), ("_exit", 0, "step"),
]  # fmt: skip
SOME_ON_HOSTS = [
    ("exception", LAST, "step"), ("SIGKILL", 0, "checkpoint"),
]  # fmt: skip
ALL = list(itertools.product(KINDS, (0, LAST), PLACES))
IS_ALL = os.environ.get("DISTNN_FAULTS") == "all"
HOSTS = [2, 1, 1]  # ranks of each
NO_HOSTS = why_not()
OPENMPI = os.environ.get("DISTNN_OPENMPI")
PYTHONS = {"mpirun": sys.executable, "openmpi": os.path.join(OPENMPI or "", "python")}
ENV = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(ROOT)])}
FLAGS = ["--batch-size", 50, "--slices", 8, "--hidden", 9, "--resume", "--stall-timeout", STALL]


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set, a run of two epochs, and the summary of one of six."""
    folder = tmp_path_factory.mktemp("before")
    data = datasets.classes(folder / "set.npz", test_rows=1100)
    for epochs, name in ((2, "begun"), (6, "undisturbed")):
        flags = ["--data", data, *FLAGS, "--epochs", epochs, "--run-dir", folder / name]
        result = mpirun(RANKS, *flags)
        assert result.code == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def hosts() -> Iterator[Cluster]:
    with Cluster(len(HOSTS)) as cluster:
        yield cluster


Start = Callable[..., Result]
"""Starts `python *arguments` on all ranks, with more in the environment."""


def on_one_host(python: str) -> Start:
    """By this environment's mpirun, or by that of another Python."""

    def start(module: str, *arguments: object, env: Mapping[str, str]) -> Result:
        return mpirun(RANKS, *arguments, module=module, env=env, timeout=40, python=python)

    return start


def on_hosts(cluster: Cluster) -> Start:
    """On the hosts of a cluster, HOSTS ranks on each."""

    def start(module: str, *arguments: object, env: Mapping[str, str]) -> Result:
        return cluster.mpirun(HOSTS, "-m", module, *arguments, env=env, timeout=40)

    return start


def faulty(before: Path, folder: Path, start: Start, *fault: object) -> tuple[Result, list[str]]:
    """A run that goes on from two epochs until its fault, and the processes that it leaves.

    Its seconds are those from the fault to the end.
    """
    shutil.copytree(before / "begun", folder / "run")
    name = str(folder / uuid.uuid4().hex)
    flags = ["--data", before / "set.npz", *FLAGS, "--epochs", 6, "--run-dir", folder / "run"]
    result = start("faulty", *fault, *flags, env=ENV | {"DISTNN_FAULT": name})
    assert Path(name).exists(), f"ended before its fault: {result}"
    seconds = time.time() - float(Path(name).read_text())
    until = time.monotonic() + 5
    while (left := processes(name)) and time.monotonic() < until:
        time.sleep(0.05)
    return dataclasses.replace(result, seconds=seconds), left


def processes(name: str) -> list[str]:
    """Processes whose environment holds a name, with their command lines."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if name.encode() in (path / "environ").read_bytes():
                found.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # it ended in the meantime, or is not ours
    return found


@pytest.mark.parametrize("launcher", PYTHONS)
@pytest.mark.parametrize(("kind", "rank", "place"), ALL if IS_ALL else SOME)
def test_a_fault_ends_the_job_and_is_recovered_from(
    before: Path, tmp_path: Path, launcher: str, kind: str, rank: int, place: str
) -> None:
    if launcher == "openmpi" and not OPENMPI:
        pytest.skip("DISTNN_OPENMPI names no environment with Open MPI")
    ends_and_is_recovered_from(before, tmp_path, on_one_host(PYTHONS[launcher]), kind, rank, place)


@pytest.mark.skipif(bool(NO_HOSTS), reason=NO_HOSTS)
@pytest.mark.parametrize(("kind", "rank", "place"), ALL if IS_ALL else SOME_ON_HOSTS)
def test_a_fault_on_three_hosts_ends_the_job_and_is_recovered_from(
    before: Path, tmp_path: Path, hosts: Cluster, kind: str, rank: int, place: str
) -> None:
    of_hosts = on_hosts(hosts)
    ends_and_is_recovered_from(before, tmp_path, of_hosts, kind, rank, place, len(HOSTS))


def ends_and_is_recovered_from(
    before: Path,
    tmp_path: Path,
    start: Start,
    kind: str,
    rank: int,
    place: str,
    hosts: int = 1,
) -> None:
    """A run with a fault ends as promised; on three ranks it goes on to the undisturbed result.

    Each host reports what it sees: the launcher may end ranks elsewhere before they know why. Where
    a rank that was alone on its host stops, or leaves with exit code 0, the others notice by its
    silence, after the stall timeout.
    """
    is_alone = hosts > 1 and rank == LAST
    is_silent = kind == "SIGSTOP" or (is_alone and kind == "_exit")
    result, left = faulty(before, tmp_path, start, kind, rank, place)
    print(f"\n{kind:10} rank {rank} {place:11} "
          f"code {result.code:4}  {result.seconds:5.2f} s", end="")  # fmt: skip
    told = f"exit code {result.code} in {result.seconds:.1f} s\n{result.stdout}\n{result.stderr}"
    assert result.code != 0, told
    assert result.seconds < 10 + (STALL if is_silent else 0), told
    assert left == []
    where = r"\(process \d+\) in |no message for " if is_alone else r"\(process \d+\) in "
    assert re.search(rf"rank {rank} on [^ :]+:? (?:{where})", result.stderr), told
    assert 1 <= len(re.findall(r"distnn: ", result.stderr)) <= hosts, told
    assert result.stderr.count("Traceback") == (kind in ("exception", "exit")), told

    newest = max((tmp_path / "run" / "checkpoints").glob("step-*.safetensors"))
    assert {"W1", "W2"} <= load_file(newest).keys()
    resumed = mpirun(
        3, "--data", before / "set.npz", *FLAGS, "--epochs", 6, "--run-dir", tmp_path / "run"
    )
    assert resumed.code == 0, resumed.stderr
    expected = run_summary(before / "undisturbed")
    for key in ("weights_sha256", "optimizer_sha256", "test_accuracy"):
        assert run_summary(tmp_path / "run")[key] == expected[key], key
