"""Moments in one pass against those in two."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distnn.data.moments import Moments
from distnn.data.scaling import Scaling


def moments(Y, cuts):
    found = Moments(Y.shape[1])
    for block in np.split(Y, sorted(set(cuts))):
        if len(block):
            found.add(block)
    return found


@given(cuts=st.lists(st.integers(0, 500), max_size=9), size=st.integers(-250, 250))
def test_as_two_passes_over_all_rows_have_it(cuts, size):
    rng = np.random.default_rng(3)
    Y = (rng.normal(size=(500, 4)) + np.array([0, 5, -1e6, 1e-3])) * 10.0**size
    Y[:, 3] = 7.5
    two, one = Scaling.standardise(Y), moments(Y, cuts).scaling(np.float64)
    np.testing.assert_allclose(one.scale, two.scale, rtol=1e-7)
    np.testing.assert_allclose(one.shift[1:], two.shift[1:], rtol=1e-12)
    assert abs(one.shift[0] - two.shift[0]) * two.scale[0] < 1e-12
    assert one.shift[3] == 7.5
    assert one.scale[3] == 1


def test_columns_of_very_different_size_in_different_blocks():
    Y = np.array([[1e-300], [2e-300], [1e300], [-1e300]])
    one, two = moments(Y, [2]).scaling(np.float64), Scaling.standardise(Y)
    np.testing.assert_allclose(one.scale, two.scale, rtol=1e-14)
    assert np.isfinite(one.shift).all()


@pytest.mark.parametrize("source", [np.uint8, np.float32])
@pytest.mark.parametrize("mask", [None, [True, False, True]])
def test_features_are_scaled_as_those_in_memory(source, mask):
    X = np.ones((60, 4), np.float32)
    X[:, 1:] = np.random.default_rng(0).integers(0, 255, (60, 3))
    mask = None if mask is None else np.array(mask)
    two = Scaling.measure(X, source, mask)
    one = moments(X[:, 1:], [7, 31]).feature_scaling(source, np.float32, mask)
    np.testing.assert_allclose(one.shift, two.shift, rtol=1e-6)
    np.testing.assert_allclose(one.scale, two.scale, rtol=1e-6)
