"""How ranks and their deaths are described."""

import os

from distnn.parallel.comm.status import RankRow, RankStatus
from distnn.parallel.watchdog.reports import (
    describe_deaths,
    describe_rank,
    describe_work,
    process_state,
    write_report,
)


def test_where_a_rank_is():
    status = RankStatus()
    status.row.rank, status.row.process = 7, 4711
    assert describe_rank(status.row, "host") == "rank 7 on host (process 4711) in start-up"
    status.enter("step")
    status.step(12)
    assert describe_work(status.row) == "step 13"
    status.enter("evaluation")
    assert describe_work(status.row) == "evaluation after step 12"


def test_deaths():
    rows = [RankRow(process=10, rank=1), RankRow(process=20, rank=2)]
    assert describe_deaths(rows, "host") == (
        "rank 1 on host (process 10) in start-up, rank 2 on host (process 20) in start-up died; "
        "the job ends"
    )


def test_the_state_of_a_process():
    assert process_state(os.getpid()) == "running"
    assert process_state(2**30) == ""


def test_a_report_ends_with_one_new_line(capfd):
    write_report("of several\nlines\n\n")
    assert capfd.readouterr().err == "distnn: of several\nlines\n"
