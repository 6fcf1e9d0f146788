"""Errors are one line that a terminal can show."""

import pytest

from distnn.errors import DistnnError, DivergenceError, InputError, StopRequested


def test_where_what_and_remedy_on_one_line() -> None:
    assert str(InputError("is\n  wrong", "a file", "mend\tit")) == "a file: is wrong; mend it"
    assert str(InputError("wrong")) == "wrong"


def test_what_a_damaged_file_holds_commands_no_terminal() -> None:
    assert str(InputError("no \x1b[2J column \x00", "ä.csv")) == r"ä.csv: no \x1b[2J column \x00"


@pytest.mark.parametrize(
    ("kind", "code"), [(DistnnError, 1), (InputError, 2), (DivergenceError, 3), (StopRequested, 75)]
)
def test_exit_codes(kind: type[DistnnError], code: int) -> None:
    assert kind("x").exit_code == code
