"""The passes against the documents, numerical derivatives, and themselves in other slices."""

import tracemalloc
from itertools import pairwise
from math import cosh, tanh

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distnn.errors import InputError
from distnn.nn import ACTIVATIONS, LOSSES, OUTPUTS, Network, SlicePass
from distnn.nn.backprop import BackwardPass, Share
from distnn.nn.layout import grid


def test_worked_example_of_document_002():
    """x = 2, y = 1, three layers of tanh, squared error; every number by hand."""
    net = Network([1, 2, 1, 1], "tanh", output="tanh", loss="squared-error", dtype="float64")
    net.weights[0][...] = [[0.1, 0.2], [0.3, 0.4]]
    net.weights[1][...] = [[0.2], [1], [-3]]
    net.weights[2][...] = [[1], [2]]

    s1 = 0.1 + 0.3 * 2, 0.2 + 0.4 * 2
    x1 = tanh(s1[0]), tanh(s1[1])
    s2 = 0.2 + 1 * x1[0] - 3 * x1[1]
    x2 = tanh(s2)
    s3 = 1 + 2 * x2
    x3 = tanh(s3)
    d3 = 2 * (x3 - 1) / cosh(s3) ** 2  # tanh' = 1 / cosh^2, not by way of the output
    d2 = 2 * d3 / cosh(s2) ** 2
    d1 = 1 * d2 / cosh(s1[0]) ** 2, -3 * d2 / cosh(s1[1]) ** 2

    loss, gradients = net.loss_and_gradients([[2]], [[1]])

    assert net.forward([[2]])[0, 0] == pytest.approx(x3, rel=1e-14)
    assert loss == pytest.approx((x3 - 1) ** 2, rel=1e-14)
    expected = [[d1[0], d1[1]], [2 * d1[0], 2 * d1[1]]], [[d2], [x1[0] * d2], [x1[1] * d2]]
    np.testing.assert_allclose(gradients[0], expected[0], rtol=1e-13)
    np.testing.assert_allclose(gradients[1], expected[1], rtol=1e-13)
    np.testing.assert_allclose(gradients[2], [[d3], [x2 * d3]], rtol=1e-13)
    # and as the document prints them, rounded to two digits on the way
    np.testing.assert_allclose(gradients[0], [[-0.44, 0.88], [-0.88, 1.75]], atol=0.006)
    np.testing.assert_allclose(gradients[1], [[-0.69], [-0.42], [-0.53]], atol=0.006)
    np.testing.assert_allclose(gradients[2], [[-1.85], [1.67]], atol=0.006)


def pairs() -> list[tuple[str, str]]:
    """Every output and loss that go together."""
    fitting = []
    for output in OUTPUTS:
        for loss in LOSSES:
            try:
                Network([2, 3], output=output, loss=loss)
            except InputError:
                continue
            fitting.append((output, loss))
    return fitting


def check_by_central_differences(net: Network) -> None:
    """Directional derivatives of the mean loss: (f(w + hd) - f(w - hd)) / 2h (document 004)."""
    rng = np.random.default_rng([net.size, len(net.layers)])
    X = rng.standard_normal((5, net.layers[0]))
    T = 0.1 + 0.8 * rng.random((5, net.layers[-1]))
    w, h = net.vector.copy(), 1e-5
    _, gradients = net.loss_and_gradients(X, T)
    gradient = np.concatenate([g.ravel() for g in gradients])
    assert gradient.any()
    for _ in range(2):
        d = rng.standard_normal(net.size) + gradient / np.linalg.norm(gradient)
        d /= np.linalg.norm(d)
        net.vector[:] = w + h * d
        up, _ = net.loss_and_gradients(X, T)
        net.vector[:] = w - h * d
        down, _ = net.loss_and_gradients(X, T)
        net.vector[:] = w
        numeric, exact = (up - down) / (2 * h), gradient @ d
        assert abs(numeric - exact) < 1e-7 * max(abs(numeric), abs(exact))


def test_every_pair_is_tried():
    outputs, losses = zip(*pairs(), strict=True)
    assert set(outputs) == set(OUTPUTS)
    assert set(losses) == set(LOSSES)
    assert len(pairs()) == 9 * 4 + 2


@pytest.mark.parametrize("hidden", [[], [6], [6, 5]], ids=["1-layer", "2-layers", "3-layers"])
@pytest.mark.parametrize(("output", "loss"), pairs())
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_are_the_numerical_ones(activation, output, loss, hidden):
    net = Network([3, *hidden, 4], activation, output, loss, "float64", seed=4, init="normal")
    net.vector[:] *= 0.5  # away from saturation, where there is nothing to measure
    check_by_central_differences(net)


