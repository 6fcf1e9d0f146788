"""The kernel marks a dead rank's mutex before its process's files are closed."""

import ctypes
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from distnn.parallel.comm.futex import wait_for_release
from distnn.parallel.comm.status import CACHE_LINE, MutexRow, is_held, is_orphaned
from distnn.parallel.watchdog import robust_mutex
from distnn.parallel.watchdog.robust_mutex import hold

ROOT = Path(__file__).parents[2]
HOLDER = """
import mmap, sys, time
from distnn.parallel.comm.status import MutexRow, CACHE_LINE
from distnn.parallel.watchdog.robust_mutex import hold
release = hold(MutexRow.from_buffer(mmap.mmap(int(sys.argv[1]), 0), CACHE_LINE))
print("held", flush=True)
sys.stdin.readline()
release()
"""


@pytest.fixture
def shared(tmp_path):
    """The second of two mutexes in a file, and what starts a process that holds it."""
    with (tmp_path / "page").open("w+b") as file:
        file.truncate(2 * CACHE_LINE)
        mutex = MutexRow.from_buffer(mmap.mmap(file.fileno(), 0), CACHE_LINE)
        processes = []

        def start():
            processes.append(subprocess.Popen(
                [sys.executable, "-c", HOLDER, str(file.fileno())], pass_fds=[file.fileno()],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            ))  # fmt: skip
            if processes[-1].stdout.readline() != "held\n":
                pytest.skip("this system has no robust mutex that we know")
            return processes[-1]

        yield mutex, start
        for process in processes:
            process.kill()
            process.communicate()


def test_a_killed_process_leaves_its_mark_before_its_pipes_close(shared):
    """Those of a launcher: as soon as it can read the end of one, the mark is there."""
    mutex, start = shared
    assert not is_held(mutex.state)
    for _ in range(20):
        ctypes.memset(ctypes.byref(mutex), 0, CACHE_LINE)
        process = start()
        assert is_held(mutex.state)
        assert not is_orphaned(mutex.state)
        process.send_signal(signal.SIGKILL)
        assert process.stdout.read() == ""
        assert is_orphaned(mutex.state)
        assert not is_held(mutex.state)


def test_who_releases_is_not_marked(shared):
    mutex, start = shared
    start().communicate("\n")
    assert not is_held(mutex.state)
    assert not is_orphaned(mutex.state)


@pytest.mark.parametrize("way", ["killed", "released"])
def test_who_sleeps_is_woken(shared, way):
    mutex, start = shared
    process = start()
    woken = []

    def sleep():
        while is_held(mutex.state):
            if not wait_for_release([(mutex, mutex.state)], 60):
                return
        woken.append(time.monotonic())

    thread = threading.Thread(target=sleep)
    thread.start()
    thread.join(0.05)
    if not thread.is_alive() and not woken:
        pytest.skip("this system has no futex_waitv")
    assert not woken
    begin = time.monotonic()
    process.send_signal(signal.SIGKILL) if way == "killed" else process.communicate("\n")
    thread.join(10)
    assert woken[0] - begin < 5
    assert is_orphaned(mutex.state) == (way == "killed")


def test_nobody_sleeps_on_what_has_changed():
    mutex = MutexRow()
    begin = time.monotonic()
    assert wait_for_release([(mutex, 7)], 60) in (True, False)
    assert time.monotonic() - begin < 5


def test_a_sleep_ends_by_itself():
    mutex = MutexRow()
    begin = time.monotonic()
    if not wait_for_release([(mutex, 0)], 0.05):
        pytest.skip("this system has no futex_waitv")
    assert 0.04 <= time.monotonic() - begin < 5


@pytest.mark.parametrize("count", [0, 1000])
def test_what_the_system_does_not_take_is_returned(count):
    mutex = MutexRow()
    assert not wait_for_release([(mutex, 0)] * count, 60)


def test_another_order_of_a_mutex_s_parts_is_noticed(monkeypatch):
    mutex = MutexRow()
    monkeypatch.setattr(robust_mutex.threading, "get_native_id", lambda: os.getpid() + 2**29)
    assert hold(mutex) is None
    assert not is_held(mutex.state)
