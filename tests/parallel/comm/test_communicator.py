"""Which rank is where, and what all ranks agree on. Expected values are formulas of rank."""

import numpy as np
import pytest

from distnn.errors import DistnnError, DivergenceError, InputError
from distnn.parallel.comm import communicator as communicator_module
from distnn.parallel.comm.communicator import Communicator, communicator_of
from distnn.parallel.comm.mpi import MPI

pytestmark = pytest.mark.mpi


def test_ranks_of_a_node_follow_one_another(comm: Communicator) -> None:
    assert [first for first, _ in comm.node_ranks] == [0] + [end for _, end in comm.node_ranks[:-1]]
    assert comm.node_ranks[-1][1] == comm.size
    first, end = comm.node_ranks[comm.node]
    assert (comm.rank - first, end - first) == (comm.node_rank, comm.node_size)
    assert comm.nodes == len(comm.node_ranks)
    assert (comm.leader_comm is None) == (comm.node_rank != 0)
    if comm.leader_comm is not None:
        assert (comm.leader_comm.rank, comm.leader_comm.size) == (comm.node, comm.nodes)


def test_the_first_rank_stays_the_first(comm: Communicator) -> None:
    ranks = comm.mpi.allgather(comm._base.rank)
    assert ranks[0] == 0
    assert sorted(ranks) == list(range(comm.size))
    assert comm.is_first == (comm._base.rank == 0)


def test_node_of(comm: Communicator) -> None:
    assert comm.node_of(comm.rank) == comm.node
    assert [comm.node_of(rank) for rank in range(comm.size)] == comm.mpi.allgather(comm.node)


def test_a_node_per_rank() -> None:
    comm = Communicator(shared=False)
    assert comm.node_ranks == [(rank, rank + 1) for rank in range(comm.size)]
    assert (comm.node, comm.node_rank, comm.node_size) == (comm.rank, 0, 1)


def test_a_part_of_the_ranks() -> None:
    world = MPI.COMM_WORLD
    halves = world.Split(world.rank % 2, world.rank)
    comm = Communicator(halves)
    assert comm.size == len(range(world.rank % 2, world.size, 2))
    assert comm.total(1) == comm.size
    halves.Free()


def test_no_message_of_the_caller_is_mistaken(comm: Communicator) -> None:
    base, me = comm._base, np.array(comm._base.rank)
    others = [rank for rank in range(base.size) if rank != base.rank]
    sends = [base.Isend(me, rank, 7) for rank in others]
    assert comm.broadcast("ours" if comm.is_first else None) == "ours"
    assert comm.total(1) == comm.size
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
def test_broadcast(comm: Communicator, value: object) -> None:
    got = comm.broadcast(value if comm.is_first else "not this")
    assert got == value
    assert type(got) is type(value)


def test_broadcast_of_numbers_that_are_none(comm: Communicator) -> None:
    assert np.isnan(comm.broadcast(float("nan")))
    assert comm.broadcast(float("-inf")) == -np.inf


def test_on_first_runs_once(comm: Communicator) -> None:
    calls: list[int] = []
    result = comm.on_first(lambda: calls.append(comm.rank) or "done")
    assert result == ("done" if comm.is_first else None)
    assert calls == ([0] if comm.is_first else [])


@pytest.mark.parametrize("kind", [InputError, DistnnError, DivergenceError])
def test_an_error_of_the_first_rank_is_raised_on_all(
    comm: Communicator, kind: type[DistnnError]
) -> None:
    def work() -> None:
        raise kind("no such file")

    with pytest.raises(DistnnError, match="no such file") as caught:
        comm.on_first(work)
    assert caught.value.exit_code == kind.exit_code
    assert comm.total(1) == comm.size  # all are still together


def test_agree(comm: Communicator) -> None:
    comm.agree(None)
    for culprit in range(comm.size):
        problem = (
            InputError("is wrong", where=f"rank {comm.rank}") if comm.rank >= culprit else None
        )
        with pytest.raises(InputError, match=f"^rank {culprit}: is wrong$"):
            comm.agree(problem)
    comm.agree(None)


def test_total_and_largest(comm: Communicator) -> None:
    assert comm.total(comm.rank + 1) == comm.size * (comm.size + 1) // 2
    assert comm.largest(comm.rank) == comm.size - 1
    assert comm.largest(-comm.rank) == 0
    assert comm.largest(1 << 40) == 1 << 40


def test_extents_are_in_the_callers_order(comm: Communicator) -> None:
    def start(rank: int) -> int:  # the caller's rank r has r + 1 items
        return rank * (rank + 1) // 2

    callers = comm.mpi.allgather(comm._base.rank)
    expected = [(start(rank), start(rank + 1)) for rank in callers]
    assert comm.extents(comm._base.rank + 1) == expected


