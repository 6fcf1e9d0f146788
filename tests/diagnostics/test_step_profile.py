"""A profiled session does the same, and its phases are all of its time."""

import time

import numpy as np
import pytest

from distnn.config.options import BenchConfig
from distnn.diagnostics.step_profile import PHASES, profiled
from distnn.diagnostics.steps import Bench, Case
from distnn.nn import products
from distnn.parallel.comm.communicator import Communicator

CASE = Case((12, 7, 5), 16, "tanh")
STEPS = 300


@pytest.mark.mpi
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("update", ["rank0", "sharded"])
def test_same_weights_and_every_phase_timed(update, apart):
    comm = Communicator(shared=not apart)
    weights = []
    for is_profiled in (False, True):
        bench = Bench(comm, CASE, BenchConfig(slices=8, update=update, optimizer="adam"))
        session = bench.session
        if is_profiled:
            start = time.perf_counter()
            with profiled(session) as profile:
                bench.run(STEPS)
            seconds = time.perf_counter() - start
            assert set(profile.seconds) == set(PHASES)
            assert all(profile.seconds[name] > 0 for name in ("product", "elementwise", "input"))
            assert profile.seconds["sum"] > 0
            updates = bench.of_all([profile.seconds["update"]])  # some ranks own nothing
            assert updates.sum() > 0 or (apart and comm.size > 1)
            assert sum(profile.seconds.values()) == pytest.approx(seconds, rel=0.1)
            assert session.passes.product is products.product
        else:
            bench.run(STEPS)
        session.exchange.flush()
        weights.append(session.exchange.weights.copy())
        bench.close()
    assert np.array_equal(*weights)
