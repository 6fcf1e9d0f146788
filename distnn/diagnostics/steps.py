"""Measure one network's step on all ranks."""

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from distnn.config.commands import BenchConfig
from distnn.config.options import TrainConfig
from distnn.diagnostics import roofline
from distnn.diagnostics.step_profile import PHASES, profiled
from distnn.nn.network import Network
from distnn.parallel.comm.affinity import cores
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.shared_memory import SharedMemory
from distnn.training.arrays import from_arrays
from distnn.training.dataset import Dataset
from distnn.training.factory import build_optimizer
from distnn.training.session import Session
from distnn.training.slices import check_slices, chosen_slices

ROUNDS = 5  # each: some steps as they are, then some steps taken apart
ITEMS = 4096  # at least; enough that rows do not come from a core's own cache


@dataclass(frozen=True)
class Case:
    """One network to be measured."""

    layers: tuple[int, ...]
    batch: int
    activation: str = "relu"

    @classmethod
    def all_of(cls, text: str) -> "list[Case]":
        """The cases of ``--networks``."""
        cases = []
        for one in text.split(","):
            widths, batch, *activation = one.split(":")
            cases.append(cls(tuple(map(int, widths.split("-"))), int(batch), *activation))
        return cases


class Bench:
    """A session on made-up data that goes round and round. All methods are collective."""

    def __init__(self, comm: Communicator, case: Case, config: BenchConfig) -> None:
        self.comm, self.case, self.config = comm, case, config
        self.network = Network(case.layers, activation=case.activation, dtype=config.precision)
        slices = chosen_slices(config.slices, case.batch, comm.size)
        check_slices(slices, comm.size)
        self.session = Session(
            comm,
            self.network,
            build_optimizer(TrainConfig(optimizer=config.optimizer)),
            TrainConfig(
                batch_size=case.batch, slices=slices, reduce=config.reduce, update=config.update
            ),
        )
        self._memory = SharedMemory(comm)
        self.session.start(None, self._made_up())
        self._epoch = self.session.begin_epoch(epochs=1)

    def run(self, steps: int) -> float:
        """Seconds per step of so many, on the slowest rank."""
        session, position = self.session, self.session.position
        self.comm.mpi.Barrier()
        start = time.perf_counter()
        for _ in range(steps):
            if position.step == self._epoch:
                position.step = 0
            session.step()
        seconds = (time.perf_counter() - start) / steps
        return max(self.of_all([seconds])[:, 0])

    def of_all(self, values: list[float]) -> np.ndarray:
        """The values of all ranks, (ranks, values), on every rank."""
        gathered = self.comm.gather(np.array(values), [len(values)] * self.comm.size)
        shared = self.comm.broadcast(None if gathered is None else gathered.tolist())
        return np.array(shared).reshape(self.comm.size, -1)

    def limit(self) -> float:
        """Seconds that a step needs at least, see `roofline`."""
        network, comm = self.network, self.comm
        slices = self.session.slices
        rows, own = -(-self.case.batch // slices), -(-slices // comm.size)
        needed = roofline.products_of_pass(network, rows, own)
        vectors = 1 + len(self.session.optimizer.state)
        touched = roofline.bytes_of_update(network, vectors, slices)
        at_once, seconds = min(comm.node_size, cores(comm)), 0.0
        comm.largest(0)  # all begin together
        if comm.node_rank < at_once:  # the others rest: what shares a core is not at its best
            products = sum(
                min(count * roofline.product_seconds(*one, network) for count, one in ways)
                for ways in needed
            )
            copies = roofline.copy_seconds(touched // comm.size)
            seconds = comm.node_size / at_once * (products + copies)
        return float(self.of_all([seconds]).max())

    def close(self) -> None:
        """Give the memory back."""
        self.session.close()
        self._memory.close()

    def _made_up(self) -> Dataset:
        rng, case = np.random.default_rng(0), self.case
        items = case.batch * max(2, -(-ITEMS // case.batch))
        X = rng.standard_normal((items, case.layers[0]), np.float32)
        T = rng.integers(0, case.layers[-1], items)
        return from_arrays(self.comm, self._memory, self.network, X, T)


def measure(comm: Communicator, case: Case, config: BenchConfig) -> dict[str, Any]:
    """The figures of one network, the same on every rank: seconds, per step."""
    bench = Bench(comm, case, config)
    with np.errstate(all="ignore"):
        bench.run(3)
        steps = max(2, int(config.seconds / (2 * ROUNDS * bench.run(3))))
        whole, taken_apart, parts, limits = [], [], [], []
        for round_ in range(ROUNDS):
            whole.append(bench.run(steps))
            with profiled(bench.session) as profile:
                taken_apart.append(bench.run(steps))
            parts.append(bench.of_all([profile.seconds[part] / steps for part in PHASES]))
            if round_ in (0, ROUNDS - 1):
                limits.append(bench.limit())
    bench.close()
    seconds, least = float(np.median(whole)), min(limits)
    # profiling takes time itself: its shares are applied to the step that was not profiled
    shares = np.median(parts, axis=0) * (seconds / float(np.median(taken_apart)))
    return {
        **asdict(case),
        "ranks": comm.size,
        "nodes": comm.nodes,
        "slices": bench.session.slices,
        "seconds": seconds,
        "samples_per_second": case.batch / seconds,
        "parts": dict(zip(PHASES, shares.mean(axis=0).tolist(), strict=True)),
        "parts_of_rank": [dict(zip(PHASES, row, strict=True)) for row in shares.tolist()],
        "limit": least,
        "ratio": seconds / least,
    }
