"""More ranks than cores: how many cores there are, and whom an offered core reaches."""

import os

import pytest

from distnn.parallel import crowd
from distnn.parallel.crowd import cores, must_sleep, share_group
from distnn.parallel.team import Team

pytestmark = pytest.mark.mpi


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is Linux's")
def test_cores_of_a_node_are_those_of_all_its_ranks(team: Team) -> None:
    allowed = os.sched_getaffinity(0)
    one = sorted(allowed)[team.node_rank % len(allowed)]
    try:
        assert cores(team) == len(allowed)
        os.sched_setaffinity(0, {one})
        assert cores(team) == min(team.node_size, len(allowed))
    finally:
        os.sched_setaffinity(0, allowed)


def test_one_group_or_several(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "_own_group", lambda: b"all of us")
    assert share_group(team)
    monkeypatch.setattr(crowd, "_own_group", lambda: str(team.node_rank).encode())
    assert share_group(team) == (team.node_size == 1)
    last = team.node_rank == team.node_size - 1
    monkeypatch.setattr(crowd, "_own_group", lambda: b"apart" if last else b"together")
    assert share_group(team) == (team.node_size == 1)


@pytest.mark.parametrize("more", [-1, 0, 1])
@pytest.mark.parametrize("together", [True, False])
def test_only_a_crowd_in_several_groups_sleeps(
    team: Team, monkeypatch: pytest.MonkeyPatch, more: int, together: bool
) -> None:
    monkeypatch.setattr(crowd, "cores", lambda team: team.node_size - more)
    monkeypatch.setattr(crowd, "share_group", lambda _team: together)
    assert crowd.is_crowded(team) == (more > 0)
    assert must_sleep(team) == (more > 0 and not together)


def test_own_group_is_there_or_empty() -> None:
    assert isinstance(crowd._own_group(), bytes)
