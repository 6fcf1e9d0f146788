"""Rows held out: their number, their classes, and that nothing else decides which they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distnn.data.rows import Rows
from distnn.data.split import held_out, selected
from distnn.errors import InputError


@given(n=st.integers(2, 300), share=st.floats(0.01, 0.99), seed=st.integers(0, 2**63 - 1))
def test_the_share_is_held_out(n: int, share: float, seed: int) -> None:
    mask = held_out(n, share, seed)
    assert mask.sum() == min(max(1, round(share * n)), n - 1)
    assert np.array_equal(mask, held_out(n, share, seed))


@given(
    counts=st.lists(st.integers(0, 60), min_size=1, max_size=8).filter(lambda c: max(c) > 1),
    share=st.floats(0.05, 0.95),
)
def test_each_class_gives_its_share_and_keeps_a_row(counts: list[int], share: float) -> None:
    classes = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
    mask = held_out(len(classes), share, 7, classes)
    held = np.bincount(classes[mask], minlength=len(counts))
    assert held.sum() >= 1
    for n, h in zip(counts, held.tolist(), strict=True):
        assert h <= max(n - 1, 0)
        assert abs(h - share * n) <= 1


def test_a_row_keeps_its_key_when_rows_are_added() -> None:
    few, many = held_out(1000, 0.5, 3), held_out(2000, 0.5, 3)
    assert (few == many[:1000]).mean() > 0.9  # only the limit between small and large keys moves


def test_every_row_is_as_likely() -> None:
    counts = sum(held_out(50, 0.2, seed).astype(int) for seed in range(2000))
    expected = 2000 * 0.2
    chi2 = ((counts - expected) ** 2 / (expected * 0.8)).sum()
    assert chi2 < 90  # 49 degrees of freedom: the chance of more is 0.0003


@pytest.mark.parametrize(("n", "classes"), [(1, None), (3, np.arange(3))])
def test_too_few_rows(n: int, classes: np.ndarray | None) -> None:
    with pytest.raises(InputError, match="too few to hold out"):
        held_out(n, 0.3, 0, classes)


def test_rows_taken_are_read_as_they_are_and_named_by_their_number() -> None:
    X = np.arange(12.0).reshape(6, 2)
    keep = np.array([False, True, True, False, False, True])
    rows = selected(Rows.of(X, "a file"), keep)
    assert np.array_equal(rows.read(), X[keep])
    assert rows.place(2, 1) == "row 5, column 1 (counted from 0)"
