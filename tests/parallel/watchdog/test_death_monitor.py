"""The witness tells which rank died, and ends those that a launcher leaves behind."""

import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from distnn.parallel.comm.status import ENDED, PROCESS, RANK, WITNESSED, StatusTable
from distnn.parallel.watchdog import death_monitor, robust_mutex

ROOT = Path(__file__).parents[2]
RANKS = 3
CHILD = """
import sys
from distnn.parallel.comm.status import StatusTable, ENDED
from distnn.parallel.watchdog.robust_mutex import hold
node_rank = int(sys.argv[2])
board = StatusTable(int(sys.argv[1]), 3)
let_go = hold(board.lifeline(node_rank)) if sys.argv[3] == "marks" else lambda: None
print("here", flush=True)
sys.stdin.readline()
board.line(node_rank)[ENDED] = 1
let_go()
sys.stdin.readline()
"""
WITNESS = """
import sys
from distnn.parallel.watchdog import death_monitor
death_monitor.PATIENCE = 0.1
death_monitor.LOOK_SECONDS = 3600
death_monitor.main(*sys.argv[1:])
"""


class Node:
    """Three processes that stand for ranks, and their witness."""

    def __init__(self, how):
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the node
        self.file.truncate(StatusTable.bytes(RANKS))
        self.board, self.how = StatusTable(self.file.fileno(), RANKS), how
        self.ranks = [self.start(CHILD, node_rank, how) for node_rank in range(RANKS)]
        for node_rank, process in enumerate(self.ranks):
            assert process.stdout.readline() == "here\n"
            self.board.line(node_rank)[PROCESS] = process.pid
            self.board.line(node_rank)[RANK] = 10 + node_rank

    def start(self, script, *arguments):
        command = [sys.executable, "-c", script, str(self.file.fileno()), *map(str, arguments)]
        return subprocess.Popen(
            command, pass_fds=[self.file.fileno()], cwd=ROOT, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def watch(self):
        """Start the witness, and wait until it looks."""
        process = self.start(WITNESS, RANKS, "host")
        until = time.monotonic() + 10
        while not self.board.common[WITNESSED] and time.monotonic() < until:
            time.sleep(0.01)
        return process


@pytest.fixture(params=["marks", "no marks"])
def node(request):
    one = Node(request.param)
    yield one
    for process in one.ranks:
        process.kill()
        process.communicate()
    one.file.close()


def test_who_died_is_told_and_the_others_are_ended(node):
    process = node.watch()
    node.ranks[1].kill()
    _, told = process.communicate(timeout=10)
    pid = node.ranks[1].pid
    assert told == f"distnn: rank 11 on host (process {pid}) in start-up died; the job ends\n"
    assert [rank.wait(10) for rank in node.ranks] == [-9, -9, -9]


def test_who_was_dead_before_is_told(node):
    node.ranks[2].kill()
    node.ranks[2].wait()
    _, told = node.watch().communicate(timeout=10)
    assert "rank 12 on host" in told
    assert "rank 11" not in told


def test_who_ends_in_turn_is_not_told(node):
    process = node.watch()
    for rank in node.ranks:
        rank.stdin.write("\n")
    until = time.monotonic() + 10
    while not all(line[ENDED] for line in node.board.lines()) and time.monotonic() < until:
        time.sleep(0.01)
    for rank in node.ranks:
        rank.kill()
    assert process.communicate(timeout=10)[1] == ""
    assert process.returncode == 0


def test_only_the_first_who_asks_tells(node):
    process = node.watch()
    assert node.board.claim()
    node.ranks[0].kill()
    assert process.communicate(timeout=10)[1] == ""
    assert [rank.wait(10) for rank in node.ranks] == [-9, -9, -9]


def test_nobody_is_waited_for_who_lets_go_between_two_looks(node, monkeypatch):
    """That would be forever: nothing changes any more."""

    class LetsGo:
        def __init__(self):
            self.looks = iter([robust_mutex.AWAITED | 4711])

        def __getitem__(self, number):
            return next(self.looks, 0)

    def await_change(seen, seconds):
        waited_for.extend(value for _, value in seen)
        for rank in node.ranks:
            rank.kill()
        return bool(seen)

    waited_for = []
    monkeypatch.setattr(node.board, "lifelines", lambda: lifelines)
    monkeypatch.setattr(node.board, "dying", list)
    monkeypatch.setattr(robust_mutex, "await_change", await_change)
    lifelines = [LetsGo() for _ in node.ranks]
    poll, alive = select.poll(), {}
    for rank, line in zip(node.ranks, node.board.lines(), strict=True):
        line[ENDED] = 1
        alive[handle := os.pidfd_open(rank.pid)] = line
        poll.register(handle, select.POLLIN)
    assert death_monitor._first_dead(node.board, poll, alive) == []
    assert waited_for == [robust_mutex.AWAITED | 4711] * 3
