"""The board: lines that others read, one right to speak, words for where a rank is."""

import os
import subprocess
import sys
import tempfile

import pytest

from distnn.errors import RankFailed
from distnn.parallel.comm import status as module
from distnn.parallel.comm.status import (
    FAILED,
    PROCESS,
    RANK,
    RankStatus,
    StatusTable,
    doing,
    place,
    state,
)


@pytest.fixture
def board():
    with tempfile.TemporaryFile() as file:
        file.truncate(StatusTable.bytes(3))
        yield StatusTable(file.fileno(), 3)


def test_only_one_may_tell(board):
    assert [board.claim() for _ in range(3)] == [True, False, False]


def test_a_claim_is_seen_by_another_process(board):
    os.set_inheritable(board.handle, True)
    code = "import sys; from distnn.parallel.comm.status import StatusTable; print(StatusTable(int(sys.argv[1]), 3).claim())"  # fmt: skip  # noqa: E501
    command = [sys.executable, "-c", code, str(board.handle)]
    answers = [
        subprocess.run(command, capture_output=True, text=True, check=True, close_fds=False).stdout
        for _ in range(2)
    ]
    assert answers == ["True\n", "False\n"]
    assert not board.claim()


def test_where_a_rank_is_in_words(board):
    here = RankStatus()
    here.line = board.line(1)
    here.line[RANK], here.line[PROCESS] = 7, 4711
    assert place(here.line, "host") == "rank 7 on host (process 4711) in start-up"
    here.enter("step")
    here.step(12)
    assert doing(board.line(1)) == "step 13"
    here.enter("evaluation")
    assert doing(board.line(1)) == "evaluation after step 12"
    assert doing(board.line(0)) == "start-up"


def test_every_change_is_a_movement(board):
    here = RankStatus()
    here.line = board.line(0)
    seen = [bytes(here.line)]
    for move in (lambda: here.enter("step"), lambda: here.step(1), here.moved):
        move()
        seen.append(bytes(here.line))
    assert len(set(seen)) == 4


def test_waiting_ends_with_its_context_whatever_happens():
    here = RankStatus()
    seen = []

    def fail():
        with here.waiting(), here.waiting():
            seen.append(here.line[module.WAITING])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [*seen, here.line[module.WAITING]] == [2, 0]


def test_check_names_the_rank_that_failed():
    here = RankStatus()
    here.check()
    here.common[FAILED] = 5 + 1
    with pytest.raises(RankFailed, match="rank 5 failed"):
        here.check()


def test_the_state_of_a_process():
    assert state(os.getpid()) == "running"
    assert state(2**30) == ""
