import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distnn.errors import InputError
from distnn.nn import Network
from distnn.nn.network import ROWS_AT_ONCE


@given(st.lists(st.integers(1, 30), min_size=2, max_size=5), st.integers(1, 12))
def test_shapes(layers, b):
    net = Network(layers, output="identity", loss="squared-error")
    expected = [(1 + layers[l - 1], layers[l]) for l in range(1, len(layers))]
    assert [w.shape for w in net.weights] == expected
    assert net.size == sum(rows * columns for rows, columns in expected)
    X = np.zeros((b, layers[0]))
    assert net.forward(X).shape == (b, layers[-1])
    loss, gradients = net.loss_and_gradients(X, np.zeros((b, layers[-1])))
    assert isinstance(loss, float)
    assert [g.shape for g in gradients] == expected
    assert all(g.dtype == np.float32 for g in gradients)


def test_weights_are_writable_views_in_order():
    net = Network([2, 3, 2])
    net.vector[:] = np.arange(net.size)
    np.testing.assert_array_equal(net.weights[0], np.arange(9).reshape(3, 3))
    np.testing.assert_array_equal(net.weights[1], np.arange(9, 17).reshape(4, 2))
    net.weights[1][0, 1] = -1
    assert net.vector[10] == -1


def test_place_takes_the_content_as_it_is():
    net = Network([2, 3, 2])
    elsewhere = np.full(net.size, 0.25, "f4")
    net.bind(elsewhere)
    assert net.vector is elsewhere
    assert (net.weights[0] == 0.25).all()
    fresh = Network([2, 3, 2])
    net.draw(elsewhere)
    assert net.vector.tobytes() == fresh.vector.tobytes()


def test_forward_is_the_formula():
    net = Network([3, 4, 2], "tanh", "sigmoid", "binary-cross-entropy", "float64", init="normal")
    X = np.random.default_rng(0).standard_normal((5, 3))
    W1, W2 = net.weights
    hidden = np.tanh(X @ W1[1:] + W1[0])
    expected = 1 / (1 + np.exp(-(hidden @ W2[1:] + W2[0])))
    np.testing.assert_allclose(net.forward(X), expected, rtol=1e-13)


def test_forward_of_many_rows_and_of_none():
    net = Network([3, 4, 2], dtype="float64")
    X = np.random.default_rng(0).standard_normal((2 * ROWS_AT_ONCE + 5, 3))
    np.testing.assert_allclose(net.forward(X)[-7:], net.forward(X[-7:]), rtol=1e-12)
    assert net.forward(np.empty((0, 3))).shape == (0, 2)
    assert net.predict(np.empty((0, 3))).shape == (0,)


def test_predict():
    X = np.random.default_rng(0).standard_normal((20, 3))
    net = Network([3, 4], init="normal")
    np.testing.assert_array_equal(net.predict(X), net.forward(X).argmax(1))
    one = Network([3, 1], output="sigmoid", loss="binary-cross-entropy", init="normal")
    np.testing.assert_array_equal(one.predict(X), (one.forward(X)[:, 0] >= 0.5).astype(int))
    assert set(one.predict(X)) == {0, 1}
    real = Network([3, 2], output="identity", loss="squared-error", init="normal")
    np.testing.assert_array_equal(real.predict(X), real.forward(X))


def test_config_rebuilds_through_json():
    net = Network([3, 4, 2], "elu", "sigmoid", "binary-cross-entropy", "float64", 7, "he", 0.25)
    again = Network(**json.loads(json.dumps(net.config())))
    assert again.config() == net.config()
    assert again.vector.tobytes() == net.vector.tobytes()
    assert repr(net) == repr(again)
    assert repr(net).startswith("Network(layers=[3, 4, 2], activation='elu'")


def test_images_are_flattened():
    net = Network([6, 2])
    X = np.random.default_rng(0).standard_normal((4, 2, 3))
    assert net.forward(X).tobytes() == net.forward(X.reshape(4, 6)).tobytes()


