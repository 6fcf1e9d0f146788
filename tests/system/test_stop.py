"""Stop on request: signals to mpirun or to one rank, and what may be in the way of saving."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pytest
from safetensors.numpy import load_file

from launch import environment, kill_session, mpirun_command, run_metrics, run_summary, train

SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1")
FLAGS = ["--batch-size", 8, "--slices", 4, "--hidden", 16, "--resume", "--checkpoint-every", 1000]
OPENMPI = os.environ.get("DISTNN_OPENMPI")
PYTHONS = {"mpirun": sys.executable, "openmpi": os.path.join(OPENMPI, "python") if OPENMPI else ""}
# Open MPI's mpirun passes SIGUSR1 on; to other signals it gives its ranks half a second to end, and
# its own code. A rank of its own can be asked by any of them.
GIVES_ITS_OWN_CODE = {("openmpi", "mpirun", "SIGTERM"), ("openmpi", "mpirun", "SIGINT")}


class Job:
    """A training run that is under way."""

    def __init__(self, run: Path, *args: object, launcher: str = "mpirun", ranks: int = 4) -> None:
        if not PYTHONS[launcher]:
            pytest.skip("DISTNN_OPENMPI names no environment with Open MPI")
        self.run = run
        python = PYTHONS[launcher]
        command = [*mpirun_command(python), "-n", str(ranks), python, "-m", "distnn.train"]
        self.process = subprocess.Popen(
            [*command, *map(str, args), "--run-dir", str(run)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True,
        )  # fmt: skip

    def wait_for(self, path: Path) -> None:
        """Until a file of the run is there."""
        until = time.monotonic() + 30
        while not path.exists() or not path.stat().st_size:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < until
            time.sleep(0.01)

    def ranks(self) -> list[int]:
        """The process numbers of the ranks, in the order of the ranks."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                line = (path / "cmdline").read_bytes().split(b"\0")
                variables = (path / "environ").read_bytes().split(b"\0")
            except OSError:
                continue  # it ended in the meantime, or is not ours
            if b"python" in os.path.basename(line[0]) and str(self.run).encode() in line:
                for name, _, value in (entry.partition(b"=") for entry in variables):
                    if name in (b"PMI_RANK", b"OMPI_COMM_WORLD_RANK"):
                        found[int(value)] = int(path.name)
        return [found[rank] for rank in sorted(found)]

    def end(self, timeout: float = 15) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        try:
            out, err = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            kill_session(self.process.pid)
            raise
        return self.process.returncode, out, err


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return datasets.classes(tmp_path_factory.mktemp("data") / "set.npz", rows=2003)


@pytest.mark.parametrize("launcher", PYTHONS)
@pytest.mark.parametrize("target", ["mpirun", "rank 2"])
@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_stops_with_a_checkpoint(
    data: Path, tmp_path: Path, name: str, target: str, launcher: str
) -> None:
    run = tmp_path / "run"
    job = Job(run, "--data", data, *FLAGS, "--epochs", 100_000, launcher=launcher)
    job.wait_for(run / "metrics.jsonl")
    process = job.process.pid if target == "mpirun" else job.ranks()[2]
    os.kill(process, getattr(signal, name))
    start = time.monotonic()
    code, out, err = job.end()
    print(f"\n{launcher:8} {name:8} to {target:7} code {code:4} {time.monotonic() - start:5.2f} s")
    told = f"{code}\n{out}\n{err}"
    assert "Traceback" not in err, told
    assert list((run / "checkpoints").glob("step-*.safetensors")), told
    if (launcher, target, name) in GIVES_ITS_OWN_CODE:
        assert code != 0
    else:
        assert code == 75, told
        assert err.count("stopped on request") == 1, told


def test_the_stopped_run_goes_on_to_the_bits_of_one_that_was_not(
    data: Path, tmp_path: Path
) -> None:
    same = ["--data", data, *FLAGS, "--epochs", 25]
    job = Job(tmp_path / "stopped", *same)
    job.wait_for(tmp_path / "stopped" / "metrics.jsonl")
    job.process.send_signal(signal.SIGTERM)
    code, _, err = job.end()
    assert code == 75, err
    train(3, *same, "--run-dir", tmp_path / "stopped")
    train(2, *same, "--run-dir", tmp_path / "straight")
    for key in ("weights_sha256", "optimizer_sha256", "steps", "train_loss"):
        assert run_summary(tmp_path / "stopped")[key] == run_summary(tmp_path / "straight")[key], (
            key
        )
    assert run_metrics(tmp_path / "stopped") == run_metrics(tmp_path / "straight")


def test_a_second_signal_stops_at_once(data: Path, tmp_path: Path) -> None:
    job = Job(tmp_path / "run", "--data", data, *FLAGS, "--epochs", 100_000)
    job.wait_for(tmp_path / "run" / "metrics.jsonl")
    last = job.ranks()[3]
    os.kill(last, signal.SIGSTOP)  # so that no step ends, and the first signal is not obeyed
    os.kill(job.ranks()[1], signal.SIGTERM)
    time.sleep(1.3)
    os.kill(job.ranks()[1], signal.SIGTERM)
    code, _, err = job.end(5)
    assert code == 128 + signal.SIGTERM, err
    assert "second signal, SIGTERM" in err


