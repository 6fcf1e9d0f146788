import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distnn.errors import InputError
from distnn.nn.schedules import SCHEDULES, batch_factor, factor


def test_published_forms():
    assert [factor("constant", t, 8) for t in (1, 5, 8)] == [1, 1, 1]
    assert [factor("step", t, 8) for t in range(1, 9)] == [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]
    assert [factor("linear", t, 4) for t in range(1, 5)] == [1, 0.75, 0.5, 0.25]
    expected = [0.5 * (1 + math.cos(math.pi * done / 4)) for done in range(4)]
    assert [factor("cosine", t, 4) for t in range(1, 5)] == expected


@pytest.mark.parametrize("name", SCHEDULES)
def test_warm_up_rises_in_front(name):
    assert [factor(name, t, 12, warmup=4) for t in range(1, 6)] == [0.25, 0.5, 0.75, 1, 1]
    rest = [factor(name, t, 12, warmup=4) for t in range(5, 13)]
    assert rest == [factor(name, t, 8) for t in range(1, 9)]


@given(st.sampled_from(list(SCHEDULES)), st.integers(1, 500), st.integers(0, 600))
def test_factors_fall_from_one_and_stay_above_nothing(name, steps, warmup):
    factors = [factor(name, t, steps, min(warmup, steps)) for t in range(1, steps + 1)]
    assert all(0 < f <= 1 for f in factors)
    after = factors[min(warmup, steps) :]
    assert after == sorted(after, reverse=True)


def test_unknown_name():
    with pytest.raises(InputError, match="did you mean cosine"):
        factor("cosin", 1, 10)


def test_rates_by_batch_size():
    assert batch_factor("linear", 1024, 64) == 16
    assert batch_factor("sqrt", 1024, 64) == 4
    assert batch_factor("sqrt", 16, 64) == 0.5
    assert batch_factor(None, 1024, 64) == 1