def test_batch_is_the_mean_of_its_items():
    net = Network([7, 6, 5, 4], "tanh", dtype="float64", seed=1)
    rng = np.random.default_rng(2)
    X, T = rng.standard_normal((9, 7)), rng.integers(0, 4, 9)
    loss, gradients = net.loss_and_gradients(X, T)
    singles = [net.loss_and_gradients(X[i : i + 1], T[i : i + 1]) for i in range(9)]
    assert loss == pytest.approx(np.mean([s[0] for s in singles]), rel=1e-13)
    for l, gradient in enumerate(gradients):
        np.testing.assert_allclose(gradient, np.mean([s[1][l] for s in singles], 0), rtol=1e-11)


def run_slice(net, rows, A0, T, dropout=None):
    """Loss, outputs and gradients of one slice, in a pass made for it."""
    run = SlicePass(net, rows)
    return run_again(run, A0, T, dropout)


def run_again(run, A0, T, dropout=None):
    dW = run.network.views(np.full(run.network.size, np.nan, run.network.dtype))
    loss = run.forward(A0, T, dropout)
    outputs = run.output.copy()
    run.backward(dW, 0.25)
    return loss, outputs, np.concatenate([g.ravel() for g in dW])


def same_bits(one, other):
    assert one[0] == other[0]
    assert one[1].tobytes() == other[1].tobytes()
    assert one[2].tobytes() == other[2].tobytes()


def random_slice(net, b, seed=0):
    rng = np.random.default_rng(seed)
    A0 = np.ones((b, 1 + net.layers[0]), net.dtype)
    A0[:, 1:] = rng.standard_normal((b, net.layers[0]))
    T = rng.random((b, net.layers[-1])).astype(net.dtype)
    return A0, T


@settings(max_examples=60, deadline=None)
@given(
    b=st.integers(1, 33),
    spare=st.integers(0, 40),
    offset=st.integers(0, 20),
    layers=st.lists(st.integers(1, 40), min_size=2, max_size=4),
    activation=st.sampled_from(list(ACTIVATIONS)),
    output=st.sampled_from(["softmax", "sigmoid", "identity"]),
    dtype=st.sampled_from(["float32", "float64"]),
    rate=st.sampled_from([0.0, 0.5]),
)
def test_bits_depend_on_rows_alone(b, spare, offset, layers, activation, output, dtype, rate):
    """Not on the size of the buffers, on where the rows lie in memory, or on what was before."""
    layers = [*layers[:-1], layers[-1] + 1]
    loss = {"softmax": "cross-entropy", "sigmoid": "binary-cross-entropy"}.get(output, "huber")
    net = Network(layers, activation, output, loss, dtype, dropout=rate)
    A0, T = random_slice(net, b)
    place = (3, 1)
    fresh = run_slice(net, b, A0, T, place)

    roomy = SlicePass(net, b + spare)
    run_again(roomy, *random_slice(net, b + spare, seed=1))
    same_bits(run_again(roomy, A0, T, place), fresh)

    roomy.input(b)[...] = A0
    roomy.target(b)[...] = T
    same_bits(run_again(roomy, roomy.input(b), roomy.target(b), place), fresh)

    data, targets = random_slice(net, offset + b + 3, seed=2)
    data[offset : offset + b], targets[offset : offset + b] = A0, T
    view = data[offset : offset + b], targets[offset : offset + b]
    same_bits(run_again(roomy, *view, place), fresh)


@settings(max_examples=150, deadline=None)
@given(
    k=st.integers(1, 9),
    b=st.integers(0, 20),
    layers=st.lists(st.integers(1, 40), min_size=2, max_size=4),
    activation=st.sampled_from(list(ACTIVATIONS)),
    pair=st.sampled_from(list(pairs())),
    dtype=st.sampled_from(["float32", "float64"]),
    rate=st.sampled_from([0.0, 0.5]),
)
def test_slices_of_a_stack_have_the_bits_they_have_alone(
    k, b, layers, activation, pair, dtype, rate
):
    layers = [*layers[:-1], layers[-1] + 1]
    net = Network(layers, activation, *pair, dtype, dropout=rate)
    slices = [random_slice(net, b, seed) for seed in range(k)]
    A0, T = (np.stack(arrays) for arrays in zip(*slices, strict=True))
    run = SlicePass(net, k * b)
    run.input(k, b)[...], run.target(k, b)[...] = A0, T
    numbers = [3 * i + 1 for i in range(k)]
    with np.errstate(all="ignore"):
        losses = run.forward(run.input(k, b), run.target(k, b), (5, numbers))
        outputs = run.output.copy()
        G = np.full((k, net.size), np.nan, dtype)
        run.backward(net.views(G), 0.25)
        for i, (one, number) in enumerate(zip(slices, numbers, strict=True)):
            alone = run_slice(net, b, *one, (5, number))
            stacked = losses[i], outputs[i], np.concatenate([g.ravel() for g in net.views(G[i])])
            np.testing.assert_equal(stacked[0], alone[0])  # both may be NaN
            assert stacked[1].tobytes() == alone[1].tobytes()
            assert stacked[2].tobytes() == alone[2].tobytes()


