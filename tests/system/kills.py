"""Kills runs at random instants and goes on with them elsewhere: every one must end with one hash.

    python tests/system/kills.py --kills 100 [--python PYTHON ...] [--seed N]

A trial starts a run that writes a checkpoint every few steps, kills it with SIGKILL (the whole
job, or one rank) once or a few times, also while it starts and while a checkpoint is written, and
goes on each time with another number of ranks, in either update mode, with another interval of
checkpoints, and with one of the given Pythons, which may bring different MPIs. In the end the
hashes of weights and optimizer state, and every byte of metrics.jsonl, must be those of a run that
was never stopped.
"""

import argparse
import collections
import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import datasets

import launch

FLAGS = [
    *("--slices", "8", "--batch-size", "50", "--epochs", "8"),
    *("--dropout", "0.1", "--clip-norm", "1", "--progress", "off"),
]
STEPS = 40  # of a whole run: 203 rows in batches of 50, 8 epochs
PATIENCE = 120  # seconds until a run counts as hanging


class Job:
    """A training run under mpirun, in a session of its own."""

    def __init__(self, python: str, ranks: int, run_dir: Path, flags: list[str]) -> None:
        command = [*launch.mpirun_command(python), "-n", str(ranks), python, "-m", "distnn.train",
                   *flags, "--run-dir", str(run_dir), "--resume"]  # fmt: skip
        self.run_dir = run_dir
        self.log = run_dir.with_name(f"{run_dir.name}.log")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env=launch.environment(), start_new_session=True,
            )  # fmt: skip

    def ranks(self) -> list[int]:
        """The process numbers of the ranks that have started."""
        return [
            pid
            for pid in launch.session_members(self.process.pid)
            if b"distnn.train" in _read(f"/proc/{pid}/cmdline")
            and b"mpirun" not in _read(f"/proc/{pid}/cmdline")
        ]

    def kill(self, dice: random.Random) -> str:
        """SIGKILL to the whole job or to one rank; what was killed, and in what state."""
        maps = [_read(f"/proc/{pid}/maps") for pid in self.ranks()]
        shared = {
            name for text in maps for name in re.findall(rb"/dev/shm/\S+|/tmp/\S*shm\S*", text)
        }
        writing = "while a checkpoint was written" if self._is_writing() else "elsewhere"
        state = writing if self._newest() else "before the first checkpoint"
        ranks = self.ranks()
        if ranks and dice.random() < 0.25:
            _signal(dice.choice(ranks))
            self._wait()
        else:
            launch.kill_session(self.process.pid)
            self.process.wait(PATIENCE)
        launch.kill_session(self.process.pid)  # Open MPI's ranks outlive their mpirun
        for name in shared:  # which a killed MPI leaves behind
            Path(os.fsdecode(name)).unlink(missing_ok=True)
        return state

    def wait_for(self, step: int, seconds: float) -> bool:
        """Wait for a checkpoint of `step`, and then some seconds; False if the run has ended."""
        start = time.monotonic()
        while self._newest() < step:
            if self.process.poll() is not None:
                return False
            if time.monotonic() - start > PATIENCE:
                self._hangs()
            time.sleep(0.001)
        time.sleep(seconds)
        return self.process.poll() is None

    def finish(self) -> None:
        """Wait for the end, which must be a good one."""
        self._wait()
        assert self.process.returncode == 0, f"{self.process.args}\n{self.log.read_text()}"

    def _wait(self) -> None:
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._hangs()

    def _hangs(self) -> None:
        launch.kill_session(self.process.pid)
        raise TimeoutError(f"{self.process.args}: {PATIENCE} s\n{self.log.read_text()}")

    def _newest(self) -> int:
        names = [path.name for path in self.run_dir.glob("checkpoints/step-*.safetensors")]
        return max((int(name[5:15]) for name in names), default=0)

    def _is_writing(self) -> bool:
        return any(self.run_dir.glob("checkpoints/.step-*"))


def trial(
    dice: random.Random, data: Path, run_dir: Path, pythons: list[str]
) -> collections.Counter[str]:
    """One run, killed once or more, to its end; what happened to it, counted."""
    happened: collections.Counter[str] = collections.Counter()
    for _ in range(dice.choice((1, 1, 2, 3))):
        job = _job(dice, data, run_dir, pythons)
        if dice.random() < 0.15:
            step, seconds = 0, dice.uniform(0, 1.5)
        else:
            step, seconds = dice.randrange(1, STEPS), dice.uniform(0, 0.03)
        if job.wait_for(step, seconds):
            happened[job.kill(dice)] += 1
        else:
            job.finish()  # the run was done before the kill
            break
    _job(dice, data, run_dir, pythons).finish()
    return happened


def kill_and_compare(
    kills: int, seed: int, pythons: list[str], folder: Path
) -> collections.Counter[str]:
    """At least so many kills; raises AssertionError for a run that ends with other bits."""
    data = datasets.classes(folder / "data.npz")
    reference = folder / "reference"
    Job(pythons[0], 2, reference, ["--data", str(data), *FLAGS]).finish()
    expected = result(reference)
    happened: collections.Counter[str] = collections.Counter()
    number = 0
    while sum(happened.values()) - happened["runs"] < kills:
        run_dir = folder / f"run{number}"
        dice = random.Random(f"{seed} {number}")
        happened += trial(dice, data, run_dir, pythons)
        assert result(run_dir) == expected, f"trial {number} of seed {seed}, {run_dir}"
        happened["runs"] += 1
        number += 1
    return happened


def result(run_dir: Path) -> dict[str, Any]:
    """What must not depend on kills, ranks and update mode."""
    summary = launch.run_summary(run_dir)
    names = ("weights_sha256", "optimizer_sha256", "steps", "epochs", "train_loss")
    metrics = (run_dir / "metrics.jsonl").read_bytes()
    return {name: summary[name] for name in names} | {"metrics": metrics}


def _job(dice: random.Random, data: Path, run_dir: Path, pythons: list[str]) -> Job:
    flags = ["--update", dice.choice(("rank0", "sharded")), "--keep", str(dice.randrange(1, 4)),
             "--checkpoint-every", dice.choice(("1s", "1s", "3s", "1"))]  # fmt: skip
    return Job(
        dice.choice(pythons), dice.randrange(1, 9), run_dir, ["--data", str(data), *FLAGS, *flags]
    )


def _signal(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended by itself in the meantime
        os.kill(pid, signal.SIGKILL)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:  # the process has ended
        return b""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--python", nargs="+", default=[sys.executable])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        happened = kill_and_compare(options.kills, options.seed, options.python, Path(folder))
    runs = happened.pop("runs")
    print(
        f"{sum(happened.values())} kills in {runs} runs, {runs} times the same hashes and metrics"
    )
    for state, count in sorted(happened.items()):
        print(f"  {count} {state}")


if __name__ == "__main__":
    main()
