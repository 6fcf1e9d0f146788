"""The death monitor reports which rank died, and ends those that a launcher leaves behind."""

import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from distnn.parallel.comm.status import StatusTable
from distnn.parallel.watchdog import death_monitor
from distnn.parallel.watchdog.robust_mutex import HAS_WAITERS

ROOT = Path(__file__).parents[2]
RANKS = 3
HELD = HAS_WAITERS | 4711
CHILD = """
import sys
from distnn.parallel.comm.status import StatusTable
from distnn.parallel.watchdog.robust_mutex import hold
node_rank = int(sys.argv[2])
table = StatusTable(int(sys.argv[1]), 3)
release = hold(table.mutexes[node_rank]) if sys.argv[3] == "mutexes" else lambda: None
print("ready", flush=True)
sys.stdin.readline()
table.rows[node_rank].done = 1
release()
sys.stdin.readline()
"""
MONITOR = """
import sys
from distnn.parallel.comm.status import StatusTable
from distnn.parallel.watchdog import death_monitor
death_monitor.LAUNCHER_SECONDS = death_monitor.NOTE_SECONDS = 0.1
death_monitor.LOOK_SECONDS = 3600
death_monitor.watch(StatusTable(int(sys.argv[1]), int(sys.argv[2])), sys.argv[3])
"""