def test_two_stacks_in_the_same_buffers():
    net = Network([5, 7, 3], "gelu", dropout=0.3)
    first = SlicePass(net, 2 * 4 + 3)
    second = first.beside(2 * 4)
    shares, expected = [], []
    for run, shape, numbers in ((first, (2, 4), [0, 2]), (second, (3,), 1)):
        A0, T = run.input(*shape), run.target(*shape)
        A0[..., 1:] = np.random.default_rng(len(shape)).standard_normal((*shape, 5))
        T[...] = np.eye(3)[0]
        run.forward(A0, T, (1, numbers))
        G = np.full((*shape[:-1], net.size), np.nan, "f4")
        shares.append(Share(run.factors(A0), net.views(G), []))
        for i, number in enumerate(np.atleast_1d(numbers)):
            one = (A0[i], T[i]) if len(shape) > 1 else (A0, T)
            gradient = run_slice(net, shape[-1], *one, (1, int(number)))[2]
            expected.append((G[i] if len(shape) > 1 else G, gradient))
    BackwardPass([first, second], shares).run(0.25)
    for found, gradient in expected:
        assert found.tobytes() == gradient.tobytes()


@pytest.mark.parametrize("output", ["softmax", "identity"])
def test_empty_slice_adds_nothing(output):
    loss = "cross-entropy" if output == "softmax" else "squared-error"
    net = Network([3, 4, 2], output=output, loss=loss)
    run = SlicePass(net, 5)
    loss, outputs, gradient = run_again(run, run.input(0), run.target(0))
    assert loss == 0.0
    assert outputs.shape == (0, 2)
    assert not gradient.any()
    assert run.outputs(run.input(0)).shape == (0, 2)


def test_gradient_is_linear_in_scale_and_sums_over_slices():
    net = Network([5, 6, 3], "sigmoid", dtype="float64")
    A0, T = random_slice(net, 8)
    whole = run_slice(net, 8, A0, T)
    parts = [run_slice(net, 8, A0[i:j], T[i:j]) for i, j in ((0, 3), (3, 8))]
    assert whole[0] == pytest.approx(parts[0][0] + parts[1][0], rel=1e-13)
    np.testing.assert_allclose(whole[2], parts[0][2] + parts[1][2], rtol=1e-10, atol=1e-15)


def test_no_memory_is_taken_per_step():
    """A step may make views and numbers, but no array of the size of a layer."""
    net = Network([200, 300, 300, 10], "relu")
    run = SlicePass(net, 256)
    dW = net.views(np.empty(net.size, "f4"))
    A0, T = random_slice(net, 256)

    def step():
        run.forward(A0, T)
        run.backward(dW, 1 / 256)

    step()
    tracemalloc.start()
    step()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50_000  # numpy's casting buffers are 8,192 items; a layer is 307,200 bytes


def test_weights_can_move():
    """After ``place`` a pass computes with the new vector, forward and backward."""
    net, other = Network([4, 3, 2], "tanh", seed=1), Network([4, 3, 2], "tanh", seed=2)
    run = SlicePass(net, 6)
    A0, T = random_slice(net, 6)
    run_again(run, A0, T)
    net.bind(other.vector.copy())
    same_bits(run_again(run, A0, T), run_slice(other, 6, A0, T))


CUT = [140, 8400, 130, 10]  # W[1] and W[2] are cut, both ways


def blocks_of(net, kind):
    """Layer, block and where it begins and ends, in the order of a forward pass; kind 0: blocks of
    rows, 1: of columns."""
    return [
        (layer, block, lo, hi)
        for layer, shape in enumerate(net.shapes, 1)
        for block, (lo, hi) in enumerate(pairwise([0, *grid(shape, net.dtype.itemsize)[kind]]))
    ]


def in_backward_order(net):
    return sorted(blocks_of(net, 0), key=lambda found: (-found[0], found[1]))


