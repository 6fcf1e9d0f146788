"""The meeting of a node's ranks: no one passes early, words go up and down, whoever is late."""

import time
from collections.abc import Callable

import numpy as np
import pytest

from distnn.parallel.comm import barrier as gates_module
from distnn.parallel.comm import futex
from distnn.parallel.comm.barrier import Barrier
from distnn.parallel.comm.shared_memory import SharedMemory

pytestmark = pytest.mark.mpi


@pytest.fixture(autouse=True, params=["polling", "sleeping"])
def waiting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to wait, whatever this machine's number of cores."""
    sleeps = request.param == "sleeping"
    if sleeps and not futex.is_known():
        pytest.skip("this system has no futex that we know")
    monkeypatch.setattr(gates_module, "must_sleep", lambda _comm: sleeps)


def test_after_a_meeting_everyone_sees_what_everyone_wrote(memory: SharedMemory) -> None:
    barrier, me, size = Barrier(memory), memory.comm.node_rank, memory.comm.node_size
    board = memory.array((2, size), np.int64)
    for turn in range(1, 60):
        board[turn % 2, me] = turn * (me + 1)
        barrier.meet()
        assert np.array_equal(board[turn % 2], turn * np.arange(1, size + 1)), turn


def test_the_leader_works_alone_while_the_others_wait(memory: SharedMemory) -> None:
    barrier, me, size = Barrier(memory), memory.comm.node_rank, memory.comm.node_size
    board = memory.array((size + 1,), np.int64)

    def total(word: int) -> int:
        board[size] = board[:size].sum()
        return word

    for turn in range(30):
        board[me] = turn + me
        barrier.meet(alone=total)
        assert board[size] == size * turn + size * (size - 1) // 2


def test_what_is_done_meanwhile_holds_nobody_up(memory: SharedMemory) -> None:
    """Each rank stays in it until all are in it: they have arrived, and none waits before."""
    barrier, me, size = Barrier(memory), memory.comm.node_rank, memory.comm.node_size
    board, done = memory.array((size,), np.int64), []

    def all_in_it() -> None:
        board[me] += 1
        until = time.monotonic() + 20
        while board.min() < board[me]:
            assert time.monotonic() < until
            time.sleep(0.0001)
        done.append("meanwhile")

    def alone(word: int) -> int:
        done.append("alone")
        return word

    for _ in range(5):
        barrier.meet(0, alone, all_in_it)
    assert done == (["meanwhile", "alone"] if barrier.is_leader else ["meanwhile"]) * 5


def test_words(memory: SharedMemory) -> None:
    barrier, me, size = Barrier(memory), memory.comm.node_rank, memory.comm.node_size
    assert barrier.meet() == 0
    assert barrier.meet(me + 1) == size  # the largest
    assert barrier.meet(size - me) == size  # the leader's own counts too
    assert barrier.meet(me, lambda word: 10 * word + 1) == 10 * (size - 1) + 1  # the verdict
    assert barrier.meet() == 0  # words are forgotten


def test_arrive_and_release_as_two_halves(memory: SharedMemory) -> None:
    barrier, me, size = Barrier(memory), memory.comm.node_rank, memory.comm.node_size
    for turn in range(20):
        barrier.arrive(me)
        if barrier.is_leader:
            assert barrier.await_all() == size - 1
            barrier.release(turn)
        else:
            assert barrier.await_release() == turn


@pytest.mark.parametrize("late", [lambda me, size: me == 0, lambda me, size: me == size - 1])
def test_whoever_is_late_is_waited_for(
    memory: SharedMemory,
    late: Callable[[int, int], bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gates_module, "PATIENCE", 3)  # the others nap
    barrier, me, size = Barrier(memory), memory.comm.node_rank, memory.comm.node_size
    board = memory.array((size,), np.int64)
    if late(me, size):
        time.sleep(0.05)
    board[me] = me + 1
    barrier.meet()
    assert board.sum() == size * (size + 1) // 2


def test_two_gates_do_not_mix(memory: SharedMemory) -> None:
    first, second, size = Barrier(memory), Barrier(memory), memory.comm.node_size
    assert [first.meet(1), second.meet(2), first.meet(3)] == [1, 2, 3]
    assert second.meet(memory.comm.node_rank) == size - 1


def test_the_words_of_a_rank_stand_on_lines_of_their_own(memory: SharedMemory) -> None:
    barrier = Barrier(memory)
    lines = [barrier._mine, *barrier._others, barrier._verdict]
    assert all(line % gates_module.LINE == 0 for line in lines)
    assert len(barrier._flags) == (memory.comm.node_size + 1) * gates_module.LINE
