"""What the same bits cost: more slices than ranks, and the ordered sum against MPI's own.

    mpirun -n 1 python tests/benchmarks/slices.py
    mpirun -n 2 python tests/benchmarks/slices.py

One table: microseconds per step for S = P with the ordered sum, S = P with MPI's Allreduce, and
S = 8. The three take turns, so that a noisy machine is noisy for all; medians of the turns.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import statistics
import time

import numpy as np

from distnn import SGD, Adam, Network
from distnn.config.options import TrainConfig
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.shared_memory import SharedMemory
from distnn.training.arrays import from_arrays
from distnn.training.dataset import Dataset
from distnn.training.session import Session

NETWORKS = [  # layers, activation, batch
    ([784, 30, 10], "sigmoid", 16),
    ([784, 128, 10], "sigmoid", 64),
    ([784, 512, 512, 10], "relu", 256),
    ([784, 2048, 2048, 10], "relu", 1024),
]
ROWS = 4096


class Run:
    """One way to train one network, a few steps at a time."""

    def __init__(
        self, comm: Communicator, layers: list[int], activation: str, config: TrainConfig,
        samples: Dataset,
    ) -> None:  # fmt: skip
        optimizer = Adam(1e-3) if config.optimizer == "adam" else SGD(0.1)
        self.comm, self.config = comm, config
        self.session = Session(comm, Network(layers, activation), optimizer, config)
        self.session.start(None, samples)

    def seconds(self, steps: int) -> float:
        """Seconds that the slowest rank takes for so many steps."""
        self.session.begin_epoch(epochs=1)
        self.comm.mpi.Barrier()
        start = time.perf_counter()
        for _ in range(steps):
            if (self.session.position.step + 1) * self.config.batch_size > ROWS:
                self.session.position.step = 0
            self.session.step()
        self.comm.mpi.Barrier()
        return time.perf_counter() - start


def measure(
    comm: Communicator, layers: list[int], activation: str, batch: int, options: argparse.Namespace
) -> dict[str, list[float]]:
    """Seconds per step of each way, one number per turn."""
    memory = SharedMemory(comm)
    rng = np.random.default_rng(0)
    network = Network(layers, activation)
    X, T = rng.random((ROWS, layers[0]), np.float32), rng.integers(0, layers[-1], ROWS)
    samples = from_arrays(comm, memory, network, X, T)
    ways = {
        "ordered": (comm.size, "ordered"),
        "mpi": (comm.size, "mpi"),
        f"S = {options.slices}": (options.slices, "ordered"),
    }
    runs = {
        name: Run(
            comm, layers, activation,
            TrainConfig(
                batch_size=batch, slices=slices,
                optimizer=options.optimizer, reduce=reduce, update=options.update,
            ),
            samples,
        )
        for name, (slices, reduce) in ways.items()
    }  # fmt: skip
    turn = options.seconds / (options.turns * len(runs))
    once = max(run.seconds(2) / 2 for run in runs.values())
    steps = np.array(max(1, int(turn / once)))
    comm.mpi.Bcast(steps)
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(options.turns):
        order = list(runs) if number % 2 else list(reversed(runs))
        for name in order:
            taken[name].append(runs[name].seconds(int(steps)) / int(steps))
    for run in runs.values():
        run.session.close()
    memory.close()
    return taken


def main() -> None:
    from machine import machine

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=8)
    parser.add_argument("--optimizer", choices=("sgd", "adam"), default="sgd")
    parser.add_argument("--update", choices=("rank0", "sharded"), default="rank0")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=8, help="for each network")
    parser.add_argument("--networks", type=int, nargs="+", default=list(range(len(NETWORKS))))
    options = parser.parse_args()
    comm = Communicator()
    if comm.is_first:
        print(f"{comm.size} ranks, {options.optimizer}, {options.update}; {machine()}")
        print("microseconds per step")
    for number in options.networks:
        layers, activation, batch = NETWORKS[number]
        with np.errstate(all="ignore"):
            taken = measure(comm, layers, activation, batch, options)
        if comm.is_first:
            base = taken.pop("ordered")
            text = (
                f"{'-'.join(map(str, layers))}, {batch}: S = P {statistics.median(base) * 1e6:.0f}"
            )
            for name, seconds in taken.items():
                ratio = statistics.median(a / b for a, b in zip(seconds, base, strict=True))
                text += f"; {name} {statistics.median(seconds) * 1e6:.0f} ({ratio:.2f}x)"
            print(text, flush=True)


if __name__ == "__main__":
    main()
