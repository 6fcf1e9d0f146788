"""How many slices there are, and what is said about it."""

import pytest

from distnn.errors import InputError
from distnn.training.slices import check_slices, chosen_slices, from_ranks_message


@pytest.mark.parametrize(
    ("slices", "batch_size", "ranks", "expected"),
    [
        (None, 64, 1, 8), (None, 64, 3, 8), (None, 64, 8, 8), (None, 64, 9, 9),
        (None, 5, 1, 5), (None, 5, 5, 5), (None, 5, 6, 6), (None, 1, 1, 1),
        (2, 64, 1, 2), (1, 64, 1, 1), (300, 64, 2, 300),
    ],
)  # fmt: skip
def test_eight_or_as_many_as_ranks(
    slices: int | None, batch_size: int, ranks: int, expected: int
) -> None:
    assert chosen_slices(slices, batch_size, ranks) == expected
    said = from_ranks_message(slices, batch_size, ranks)
    depends_on_ranks = chosen_slices(slices, batch_size, 1) != expected
    assert (f"--slices {ranks}" in said) == bool(said) == depends_on_ranks


def test_slices_and_ranks() -> None:
    check_slices(3, 3)
    check_slices(8, 3)
    with pytest.raises(InputError, match=r"3 ranks for 2 slices.*at most 2 ranks.*--slices 3"):
        check_slices(2, 3)
    with pytest.raises(InputError, match=r"at most 2 ranks, or begin another run with --slices 3"):
        check_slices(2, 3, recorded=True)
