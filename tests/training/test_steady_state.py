"""A step in steady state allocates nothing: neither Python's memory nor pages of the system's."""

import resource
import tracemalloc

import numpy as np
import pytest

from distnn.config.options import TrainConfig
from distnn.nn.network import Network
from distnn.nn.optimizers import SGD, Adam
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.shared_memory import SharedMemory
from distnn.training.arrays import from_arrays
from distnn.training.session import Session

LAYERS, BATCH, ITEMS, STEPS = [200, 100, 50, 10], 32, 3200, 50


@pytest.fixture
def step():
    """A function that does so many steps of a session on all ranks."""
    opened = []

    def make(optimizer, activation, update):
        comm = Communicator()
        network = Network(LAYERS, activation=activation)
        config = TrainConfig(batch_size=BATCH, slices=2 * comm.size, update=update)
        session, memory = Session(comm, network, optimizer, config), SharedMemory(comm)
        opened.extend((memory, session))
        rng = np.random.default_rng(0)
        X, T = rng.standard_normal((ITEMS, LAYERS[0])), rng.integers(0, LAYERS[-1], ITEMS)
        samples = from_arrays(comm, memory, network, X, T)
        session.start(None, samples)
        session.begin_epoch(epochs=1)
        samples.X.sum(), samples.T.sum()  # every page of the data set is mapped from here on

        def steps(count):
            with np.errstate(all="ignore"):
                for _ in range(count):
                    session.step()

        return steps

    yield make
    while opened:
        opened.pop().close()


CASES = [(SGD(), "sigmoid", "rank0"), (Adam(), "relu", "sharded"), (Adam(), "gelu", "rank0")]


@pytest.mark.mpi
@pytest.mark.parametrize(("optimizer", "activation", "update"), CASES)
def test_no_memory_of_python_is_kept_or_needed_in_between(step, optimizer, activation, update):
    steps = step(optimizer, activation, update)
    steps(10)
    tracemalloc.start()
    try:
        steps(10)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        steps(20)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 4096  # the gradient alone has 100 kB
    assert peak - before < 8192


@pytest.mark.mpi
@pytest.mark.parametrize(("optimizer", "activation", "update"), CASES)
def test_no_page_faults(step, optimizer, activation, update):
    steps = step(optimizer, activation, update)
    steps(20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    steps(STEPS)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults < STEPS  # not even one per step
