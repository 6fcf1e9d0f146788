"""Measure one network's step on all ranks."""

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..building import build_optimizer
from ..nn.network import Network
from ..parallel.crowd import cores
from ..parallel.memory import SharedMemory
from ..parallel.team import Team
from ..run.settings import BenchSettings, Settings
from ..samples import Samples, from_arrays
from ..session import Plan, Session, check_slices
from . import limit
from .anatomy import PARTS, opened

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

    def __init__(self, team: Team, case: Case, settings: BenchSettings) -> None:
        self.team, self.case, self.settings = team, case, settings
        self.network = Network(case.layers, activation=case.activation, dtype=settings.precision)
        slices = settings.slices or team.size
        check_slices(slices, team.size)
        self.session = Session(
            team,
            self.network,
            build_optimizer(Settings(optimizer=settings.optimizer)),
            Plan(case.batch, slices, seed=0),
            reduce=settings.reduce,
            update=settings.update,
        )
        self._memory = SharedMemory(team)
        self.samples = self._made_up()
        self.session.start(None)
        self._epoch = self.session.begin_epoch(self.samples)

    def run(self, steps: int) -> float:
        """Seconds per step of so many, on the slowest rank."""
        session, samples, position = self.session, self.samples, self.session.position
        self.team.comm.Barrier()
        start = time.perf_counter()
        for _ in range(steps):
            if position.step == self._epoch:
                position.step = 0
            session.step(samples, 1 << 30)
        seconds = (time.perf_counter() - start) / steps
        return max(self.of_all([seconds])[:, 0])

    def of_all(self, values: list[float]) -> np.ndarray:
        """The values of all ranks, (ranks, values), on every rank."""
        gathered = self.team.gather(np.array(values), [len(values)] * self.team.size)
        told = self.team.broadcast(None if gathered is None else gathered.tolist())
        return np.array(told).reshape(self.team.size, -1)

    def limit(self) -> float:
        """Seconds that a step needs at least, see `limit`."""
        network, team, settings = self.network, self.team, self.settings
        slices = settings.slices or team.size
        rows, own = -(-self.case.batch // slices), -(-slices // team.size)
        sizes = limit.shapes(network, rows)
        vectors = 1 + len(self.session.optimizer.state)
        touched = limit.bytes_of_update(network, vectors, slices)
        at_once, seconds = min(team.node_size, cores(team)), 0.0
        team.largest(0)  # all begin together
        if team.node_rank < at_once:  # the others rest: what shares a core is not at its best
            products = sum(limit.product_seconds(*one, network.dtype) for one in sizes)
            copies = limit.copy_seconds(touched // team.size)
            seconds = team.node_size / at_once * (own * products + copies)
        return float(self.of_all([seconds]).max())

    def close(self) -> None:
        """Give the memory back."""
        self.session.close()
        self._memory.close()

    def _made_up(self) -> Samples:
        rng, case = np.random.default_rng(0), self.case
        items = case.batch * max(2, -(-ITEMS // case.batch))
        X = rng.standard_normal((items, case.layers[0]), np.float32)
        T = rng.integers(0, case.layers[-1], items)
        return from_arrays(self.team, self._memory, self.network, X, T)


def measure(team: Team, case: Case, settings: BenchSettings) -> dict[str, Any]:
    """The figures of one network, the same on every rank: seconds, per step."""
    bench = Bench(team, case, settings)
    with np.errstate(all="ignore"):
        bench.run(3)
        steps = max(2, int(settings.seconds / (2 * ROUNDS * bench.run(3))))
        whole, taken_apart, parts, limits = [], [], [], []
        for round_ in range(ROUNDS):
            whole.append(bench.run(steps))
            with opened(bench.session, bench.samples) as watch:
                taken_apart.append(bench.run(steps))
            parts.append(bench.of_all([watch.seconds[part] / steps for part in PARTS]))
            if round_ in (0, ROUNDS - 1):
                limits.append(bench.limit())
    bench.close()
    seconds, least = float(np.median(whole)), min(limits)
    # the stopwatch takes time itself: its shares are told of the step that nobody measured
    shares = np.median(parts, axis=0) * (seconds / float(np.median(taken_apart)))
    return {
        **asdict(case),
        "ranks": team.size,
        "nodes": team.nodes,
        "slices": settings.slices or team.size,
        "seconds": seconds,
        "samples_per_second": case.batch / seconds,
        "parts": dict(zip(PARTS, shares.mean(axis=0).tolist(), strict=True)),
        "parts_of_rank": [dict(zip(PARTS, row, strict=True)) for row in shares.tolist()],
        "limit": least,
        "ratio": seconds / least,
    }