def test_a_signal_before_there_is_anything_to_save(data: Path, tmp_path: Path) -> None:
    job = Job(tmp_path / "run", "--data", data, *FLAGS, "--epochs", 100_000)
    job.wait_for(tmp_path / "run" / "writer.lock")
    job.process.send_signal(signal.SIGTERM)
    code, _, err = job.end(10)
    assert code == 75, err
    assert "Traceback" not in err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "distnn-test", disk]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs root, to mount a small file system")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.system
def test_a_disk_that_fills_up_during_a_run_and_is_emptied(
    data: Path, tmp_path: Path, small_disk: Path
) -> None:
    run = small_disk / "run"
    same = ["--data", data, "--batch-size", 40, "--slices", 4, "--resume"]
    train(2, *same, "--epochs", 2, "--run-dir", run)
    same += ["--epochs", 12]
    good = sorted((run / "checkpoints").glob("step-*"))
    before = {path: path.read_bytes() for path in good}
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass  # until there is no room for a page
    job = Job(run, *same, ranks=2)
    code, _, err = job.end(60)
    assert code != 0, err
    assert "Traceback" not in err, err
    assert {path: path.read_bytes() for path in good} == before
    ballast.unlink()
    train(2, *same, "--run-dir", run)
    train(2, *same, "--run-dir", tmp_path / "straight")
    assert run_metrics(run) == run_metrics(tmp_path / "straight")
    assert (
        run_summary(run)["weights_sha256"] == run_summary(tmp_path / "straight")["weights_sha256"]
    )


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing in a folder can be written, as after an error of its disk.

    It is mounted once more on itself, so that files that are open for writing do not matter.
    """
    mounts = (["mount", "--bind"], ["mount", "-o", "remount,bind,ro"])
    for mount in mounts:
        if os.geteuid() != 0 or subprocess.run([*mount, folder, folder], check=False).returncode:
            pytest.skip("needs root, to mount a folder read-only")
    yield
    subprocess.run(["umount", "-l", folder], check=True)


EPOCHS = 40
WRITES = ["--batch-size", 10, "--slices", 4, "--resume", "--epochs", EPOCHS]  # a file every epoch


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    train(2, "--data", data, *WRITES, "--run-dir", run)
    return run


@pytest.mark.system
@pytest.mark.parametrize("ends", ["in time", "too late"])
def test_a_directory_that_is_read_only_for_a_while(
    data: Path, undisturbed: Path, tmp_path: Path, ends: str
) -> None:
    run, told = tmp_path / "run", []
    job = Job(run, "--data", data, *WRITES, ranks=2)
    job.wait_for(run / "checkpoints" / "best.safetensors")
    with read_only(run):
        good = {path: path.read_bytes() for path in (run / "checkpoints").glob("*.safetensors")}
        while sum("Read-only file system" in line for line in told) < 3:
            told.append(job.process.stderr.readline())
            assert told[-1], f"it ended without three failed attempts: {told}"
        if ends == "too late":
            job.process.wait(30)
        assert {path: path.read_bytes() for path in good} == good
    code, _, rest = job.end(30)
    told += rest.splitlines()
    assert not [line for line in told if "Traceback" in line], told
    if ends == "in time":
        assert code == 0, told
    else:
        assert code == 1, told
        newest = max(path.name for path in good if path.name.startswith("step-"))
        assert "its end is not saved" in told[-1]
        assert f"Read-only file system; the last checkpoint is {newest}" in told[-1]
        saved = int(re.findall(r"\d+", newest)[0]) // json.loads(run_metrics(run)[0])["step"]
        text = "".join(told)  # two attempts may be in one line
        attempts = text.count("the last good checkpoint stays")
        # the newest one may have been written just before, and could not become the best any more
        attempts -= text.count("best.safetensors: cannot be written")
        assert attempts == EPOCHS - saved, told
        train(2, "--data", data, *WRITES, "--run-dir", run)
    assert run_metrics(run) == run_metrics(undisturbed)
    assert run_summary(run)["weights_sha256"] == run_summary(undisturbed)["weights_sha256"]


def test_a_diverging_run_says_where_and_keeps_what_was_good(tmp_path: Path) -> None:
    """The weights grow for epochs with finite losses, and only then run away."""
    path = datasets.curve(tmp_path / "curve.npz")
    job = Job(
        tmp_path / "run", "--data", path, "--optimizer", "sgd", "--learning-rate", 0.9,
        "--activation", "identity", "--hidden", 8, "--batch-size", 16, "--epochs", 200,
        "--keep", 1000,
    )  # fmt: skip
    code, _, err = job.end(30)
    assert code == 3, err
    last = err.splitlines()[-1]
    assert "learning rate 0.9" in last
    assert "W1" in last or "W2" in last
    assert "step " in last
    for checkpoint in (tmp_path / "run" / "checkpoints").glob("*.safetensors"):
        assert all(np.isfinite(array).all() for array in load_file(checkpoint).values())


def test_an_interrupt_while_mpi_is_loaded_is_no_traceback(tmp_path: Path) -> None:
    slow = tmp_path / "mpi4py" / "__init__.py"
    slow.parent.mkdir()
    slow.write_text("import time\nprint('loading', flush=True)\ntime.sleep(30)\n")
    paths = [str(tmp_path), environment()["PYTHONPATH"]]
    job = subprocess.Popen(
        [sys.executable, "-m", "distnn.train"],
        env=environment() | {"PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert job.stdout is not None
    assert job.stdout.readline() == "loading\n"
    job.send_signal(signal.SIGINT)
    assert (job.communicate(timeout=10)[1], job.returncode) == ("", -signal.SIGINT)
