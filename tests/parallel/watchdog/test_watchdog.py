"""The watchdog under mpirun: a failure of one rank is raised on all, what moves is left alone."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from distnn import SGD, Network, Trainer
from distnn.errors import RankFailed
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.parallel.watchdog import heartbeat
from distnn.parallel.watchdog.watchdog import watched
from distnn.training.session import Session

WORLD = MPI.COMM_WORLD
LAST = WORLD.rank == WORLD.size - 1
X = np.random.default_rng(0).normal(size=(60, 4))
T = (X[:, 0] > 0).astype(int)

pytestmark = pytest.mark.mpi(min_size=2)


BOTH = pytest.mark.parametrize("apart", [False, True], ids=["one node", "a node per rank"])


def fit(monkeypatch, before_step, *, apart=False, **arguments):
    """Three epochs of three steps; `before_step(t, status)` is called on the last rank.

    Args:
        apart: every rank is a node of its own.
    """

    def wrapped(inner):
        def step(self, *args):
            if LAST:
                before_step(self.position.steps, self.comm.status)
            return inner(self, *args)

        return step

    monkeypatch.setattr(Session, "step", wrapped(Session.step))
    comm = Communicator(shared=False) if apart else None
    arguments |= {"batch_size": 20, "slices": WORLD.size, "comm": comm}
    trainer = Trainer(Network([4, 3, 2]), SGD(0.1), **arguments)
    return trainer.fit(X, T, epochs=3)


@BOTH
@pytest.mark.parametrize("failing_step", [0, 1, 4])
def test_an_exception_of_one_rank_is_raised_on_all(monkeypatch, failing_step, apart):
    def fail(t, status):
        if t == failing_step:
            raise ZeroDivisionError("injected")

    start = time.monotonic()
    with pytest.raises(ZeroDivisionError if LAST else RankFailed) as caught:
        fit(monkeypatch, fail, apart=apart, stall_timeout=20)
    assert time.monotonic() - start < 5
    if not LAST:
        assert f"rank {WORLD.size - 1} failed" in str(caught.value)
    WORLD.Barrier()


@BOTH
def test_a_rank_that_is_stuck_is_given_up(monkeypatch, apart):
    def sleep(t, status):
        time.sleep(3 if t == 4 else 0)

    start = time.monotonic()
    with pytest.raises(RankFailed):
        fit(monkeypatch, sleep, apart=apart, stall_timeout=1)
    assert LAST or time.monotonic() - start < 2.9
    WORLD.Barrier()


def test_what_is_slow_but_moves_goes_on(monkeypatch):
    records = fit(monkeypatch, lambda t, status: time.sleep(0.3), stall_timeout=1)
    assert [record["epoch"] for record in records] == [1, 2, 3]


def test_other_nodes_wait_as_long_as_one_moves(monkeypatch):
    """One step takes three stall timeouts, in which the others have nothing to do."""

    def slow(t, status):
        for _ in range(6 if t == 4 else 0):
            time.sleep(0.25)
            status.moved()

    records = fit(monkeypatch, slow, apart=True, stall_timeout=0.5)
    assert [record["epoch"] for record in records] == [1, 2, 3]


@pytest.mark.skipif(WORLD.size != 2, reason="of several nodes, only one reports it")
def test_a_node_that_is_silent_is_given_up(monkeypatch, capfd):
    """Its watchdog and its heartbeat stand still as well, as if its machine was gone."""

    def vanish(t, status):
        if t == 4:
            status.stall_timeout = 1000
            with monkeypatch.context() as patched:
                patched.setattr(heartbeat.Heartbeat, "_send", lambda *_: None)
                time.sleep(3)
            status.stall_timeout = 1

    start = time.monotonic()
    with pytest.raises(RankFailed):
        fit(monkeypatch, vanish, apart=True, stall_timeout=1)
    if not LAST:
        assert 1 < time.monotonic() - start < 2.5
        assert "rank 1 on " in (report := capfd.readouterr().err), report
        assert "no message for 1 s" in report
    WORLD.Barrier()


def test_another_training_can_follow_a_failed_one(monkeypatch):
    def fail(t, status):
        raise ZeroDivisionError("injected")

    with pytest.raises(ZeroDivisionError if LAST else RankFailed):
        fit(monkeypatch, fail)
    monkeypatch.undo()
    WORLD.Barrier()
    assert len(fit(monkeypatch, lambda t, status: None)) == 3


@BOTH
@pytest.mark.parametrize("ends_job", [False, True])
def test_nothing_stays_open(apart, ends_job):
    comm = Communicator(shared=not apart)
    # tables that other tests left, whose heartbeat was inside MPI when a node fell silent
    before, opened = mapped_tables(), []
    for _ in range(4):
        with watched(comm, ends_job=ends_job):
            assert len(mapped_tables() - before) == 1
            comm.status.step(1)
        opened.append(len(os.listdir("/proc/self/fd")))
    assert opened == opened[:1] * 4
    assert mapped_tables() == before
    comm.free()


def mapped_tables() -> set[str]:
    """The status tables that this process maps."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split()[0] for line in lines if "/distnn-" in line}
