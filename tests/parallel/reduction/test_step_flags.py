"""What a rank announces, all ranks of its node see; what one node announces, no other does."""

import pytest

from distnn.parallel.comm.barrier import Barrier
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.shared_memory import SharedMemory
from distnn.parallel.reduction.step_flags import StepFlags

pytestmark = pytest.mark.mpi

BUCKETS = 5


@pytest.fixture
def flags(memory: SharedMemory) -> StepFlags:
    return StepFlags(memory, BUCKETS)


@pytest.fixture
def barrier(memory: SharedMemory) -> Barrier:
    return Barrier(memory)


def test_nothing_is_announced_at_first(flags: StepFlags) -> None:
    assert flags.slowest() == 0
    assert flags.stop_of_node() == flags.stop_of_nodes() == 0
    assert flags.all_summed(0)
    assert not flags.all_summed(1)
    assert not flags.is_norm_known(1)
    assert flags.are_done(list(range(BUCKETS)), 0)
    assert not flags.are_done([0], 1)


def test_the_slowest_rank_counts(comm: Communicator, flags: StepFlags, barrier: Barrier) -> None:
    for slow in range(comm.node_size):
        before = 10 * slow
        for count in (before + 3, before + 10):
            if comm.node_rank != slow:
                flags.gradients_complete(count)
            barrier.wait()
            assert flags.slowest() == before
            barrier.wait()
        flags.gradients_complete(before + 10)
        barrier.wait()
        assert flags.slowest() == before + 10
        barrier.wait()


def test_sums_of_a_step_are_there_once_those_of_all_ranks_are(
    comm: Communicator, flags: StepFlags, barrier: Barrier
) -> None:
    for step in (1, 2):
        for rank in range(comm.node_size):
            barrier.wait()
            assert flags.all_summed(step - 1)
            assert not flags.all_summed(step)
            barrier.wait()
            if comm.node_rank == rank:
                flags.buckets_summed(step)
        barrier.wait()
        assert flags.all_summed(step)


def test_stop_requests(comm: Communicator, flags: StepFlags, barrier: Barrier) -> None:
    for rank in range(comm.node_size):
        flags.request_stop(5 + rank if comm.node_rank == rank else 0)
        barrier.wait()
        assert flags.stop_of_node() == 5 + rank
        assert flags.stop_of_nodes() == 0
        barrier.wait()
    if comm.node_rank == 0:
        flags.set_stop_of_nodes(9)
    barrier.wait()
    assert flags.stop_of_nodes() == 9


def test_the_norm(comm: Communicator, flags: StepFlags, barrier: Barrier) -> None:
    barrier.wait()
    if comm.node_rank == 0:
        flags.norm_known(3)
    barrier.wait()
    assert flags.is_norm_known(3)
    assert not flags.is_norm_known(4)
    assert not flags.all_summed(1)


def test_buckets_are_done_one_by_one(
    comm: Communicator, flags: StepFlags, barrier: Barrier
) -> None:
    for number in range(BUCKETS):
        assert not flags.are_done([number], 7)
        barrier.wait()
        if number % comm.node_size == comm.node_rank:
            flags.bucket_done(number, 7)
        barrier.wait()
        assert flags.are_done(list(range(number + 1)), 7)
        assert not flags.are_done([number], 8)
    assert flags.are_done([0, 3], 6)
