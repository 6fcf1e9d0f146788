"""Rounding to bfloat16, against exact arithmetic on the two neighbours of a number."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distnn.parallel.reduction import wire
from distnn.parallel.reduction.wire import CHUNK, Bfloat16, Exact, make_wire

HARD = np.array([
    0x00000000, 0x80000000, 0x00000001, 0x80007FFF, 0x00008000, 0x00008001, 0x00018000, 0x007FFFFF,
    0x3F800000, 0x3F808000, 0x3F818000, 0x3F80FFFF, 0xBF808000, 0xBF808001, 0x7F7F0000, 0x7F7F7FFF,
    0x7F7F8000, 0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x7F800001, 0x7FC00000, 0x7FFF7FFF, 0x7FFF8000,
    0x7FFFFFFF, 0xFFFFFFFF, 0xFFFF8000, 0xFFC00000,
], np.uint32)  # fmt: skip


def nearest(number: np.float32) -> np.float32:
    """By distances, in float64, which holds all numbers here exactly; a tie to the even one."""
    if not np.isfinite(number):
        return number
    bits = int(number.view(np.uint32))
    below = bits & 0xFFFF0000  # towards 0
    above = below + 0x10000
    far, near = (np.uint32(one).view(np.float32) for one in (above, below))
    limit = math.copysign(2.0**128, number)  # what would follow the largest number
    above_by = abs((float(far) if np.isfinite(far) else limit) - float(number))
    below_by = abs(float(number) - float(near))
    if above_by == below_by:
        return near if (below >> 16) % 2 == 0 else far
    return near if below_by < above_by else far


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    """Equal to the bit, but that any NaN is one."""
    both = np.isnan(found) & np.isnan(expected)
    return bool((both | (found.view(np.uint32) == expected.view(np.uint32))).all())


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=30))
def test_to_the_nearest_number(patterns: list[int]) -> None:
    numbers = np.concatenate([HARD, np.array(patterns, np.uint32)]).view(np.float32)
    expected = np.array([nearest(number) for number in numbers], np.float32)
    Bfloat16().round(numbers)
    assert same(numbers, expected)
    assert not (numbers.view(np.uint32) & 0xFFFF).any()


@pytest.mark.parametrize("kinds", [*itertools.product(["vector", "message"], repeat=3)])
@pytest.mark.parametrize("shape", [(7,), (CHUNK + 5,), (0,), (3, 0), (5, 9), (70, 600), (1, 50)])
def test_a_sum_is_rounded_wherever_its_terms_and_it_stand(
    kinds: tuple[str, str, str], shape: tuple[int, ...]
) -> None:
    draw = np.random.default_rng(1)
    one = Bfloat16()
    left, right = (draw.standard_normal(shape).astype("f4") * 10**k for k in (0, 1))
    for term in (left, right):
        one.round(term)
    total = left + right
    one.round(total)
    places = [array(kind, shape) for kind in kinds]
    for term, place in zip((left, right), places, strict=False):
        one.copy(term, place)
    one.add(*places)
    found = np.full(shape, np.nan, np.float32)
    one.copy(places[2], found)
    assert same(found, total)


def array(kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """A vector's region, which may be some columns of a matrix; a message is in one piece."""
    if kind == "message":
        return np.zeros(shape, np.uint16)
    if len(shape) == 1:
        return np.zeros(shape, np.float32)
    return np.zeros((shape[0], shape[1] + 8), np.float32)[:, 3:-5]


def test_wide_rows_are_cut_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "CHUNK", 16)
    test_a_sum_is_rounded_wherever_its_terms_and_it_stand(("vector",) * 3, (5, 37))
    test_a_sum_is_rounded_wherever_its_terms_and_it_stand(("vector", "message", "vector"), (9, 5))


def test_wires_by_name() -> None:
    assert make_wire("float32", "f8").dtype == np.float64
    assert make_wire("bfloat16", "f4").dtype == np.uint16
    exact = np.array([1 + 2.0**-20], "f4")
    make_wire("float32", "f4").round(exact)
    assert exact[0] == 1 + 2.0**-20
    Exact("f4").add(exact, exact, exact)
    assert exact[0] == 2 + 2.0**-19
