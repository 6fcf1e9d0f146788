"""A session whose steps are timed does the same, and the phases are all of a step's time."""

import time

import numpy as np
import pytest

from distnn.config.commands import BenchConfig
from distnn.diagnostics.step_profile import PHASES, StepProfile, profiled
from distnn.diagnostics.steps import Bench, Case
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.reduction.exchange import no_phase

CASE = Case((60, 70, 5), 16, "tanh")  # each of a few ranks owns some of it


def test_seconds_go_to_the_phase_that_a_rank_is_in(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    profile = StepProfile()

    def product(X: np.ndarray, Y: np.ndarray, out: np.ndarray) -> None:
        nonlocal now
        now += 8
        np.matmul(X, Y, out=out)

    now = 1.0
    profile.enter("sum")
    now = 3.0
    profile.enter("wait")
    profile.enter("input")
    now = 7.0
    out = np.zeros((1, 1))
    profile.timed(product, "product")(np.full((1, 2), 3.0), np.full((2, 1), 2.0), out)
    assert out == 12
    now += 16
    profile.enter("rest")
    expected = dict.fromkeys(PHASES, 0.0) | {
        "rest": 1, "sum": 2, "input": 4, "product": 8, "elementwise": 16
    }  # fmt: skip
    assert profile.seconds == expected


@pytest.mark.mpi
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("update", ["rank0", "sharded"])
def test_the_same_weights_and_every_phase_timed(update: str, apart: bool) -> None:
    comm = Communicator(shared=not apart)
    weights = []
    for is_profiled in (False, True):
        bench = Bench(comm, CASE, BenchConfig(slices=8, update=update, optimizer="adam"))
        exchange = bench.session.exchange
        if is_profiled:
            bench.run(3)
            with profiled(bench.session) as profile:
                start = time.perf_counter()
                bench.run(297)
                profile.enter("rest")
                seconds = time.perf_counter() - start
            assert exchange.phase is no_phase
            assert set(profile.seconds) == set(PHASES)
            expected = {"product", "elementwise", "input", "sum", "rest"}
            if comm.size > 1:
                expected.add("wait")
            if comm.nodes == 1 and (comm.is_first or update == "sharded"):
                expected.add("update")
            missing = {phase for phase in expected if not profile.seconds[phase]}
            assert not missing
            assert sum(profile.seconds.values()) == pytest.approx(seconds, rel=0.05)
        else:
            bench.run(300)
        exchange.flush()
        weights.append(exchange.weights.copy())
        bench.close()
    assert np.array_equal(*weights)