@pytest.mark.parametrize("rows", [0, 1, 3, 64, 300])
def test_hooks_are_called_in_the_order_of_the_passes(rows):
    """Also for an empty slice."""
    net = Network(CUT)
    assert len(blocks_of(net, 0)) > 4
    assert len(blocks_of(net, 1)) > 4
    needed, complete = [], []
    run = SlicePass(net, 300)
    A0, T = random_slice(net, rows)
    run.forward(A0, T, None, lambda *block: needed.append(block))
    run.backward(net.views(np.empty(net.size, "f4")), 1.0, lambda *block: complete.append(block))
    assert needed == [found[:2] for found in blocks_of(net, 1)]
    assert complete == [found[:2] for found in in_backward_order(net)]
    run.forward(A0, T)
    run.backward(net.views(np.empty(net.size, "f4")), 1.0)
    assert len(needed) + len(complete) == len(blocks_of(net, 0)) + len(blocks_of(net, 1))


def test_weights_are_used_no_earlier_than_their_hook_is_called():
    """The weights come block by block, as if from another machine."""
    net, true = Network(CUT), Network(CUT, seed=5)
    run = SlicePass(net, 8)
    A0, T = random_slice(net, 8)
    columns = {found[:2]: slice(*found[2:]) for found in blocks_of(net, 1)}
    net.vector[:] = np.nan

    def arrive(layer, block):
        where = columns[layer, block]
        net.weights[layer - 1][:, where] = true.weights[layer - 1][:, where]

    loss = run.forward(A0, T, None, arrive)
    assert loss == SlicePass(true, 8).forward(A0, T)


@pytest.mark.parametrize("rows", [0, 8])
def test_a_gradient_is_complete_when_its_hook_is_called(rows):
    """Nothing of it changes later, and what is complete already may be used up."""
    net = Network(CUT, dropout=0.2)
    run = SlicePass(net, 8)
    A0, T = random_slice(net, rows)
    dW, sent = net.views(np.full(net.size, np.nan, "f4")), np.full(net.size, np.nan, "f4")
    places = {found[:2]: slice(*found[2:]) for found in blocks_of(net, 0)}

    def send(layer, block):
        rows_of_block = dW[layer - 1][places[layer, block]]
        net.views(sent)[layer - 1][places[layer, block]] = rows_of_block
        rows_of_block.fill(np.nan)

    run.forward(A0, T, (3, 0))
    run.backward(dW, 0.25, send)
    plain = net.views(np.full(net.size, np.nan, "f4"))
    run.forward(A0, T, (3, 0))
    run.backward(plain, 0.25)
    assert sent.tobytes() == np.concatenate([g.ravel() for g in plain]).tobytes()


@pytest.mark.parametrize("rows", [1, 3, 64, 300])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_in_blocks_are_the_products(rows, dtype):
    net = Network(CUT, "tanh", dtype=dtype)
    A0, T = random_slice(net, rows)
    T = np.eye(10, dtype=dtype)[T.argmax(axis=1)]
    run = SlicePass(net, 300)
    dW = net.views(np.full(net.size, np.nan, dtype))
    run.forward(A0, T)
    run.backward(dW, 1 / rows)
    A = [A0.astype(np.float64)]
    W = [w.astype(np.float64) for w in net.weights]
    for w in W[:-1]:
        A.append(np.hstack([np.ones((rows, 1)), np.tanh(A[-1] @ w)]))
    Z = A[-1] @ W[-1]
    Y = np.exp(Z - Z.max(1, keepdims=True))
    Y /= Y.sum(1, keepdims=True)
    close = {"rtol": 1e-3, "atol": 1e-6} if dtype == "float32" else {"rtol": 1e-9, "atol": 1e-13}
    np.testing.assert_allclose(run.output, Y, **close)
    D = (Y - T) / rows  # of softmax and cross-entropy
    for l in (3, 2, 1):
        np.testing.assert_allclose(dW[l - 1], A[l - 1].T @ D, **close)
        D = (D @ W[l - 1][1:].T) * (1 - A[l - 1][:, 1:] ** 2) if l > 1 else D


def test_a_gradient_in_blocks_is_the_numerical_one():
    net = Network(CUT, "tanh", dtype="float64", seed=3)
    draw = np.random.default_rng(2)
    X, T = draw.standard_normal((9, 140)), draw.integers(0, 10, 9)
    _, gradients = net.loss_and_gradients(X, T)
    for W, dW in zip(net.weights, gradients, strict=True):
        for _ in range(5):
            at = draw.integers(W.shape[0]), draw.integers(W.shape[1])
            value, step = W[at], 1e-5
            W[at] = value + step
            above, _ = net.loss_and_gradients(X, T)
            W[at] = value - step
            below, _ = net.loss_and_gradients(X, T)
            W[at] = value
            assert dW[at] == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-9)
