"""Epoch order: a permutation, from (seed, epoch) alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distnn.checks import LARGEST_SEED
from distnn.data.order import epoch_order
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
