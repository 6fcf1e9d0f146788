"""Each activation against its definition, restated with the math module."""

import math

import numpy as np
import pytest

from distnn.nn.activations import ACTIVATIONS, make_space

DEFINITIONS = {
    "sigmoid": lambda z: 1 / (1 + math.exp(-z)),
    "tanh": math.tanh,
    "relu": lambda z: max(z, 0.0),
    "leaky-relu": lambda z: z if z > 0 else 0.01 * z,
    "elu": lambda z: z if z > 0 else math.expm1(z),
    "gelu": lambda z: 0.5 * z * (1 + math.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))),
    "softplus": lambda z: math.log1p(math.exp(z)),
    "identity": lambda z: z,
}


def apply(name, Z, in_place=False):
    """A and h'(Z)."""
    Z = np.array(Z)
    h = ACTIVATIONS[name]
    A = Z if in_place else np.full_like(Z, np.nan)
    space = make_space(Z.shape, Z.dtype)
    space.scratch.fill(np.nan)
    h.value(Z, A, space)
    A = A.copy()
    D = np.ones_like(Z)
    h.times_derivative(D, A.copy(), Z, space)
    return A, D


def test_every_activation_is_tried():
    assert set(DEFINITIONS) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_value_is_the_definition(name, dtype):
    Z = np.linspace(-6, 6, 101).reshape(1, -1).astype(dtype)
    expected = [[DEFINITIONS[name](float(z)) for z in Z[0]]]
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(apply(name, Z)[0], expected, rtol=16 * eps, atol=8 * eps)
    assert apply(name, Z, in_place=True)[0].tobytes() == apply(name, Z)[0].tobytes()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivative_is_the_slope(name):
    Z, h = np.linspace(-5.95, 6.05, 61).reshape(1, -1), 1e-5
    slope = [[(DEFINITIONS[name](z + h) - DEFINITIONS[name](z - h)) / (2 * h) for z in Z[0]]]
    np.testing.assert_allclose(apply(name, Z)[1], slope, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_far_out_stays_finite(name, dtype):
    with np.errstate(over="ignore", under="ignore"):
        A, D = apply(name, np.array([[-1e4, -800, -90, 90, 800, 1e4]], dtype))
    assert np.isfinite(A).all()
    assert np.isfinite(D).all()


def test_gelu_is_close_to_its_exact_form():
    Z = np.linspace(-6, 6, 1001).reshape(1, -1)
    exact = [[0.5 * z * (1 + math.erf(z / math.sqrt(2))) for z in Z[0]]]
    np.testing.assert_allclose(apply("gelu", Z)[0], exact, atol=5e-4)


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "relu", "leaky-relu", "elu", "softplus"])
def test_not_a_number_is_passed_on(name):
    """A diverged run must not be hidden by its activations."""
    assert np.isnan(apply(name, np.array([[np.nan, -np.nan]]))[0]).all()