class Node:
    """Three processes that stand for ranks, and their monitor."""

    def __init__(self, how):
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the node
        self.file.truncate(StatusTable.bytes(RANKS))
        self.table, self.how = StatusTable(self.file.fileno(), RANKS), how
        self.ranks = [self.start(CHILD, node_rank, how) for node_rank in range(RANKS)]
        for node_rank, process in enumerate(self.ranks):
            assert process.stdout.readline() == "ready\n"
            self.table.rows[node_rank].process = process.pid
            self.table.rows[node_rank].rank = 10 + node_rank

    def start(self, script, *arguments):
        command = [sys.executable, "-c", script, str(self.file.fileno()), *map(str, arguments)]
        return subprocess.Popen(
            command, pass_fds=[self.file.fileno()], cwd=ROOT, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def watch(self):
        """Start the monitor, and wait until it looks."""
        process = self.start(MONITOR, RANKS, "host")
        until = time.monotonic() + 10
        while not self.table.shared.monitored and time.monotonic() < until:
            time.sleep(0.01)
        return process


@pytest.fixture(params=["mutexes", "no mutexes"])
def node(request):
    one = Node(request.param)
    yield one
    for process in one.ranks:
        process.kill()
        process.communicate()
    one.file.close()


def test_who_died_is_reported_and_the_others_are_killed(node):
    process = node.watch()
    node.ranks[1].kill()
    _, report = process.communicate(timeout=10)
    pid = node.ranks[1].pid
    report = report.rstrip()  # of what makes a launcher look
    assert report == f"distnn: rank 11 on host (process {pid}) in start-up died; the job ends"
    assert [rank.wait(10) for rank in node.ranks] == [-9, -9, -9]


def test_who_was_dead_before_is_reported(node):
    node.ranks[2].kill()
    node.ranks[2].wait()
    _, report = node.watch().communicate(timeout=10)
    assert "rank 12 on host" in report
    assert "rank 11" not in report


def test_who_was_done_and_gone_before_is_not_reported(node):
    node.table.rows[2].done = 1
    node.ranks[2].kill()
    node.ranks[2].wait()
    process = node.watch()
    for row in node.table.rows:
        row.done = 1
    for rank in node.ranks:
        rank.kill()
    assert process.communicate(timeout=10)[1].strip() == ""
    assert process.returncode == 0


def test_who_was_done_is_not_reported(node):
    process = node.watch()
    for rank in node.ranks:
        rank.stdin.write("\n")
    until = time.monotonic() + 10
    while not all(row.done for row in node.table.rows) and time.monotonic() < until:
        time.sleep(0.01)
    for rank in node.ranks:
        rank.kill()
    assert process.communicate(timeout=10)[1].strip() == ""
    assert process.returncode == 0


def test_only_the_first_who_asks_reports(node):
    process = node.watch()
    assert node.table.claim_report()
    node.ranks[0].kill()
    assert process.communicate(timeout=10)[1].strip() == ""
    assert [rank.wait(10) for rank in node.ranks] == [-9, -9, -9]


def test_nobody_is_waited_for_who_releases_between_two_looks(node, monkeypatch):
    """That would be forever: nothing changes any more."""

    class Releases:
        """A mutex that is held at the first look alone."""

        def __init__(self):
            self.looks = iter([HELD])

        @property
        def state(self):
            return next(self.looks, 0)

    def wait_for_release(seen, seconds):
        waited_for.extend(state for _, state in seen)
        for row in node.table.rows:
            row.done = 1
        return bool(seen)

    waited_for = []
    table = SimpleNamespace(mutexes=[Releases() for _ in node.ranks], dead_rows=list)
    monkeypatch.setattr(death_monitor, "wait_for_release", wait_for_release)
    poll, alive = select.poll(), {}
    for rank, row in zip(node.ranks, node.table.rows, strict=True):
        alive[handle := os.pidfd_open(rank.pid)] = row
        poll.register(handle, select.POLLIN)
    assert death_monitor._first_dead(table, poll, alive) == []
    assert waited_for == [HELD] * 3


def test_a_launcher_that_notes_one_process_for_each_thing_written_notes_all(monkeypatch):
    """As MPICH's does. What it has not noted at the end it may take for exit code 0."""
    ended = [subprocess.Popen(["true"]) for _ in range(RANKS)]
    left, written = list(ended), []

    def note(data):
        written.append(data)
        left.pop().wait()

    monkeypatch.setattr(death_monitor, "write_error", note)
    death_monitor.outlast([process.pid for process in ended])
    assert (left, written) == ([], [b"\r"] * RANKS)


@pytest.mark.parametrize("beside", ["working directory", "package"])
def test_no_module_of_the_user_is_executed(tmp_path, monkeypatch, beside):
    """A file with the name of a standard module, where a script would import it from."""
    for name in ("typing", "select", "contextlib", "distnn"):
        (tmp_path / f"{name}.py").write_text("open('executed', 'w').close()\n")
    if beside == "package":
        (tmp_path / "distnn.py").unlink()
        (tmp_path / "distnn").symlink_to(death_monitor.PACKAGE)
        monkeypatch.setattr(death_monitor, "PACKAGE", tmp_path / "distnn")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with tempfile.TemporaryFile() as file:
        file.truncate(StatusTable.bytes(1))
        table = StatusTable(file.fileno(), 1)
        table.rows[0].process = os.getpid()
        monitor = death_monitor.Monitor("host")
        monitor.watch(table)
        until = time.monotonic() + 20
        while not table.shared.monitored and time.monotonic() < until:
            time.sleep(0.01)
        table.rows[0].done = 1
        monitor.close()
    assert table.shared.monitored
    assert not (tmp_path / "executed").exists()


def test_one_process_watches_over_one_table_after_the_other():
    monitor, processes = death_monitor.Monitor("host"), set()
    for _ in range(3):
        with tempfile.TemporaryFile() as file:
            file.truncate(StatusTable.bytes(1))
            table = StatusTable(file.fileno(), 1)
            table.rows[0].process = os.getpid()
            monitor.watch(table)
            until = time.monotonic() + 20
            while not table.shared.monitored and time.monotonic() < until:
                time.sleep(0.001)
            assert table.shared.monitored
            processes.add(monitor._process.pid)
            before = len(os.listdir(f"/proc/{monitor._process.pid}/fd"))
            table.rows[0].done = 1
    monitor.close()
    assert len(processes) == 1
    assert before < 10


def test_a_monitor_that_was_killed_is_started_again():
    monitor = death_monitor.Monitor("host")
    with tempfile.TemporaryFile() as file:
        file.truncate(StatusTable.bytes(1))
        table = StatusTable(file.fileno(), 1)
        table.rows[0].process, table.rows[0].done = os.getpid(), 1
        monitor.watch(table)
        monitor._process.kill()
        monitor._process.wait()
        monitor.watch(table)
        monitor.close()
    assert monitor._process.returncode == 0
