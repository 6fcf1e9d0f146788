"""What a step cannot do without: its products, its bytes, and the clock that times them."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distnn.diagnostics.roofline import (
    best,
    bytes_of_update,
    copy_seconds,
    product_seconds,
    products_of_pass,
)
from distnn.nn.network import Network

WIDTHS = st.lists(st.integers(2, 9), min_size=2, max_size=5)


@given(WIDTHS, st.integers(1, 30))
def test_products_of_a_pass(layers: list[int], rows: int) -> None:
    """Multiplications: b (1 + n_in) n_out forward and for dW, b n_in n_out for D of hidden ones."""
    pairs = list(pairwise(layers))
    with_bias = sum(2 * rows * (1 + n_in) * n_out for n_in, n_out in pairs)
    below = sum(rows * n_in * n_out for n_in, n_out in pairs[1:])
    for slices in (1, 3):
        found = products_of_pass(Network(layers), rows, slices)
        assert len(found) == 3 * len(pairs) - 1
        for way in (0, -1):
            whole = sum(count * m * k * n for count, (m, k, n) in (ways[way] for ways in found))
            assert whole == slices * (with_bias + below)


def test_products_of_a_network() -> None:
    assert products_of_pass(Network([784, 30, 10]), 16) == [
        [(1, (16, 785, 30))], [(1, (785, 16, 30))],
        [(1, (16, 31, 10))], [(1, (31, 16, 10))], [(1, (16, 10, 30))],
    ]  # fmt: skip
    assert products_of_pass(Network([784, 30]), 2, 8) == [
        [(8, (2, 785, 30)), (1, (16, 785, 30))], [(8, (785, 2, 30))],
    ]  # fmt: skip


def test_bytes_of_sgd_and_adam() -> None:
    size = 5 * 3 + 4 * 2  # of a network 4-3-2
    net = Network([4, 3, 2], dtype="float64")
    assert bytes_of_update(net, vectors=1, gradients=2) == 8 * size * (2 + 2)
    assert bytes_of_update(net, vectors=3, gradients=8) == 8 * size * (8 + 6)


@pytest.mark.parametrize("seconds", [0.001, 0.02])
def test_best_time_of_a_nap(seconds: float) -> None:
    assert seconds <= best(lambda: time.sleep(seconds)) < 20 * seconds


def test_more_work_takes_longer() -> None:
    net = Network([8, 8])
    assert 0 < product_seconds(8, 8, 8, net) < product_seconds(256, 256, 256, net)
    assert 0 < copy_seconds(1 << 12) < copy_seconds(1 << 26)
