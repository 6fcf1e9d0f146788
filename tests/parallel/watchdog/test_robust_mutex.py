"""The kernel marks a dead thread's numbers before its process's files are closed."""

import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from distnn.parallel.comm.status import LIFELINE, is_held, is_marked
from distnn.parallel.watchdog import robust_mutex
from distnn.parallel.watchdog.robust_mutex import await_change, hold

ROOT = Path(__file__).parents[2]
HOLDER = """
import mmap, sys, time
from distnn.parallel.comm.status import LIFELINE
from distnn.parallel.watchdog.robust_mutex import hold
numbers = memoryview(mmap.mmap(int(sys.argv[1]), 0)).cast("q")
let_go = hold(numbers[LIFELINE:])
print("held", flush=True)
sys.stdin.readline()
let_go()
"""


@pytest.fixture
def shared(tmp_path):
    """A page of two ranks' numbers, and what starts a process that holds the second's."""
    with (tmp_path / "page").open("w+b") as file:
        file.truncate(2 * 8 * LIFELINE)
        numbers = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")
        processes = []

        def start():
            processes.append(subprocess.Popen(
                [sys.executable, "-c", HOLDER, str(file.fileno())], pass_fds=[file.fileno()],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            ))  # fmt: skip
            if processes[-1].stdout.readline() != "held\n":
                pytest.skip("this system has no robust mutex that we know")
            return processes[-1]

        yield numbers[LIFELINE:], start
        for process in processes:
            process.kill()
            process.communicate()


def test_a_killed_process_leaves_its_mark_before_its_pipes_close(shared):
    """Those of a launcher: as soon as it can read the end of one, the mark is there."""
    numbers, start = shared
    assert not is_held(numbers[0])
    for _ in range(20):
        numbers[:] = memoryview(bytearray(8 * LIFELINE)).cast("q")
        process = start()
        assert is_held(numbers[0])
        assert not is_marked(numbers[0])
        process.send_signal(signal.SIGKILL)
        assert process.stdout.read() == ""
        assert is_marked(numbers[0])
        assert not is_held(numbers[0])


def test_who_lets_go_is_not_marked(shared):
    numbers, start = shared
    start().communicate("\n")
    assert not is_held(numbers[0])
    assert not is_marked(numbers[0])


@pytest.mark.parametrize("way", ["killed", "let go"])
def test_who_sleeps_is_woken(shared, way):
    numbers, start = shared
    process = start()
    woken = []

    def sleep():
        while is_held(numbers[0]):
            if not await_change([(numbers, numbers[0])], 60):
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
    assert is_marked(numbers[0]) == (way == "killed")


def test_nobody_sleeps_on_what_has_changed():
    numbers = memoryview(bytearray(8 * LIFELINE)).cast("q")
    begin = time.monotonic()
    assert await_change([(numbers, 7)], 60) in (True, False)
    assert time.monotonic() - begin < 5


def test_a_sleep_ends_by_itself():
    numbers = memoryview(bytearray(8 * LIFELINE)).cast("q")
    begin = time.monotonic()
    if not await_change([(numbers, 0)], 0.05):
        pytest.skip("this system has no futex_waitv")
    assert 0.04 <= time.monotonic() - begin < 5


@pytest.mark.parametrize("count", [0, 1000])
def test_what_the_system_does_not_take_is_told(count):
    numbers = memoryview(bytearray(8 * LIFELINE)).cast("q")
    assert not await_change([(numbers, 0)] * count, 60)


def test_another_order_of_a_mutex_s_parts_is_noticed(monkeypatch):
    numbers = memoryview(bytearray(8 * LIFELINE)).cast("q")
    monkeypatch.setattr(robust_mutex.threading, "get_native_id", lambda: os.getpid() + 2**29)
    assert hold(numbers) is None
    assert not is_held(numbers[0])
