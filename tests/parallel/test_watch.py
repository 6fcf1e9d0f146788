"""The stall watch under mpirun: what fails on one rank rises on the others, what moves is left."""

import time

import numpy as np
import pytest

from distnn import SGD, Network, Trainer
from distnn.errors import RankFailed
from distnn.parallel.mpi import MPI
from distnn.session import Session

WORLD = MPI.COMM_WORLD
LAST = WORLD.rank == WORLD.size - 1
X = np.random.default_rng(0).normal(size=(60, 4))
T = (X[:, 0] > 0).astype(int)

pytestmark = pytest.mark.mpi(min_size=2)


def fit(monkeypatch, before_step, **arguments):
    """Three epochs of three steps; `before_step(t)` is called on the last rank."""
    inner = Session._back_propagate

    def step(self, *args):
        if LAST:
            before_step(self.position.steps)
        return inner(self, *args)

    monkeypatch.setattr(Session, "_back_propagate", step)
    trainer = Trainer(Network([4, 3, 2]), SGD(0.1), batch_size=20, slices=WORLD.size, **arguments)
    return trainer.fit(X, T, epochs=3)


@pytest.mark.parametrize("failing_step", [0, 1, 4])
def test_an_exception_of_one_rank_rises_on_all(monkeypatch, failing_step):
    def fail(t):
        if t == failing_step:
            raise ZeroDivisionError("injected")

    start = time.monotonic()
    with pytest.raises(ZeroDivisionError if LAST else RankFailed) as caught:
        fit(monkeypatch, fail)
    assert time.monotonic() - start < 5
    if not LAST:
        assert f"rank {WORLD.size - 1} failed" in str(caught.value)
    WORLD.Barrier()


def test_a_rank_that_is_stuck_is_given_up(monkeypatch):
    def sleep(t):
        time.sleep(3 if t == 4 else 0)

    start = time.monotonic()
    with pytest.raises(RankFailed):
        fit(monkeypatch, sleep, stall_timeout=1)
    assert LAST or time.monotonic() - start < 2.9
    WORLD.Barrier()


def test_what_is_slow_but_moves_goes_on(monkeypatch):
    records = fit(monkeypatch, lambda t: time.sleep(0.3), stall_timeout=1)
    assert [record["epoch"] for record in records] == [1, 2, 3]


def test_a_failed_training_leaves_the_team_fit_for_another(monkeypatch):
    def fail(t):
        raise ZeroDivisionError("injected")

    with pytest.raises(ZeroDivisionError if LAST else RankFailed):
        fit(monkeypatch, fail)
    monkeypatch.undo()
    WORLD.Barrier()
    assert len(fit(monkeypatch, lambda t: None)) == 3
