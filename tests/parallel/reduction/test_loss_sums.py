"""Sums of losses: the order is the tree's, so the bits are the same on any number of ranks."""

import functools
import math
import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.reduction.loss_sums import STEPS, LossSums, ordered_total
from distnn.parallel.reduction.ownership import Ownership


def loss(slice_number: int, step: int) -> float:
    """Numbers whose sum depends on its order."""
    return math.sin(1 + slice_number + 7 * step) * 10.0 ** (slice_number % 5)


def tree_sum(values: list[float]) -> float:
    """T(0, S) of the definition, restated with its own split."""
    if len(values) == 1:
        return values[0]
    m = 1
    while 2 * m < len(values):
        m *= 2
    return tree_sum(values[:m]) + tree_sum(values[m:])


@given(values=st.lists(st.floats(-1e18, 1e18), min_size=1, max_size=70))
def test_ordered_total(values: list[float]) -> None:
    assert float(ordered_total(np.array(values))) == tree_sum(values)


def test_ordered_total_of_columns() -> None:
    rows = np.array([[loss(k, step) for step in range(4)] for k in range(11)])
    expected = [tree_sum([loss(k, step) for k in range(11)]) for step in range(4)]
    assert ordered_total(rows).tolist() == expected


def test_the_order_matters_for_these_numbers() -> None:
    values = [loss(k, 0) for k in range(11)]
    assert tree_sum(values) != functools.reduce(operator.add, values)


@pytest.mark.mpi
@pytest.mark.parametrize("more", [0, 1, 5])
def test_every_rank_gets_the_sum_of_all_slices(comm: Communicator, more: int) -> None:
    slices = comm.size + more
    own = Ownership(slices, comm.node_ranks)
    losses, steps = LossSums(comm, own), 5
    for _ in range(2):  # a second time after take()
        for step in range(steps):
            for slice_number in range(*own.run(comm.rank)):
                losses.put(slice_number, loss(slice_number, step))
            losses.next_step()
        expected = [tree_sum([loss(k, step) for k in range(slices)]) for step in range(steps)]
        assert losses.take().tolist() == expected
    assert losses.take().tolist() == []


@pytest.mark.mpi
def test_full_when_its_steps_are_used_up(comm: Communicator) -> None:
    own = Ownership(comm.size, comm.node_ranks)
    losses = LossSums(comm, own)
    for step in range(STEPS):
        assert not losses.full, step
        losses.put(comm.rank, step)
        losses.next_step()
    assert losses.full
    assert losses.take().tolist() == [comm.size * step for step in range(STEPS)]
    assert not losses.full
