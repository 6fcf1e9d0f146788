"""Teams: who stands where, and what all ranks agree on. Expected values are formulas of rank."""

import numpy as np
import pytest

from distnn.errors import DistnnError, DivergenceError, InputError
from distnn.parallel import team as team_module
from distnn.parallel.mpi import MPI
from distnn.parallel.team import Team

pytestmark = pytest.mark.mpi


def test_ranks_of_a_node_follow_one_another(team: Team) -> None:
    assert [first for first, _ in team.node_ranks] == [0] + [end for _, end in team.node_ranks[:-1]]
    assert team.node_ranks[-1][1] == team.size
    first, end = team.node_ranks[team.node]
    assert (team.rank - first, end - first) == (team.node_rank, team.node_size)
    assert team.nodes == len(team.node_ranks)
    assert (team.leaders is None) == (team.node_rank != 0)
    if team.leaders is not None:
        assert (team.leaders.rank, team.leaders.size) == (team.node, team.nodes)


def test_the_first_rank_stays_the_first(team: Team) -> None:
    ranks = team.comm.allgather(team._base.rank)
    assert ranks[0] == 0
    assert sorted(ranks) == list(range(team.size))
    assert team.is_first == (team._base.rank == 0)


def test_node_of(team: Team) -> None:
    assert team.node_of(team.rank) == team.node
    assert [team.node_of(rank) for rank in range(team.size)] == team.comm.allgather(team.node)


def test_a_node_per_rank() -> None:
    team = Team(shared=False)
    assert team.node_ranks == [(rank, rank + 1) for rank in range(team.size)]
    assert (team.node, team.node_rank, team.node_size) == (team.rank, 0, 1)


def test_a_part_of_the_ranks() -> None:
    world = MPI.COMM_WORLD
    halves = world.Split(world.rank % 2, world.rank)
    team = Team(halves)
    assert team.size == len(range(world.rank % 2, world.size, 2))
    assert team.total(1) == team.size
    halves.Free()


def test_no_message_of_the_caller_is_mistaken(team: Team) -> None:
    base, me = team._base, np.array(team._base.rank)
    others = [rank for rank in range(base.size) if rank != base.rank]
    sends = [base.Isend(me, rank, 7) for rank in others]
    assert team.broadcast("ours" if team.is_first else None) == "ours"
    assert team.total(1) == team.size
    got = np.empty(1, int)
    for rank in others:
        base.Recv(got, rank, MPI.ANY_TAG)
        assert got[0] == rank
    MPI.Request.Waitall(sends)


@pytest.mark.parametrize(
    "value",
    [None, True, -3, 0.1, 5e-324, 1.7976931348623157e308, "ü\n", [], {"a": [1, {"b": None}]}],
    ids=str,
)
def test_broadcast(team: Team, value: object) -> None:
    got = team.broadcast(value if team.is_first else "not this")
    assert got == value
    assert type(got) is type(value)


def test_broadcast_of_numbers_that_are_none(team: Team) -> None:
    assert np.isnan(team.broadcast(float("nan")))
    assert team.broadcast(float("-inf")) == -np.inf


def test_on_first_runs_once(team: Team) -> None:
    calls: list[int] = []
    assert team.on_first(lambda: calls.append(team.rank) or "done") == "done"
    assert calls == ([0] if team.is_first else [])


@pytest.mark.parametrize("kind", [InputError, DistnnError, DivergenceError])
def test_an_error_of_the_first_rank_rises_on_all(team: Team, kind: type[DistnnError]) -> None:
    def work() -> None:
        raise kind("no such file")

    with pytest.raises(DistnnError, match="no such file") as caught:
        team.on_first(work)
    assert caught.value.exit_code == kind.exit_code
    assert team.total(1) == team.size  # all are still together


def test_agree(team: Team) -> None:
    team.agree(None)
    for culprit in range(team.size):
        problem = (
            InputError("is wrong", where=f"rank {team.rank}") if team.rank >= culprit else None
        )
        with pytest.raises(InputError, match=f"^rank {culprit}: is wrong$"):
            team.agree(problem)
    team.agree(None)


def test_total_and_largest(team: Team) -> None:
    assert team.total(team.rank + 1) == team.size * (team.size + 1) // 2
    assert team.largest(team.rank) == team.size - 1
    assert team.largest(-team.rank) == 0
    assert team.largest(1 << 40) == 1 << 40


def test_extents_are_in_the_callers_order(team: Team) -> None:
    def start(rank: int) -> int:  # the caller's rank r has r + 1 items
        return rank * (rank + 1) // 2

    callers = team.comm.allgather(team._base.rank)
    expected = [(start(rank), start(rank + 1)) for rank in callers]
    assert team.extents(team._base.rank + 1) == expected


def test_extents_of_nothing(team: Team) -> None:
    assert team.extents(0) == [(0, 0)] * team.size


def test_broadcast_among_leaders(team: Team) -> None:
    for node in range(team.nodes):
        vector = np.arange(12.0).reshape(3, 4) + 100 * team.node
        team.broadcast_among_leaders(vector, node)
        expected = node if team.node_rank == 0 else team.node  # only leaders receive
        assert np.array_equal(vector, np.arange(12.0).reshape(3, 4) + 100 * expected)
    team.broadcast_among_leaders(np.empty((0, 3)))


def test_gather(team: Team) -> None:
    values = np.full(team.rank + 1, team.rank, np.float64)
    whole = team.gather(values, [rank + 1 for rank in range(team.size)])
    if team.is_first:
        expected = np.repeat(np.arange(team.size), np.arange(team.size) + 1)
        assert np.array_equal(whole, expected)
    else:
        assert whole is None


def test_gather_where_some_have_nothing(team: Team) -> None:
    counts = [3 if rank == team.size - 1 else 0 for rank in range(team.size)]
    whole = team.gather(np.arange(float(counts[team.rank])), counts)
    assert not team.is_first or np.array_equal(whole, [0, 1, 2])


def test_enough_memory_keeps_the_team(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team_module, "shared_memory_room", lambda: 1000)
    assert team.with_memory(1000, pytest.fail) is team


def test_too_little_memory_on_one_node_does_without_on_all(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = team.node == 0
    monkeypatch.setattr(team_module, "shared_memory_room", lambda: 1000 if small else 1 << 40)
    said: list[str] = []
    without = team.with_memory(1001, said.append)
    shares = team.node_ranks[0][1] > 1  # a rank alone on its node needs no shared memory
    assert (without is team) == (not shares)
    assert len(said) == (1 if team.is_first and shares else 0)
    assert without.nodes == (without.size if shares else team.nodes)
    assert without.total(1) == team.size


def test_nodes_that_need_different_amounts_decide_alike(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(team_module, "shared_memory_room", lambda: 1000)
    need = 1001 if team.node == team.nodes - 1 else 999
    without = team.with_memory(need, lambda line: None)
    assert len(set(without.comm.allgather(without.nodes))) == 1


def test_the_room_of_this_machine() -> None:
    assert team_module.shared_memory_room() > 0


def test_no_room_where_there_is_no_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team_module, "SHARED_MEMORY", "/no/such/place")
    assert team_module.shared_memory_room() == 0
