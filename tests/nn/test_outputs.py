"""Eq. 18 and 19 of document 003, and the stable short forms."""

import numpy as np
import pytest

from distnn.errors import InputError
from distnn.nn import Network
from distnn.nn.losses import LOSSES
from distnn.nn.outputs import make_output


def softmax_by_definition(z):
    k = [np.exp(zi) for zi in z]
    return np.array([ki / sum(k) for ki in k])


def jacobian_of_softmax(z):
    """Eq. 18: k_i (k - k_i) / k^2 on the diagonal, -k_i k_j / k^2 beside it."""
    k_i = np.exp(z)
    k, n = k_i.sum(), len(z)
    H = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            H[i, j] = k_i[i] * (k - k_i[i]) / k**2 if i == j else -k_i[i] * k_i[j] / k**2
    return H


@pytest.fixture
def rows():
    rng = np.random.default_rng(5)
    return 2 * rng.standard_normal((6, 4)), rng.random((6, 4))


def run(output, loss, Z, T, scale=1.0):
    b, n = np.shape(Z)
    last = make_output(output, loss, (b,), n, "float64")
    last.Z[...] = Z
    D = np.empty((b, n))
    value = last.loss(np.asarray(T, float))
    last.sensitivity(np.asarray(T, float), D, scale)
    return value, last.A.copy(), D


@pytest.mark.parametrize(
    "loss", ["half-squared-error", "squared-error", "mean-absolute-error", "huber"]
)
def test_softmax_with_any_loss_uses_the_full_jacobian(loss, rows):
    Z, T = rows
    value, A, D = run("softmax", loss, Z, T, scale=0.5)
    rows_of_A = np.array([softmax_by_definition(z) for z in Z])
    r = rows_of_A - T
    expected_loss, g = {
        "half-squared-error": (0.5 * r**2, r),
        "squared-error": (r**2, 2 * r),
        "mean-absolute-error": (np.abs(r), np.sign(r)),
        "huber": (0.5 * r**2, r),  # |r| < 1 for probabilities
    }[loss]
    np.testing.assert_allclose(A, rows_of_A, rtol=1e-14)
    assert value == pytest.approx(expected_loss.sum(), rel=1e-13)
    expected = [0.5 * jacobian_of_softmax(z) @ gi for z, gi in zip(Z, g, strict=True)]
    np.testing.assert_allclose(D, expected, rtol=1e-10, atol=1e-15)


def test_equation_19_soft_labels(rows):
    """delta_i = a_i sum(y) - y_i, also where the labels do not sum to 1; by eq. 5 and 18 too."""
    Z, T = rows
    value, _, D = run("softmax", "cross-entropy", Z, T)
    A = np.array([softmax_by_definition(z) for z in Z])
    assert value == pytest.approx(-(T * np.log(A)).sum(), rel=1e-13)
    np.testing.assert_allclose(D, A * T.sum(1, keepdims=True) - T, rtol=1e-11, atol=1e-15)
    by_chain_rule = [jacobian_of_softmax(z) @ (-t / a) for z, t, a in zip(Z, T, A, strict=True)]
    np.testing.assert_allclose(D, by_chain_rule, rtol=1e-10, atol=1e-14)


def test_equation_19_one_hot(rows):
    """delta = a - y."""
    Z, _ = rows
    T = np.eye(4)[[0, 1, 2, 3, 1, 2]]
    _, A, D = run("softmax", "cross-entropy", Z, T)
    np.testing.assert_allclose(D, A - T, rtol=1e-14, atol=1e-16)


def test_general_forms_agree_with_the_short_ones(rows):
    """Document 003, eq. 2 and 3, and their like for binary cross-entropy."""
    Z, T = rows
    scratch = np.empty_like(Z), np.empty_like(Z)
    value, A, D = run("softmax", "cross-entropy", Z, T)
    g = np.empty_like(A)
    general = LOSSES["cross-entropy"]
    general.gradient(A, T, g)
    assert general.value(A, T, scratch) == pytest.approx(value, rel=1e-13)
    by_eq_5 = [jacobian_of_softmax(z) @ gi for z, gi in zip(Z, g, strict=True)]
    np.testing.assert_allclose(D, by_eq_5, rtol=1e-10, atol=1e-14)

    value, A, D = run("sigmoid", "binary-cross-entropy", Z, T)
    general = LOSSES["binary-cross-entropy"]
    general.gradient(A, T, g)
    assert general.value(A, T, scratch) == pytest.approx(value, rel=1e-13)
    np.testing.assert_allclose(D, g * A * (1 - A), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    ("output", "loss"), [("softmax", "cross-entropy"), ("sigmoid", "binary-cross-entropy")]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_far_out_net_inputs_stay_finite(output, loss, dtype):
    last = make_output(output, loss, (3,), 2, dtype)
    T = np.array([[1, 0], [0, 1], [1, 0]], dtype)
    last.Z[...] = [[1e4, -1e4], [1e4, -1e4], [-500, -500]]
    D = np.empty((3, 2), dtype)
    with np.errstate(over="ignore", under="ignore"):
        value = last.loss(T)
        last.sensitivity(T, D, 1.0)
    wrong_row = 2e4  # softmax: z_wrong - z_right; sigmoid: |z| twice
    even_row = np.log(2) if output == "softmax" else 500
    assert value == pytest.approx(wrong_row + even_row, rel=1e-6)
    np.testing.assert_allclose(D[:2], [[0, 0], [1, -1]], atol=1e-7)


@pytest.mark.parametrize(
    ("output", "loss", "n_out", "remedy"),
    [
        ("identity", "cross-entropy", 3, "output softmax"),
        ("sigmoid", "cross-entropy", 3, "binary-cross-entropy"),
        ("softmax", "binary-cross-entropy", 3, "loss cross-entropy"),
        ("tanh", "binary-cross-entropy", 3, "output sigmoid"),
        ("softmax", "cross-entropy", 1, "output sigmoid"),
        ("softmx", "cross-entropy", 3, "did you mean softmax"),
        ("softmax", "cross_entropy", 3, "did you mean cross-entropy"),
    ],
)
def test_pairs_without_sense_name_a_remedy(output, loss, n_out, remedy):
    with pytest.raises(InputError, match=remedy):
        Network([2, n_out], output=output, loss=loss)
