"""The meeting of a node's ranks: no one passes early, words go up and down, whoever is late."""

import time
from collections.abc import Callable

import numpy as np
import pytest

from distnn.parallel import futex
from distnn.parallel import gates as gates_module
from distnn.parallel.gates import Gates
from distnn.parallel.memory import SharedMemory

pytestmark = pytest.mark.mpi


@pytest.fixture(autouse=True, params=["polling", "sleeping"])
def waiting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to wait, whatever this machine's number of cores."""
    sleeps = request.param == "sleeping"
    if sleeps and not futex.is_known():
        pytest.skip("this system has no futex that we know")
    monkeypatch.setattr(gates_module, "must_sleep", lambda _team: sleeps)


def test_after_a_meeting_everyone_sees_what_everyone_wrote(memory: SharedMemory) -> None:
    gates, me, size = Gates(memory), memory.team.node_rank, memory.team.node_size
    board = memory.array((2, size), np.int64)
    for turn in range(1, 60):
        board[turn % 2, me] = turn * (me + 1)
        gates.meet()
        assert np.array_equal(board[turn % 2], turn * np.arange(1, size + 1)), turn


def test_the_leader_works_alone_while_the_others_wait(memory: SharedMemory) -> None:
    gates, me, size = Gates(memory), memory.team.node_rank, memory.team.node_size
    board = memory.array((size + 1,), np.int64)

    def total(word: int) -> int:
        board[size] = board[:size].sum()
        return word

    for turn in range(30):
        board[me] = turn + me
        gates.meet(alone=total)
        assert board[size] == size * turn + size * (size - 1) // 2


def test_what_is_done_meanwhile_holds_nobody_up(memory: SharedMemory) -> None:
    """Each rank stays in it until all are in it: they have arrived, and none waits before."""
    gates, me, size = Gates(memory), memory.team.node_rank, memory.team.node_size
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
        gates.meet(0, alone, all_in_it)
    assert done == (["meanwhile", "alone"] if gates.is_leader else ["meanwhile"]) * 5


def test_words(memory: SharedMemory) -> None:
    gates, me, size = Gates(memory), memory.team.node_rank, memory.team.node_size
    assert gates.meet() == 0
    assert gates.meet(me + 1) == size  # the largest
    assert gates.meet(size - me) == size  # the leader's own counts too
    assert gates.meet(me, lambda word: 10 * word + 1) == 10 * (size - 1) + 1  # the verdict
    assert gates.meet() == 0  # words are forgotten


def test_arrive_and_release_as_two_halves(memory: SharedMemory) -> None:
    gates, me, size = Gates(memory), memory.team.node_rank, memory.team.node_size
    for turn in range(20):
        gates.arrive(me)
        if gates.is_leader:
            assert gates.await_all() == size - 1
            gates.release(turn)
        else:
            assert gates.await_release() == turn


@pytest.mark.parametrize("late", [lambda me, size: me == 0, lambda me, size: me == size - 1])
def test_whoever_is_late_is_waited_for(
    memory: SharedMemory,
    late: Callable[[int, int], bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gates_module, "PATIENCE", 3)  # the others nap
    gates, me, size = Gates(memory), memory.team.node_rank, memory.team.node_size
    board = memory.array((size,), np.int64)
    if late(me, size):
        time.sleep(0.05)
    board[me] = me + 1
    gates.meet()
    assert board.sum() == size * (size + 1) // 2


def test_two_gates_do_not_mix(memory: SharedMemory) -> None:
    first, second, size = Gates(memory), Gates(memory), memory.team.node_size
    assert [first.meet(1), second.meet(2), first.meet(3)] == [1, 2, 3]
    assert second.meet(memory.team.node_rank) == size - 1


def test_the_words_of_a_rank_stand_on_lines_of_their_own(memory: SharedMemory) -> None:
    gates = Gates(memory)
    lines = [gates._mine, *gates._others, gates._verdict]
    assert all(line % gates_module.LINE == 0 for line in lines)
    assert len(gates._flags) == (memory.team.node_size + 1) * gates_module.LINE
