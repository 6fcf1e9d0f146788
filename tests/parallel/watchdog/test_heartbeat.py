"""What nodes know of one another, on communicators of every shape."""

import os
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.parallel.comm.status import StatusTable
from distnn.parallel.watchdog import heartbeat
from distnn.parallel.watchdog.heartbeat import Heartbeat, interval, is_possible

WORLD = MPI.COMM_WORLD
STALL = 0.4  # seconds

pytestmark = pytest.mark.mpi(min_size=2)


def leader(comm: Communicator) -> SimpleNamespace:
    """A heartbeat, None but on leaders of several nodes, and the status table of its node."""
    comm.status.stall_timeout = STALL
    heartbeat, handle = None, os.memfd_create("table")
    os.ftruncate(handle, StatusTable.bytes(comm.node_size))
    table = StatusTable(handle, comm.node_size)
    if is_possible(comm) and comm.node_rank == 0:
        heartbeat = Heartbeat(comm, table, f"host{comm.node}")
    return SimpleNamespace(heartbeat=heartbeat, table=table, first=comm.node == 0, comm=comm)


@pytest.fixture
def node(comm: Communicator) -> Iterator[SimpleNamespace]:
    made = leader(comm)
    yield made
    if made.heartbeat is not None:
        made.heartbeat.close()


def within(seconds: float, happens: Callable[[], object]) -> bool:
    until = time.monotonic() + seconds
    while not happens() and time.monotonic() < until:
        time.sleep(0.005)
    return bool(happens())


def test_reports_are_frequent_in_a_stall_timeout() -> None:
    assert interval(1) == 0.05
    assert interval(600) == 2


def test_progress_on_one_node_is_known_on_all_others(node: SimpleNamespace) -> None:
    if node.heartbeat is None:
        return
    shared, moving = node.table.shared, node.comm.node == node.comm.nodes - 1
    for count in (1, 2, 5):
        node.heartbeat.events = count if moving else 0
        if not moving:
            assert within(5, lambda count=count: shared.events_elsewhere == count)
        node.comm.leader_comm.Barrier()
    assert not moving or shared.events_elsewhere == 0  # its own are in its own table


def test_a_late_rank_is_named(node: SimpleNamespace) -> None:
    if node.heartbeat is None:
        return
    last = node.comm.nodes - 1
    for late, seen_by in ((last, 0), (0, last)):
        first, _ = node.comm.node_ranks[late]
        if node.comm.node == late:
            node.heartbeat.late = first
        if node.comm.node == seen_by:
            expected = [(first, f"rank {first} on host{late} has not arrived")]
            assert within(5, lambda expected=expected: node.heartbeat.suspects() == expected)
        node.comm.leader_comm.Barrier()


def test_a_failure_is_known_on_all_nodes(comm: Communicator) -> None:
    for failing in (0, comm.nodes - 1):
        node = leader(comm)
        if node.heartbeat is None:
            continue
        start = time.monotonic()
        shared = node.table.shared
        if comm.node == failing:
            shared.exit_code, shared.failed = 7, 2
        assert within(5, lambda shared=shared: shared.failed)
        node.heartbeat.close()
        assert time.monotonic() - start < 4 * interval(STALL) + 2
        assert (shared.exit_code, shared.failed) == (7, 2)
        assert node.table.claim_report() == (comm.node == failing)  # it is reported there alone
        comm.leader_comm.Barrier()


class Kept:
    """A communicator that is not freed."""

    def __init__(self, comm: MPI.Comm) -> None:
        self.Irecv, self.Isend, self.Free = comm.Irecv, comm.Isend, lambda: None


def test_nothing_is_left_over(comm: Communicator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever closes first, and whoever fails at the end."""
    for number in range(10):
        node = leader(comm)
        if node.heartbeat is None:
            continue
        time.sleep(0.013 * ((comm.node + number) % 3))
        if number % 5 == 4 and comm.node == number % comm.nodes:
            node.table.shared.failed = 1
        kept = node.heartbeat._mpi
        monkeypatch.setattr(node.heartbeat, "_mpi", Kept(kept))
        node.heartbeat.close()
        comm.leader_comm.Barrier()
        assert not kept.Iprobe()
        assert not node.heartbeat._sending
        assert all(request == MPI.REQUEST_NULL for request in node.heartbeat._receiving)
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
    if node.heartbeat is None:
        return
    if node.first:
        node.table.shared.failed = 1
    node.heartbeat.close()
    assert node.table.shared.failed
    comm.leader_comm.Barrier()


def test_a_node_that_falls_silent_is_named_and_not_waited_for(
    comm: Communicator, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = comm.nodes - 1
    if comm.node == silent:
        monkeypatch.setattr(Heartbeat, "_report", lambda self: False)
        monkeypatch.setattr(Heartbeat, "_answer_all", lambda self: False)
    node = leader(comm)
    if node.heartbeat is None:
        return
    first, end = comm.node_ranks[silent]
    if node.first:
        assert within(5, lambda: [rank for rank, _ in node.heartbeat.suspects()] == [first])
        words = node.heartbeat.suspects()[0][1]
        assert f"on host{silent}: no message for" in words
        assert words.startswith(f"rank {first} " if end - first == 1 else f"ranks {first} to ")
        node.table.shared.failed = first + 1  # as the watchdog says
    start = time.monotonic()
    node.heartbeat.close()
    assert time.monotonic() - start < 5 * STALL
    comm.leader_comm.Barrier()
