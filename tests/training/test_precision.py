"""Training with bfloat16 products: as accurate as float32, and honest about how they are made."""

import logging

import numpy as np
import pytest

from distnn import SGD, Adam, Network, Trainer
from distnn.data.sources import DIGITS
from distnn.nn import onednn, products

SEEDS = 3


@pytest.fixture(autouse=True)
def numpy_again():
    yield
    products.use("numpy")


def test_accuracy_on_digits_is_that_of_float32() -> None:
    with np.load(DIGITS) as digits:
        x, y, x_test, y_test = (digits[k] for k in ("x_train", "y_train", "x_test", "y_test"))
    x, x_test = (rows.reshape(len(rows), -1) / 16 for rows in (x, x_test))
    means = {}
    for precision in ("float32", "bfloat16"):
        right = []
        for seed in range(SEEDS):
            net = Network([64, 64, 10], dtype=precision, seed=seed)
            Trainer(net, Adam(), slices=1, seed=seed, blas="numpy").fit(x, y, epochs=15)
            right.append(np.mean(net.predict(x_test) == y_test))
        means[precision] = np.mean(right)
    assert means["float32"] > 0.94
    assert abs(means["bfloat16"] - means["float32"]) < 0.003


def test_weights_and_state_are_float32() -> None:
    """An update smaller than what bfloat16 can add to a weight is not lost."""
    net = Network([1, 1], output="identity", loss="half-squared-error", dtype="bfloat16")
    net.weights[0][...] = [[0.0], [1.0]]
    trainer = Trainer(net, SGD(2.0**-12), batch_size=1, slices=1, blas="numpy")
    trainer.fit([[1.0]], [[2.0]], epochs=1)
    assert net.weights[0].dtype == np.float32
    assert net.weights[0].tolist() == [[2.0**-12], [1 + 2.0**-12]]


def test_one_line_says_when_products_are_float32(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Trainer(Network([2, 2], dtype="bfloat16"), blas="numpy", slices=1)
    (line,) = caplog.messages
    assert "products made in float32 by numpy" in line
    assert "--blas onednn" in line


@pytest.mark.parametrize("is_intel", [False, True])
def test_nothing_is_said_where_bfloat16_is_quick(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, is_intel: bool
) -> None:
    class WithoutAmx:
        name, has_amx, multiplies_bfloat16 = "oneDNN 3.2.0 avx512_core_bf16", False, True

    monkeypatch.setattr(onednn, "shared", WithoutAmx)
    monkeypatch.setattr(products, "_is_intel", lambda: is_intel)
    with caplog.at_level(logging.WARNING):
        Trainer(Network([2, 2], dtype="bfloat16"), blas="onednn", slices=1)
        Trainer(Network([2, 2]), blas="onednn", slices=1)
    assert len(caplog.messages) == is_intel
    assert all("take longer than float32's" in line for line in caplog.messages)


def test_no_instructions_by_an_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN without them multiplies float32: what is asked for is what can be said."""

    class Older:
        name, multiplies_bfloat16, product = "oneDNN 3.2.0 avx2", False, products.by_numpy

    monkeypatch.setattr(onednn, "shared", Older)
    products.use("onednn")
    assert products.arithmetic("bfloat16").dtype == np.float32
    assert "by oneDNN 3.2.0 avx2" in products.slow_precision_message("bfloat16")
