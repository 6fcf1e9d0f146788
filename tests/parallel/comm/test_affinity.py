"""More ranks than cores: how many cores there are, and who goes on when a rank yields one."""

import os

import pytest

from distnn.parallel.comm import affinity
from distnn.parallel.comm.affinity import cores, must_sleep, share_group
from distnn.parallel.comm.communicator import Communicator

pytestmark = pytest.mark.mpi


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is Linux's")
def test_cores_of_a_node_are_those_of_all_its_ranks(comm: Communicator) -> None:
    allowed = os.sched_getaffinity(0)
    one = sorted(allowed)[comm.node_rank % len(allowed)]
    try:
        assert cores(comm) == len(allowed)
        os.sched_setaffinity(0, {one})
        assert cores(comm) == min(comm.node_size, len(allowed))
    finally:
        os.sched_setaffinity(0, allowed)


def test_one_group_or_several(comm: Communicator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(affinity, "_own_group", lambda: b"all of us")
    assert share_group(comm)
    monkeypatch.setattr(affinity, "_own_group", lambda: str(comm.node_rank).encode())
    assert share_group(comm) == (comm.node_size == 1)
    last = comm.node_rank == comm.node_size - 1
    monkeypatch.setattr(affinity, "_own_group", lambda: b"apart" if last else b"together")
    assert share_group(comm) == (comm.node_size == 1)


@pytest.mark.parametrize("more", [-1, 0, 1])
@pytest.mark.parametrize("together", [True, False])
def test_only_more_ranks_than_cores_in_several_groups_sleep(
    comm: Communicator, monkeypatch: pytest.MonkeyPatch, more: int, together: bool
) -> None:
    monkeypatch.setattr(affinity, "cores", lambda comm: comm.node_size - more)
    monkeypatch.setattr(affinity, "share_group", lambda _comm: together)
    assert affinity.is_oversubscribed(comm) == (more > 0)
    assert must_sleep(comm) == (more > 0 and not together)


def test_own_group_is_there_or_empty() -> None:
    assert isinstance(affinity._own_group(), bytes)
