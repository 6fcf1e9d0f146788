"""The barrier of a node's ranks: no one passes early, stop requests reach all, whoever is late."""

import time
from collections.abc import Callable

import numpy as np
import pytest

from distnn.errors import RankFailed
from distnn.parallel.comm import barrier as barrier_module
from distnn.parallel.comm import futex
from distnn.parallel.comm.barrier import Barrier
from distnn.parallel.comm.shared_memory import SharedMemory

pytestmark = pytest.mark.mpi


@pytest.fixture(autouse=True, params=["polling", "sleeping"])
def waiting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to wait, whatever this machine's number of cores."""
    sleeps = request.param == "sleeping"
    if sleeps and not futex.has_futex():
        pytest.skip("this system has no futex that we know")
    monkeypatch.setattr(barrier_module, "must_sleep", lambda _comm: sleeps)


def test_after_a_barrier_everyone_sees_what_everyone_wrote(memory: SharedMemory) -> None:
    barrier, me, size = Barrier(memory), memory.comm.node_rank, memory.comm.node_size
    numbers = memory.array((2, size), np.int64)
    for turn in range(1, 60):
        numbers[turn % 2, me] = turn * (me + 1)
        barrier.wait()
        assert np.array_equal(numbers[turn % 2], turn * np.arange(1, size + 1)), turn


def test_the_leader_works_alone_while_the_others_wait(memory: SharedMemory) -> None:
    barrier, me, size = Barrier(memory), memory.comm.node_rank, memory.comm.node_size
    numbers = memory.array((size + 1,), np.int64)
    for turn in range(30):
        numbers[me] = turn + me
        barrier.arrive()
        if barrier.is_leader:
            barrier.wait_all()
            numbers[size] = numbers[:size].sum()
            barrier.release()
        else:
            barrier.wait_release()
        assert numbers[size] == size * turn + size * (size - 1) // 2


def test_who_has_arrived_holds_nobody_up(memory: SharedMemory) -> None:
    """Each rank waits no earlier than all have arrived: arriving itself does not wait."""
    barrier, me, size = Barrier(memory), memory.comm.node_rank, memory.comm.node_size
    numbers = memory.array((size,), np.int64)
    for _ in range(5):
        barrier.arrive()
        numbers[me] += 1
        until = time.monotonic() + 20
        while numbers.min() < numbers[me]:
            assert time.monotonic() < until
            time.sleep(0.0001)
        if barrier.is_leader:
            barrier.wait_all()
            barrier.release()
        else:
            barrier.wait_release()


def test_stop_requests(memory: SharedMemory) -> None:
    barrier, me, size = Barrier(memory), memory.comm.node_rank, memory.comm.node_size
    assert barrier.wait() == 0
    assert barrier.wait(me + 1) == size  # the largest
    assert barrier.wait(size - me) == size  # the leader's own counts too
    assert barrier.wait() == 0  # earlier ones are forgotten


def test_the_leader_says_what_the_others_get(memory: SharedMemory) -> None:
    barrier, me, size = Barrier(memory), memory.comm.node_rank, memory.comm.node_size
    for turn in range(20):
        barrier.arrive(me)
        if barrier.is_leader:
            assert barrier.wait_all() == size - 1
            barrier.release(turn)
        else:
            assert barrier.wait_release() == turn


@pytest.mark.parametrize("late", [lambda me, size: me == 0, lambda me, size: me == size - 1])
def test_whoever_is_late_is_waited_for(
    memory: SharedMemory,
    late: Callable[[int, int], bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(barrier_module, "YIELDS", 3)  # the others nap
    barrier, me, size = Barrier(memory), memory.comm.node_rank, memory.comm.node_size
    numbers = memory.array((size,), np.int64)
    if late(me, size):
        time.sleep(0.05)
    numbers[me] = me + 1
    barrier.wait()
    assert numbers.sum() == size * (size + 1) // 2


def test_who_waits_learns_of_a_failure(
    memory: SharedMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(barrier_module, "YIELDS", 3)
    barrier, status, size = Barrier(memory), memory.comm.status, memory.comm.node_size
    if size == 1:
        return
    if not barrier.is_leader:  # the leader never arrives: it has failed
        barrier.arrive()
        status.shared.failed = memory.comm.rank - memory.comm.node_rank + 1
        with pytest.raises(RankFailed, match=f"rank {status.shared.failed - 1} failed"):
            barrier.wait_release()
        status.shared.failed = 0
        assert status.row.waiting == 0


def test_two_barriers_do_not_mix(memory: SharedMemory) -> None:
    first, second, size = Barrier(memory), Barrier(memory), memory.comm.node_size
    assert [first.wait(1), second.wait(2), first.wait(3)] == [1, 2, 3]
    assert second.wait(memory.comm.node_rank) == size - 1


def test_each_rank_has_a_cache_line_of_its_own(memory: SharedMemory) -> None:
    barrier = Barrier(memory)
    lines = [barrier._own, *barrier._others, barrier._release]
    assert all(line % barrier_module.CACHE_LINE == 0 for line in lines)
    assert len(barrier._flags) == (memory.comm.node_size + 1) * barrier_module.CACHE_LINE
