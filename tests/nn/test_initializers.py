import numpy as np
import pytest

from distnn.nn import INITIALIZERS, Network

VARIANCES = {  # for n_in = 300, n_out = 200
    "glorot": 2 / 500,
    "he": 2 / 300,
    "lecun": 1 / 300,
    "normal": 1.0,
}


@pytest.mark.parametrize("init", INITIALIZERS)
def test_moments(init):
    (W,) = Network([300, 200], init=init, dtype="float64").weights
    n = W[1:].size
    assert abs(W[1:].mean()) < 5 * np.sqrt(VARIANCES[init] / n)
    assert W[1:].var() == pytest.approx(VARIANCES[init], rel=5 * np.sqrt(2 / n))
    if init == "normal":
        assert W[0].var() == pytest.approx(1, rel=0.5)
    else:
        assert not W[0].any()


def test_glorot_bounds():
    (W,) = Network([300, 200], init="glorot", dtype="float64").weights
    r = np.sqrt(6 / 500)
    assert np.abs(W).max() <= r
    assert np.abs(W).max() > 0.9999 * r  # of 60,000 draws


@pytest.mark.parametrize(
    ("activation", "output", "inits"),
    [
        ("relu", "softmax", ["he", "glorot"]),
        ("tanh", "identity", ["glorot", "lecun"]),
        ("sigmoid", "sigmoid", ["glorot", "glorot"]),
        ("gelu", "relu", ["he", "he"]),
    ],
)
def test_by_activation(activation, output, inits):
    loss = "squared-error"
    drawn = Network([30, 20, 10], activation, output, loss).weights
    for l, init in enumerate(inits):
        named = Network([30, 20, 10], activation, output, loss, init=init).weights
        assert drawn[l].tobytes() == named[l].tobytes()


def test_drawn_from_seed_and_layer():
    one, same = Network([6, 5, 5, 5], seed=3), Network([6, 5, 5, 5], seed=3)
    assert one.vector.tobytes() == same.vector.tobytes()
    assert one.vector.tobytes() != Network([6, 5, 5, 5], seed=4).vector.tobytes()
    assert not np.array_equal(one.weights[1][1:] / one.weights[2][1:], np.ones((5, 5)))
    wide = Network([6, 5, 5, 9], seed=3, init="he")  # another last layer leaves the first two alone
    base = Network([6, 5, 5, 5], seed=3, init="he")
    assert wide.weights[1].tobytes() == base.weights[1].tobytes()


def test_precisions_start_at_the_same_weights():
    single, double = (Network([20, 30, 5], dtype=d).vector for d in ("float32", "float64"))
    assert single.tobytes() == double.astype("float32").tobytes()
