"""Sleeping on a number: until woken, no longer than allowed, not at all if it has changed."""

import threading
import time

import numpy as np
import pytest

from distnn.parallel.comm.futex import Futex, has_futex

pytestmark = pytest.mark.skipif(not has_futex(), reason="this system has no futex that we know")


def test_a_sleep_ends_by_itself() -> None:
    numbers = np.zeros(16, np.int64)
    start = time.monotonic()
    Futex(numbers.data, 0.05).sleep(8, 0)
    assert 0.04 <= time.monotonic() - start < 5


def test_nobody_sleeps_on_a_number_that_has_changed() -> None:
    numbers = np.array([0, 7, 2**40 + 3], np.int64)
    futex, start = Futex(numbers.data, 60), time.monotonic()
    futex.sleep(1, 6)
    futex.sleep(2, 2**40 + 2)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("value", [0, 5, 2**31, 2**33 + 9, -1])
def test_who_sleeps_is_woken(value: int) -> None:
    numbers = np.full(16, value, np.int64)
    futex, woken = Futex(numbers.data, 60), []

    def sleep() -> None:
        while numbers[8] == value:
            futex.sleep(8, value)
        woken.append(time.monotonic())

    sleepers = [threading.Thread(target=sleep) for _ in range(3)]
    for thread in sleepers:
        thread.start()
    time.sleep(0.05)
    assert not woken
    start = time.monotonic()
    numbers[8] += 1
    futex.wake(8)
    for thread in sleepers:
        thread.join(10)
    assert len(woken) == 3
    assert max(woken) - start < 5
