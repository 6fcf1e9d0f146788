import numpy as np
import pytest

from distnn.nn import Network, SlicePass
from distnn.nn.dropout import Dropout


def mask(rate=0.3, seed=1, place=(5, 2, 1), shape=(200, 300), dtype="float32"):
    M = np.empty(shape, dtype)
    Dropout(rate, seed).draw(*place, M)
    return M


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_statistics(rate, dtype):
    M = mask(rate, dtype=dtype)
    kept = M != 0
    np.testing.assert_allclose(M[kept], 1 / (1 - rate), rtol=1e-6)
    assert kept.mean() == pytest.approx(1 - rate, abs=5 * np.sqrt(rate * (1 - rate) / M.size))
    # no row or column is favoured
    for axis in (0, 1):
        n = M.shape[axis]
        assert np.abs(kept.mean(axis) - (1 - rate)).max() < 6 * np.sqrt(rate * (1 - rate) / n)


def test_drawn_from_its_place_alone():
    drops = Dropout(0.3, 1)
    M = np.empty((200, 300), "float32")
    for place in ((9, 9, 9), (5, 2, 1)):
        drops.draw(*place, M)
    assert M.tobytes() == mask().tobytes()
    others = [mask(seed=2), *(mask(place=p) for p in ((6, 2, 1), (5, 3, 1), (5, 2, 2)))]
    for other in others:
        agreement = ((other != 0) == (M != 0)).mean()
        assert agreement == pytest.approx(0.7**2 + 0.3**2, abs=0.02)


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid", "gelu", "softplus"])
def test_gradient_with_dropout(activation):
    """Central differences with the masks held: the same (step, slice) draws the same."""
    net = Network([4, 8, 7, 3], activation, dtype="float64", seed=2, dropout=0.4, init="normal")
    net.vector[:] *= 0.5
    rng = np.random.default_rng(0)
    run = SlicePass(net, 6)
    A0, T = run.input(6), run.target(6)
    A0[:, 1:] = rng.standard_normal((6, 4))
    T[...] = rng.random((6, 3))
    dW = net.views(np.empty(net.size))
    without = run.forward(A0, T)
    assert run.forward(A0, T, dropout=(7, 1)) != without
    run.backward(dW, 1.0)
    d = rng.standard_normal(net.size)
    d /= np.linalg.norm(d)
    w, h = net.vector.copy(), 1e-5
    net.vector[:] = w + h * d
    up = run.forward(A0, T, dropout=(7, 1))
    net.vector[:] = w - h * d
    down = run.forward(A0, T, dropout=(7, 1))
    exact = np.concatenate([g.ravel() for g in dW]) @ d
    assert (up - down) / (2 * h) == pytest.approx(exact, rel=1e-7)


def test_mean_over_masks_is_the_undropped_net_input():
    """Inverted dropout: what a layer passes on is right on average."""
    net = Network([3, 50, 2], "tanh", "identity", "squared-error", "float64", dropout=0.5)
    run = SlicePass(net, 4)
    A0 = run.input(4)
    A0[:, 1:] = np.random.default_rng(1).standard_normal((4, 3))
    plain = run.outputs(A0).copy()
    T, mean = run.target(4), np.zeros((4, 2))
    for step in range(4000):
        run.forward(A0, T, dropout=(step, 0))
        mean += run.output / 4000
    np.testing.assert_allclose(mean, plain, atol=0.06)


def test_prediction_drops_nothing():
    kept, dropped = (Network([3, 9, 2], dropout=rate) for rate in (0.0, 0.6))
    X = np.random.default_rng(0).standard_normal((5, 3))
    assert kept.forward(X).tobytes() == dropped.forward(X).tobytes()
    assert (
        kept.loss_and_gradients(X, [0, 1, 0, 1, 0])[0]
        == (dropped.loss_and_gradients(X, [0, 1, 0, 1, 0])[0])
    )
