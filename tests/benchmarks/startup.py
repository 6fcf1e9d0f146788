"""Seconds from mpirun to the first step: python tests/benchmarks/startup.py [--ranks 1 2 8].

Beside it "bare": the same mpirun until every rank has imported numpy and joined MPI. Medians of
some rounds, which take turns.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve()
BARE = "import numpy; from mpi4py import MPI; MPI.COMM_WORLD.Barrier(); " + (
    "import time; MPI.COMM_WORLD.rank or print('FIRST', time.time())"
)


def train() -> None:
    """A rank: train for an epoch, and tell when the first step was done."""
    from distnn import train
    from distnn.command import run

    rest = train._train

    def from_here(*arguments):
        from distnn.training.session import Session

        step = Session.step

        def told(self, *arguments):
            word = step(self, *arguments)
            if self.position.steps == 1 and self.comm.is_first:
                print("FIRST", time.time(), flush=True)
            return word

        Session.step = told
        rest(*arguments)

    train._train = from_here
    run("train", train.train)


def seconds(ranks: int, command: list[str]) -> float:
    """From starting mpirun to the line that says FIRST."""
    mpirun = shutil.which("mpirun", path=Path(sys.executable).parent) or "mpirun"
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[2])}
    start = time.time()
    job = subprocess.run(
        [mpirun, "-n", str(ranks), sys.executable, *command],
        capture_output=True, text=True, env=environment, timeout=120, check=True,
    )  # fmt: skip
    line = next(line for line in job.stdout.splitlines() if line.startswith("FIRST"))
    return float(line.split()[1]) - start


def main() -> None:
    parser = argparse.ArgumentParser(description="from mpirun to the first step")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 8])
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args()
    found: dict[tuple[int, str], list[float]] = {}
    for _ in range(flags.rounds):
        for ranks in flags.ranks:
            with tempfile.TemporaryDirectory() as folder:
                quiet = ["--epochs", "1", "--progress", "off", "--run-dir", f"{folder}/run"]
                ours = seconds(ranks, [str(HERE), "train", *quiet])
            found.setdefault((ranks, "first step"), []).append(ours)
            found.setdefault((ranks, "bare"), []).append(seconds(ranks, ["-c", BARE]))
    for (ranks, what), times in found.items():
        print(f"{ranks} ranks, {what}: {statistics.median(times):.2f} s")


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:
        del sys.argv[1]
        train()
    else:
        main()
