"""What the watchdog's thread does of what it finds, on one rank that stands for many."""

import os
import signal
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.parallel.comm.status import RankStatus
from distnn.parallel.watchdog import watchdog
from distnn.parallel.watchdog.watchdog import INTERVAL, Watchdog


class Ended(Exception):
    """The job was ended."""


class Looks:
    """A detector that notes how much time is said to have passed, and ends after some looks."""

    def __init__(self, number: int) -> None:
        self.passed: list[float] = []
        self.number = number

    def look(self, passed: float) -> None:
        self.passed.append(passed)
        if len(self.passed) == self.number:
            raise Ended("looked")

    def stall(self) -> None:
        return None


def ends(*what: Any) -> None:
    raise Ended(*what)


def thread(detector: Looks, **changes: Any) -> Any:
    """What `_run` uses of a watchdog of two ranks whose poll takes no time."""
    given = {
        "_table": SimpleNamespace(shared=SimpleNamespace(failed=0, exit_code=7)),
        "_poll": SimpleNamespace(poll=lambda milliseconds: []),
        "_status": SimpleNamespace(stall_timeout=600.0),
        "_closed": False, "_note_activity": lambda passed: None, "_detector": detector,
        "comm": SimpleNamespace(size=2), "_parent": os.getppid(), "_end": ends,
    }  # fmt: skip
    return SimpleNamespace(**given | changes)


def test_time_in_which_a_job_was_suspended_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10**9, 3600))
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: next(clock))
    looks = Looks(3)
    with pytest.raises(Ended, match="looked"):
        Watchdog._run(thread(looks))
    assert looks.passed == [2 * INTERVAL] * 3


def test_a_job_without_its_launcher_ends() -> None:
    with pytest.raises(Ended, match="launcher of this job is gone"):
        Watchdog._run(thread(Looks(3), _parent=-1))
    with pytest.raises(Ended, match="looked"):
        Watchdog._run(thread(Looks(3), _parent=-1, comm=SimpleNamespace(size=1)))


def test_a_rank_that_cannot_raise_a_failure_ends_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(watchdog, "end_job", ends)
    shared, looks = SimpleNamespace(failed=2, exit_code=7), Looks(50)
    with pytest.raises(Ended, match="7"):
        Watchdog._run(thread(looks, _table=SimpleNamespace(shared=shared)))
    assert sum(looks.passed) == watchdog.RAISE_SECONDS


@pytest.mark.parametrize("is_first", [True, False])
def test_who_tells_has_time_and_the_others_wait_for_it(
    is_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    reports: list[str] = []
    monkeypatch.setattr(watchdog.time, "sleep", slept.append)
    monkeypatch.setattr(watchdog, "end_job", ends)
    monkeypatch.setattr(watchdog, "write_report", reports.append)
    shared = SimpleNamespace(failed=0, exit_code=0)
    table = SimpleNamespace(shared=shared, claim_report=lambda: is_first)
    with pytest.raises(Ended, match="3"):
        Watchdog._end(SimpleNamespace(_table=table, ends_job=True), "text", 3, 4)
    assert reports == (["text"] if is_first else [])
    assert slept == [watchdog.REPORT_SECONDS if is_first else watchdog.ABORT_SECONDS]
    assert (shared.failed, shared.exit_code) == (5, 3)
    Watchdog._end(SimpleNamespace(_table=table, ends_job=False), "text", 3, 4)  # it is raised


def busy() -> None:
    until = time.process_time() + 0.1
    while time.process_time() < until:
        continue


def reading() -> None:
    with open("/proc/self/maps", "rb") as file:
        for _ in range(5):
            file.seek(0)
            file.read()


@pytest.mark.parametrize(
    ("is_working", "work", "moves"),
    [(True, busy, 1), (True, reading, 1), (True, lambda: None, 0), (False, busy, 0)],
)
def test_work_in_one_piece_moves_while_the_process_computes_or_reads(
    is_working: bool, work: Callable[[], None], moves: int
) -> None:
    status = RankStatus()
    status.row.working = is_working
    one = SimpleNamespace(_status=status, _activity=watchdog._activity())
    work()
    Watchdog._note_activity(one, 1.0 if work is not reading else 1000.0)
    assert status.row.events == moves


def test_an_abort_of_mpi_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    world = SimpleNamespace(Abort=ends)
    fake = SimpleNamespace(COMM_WORLD=world, Is_finalized=lambda: False)
    monkeypatch.setattr(watchdog, "MPI", fake)
    try:
        with pytest.raises(Ended, match="6"):
            watchdog.end_job(6)
        left, _ = signal.getitimer(signal.ITIMER_REAL)
    finally:
        signal.alarm(0)
    assert 0 < left <= watchdog.ABORT_SECONDS


def test_no_file_is_left_in_shared_memory() -> None:
    one = Watchdog(Communicator(MPI.COMM_SELF))
    name = os.readlink(f"/proc/self/fd/{one._table.handle}")
    one.close()
    assert name.endswith(" (deleted)")
