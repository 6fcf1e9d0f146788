"""Scaling: the moments of textbooks, exact inverses, the same bits for a row wherever it stands."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distnn.data.scaling import Scaling
from distnn.errors import InputError


def with_ones(X, dtype):
    return np.column_stack([np.ones(len(X)), X]).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("source", ["u1", "i4", "?"])
def test_integers_are_divided_by_the_largest(dtype, source):
    X = with_ones(np.array([[0, 1], [1, 0], [1, 1]] if source == "?" else [[0, 5], [9, 16]]), dtype)
    scaling = Scaling.measure(X, source)
    expected = X[:, 1:] * X.dtype.type(1 if source == "?" else 1 / 16)
    scaling.apply(X)
    assert (X[:, 1:] == expected).all()
    assert (X[:, 0] == 1).all()
    assert (scaling.shift == 0).all()


def test_negative_integers_and_zeros():
    X = with_ones(np.array([[-8, 2], [4, 0]]), "float64")
    assert (Scaling.measure(X, "i2").scale == 1 / 8).all()
    assert (Scaling.measure(with_ones(np.zeros((3, 2)), "float32"), "u1").scale == 1).all()


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(2, 3000),
    k=st.integers(1, 60),
    exponent=st.integers(-100, 100),
    seed=st.integers(0, 99),
)
def test_real_features_get_mean_0_and_deviation_1(n, k, exponent, seed):
    random = np.random.default_rng(seed)
    X = with_ones(random.standard_normal((n, k)) * 10.0**exponent, "float64")
    scaling = Scaling.measure(X, "f8")
    np.testing.assert_allclose(1 / scaling.scale, X[:, 1:].std(axis=0), rtol=1e-12)
    scaling.apply(X)
    np.testing.assert_allclose(X[:, 1:].mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(X[:, 1:].std(axis=0), 1, rtol=1e-12)
    assert (X[:, 0] == 1).all()


def test_extreme_and_constant_columns():
    X = with_ones(np.array([[1e308, 0.1, 3, 0], [-1e308, 0.1, 3, 5e-324]] * 7), "float64")
    scaling = Scaling.measure(X, "f8")
    scaling.apply(X)
    assert np.isfinite(X).all()
    np.testing.assert_allclose(X[:2, 1], [1, -1])
    assert (X[:, 2:4] == 0).all()
    assert (scaling.scale[1:] == 1).all()


def test_a_row_gets_the_same_bits_anywhere():
    random = np.random.default_rng(1)
    X = with_ones(random.standard_normal((5001, 37)) * 3 + 100, "float32")
    scaling = Scaling.measure(X, "f4")
    whole = X.copy()
    scaling.apply(whole)
    for rows in (slice(17, 18), slice(100, 4900), slice(4999, None)):
        part = X[rows].copy()
        Scaling.from_arrays(scaling.arrays()).apply(part)
        assert (part == whole[rows]).all()
    again = Scaling.measure(np.asfortranarray(X).copy(order="C"), "f4")
    assert (again.scale == scaling.scale).all()
    assert (again.shift == scaling.shift).all()


def test_targets_there_and_back():
    Y = np.random.default_rng(2).standard_normal((100, 3)) * [1, 50, 1e6] + [0, 7, 1e7]
    scaling = Scaling.standardise(Y)
    scaled = Y.copy()
    scaling.apply_targets(scaled)
    np.testing.assert_allclose(scaled.std(axis=0), 1)
    scaling.undo(scaled)
    np.testing.assert_allclose(scaled, Y, rtol=1e-12)


def test_a_scaled_value_beyond_the_type():
    X = with_ones(np.array([[1e-30], [2e-30]]), "float32")
    scaling = Scaling.measure(X, "f4")
    with pytest.raises(InputError, match="beyond the range of float32; check"):
        scaling.apply(with_ones(np.array([[3e38]]), "float32"))


@pytest.mark.parametrize(
    ("shift", "scale"), [([0.0], [0.0]), ([np.nan], [1.0]), ([0.0], [1.0, 1.0]), ([[0.0]], [[1.0]])]
)
def test_damaged_arrays_are_refused(shift, scale):
    with pytest.raises(InputError, match="damaged"):
        Scaling.from_arrays({"shift": np.array(shift), "scale": np.array(scale)})
