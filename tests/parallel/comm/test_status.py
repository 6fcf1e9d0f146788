"""The status table: rows that others read, one right to report, and who has failed."""

import os
import subprocess
import sys
import tempfile

import pytest

from distnn.errors import RankFailed
from distnn.parallel.comm.status import (
    CACHE_LINE,
    OWNER_DIED,
    RankRow,
    RankStatus,
    SharedRow,
    StatusTable,
)


@pytest.fixture
def table():
    with tempfile.TemporaryFile() as file:
        file.truncate(StatusTable.bytes(3))
        yield StatusTable(file.fileno(), 3)


def test_only_one_may_report(table):
    assert [table.claim_report() for _ in range(3)] == [True, False, False]


def test_the_right_to_report_is_that_of_one_process(table):
    os.set_inheritable(table.handle, True)
    code = "import sys; from distnn.parallel.comm.status import StatusTable; print(StatusTable(int(sys.argv[1]), 3).claim_report())"  # fmt: skip  # noqa: E501
    command = [sys.executable, "-c", code, str(table.handle)]
    answers = [
        subprocess.run(command, capture_output=True, text=True, check=True, close_fds=False).stdout
        for _ in range(2)
    ]
    assert answers == ["True\n", "False\n"]
    assert not table.claim_report()


def test_rows_do_not_overlap_and_another_map_shows_the_same(table):
    for number, row in enumerate(table.rows):
        row.process, row.done, table.mutexes[number].state = 10 + number, 20 + number, 30 + number
    table.shared.reported, table.shared.events_elsewhere = 40, 41
    other = StatusTable(table.handle, 3)
    assert [(row.process, row.done) for row in other.rows] == [(10, 20), (11, 21), (12, 22)]
    assert [mutex.state for mutex in other.mutexes] == [30, 31, 32]
    assert (other.shared.reported, other.shared.events_elsewhere) == (40, 41)


def test_a_status_keeps_its_values_when_it_moves(table):
    status = RankStatus()
    status.enter("evaluation")
    status.step(7)
    status.move(table.rows[1], table.shared)
    assert (table.rows[1].steps, table.rows[1].events) == (7, 1)
    status.step(8)
    assert table.rows[1].steps == 8
    status.move(RankRow(), SharedRow())
    status.step(9)
    assert (table.rows[1].steps, status.row.steps) == (8, 9)


def test_a_row_is_a_cache_line():
    assert bytes(RankRow()) == bytes(CACHE_LINE)


def test_who_is_dead_and_was_not_done(table):
    assert table.dead_rows() == []
    for mutex in table.mutexes[1:]:
        mutex.state = OWNER_DIED
    table.rows[1].done = 1
    assert table.dead_rows() == [table.rows[2]]


def test_every_change_is_seen(table):
    status = RankStatus()
    status.move(table.rows[0], table.shared)
    seen = [bytes(table.rows[0])]
    for move in (lambda: status.enter("step"), lambda: status.step(1), status.moved):
        move()
        seen.append(bytes(table.rows[0]))
    assert len(set(seen)) == 4


def test_waiting_ends_with_its_context_whatever_happens():
    status = RankStatus()
    seen = []

    def fail():
        with status.waiting(), status.waiting():
            seen.append((status.row.waiting, status.row.has_arrived))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [*seen, (status.row.waiting, status.row.has_arrived)] == [(2, True), (0, False)]


def test_check_names_the_rank_that_failed():
    status = RankStatus()
    status.check()
    status.shared.failed = 5 + 1
    with pytest.raises(RankFailed, match="rank 5 failed"):
        status.check()
