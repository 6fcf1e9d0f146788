"""A thread works while its owner does something else, one at a time, and hides no error."""

import threading
import time
from collections.abc import Iterator

import pytest

from distnn.parallel.reduction.progress_thread import ProgressThread


class Work:
    """Counts calls, and sees whether two threads are in it at once."""

    def __init__(self) -> None:
        self.calls, self.inside, self.most = 0, 0, 0
        self.error: Exception | None = None

    def __call__(self) -> bool:
        self.inside += 1
        self.most = max(self.most, self.inside)
        time.sleep(0.0002)
        self.calls += 1
        self.inside -= 1
        if self.error is not None:
            raise self.error
        return self.calls % 3 != 0


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def progress(work: Work) -> Iterator[ProgressThread]:
    progress = ProgressThread(work)
    yield progress
    progress.close()
    assert "distnn progress" not in [thread.name for thread in threading.enumerate()]


def wait_until(condition) -> None:
    end = time.perf_counter() + 10
    while not condition():
        assert time.perf_counter() < end
        time.sleep(0.001)


def test_it_works_from_wake_to_rest(progress: ProgressThread, work: Work) -> None:
    time.sleep(0.02)
    assert work.calls == 0
    progress.wake()
    wait_until(lambda: work.calls > 10)
    progress.rest()
    time.sleep(0.05)
    calls = work.calls
    time.sleep(0.05)
    assert work.calls == calls


def test_two_threads_never_work_at_once(progress: ProgressThread, work: Work) -> None:
    progress.wake()
    for _ in range(100):
        progress.work(work)
    wait_until(lambda: work.calls > 120)
    assert work.most == 1


def test_an_error_in_the_thread_rises_in_its_owner(progress: ProgressThread, work: Work) -> None:
    work.error = RuntimeError("no route to host")
    progress.wake()
    wait_until(lambda: progress._error is not None)
    with pytest.raises(RuntimeError, match="no route to host"):
        progress.work(work)
