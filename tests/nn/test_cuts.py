"""Cut products are the products, and what is told of them is what happens."""

import numpy as np
import pytest

from distnn.nn.backprop import SlicePass
from distnn.nn.cuts import HookedPass
from distnn.nn.layout import blocks, grid
from distnn.nn.network import Network

LAYERS = [140, 8400, 130, 10]  # W[1] and W[2] are cut


class Log:
    """Traffic that only writes down what it is asked and told."""

    def __init__(self) -> None:
        self.needed: list[tuple[int, int]] = []
        self.announced: list[tuple[int, int]] = []

    def need(self, layer: int, block: int) -> None:
        self.needed.append((layer, block))

    def ready(self, layer: int, block: int) -> None:
        self.announced.append((layer, block))


def events(network: Network, kind: int) -> list[tuple[int, int]]:
    """(layer, block) in the order of layers; kind 0: blocks of rows, 1: of columns."""
    grids = [grid(shape, network.dtype.itemsize)[kind] for shape in network.shapes]
    return [(layer, block) for layer, ends in enumerate(grids, 1) for block in range(len(ends))]


@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [
        ((785, 128), [785], [128]),
        ((785, 512), [384, 785], [512]),
        ((785, 2048), [384, 785], [1024, 2048]),
        ((2049, 2048), [512, 1024, 1536, 2049], [1024, 2048]),
        ((300_000, 10), [64 * 1171, 64 * 2343, 64 * 3515, 300_000], [10]),
        ((1 + 60, 40_000), [61], [64 * 312, 40_000]),
    ],
)
def test_large_layers_are_cut_by_their_shape(
    shape: tuple[int, int], rows: list[int], columns: list[int]
) -> None:
    assert grid(shape, 4) == (rows, columns)


def test_blocks_lie_between_ends() -> None:
    assert blocks([5]) == [None]
    assert blocks([2, 3, 9]) == [slice(0, 2), slice(2, 3), slice(3, 9)]


@pytest.mark.parametrize("rows", [1, 3, 64, 300])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cut_products_are_the_products(rows: int, dtype: str) -> None:
    network = Network(LAYERS, dtype=dtype, activation="tanh", dropout=0.2)
    assert len(events(network, 0)) > 4
    assert len(events(network, 1)) > 4
    draw = np.random.default_rng(1)
    A0 = np.ones((rows, 141), dtype)
    A0[:, 1:] = draw.standard_normal((rows, 140))
    T = np.eye(10, dtype=dtype)[draw.integers(0, 10, rows)]
    log, results = Log(), []
    for a_pass in (SlicePass(network, 300), HookedPass(network, 300, log)):
        gradient = np.full(network.size, np.nan, dtype)
        dW = network.views(gradient)
        loss = a_pass.forward(A0, T, (3, 0))
        a_pass.backward(dW, 1 / rows)
        results.append((loss, gradient.tobytes()))
    assert results[0] == results[1]
    assert log.needed == events(network, 1)
    assert sorted(log.announced, key=lambda event: (-event[0], event[1])) == log.announced
    assert sorted(log.announced) == events(network, 0)

    A = A0.astype(np.float64)
    for W in network.weights[:-1]:
        A = np.hstack([np.ones((rows, 1)), np.tanh(A @ W)])
    run = SlicePass(network, rows)
    Z = A @ network.weights[-1]
    expected = np.exp(Z - Z.max(1, keepdims=True))
    expected /= expected.sum(1, keepdims=True)
    assert np.allclose(run.outputs(A0), expected, atol=1e-5 if dtype == "float32" else 1e-12)


def test_a_cut_gradient_is_the_gradient() -> None:
    network = Network(LAYERS, dtype="float64", activation="tanh", seed=3)
    draw = np.random.default_rng(2)
    X, T = draw.standard_normal((9, 140)), draw.integers(0, 10, 9)
    _, gradients = network.loss_and_gradients(X, T)
    for W, dW in zip(network.weights, gradients, strict=True):
        for _ in range(5):
            at = draw.integers(W.shape[0]), draw.integers(W.shape[1])
            value, step = W[at], 1e-5
            W[at] = value + step
            above, _ = network.loss_and_gradients(X, T)
            W[at] = value - step
            below, _ = network.loss_and_gradients(X, T)
            W[at] = value
            assert dW[at] == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-9)


def test_an_empty_slice_asks_and_tells_as_any_other() -> None:
    network = Network(LAYERS)
    log = Log()
    a_pass = HookedPass(network, 8, log)
    a_pass.forward(a_pass.input(0), a_pass.target(0))
    gradient = np.full(network.size, np.nan, np.float32)
    a_pass.backward(network.views(gradient), 1.0)
    assert not gradient.any()
    assert log.needed == events(network, 1)
    assert sorted(log.announced) == events(network, 0)


def test_what_is_not_the_steps_gradient_is_not_announced() -> None:
    network = Network(LAYERS)
    log = Log()
    a_pass = HookedPass(network, 8, log)
    a_pass.announces = False
    a_pass.forward(a_pass.input(8), a_pass.target(8))
    a_pass.backward(network.views(np.empty(network.size, np.float32)), 1.0)
    assert log.announced == []