def test_class_numbers_are_one_hot_rows():
    net = Network([2, 3])
    np.testing.assert_array_equal(net.targets([2, 0]), [[0, 0, 1], [1, 0, 0]])
    np.testing.assert_array_equal(net.targets(np.array([2.0, 0.0])), net.targets([2, 0]))
    np.testing.assert_array_equal(net.targets([True, False]), net.targets([1, 0]))
    X = np.eye(2)
    by_number, by_row = (
        net.loss_and_gradients(X, [2, 0]),
        net.loss_and_gradients(X, [[0, 0, 1], [1, 0, 0]]),
    )
    assert by_number[0] == by_row[0]


def test_real_targets_of_one_output_are_a_column():
    net = Network([2, 1], output="identity", loss="squared-error")
    np.testing.assert_array_equal(net.targets([0.5, 2]), [[0.5], [2]])


CLASSES = Network([2, 3])
BINARY = Network([2, 1], output="sigmoid", loss="binary-cross-entropy")


@pytest.mark.parametrize(
    ("net", "T", "says"),
    [
        (CLASSES, [0, 3], "item 1 is 3; class numbers are whole, from 0 to 2"),
        (CLASSES, [-1, 0], "item 0 is -1"),
        (CLASSES, [0, 1.5], "item 1 is 1.5"),
        (CLASSES, [[1, 0], [0, 1]], "the network has 3 outputs"),
        (CLASSES, [[1, 0, -1]], "cross-entropy takes targets from 0"),
        (CLASSES, [0, np.nan], "NaN"),
        (CLASSES, ["cat", "dog"], "give real numbers"),
        (CLASSES, np.array([0, None]), "give real numbers"),
        (CLASSES, 1, "single number"),
        (BINARY, [0, 2], "binary-cross-entropy takes targets from 0 to 1"),
        (BINARY, [[0, 1]], "the network has 1 outputs"),
    ],
)
def test_targets_that_do_not_fit(net, T, says):
    with pytest.raises(InputError, match=r"^targets: ") as caught:
        net.targets(T)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("X", "T", "says"),
    [
        (np.zeros((3, 4)), [0, 0, 0], "rows of 2 features"),
        (np.zeros(2), [0], "rows of 2 features"),
        (np.full((1, 2), np.inf), [0], "NaN or infinity"),
        (np.full((1, 2), 1e300), [0], "a number beyond the range of float32"),
        (np.zeros((3, 2)), [0, 0], "3 rows and 2 targets"),
        (np.zeros((0, 2)), [], "no rows"),
    ],
)
def test_rows_that_do_not_fit(X, T, says):
    with pytest.raises(InputError, match=r"^X: ") as caught:
        CLASSES.loss_and_gradients(X, T)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"layers": [4]}, "layers: "),
        ({"layers": [4, 0, 2]}, "layers: "),
        ({"layers": [4, 2.5]}, "layers: "),
        ({"layers": "43"}, "layers: "),
        ({"layers": 4}, "layers: "),
        ({"layers": [4] * 1003}, "layers: has 1003 widths"),
        ({"layers": [4, 2**31 - 1, 2**31 - 1, 2]}, "layers: "),
        ({"layers": [4, 2**31, 2]}, "layers: 2147483648 must be at most 2147483647"),
        ({"activation": "rleu"}, "activation: there is no 'rleu'; did you mean relu?"),
        ({"activation": "softmax"}, "activation: "),
        ({"activation": "leaky_relu"}, "did you mean leaky-relu?"),
        ({"loss": "crossentropy"}, "did you mean cross-entropy?"),
        ({"init": "xavier"}, "init: there is no 'xavier'; known: glorot, he, lecun, normal"),
        ({"dtype": "float16"}, "dtype: "),
        ({"dtype": "half precision"}, "dtype: "),
        ({"dtype": {"a": {}}}, "dtype: "),
        ({"dtype": None}, "dtype: "),
        ({"dtype": "9" * 5000}, "dtype: "),
        ({"seed": -1}, "seed: "),
        ({"seed": 0.5}, "seed: "),
        ({"seed": 2**63}, "seed: "),
        ({"dropout": 1.0}, "dropout: "),
        ({"dropout": "none"}, "dropout: "),
    ],
)
def test_bad_arguments(arguments, says):
    with pytest.raises(InputError) as caught:
        Network(**{"layers": [4, 3], **arguments})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
