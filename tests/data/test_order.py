"""Epoch order: a permutation, from (seed, epoch) alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distnn.checks import LARGEST_SEED
from distnn.data.order import epoch_order, window_order, windows
from distnn.errors import InputError


@settings(deadline=None)
@given(n=st.integers(0, 500), seed=st.integers(0, LARGEST_SEED), epoch=st.integers(0, 2**40))
def test_a_permutation_from_its_arguments_alone(n, seed, epoch):
    order = epoch_order(n, seed, epoch)
    assert order.dtype == np.intp
    assert (np.sort(order) == np.arange(n)).all()
    np.random.default_rng(0).random(7)
    out = np.full(n, -1, np.intp)
    assert epoch_order(n, seed, epoch, out=out) is out
    assert (out == order).all()


def test_epochs_and_seeds_differ():
    orders = {tuple(epoch_order(50, s, e)) for s in (0, 1, LARGEST_SEED) for e in range(20)}
    assert len(orders) == 60


def test_every_place_is_equally_likely():
    firsts = np.bincount([epoch_order(10, 3, e)[0] for e in range(5000)], minlength=10)
    chi2 = ((firsts - 500) ** 2 / 500).sum()
    assert chi2 < 27.9  # 0.999 quantile for 9 degrees of freedom


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64])
def test_a_seed_out_of_range(seed):
    with pytest.raises(InputError, match=r"seed: .* must be at (least 0|most 9223372036854775807)"):
        epoch_order(3, seed, 0)


blocks = st.lists(st.integers(1, 40), min_size=1, max_size=60)


@given(sizes=blocks, least=st.integers(1, 200), seed=st.integers(0, 5), epoch=st.integers(0, 5))
def test_windows_hold_every_block_once_and_no_more_rows_than_needed(sizes, least, seed, epoch):
    found = windows(sizes, least, seed, epoch)
    assert sorted(np.concatenate(found).tolist()) == list(range(len(sizes)))
    for number, window in enumerate(found):
        rows = [sizes[block] for block in window]
        assert sum(rows[:-1]) < least  # without its last block it was not full
        assert sum(rows) >= least or number == len(found) - 1
    again = windows(sizes, least, seed, epoch)
    assert [w.tolist() for w in found] == [w.tolist() for w in again]


def test_windows_without_a_seed_are_in_the_order_of_the_file():
    assert [w.tolist() for w in windows([3, 3, 1, 5], 4, None, 7)] == [[0, 1], [2, 3]]


@given(n=st.integers(1, 300), seed=st.integers(0, LARGEST_SEED), window=st.integers(0, 2**40))
def test_the_rows_of_a_window_are_permuted_and_each_window_in_its_own_way(n, seed, window):
    order = window_order(n, seed, 3, window)
    assert (np.sort(order) == np.arange(n)).all()
    assert (window_order(n, seed, 3, window) == order).all()
    if n > 20:
        others = [window_order(n, seed, 3, window + 1), window_order(n, seed, 4, window)]
        assert not any((other == order).all() for other in (*others, epoch_order(n, seed, 3)))


def streamed_order(sizes, least, seed, epoch):
    """The order of rows over a whole epoch, restated."""
    starts = np.cumsum([0, *sizes])
    parts = []
    for number, window in enumerate(windows(sizes, least, seed, epoch)):
        rows = np.concatenate([np.arange(starts[b], starts[b + 1]) for b in window])
        parts.append(rows[window_order(len(rows), seed, epoch, number)])
    return np.concatenate(parts)


def test_every_row_is_equally_likely_at_every_tenth_of_an_epoch():
    """Chi-squared, 40 rows of different blocks x 10 places over 2,000 epochs, 9 degrees each."""
    sizes, least, epochs = [5] * 40, 50, 2000
    places = np.empty((epochs, 200), np.intp)
    for epoch in range(epochs):
        places[epoch, streamed_order(sizes, least, 11, epoch)] = np.arange(200)
    for row in range(0, 200, 5):
        counts = np.bincount(places[:, row] // 20, minlength=10)
        chi_squared = ((counts - epochs / 10) ** 2 / (epochs / 10)).sum()
        assert chi_squared < 33.7  # the 0.9999 quantile
    near = np.abs(places[:, 0] - places[:, 1])
    assert near.max() < 50 + 5  # rows of one block: in one window, and no farther apart
