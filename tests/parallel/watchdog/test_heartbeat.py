"""What nodes hear of one another, on teams of every shape."""

import os
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.parallel.comm.status import CODE, ELSEWHERE, FAILED, StatusTable
from distnn.parallel.watchdog import heartbeat
from distnn.parallel.watchdog.heartbeat import Heartbeat, beat, can_be_felt

WORLD = MPI.COMM_WORLD
STALL = 0.4  # seconds

pytestmark = pytest.mark.mpi(min_size=2)


def leader(comm: Communicator) -> SimpleNamespace:
    """A pulse, and the board of its node; None on other ranks and where there is one node."""
    comm.status.stall_timeout = STALL
    pulse, handle = None, os.memfd_create("board")
    os.ftruncate(handle, StatusTable.bytes(comm.node_size))
    board = StatusTable(handle, comm.node_size)
    if can_be_felt(comm) and comm.node_rank == 0:
        pulse = Heartbeat(comm, board, f"host{comm.node}")
    return SimpleNamespace(pulse=pulse, board=board, first=comm.node == 0, comm=comm)


@pytest.fixture
def node(comm: Communicator) -> Iterator[SimpleNamespace]:
    made = leader(comm)
    yield made
    if made.pulse is not None:
        made.pulse.close()


def within(seconds: float, happens: Callable[[], object]) -> bool:
    until = time.monotonic() + seconds
    while not happens() and time.monotonic() < until:
        time.sleep(0.005)
    return bool(happens())


def test_a_beat_is_a_small_part_of_a_stall_timeout() -> None:
    assert beat(1) == 0.05
    assert beat(600) == 2


def test_what_moves_on_one_node_is_heard_on_all_others(node: SimpleNamespace) -> None:
    if node.pulse is None:
        return
    heard, moving = node.board.common, node.comm.node == node.comm.nodes - 1
    for count in (1, 2, 5):
        node.pulse.moves = count if moving else 0
        if not moving:
            assert within(5, lambda count=count: heard[ELSEWHERE] == count)
        node.comm.leader_comm.Barrier()
    assert not moving or heard[ELSEWHERE] == 0  # its own movements come from its own board


def test_a_late_rank_is_named(node: SimpleNamespace) -> None:
    if node.pulse is None:
        return
    last = node.comm.nodes - 1
    first, _ = node.comm.node_ranks[last]
    if node.comm.node == last:
        node.pulse.late = first
    if node.first:
        told = (first, f"rank {first} on host{last} has not arrived")
        assert within(5, lambda: node.pulse.suspects() == [told])
    node.comm.leader_comm.Barrier()


def test_a_failure_is_known_on_all_nodes(comm: Communicator) -> None:
    for failing in (0, comm.nodes - 1):
        node = leader(comm)
        if node.pulse is None:
            continue
        start = time.monotonic()
        common = node.board.common
        if comm.node == failing:
            common[CODE], common[FAILED] = 7, 2
        assert within(5, lambda common=common: common[FAILED])
        node.pulse.close()
        assert time.monotonic() - start < 4 * beat(STALL) + 2
        assert (common[CODE], common[FAILED]) == (7, 2)
        assert node.board.claim() == (comm.node == failing)  # it is told there, and only there
        comm.leader_comm.Barrier()


class Kept:
    """A communicator that is not freed."""

    def __init__(self, comm: MPI.Comm) -> None:
        self.Irecv, self.Isend, self.Free = comm.Irecv, comm.Isend, lambda: None


def test_nothing_is_left_over(comm: Communicator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever closes first, and whoever fails at the end."""
    for number in range(10):
        node = leader(comm)
        if node.pulse is None:
            continue
        time.sleep(0.013 * ((comm.node + number) % 3))
        if number % 5 == 4 and comm.node == number % comm.nodes:
            node.board.common[FAILED] = 1
        kept = node.pulse._mpi
        monkeypatch.setattr(node.pulse, "_mpi", Kept(kept))
        node.pulse.close()
        comm.leader_comm.Barrier()
        assert not kept.Iprobe()
        assert not node.pulse._sending
        assert all(request == MPI.REQUEST_NULL for request in node.pulse._coming)
        kept.Free()


def test_a_node_that_reports_too_late_is_answered_all_the_same(
    comm: Communicator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failure the first leader does not wait for it; but it waits for the first."""
    monkeypatch.setattr(heartbeat, "AFTER_FAILURE", 0.05)
    report = Heartbeat._report

    def late(self: Heartbeat) -> bool:
        time.sleep(0.3)
        return report(self)

    if comm.node == comm.nodes - 1:
        monkeypatch.setattr(Heartbeat, "_report", late)
    node = leader(comm)
    if node.pulse is None:
        return
    if node.first:
        node.board.common[FAILED] = 1
    node.pulse.close()
    assert node.board.common[FAILED]
    comm.leader_comm.Barrier()


def test_a_node_that_falls_silent_is_named_and_not_waited_for(
    comm: Communicator, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = comm.nodes - 1
    if comm.node == silent:
        monkeypatch.setattr(Heartbeat, "_report", lambda self: False)
        monkeypatch.setattr(Heartbeat, "_answer_all", lambda self: False)
    node = leader(comm)
    if node.pulse is None:
        return
    first, end = comm.node_ranks[silent]
    if node.first:
        assert within(5, lambda: [rank for rank, _ in node.pulse.suspects()] == [first])
        words = node.pulse.suspects()[0][1]
        assert f"on host{silent}: nothing was heard for" in words
        assert words.startswith(f"rank {first} " if end - first == 1 else f"ranks {first} to ")
        node.board.common[FAILED] = first + 1  # as the watch says
    start = time.monotonic()
    node.pulse.close()
    assert time.monotonic() - start < 5 * STALL
    comm.leader_comm.Barrier()
