"""Rounding to bfloat16, against Python's own float arithmetic and by what the format allows."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distnn.errors import InputError
from distnn.nn import onednn
from distnn.nn.bfloat16 import LEAST_NORMAL, UNIT_ROUNDOFF, round_to_bfloat16


def library() -> onednn.OneDnn | None:
    try:
        return onednn.shared()
    except InputError:
        return None


ONEDNN = library()
LARGEST = float(np.float32(2.0**127 * (2 - 2.0**-7)))


def nearest(x: float) -> float:
    """x to 8 significant bits, ties to even, by Python's whole numbers of any size."""
    if math.isnan(x) or math.isinf(x) or x == 0:
        return x
    if abs(x) < LEAST_NORMAL:
        return math.copysign(0.0, x)
    fraction, exponent = math.frexp(x)  # 0.5 <= |fraction| < 1
    rounded = math.ldexp(round(math.ldexp(fraction, 8)), exponent - 8)  # round: ties to even
    return math.copysign(math.inf, x) if abs(rounded) > LARGEST else rounded


def by_numpy(X):
    out = np.empty_like(X)
    round_to_bfloat16(X, out)
    return out


def by_onednn(X):
    out = np.empty(X.shape, np.uint16)
    ONEDNN.round(X, out)
    return (out.astype(np.uint32) << 16).view(np.float32)


needs_instructions = pytest.mark.skipif(
    ONEDNN is None or not ONEDNN.multiplies_bfloat16, reason="no oneDNN with bfloat16 instructions"
)
WAYS = [by_numpy, pytest.param(by_onednn, marks=needs_instructions)]

SPECIAL = [
    0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan,
    1 + 2.0**-8, 1 + 3 * 2.0**-8, 1 + 2.0**-8 + 2.0**-23, -(1 + 2.0**-8),  # ties, and beside one
    2.0**-126, 2.0**-126 * (1 - 2.0**-23), 2.0**-149, -(2.0**-149),  # around the least normal one
    LARGEST, float(np.finfo(np.float32).max), -float(np.finfo(np.float32).max),
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_to_nearest_with_ties_to_even(way):
    @given(st.lists(st.floats(width=32), min_size=1, max_size=40))
    def check(values):
        X = np.array(values, np.float32)
        expected = np.array([nearest(float(x)) for x in X], np.float32)
        rounded = way(X)
        assert np.array_equal(rounded, expected, equal_nan=True)
        signs = np.signbit(rounded) == np.signbit(expected)  # of zeros as well; NaN has none
        assert (signs | np.isnan(X)).all()

    check()
    X = np.array(SPECIAL, np.float32)
    assert np.array_equal(way(X), [nearest(x) for x in SPECIAL], equal_nan=True)


@pytest.mark.parametrize("way", WAYS)
def test_within_the_unit_roundoff_and_exact_on_its_own_numbers(way):
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((50, 30)) * 10.0 ** rng.integers(-30, 30, (50, 30))).astype("f4")
    rounded = way(X)
    assert (abs(rounded.astype("f8") - X) <= UNIT_ROUNDOFF / (1 + UNIT_ROUNDOFF) * abs(X)).all()
    assert np.array_equal(way(rounded), rounded)


@pytest.mark.parametrize("way", WAYS)
def test_every_nan_stays_one(way):
    bits = np.array([0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0xFF800001, 0x7FC00000], np.uint32)
    assert np.isnan(way(bits.view(np.float32))).all()


@needs_instructions
def test_both_ways_give_the_same_bits_of_parts_of_matrices():
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2**32, (40, 70), np.uint32, endpoint=False).view(np.float32)
    X = np.where(np.isnan(bits), np.float32(0), bits)
    ours, theirs = np.zeros((40, 71), "f4"), np.zeros((40, 71), "u2")
    round_to_bfloat16(X, ours[:, 1:])
    ONEDNN.round(X, theirs[:, 1:])
    assert np.array_equal(ours.view("u4") >> 16, theirs)
    stack, rounded = X.reshape(4, 10, 70), np.zeros((4, 10, 71), "u2")
    ONEDNN.round(stack, rounded[..., 1:])
    assert np.array_equal(rounded.reshape(40, 71), theirs)