def test_extents_of_nothing(comm: Communicator) -> None:
    assert comm.extents(0) == [(0, 0)] * comm.size


def test_broadcast_among_leaders(comm: Communicator) -> None:
    for node in range(comm.nodes):
        vector = np.arange(12.0).reshape(3, 4) + 100 * comm.node
        comm.broadcast_among_leaders(vector, node)
        expected = node if comm.node_rank == 0 else comm.node  # only leaders receive
        assert np.array_equal(vector, np.arange(12.0).reshape(3, 4) + 100 * expected)
    comm.broadcast_among_leaders(np.empty((0, 3)))


def test_gather(comm: Communicator) -> None:
    values = np.full(comm.rank + 1, comm.rank, np.float64)
    whole = comm.gather(values, [rank + 1 for rank in range(comm.size)])
    if comm.is_first:
        expected = np.repeat(np.arange(comm.size), np.arange(comm.size) + 1)
        assert np.array_equal(whole, expected)
    else:
        assert whole is None


def test_gather_where_some_have_nothing(comm: Communicator) -> None:
    counts = [3 if rank == comm.size - 1 else 0 for rank in range(comm.size)]
    whole = comm.gather(np.arange(float(counts[comm.rank])), counts)
    assert not comm.is_first or np.array_equal(whole, [0, 1, 2])


def test_enough_memory_changes_nothing(comm: Communicator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(communicator_module, "shared_memory_room", lambda: 1000)
    assert comm.with_memory(1000) is comm


def test_too_little_memory_on_one_node_does_without_on_all(
    comm: Communicator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    small = comm.node == 0
    monkeypatch.setattr(
        communicator_module, "shared_memory_room", lambda: 1000 if small else 1 << 40
    )
    without = comm.with_memory(1001)
    shares = comm.node_ranks[0][1] > 1  # a rank alone on its node needs no shared memory
    assert (without is comm) == (not shares)
    assert len(caplog.records) == (1 if comm.is_first and shares else 0)
    assert without.nodes == (without.size if shares else comm.nodes)
    assert without.total(1) == comm.size


def test_too_little_memory_takes_no_more_communicators_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """MPICH has no more than some 2,000; a search over many trainings would use them up."""
    monkeypatch.setattr(communicator_module, "shared_memory_room", lambda: 0)
    comm = Communicator()
    without = comm.with_memory(1)
    assert (without is comm) == (comm.nodes == comm.size)
    assert without.status is comm.status
    assert all(comm.with_memory(1) is without for _ in range(700))
    comm.free()
    freed = [comm.mpi, without.mpi, without.node_comm]
    assert freed == [MPI.COMM_NULL] * 3


def test_one_for_each_mpi_communicator_freed_with_it() -> None:
    base = MPI.COMM_WORLD.Dup()
    made = communicator_of(base)
    assert communicator_of(base) is made
    assert communicator_of(MPI.COMM_WORLD) is communicator_of(None)
    assert communicator_of(None) is not made
    base.Free()
    assert made.mpi == MPI.COMM_NULL


@pytest.mark.parametrize("bad", [3, MPI.COMM_NULL, "all"])
def test_what_is_no_communicator(bad: object) -> None:
    with pytest.raises(InputError, match="is no communicator that this rank belongs to"):
        communicator_of(bad)


def test_gather_texts(comm: Communicator) -> None:
    texts = comm.gather_texts("ü" * comm.rank)
    assert texts == (["ü" * rank for rank in range(comm.size)] if comm.is_first else None)


def test_all_equal(comm: Communicator) -> None:
    assert comm.all_equal(1 << 62)
    assert comm.all_equal(-7)
    assert comm.all_equal(comm.rank) == (comm.size == 1)


def test_all_arrive(comm: Communicator) -> None:
    assert comm.all_arrive(20)
    assert comm.all_arrive(20)


def test_who_does_not_arrive_is_noticed() -> None:
    comm = Communicator()
    if comm.rank == comm.size - 1:
        comm.mpi.Barrier()
        assert comm.all_arrive(20)
    else:
        assert not comm.all_arrive(0.05)
        comm.mpi.Barrier()
    comm.mpi.Barrier()  # the last one arrives only if the others still call MPI


def test_nodes_that_need_different_amounts_decide_alike(
    comm: Communicator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(communicator_module, "shared_memory_room", lambda: 1000)
    need = 1001 if comm.node == comm.nodes - 1 else 999
    without = comm.with_memory(need)
    assert len(set(without.mpi.allgather(without.nodes))) == 1


def test_the_room_of_this_machine() -> None:
    assert communicator_module.shared_memory_room() > 0


def test_no_room_where_there_is_no_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(communicator_module, "SHARED_MEMORY", "/no/such/place")
    assert communicator_module.shared_memory_room() == 0
