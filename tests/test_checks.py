"""Values that are accepted, and the words in which others are refused."""

from fractions import Fraction

import numpy as np
import pytest

from distnn import checks
from distnn.errors import InputError


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3)])
def test_whole_numbers(value):
    result = checks.number(value, "n", whole=True, least=3, most=3)
    assert (result, type(result)) == (3, int)


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.float64(0.5), Fraction(1, 2)])
def test_numbers(value):
    result = checks.number(value, "x", above=0, below=1)
    assert (result, type(result)) == (0.5, float)


@pytest.mark.parametrize(
    ("value", "bounds", "message"),
    [
        (True, {"whole": True}, "n: True is not a whole number"),
        (np.True_, {}, "n: True is not a number"),
        (2.0, {"whole": True}, "n: 2.0 is not a whole number"),
        ("2", {}, "n: '2' is not a number"),
        (None, {}, "n: None is not a number"),
        (1j, {}, "n: 1j is not a number"),
        (np.ones(2), {}, "n: [1. 1.] is not a number"),
        (float("nan"), {}, "n: nan is not a finite number"),
        (np.float32("inf"), {}, "n: inf is not a finite number"),
        (10**400, {}, "n: a number of that size is not a finite number"),
        (0, {"whole": True, "least": 1}, "n: 0 must be at least 1"),
        (0, {"above": 0}, "n: 0 must be above 0"),
        (2**63, {"whole": True, "most": 2**63 - 1}, f"n: {2**63} must be at most {2**63 - 1}"),
        (1, {"below": 1}, "n: 1 must be below 1"),
    ],
)
def test_numbers_refused(value, bounds, message):
    with pytest.raises(InputError) as caught:
        checks.number(value, "n", **bounds)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "whole", "expected"),
    [("12", True, 12), ("-1e-3", False, -0.001), ("1_0", True, "1_0"), ("١٢", True, "١٢"),
     ("1.5", True, "1.5"), ("1_0.5", False, "1_0.5"), ("x", False, "x"), ("", True, "")],
)  # fmt: skip
def test_numbers_from_text(text, whole, expected):
    result = checks.from_text(text, whole=whole)
    assert (result, type(result)) == (expected, type(expected))


KNOWN = ("--learning-rate", "--batch-size", "--run-dir")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("--lr", "did you mean --learning-rate?"),
        ("--batch_sze", "did you mean --batch-size?"),
        ("RUN-DIR", "did you mean --run-dir?"),
        ("--qwerty", "known: --learning-rate, --batch-size, --run-dir"),
        ("b", "known: --learning-rate, --batch-size, --run-dir"),
    ],
)
def test_nearest(name, remedy):
    assert checks.nearest(name, KNOWN) == remedy


@pytest.mark.parametrize("value", ["rely", None, 3, ["relu"], np.array(["relu"])])
def test_choice_refused(value):
    with pytest.raises(InputError, match=r"^h: there is no "):
        checks.choice(value, "h", ("relu", "tanh"))


def test_choice():
    assert checks.choice("relu", "h", {"relu": 1}) == "relu"


def test_instance():
    assert checks.instance(3, int, "n", "3") == 3
    with pytest.raises(InputError, match=r"^n: an object object is not a int; give one, as 3$"):
        checks.instance(object(), int, "n", "3")


def test_shown_is_short():
    assert checks.shown("a" * 99) == "'" + "a" * 56 + "..."
    assert checks.shown([10**5000]) == "a value of that size"
