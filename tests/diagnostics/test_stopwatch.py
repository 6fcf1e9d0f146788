"""Each second is counted once."""

import time

import pytest

from distnn.diagnostics.stopwatch import Stopwatch


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves when it is told to."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def pass_by(seconds):
        now[0] += seconds

    return pass_by


def test_inner_time_is_not_the_outers(clock):
    watch = Stopwatch()
    inner = watch.around("inner", lambda: clock(3))

    def work():
        clock(1)
        inner()
        clock(0.5)
        inner()
        return "done"

    outer = watch.around("outer", work)
    assert outer() == "done"
    assert watch.seconds == {"inner": 6, "outer": 1.5}
    watch.reset()
    assert watch.seconds == {"inner": 0, "outer": 0}


def test_an_exception_passes_and_its_time_counts(clock):
    watch = Stopwatch()

    def fail():
        clock(2)
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        watch.around("part", fail)()
    assert watch.seconds == {"part": 2}
