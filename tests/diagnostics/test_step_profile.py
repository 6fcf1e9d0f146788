"""A session taken apart does the same, and is put together again."""

import numpy as np
import pytest

from distnn.config.options import BenchConfig
from distnn.diagnostics.step_profile import PARTS, opened
from distnn.diagnostics.steps import Bench, Case
from distnn.nn import products
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.reduction import ordered_sum

CASE = Case((12, 7, 5), 16, "tanh")


@pytest.mark.mpi
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("update", ["rank0", "sharded"])
def test_same_weights_and_every_part_timed(update, apart):
    comm = Communicator(shared=not apart)
    weights = []
    for taken_apart in (False, True):
        bench = Bench(comm, CASE, BenchConfig(slices=8, update=update, optimizer="adam"))
        organs = [vars(one).copy() for one in (bench.session, bench.session.exchange)]
        functions = products.product, ordered_sum.run
        if taken_apart:
            with opened(bench.session, bench.samples) as watch:
                bench.run(300)
            assert set(watch.seconds) == set(PARTS)
            assert all(watch.seconds[part] > 0 for part in ("product", "elementwise", "input"))
            assert watch.seconds["sum"] > 0 or comm.size == 1
            assert [vars(one) for one in (bench.session, bench.session.exchange)] == organs
            assert (products.product, ordered_sum.run) == functions
            assert "_rule" not in vars(bench.session)
        else:
            bench.run(300)
        bench.session.exchange.flush()
        weights.append(bench.session.exchange.weights.copy())
        bench.close()
    assert np.array_equal(*weights)
