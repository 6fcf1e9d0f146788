"""What nodes hear of one another, on teams of every shape."""

import os
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from distnn.parallel import pulse
from distnn.parallel.board import CODE, ELSEWHERE, FAILED, Board
from distnn.parallel.mpi import MPI
from distnn.parallel.pulse import Pulse, beat, can_be_felt
from distnn.parallel.team import Team

WORLD = MPI.COMM_WORLD
STALL = 0.4  # seconds

pytestmark = pytest.mark.mpi(min_size=2)


def leader(team: Team) -> SimpleNamespace:
    """A pulse, and the board of its node; None on other ranks and where there is one node."""
    team.here.stall_timeout = STALL
    pulse, handle = None, os.memfd_create("board")
    os.ftruncate(handle, Board.bytes(team.node_size))
    board = Board(handle, team.node_size)
    if can_be_felt(team) and team.node_rank == 0:
        pulse = Pulse(team, board, f"host{team.node}")
    return SimpleNamespace(pulse=pulse, board=board, first=team.node == 0, team=team)


@pytest.fixture
def node(team: Team) -> Iterator[SimpleNamespace]:
    made = leader(team)
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
    heard, moving = node.board.common, node.team.node == node.team.nodes - 1
    for count in (1, 2, 5):
        node.pulse.moves = count if moving else 0
        if not moving:
            assert within(5, lambda count=count: heard[ELSEWHERE] == count)
        node.team.leaders.Barrier()
    assert not moving or heard[ELSEWHERE] == 0  # its own movements come from its own board


def test_a_late_rank_is_named(node: SimpleNamespace) -> None:
    if node.pulse is None:
        return
    last = node.team.nodes - 1
    first, _ = node.team.node_ranks[last]
    if node.team.node == last:
        node.pulse.late = first
    if node.first:
        told = (first, f"rank {first} on host{last} has not arrived")
        assert within(5, lambda: node.pulse.suspects() == [told])
    node.team.leaders.Barrier()


def test_a_failure_is_known_on_all_nodes(team: Team) -> None:
    for failing in (0, team.nodes - 1):
        node = leader(team)
        if node.pulse is None:
            continue
        start = time.monotonic()
        common = node.board.common
        if team.node == failing:
            common[CODE], common[FAILED] = 7, 2
        assert within(5, lambda common=common: common[FAILED])
        node.pulse.close()
        assert time.monotonic() - start < 4 * beat(STALL) + 2
        assert (common[CODE], common[FAILED]) == (7, 2)
        assert node.board.claim() == (team.node == failing)  # it is told there, and only there
        team.leaders.Barrier()


class Kept:
    """A communicator that is not freed."""

    def __init__(self, comm: MPI.Comm) -> None:
        self.Irecv, self.Isend, self.Free = comm.Irecv, comm.Isend, lambda: None


def test_nothing_is_left_over(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever closes first, and whoever fails at the end."""
    for number in range(10):
        node = leader(team)
        if node.pulse is None:
            continue
        time.sleep(0.013 * ((team.node + number) % 3))
        if number % 5 == 4 and team.node == number % team.nodes:
            node.board.common[FAILED] = 1
        comm = node.pulse._comm
        monkeypatch.setattr(node.pulse, "_comm", Kept(comm))
        node.pulse.close()
        team.leaders.Barrier()
        assert not comm.Iprobe()
        assert not node.pulse._sending
        assert all(request == MPI.REQUEST_NULL for request in node.pulse._coming)
        comm.Free()


def test_a_node_that_reports_too_late_is_answered_all_the_same(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failure the first leader does not wait for it; but it waits for the first."""
    monkeypatch.setattr(pulse, "AFTER_FAILURE", 0.05)
    report = Pulse._report

    def late(self: Pulse) -> bool:
        time.sleep(0.3)
        return report(self)

    if team.node == team.nodes - 1:
        monkeypatch.setattr(Pulse, "_report", late)
    node = leader(team)
    if node.pulse is None:
        return
    if node.first:
        node.board.common[FAILED] = 1
    node.pulse.close()
    assert node.board.common[FAILED]
    team.leaders.Barrier()


def test_a_node_that_falls_silent_is_named_and_not_waited_for(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = team.nodes - 1
    if team.node == silent:
        monkeypatch.setattr(Pulse, "_report", lambda self: False)
        monkeypatch.setattr(Pulse, "_answer_all", lambda self: False)
    node = leader(team)
    if node.pulse is None:
        return
    first, end = team.node_ranks[silent]
    if node.first:
        assert within(5, lambda: [rank for rank, _ in node.pulse.suspects()] == [first])
        words = node.pulse.suspects()[0][1]
        assert f"on host{silent}: nothing was heard for" in words
        assert words.startswith(f"rank {first} " if end - first == 1 else f"ranks {first} to ")
        node.board.common[FAILED] = first + 1  # as the watch says
    start = time.monotonic()
    node.pulse.close()
    assert time.monotonic() - start < 5 * STALL
    team.leaders.Barrier()
