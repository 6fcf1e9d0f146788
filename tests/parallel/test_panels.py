"""Panels cover every matrix of a vector once, and cut products have the bits of whole ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distnn.nn.backprop import SlicePass
from distnn.nn.cuts import CutPass
from distnn.nn.network import Network
from distnn.parallel.panels import PANEL, columns, cut

SHAPES = st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 500)), min_size=1, max_size=4)


@given(SHAPES, st.sampled_from([4, 8]))
def test_each_weight_lies_in_one_panel(shapes: list[tuple[int, int]], itemsize: int) -> None:
    count = np.zeros(sum(rows * columns for rows, columns in shapes), np.int8)
    for panel in cut(shapes, itemsize):
        view = panel.view(count)
        assert view.shape == panel.shape
        assert itemsize * view.size <= max(PANEL, 64 * panel.rows * itemsize)
        view += 1
    assert (count == 1).all()


class Log:
    """Traffic that only writes down what it is asked and told."""

    def __init__(self) -> None:
        self.needed: list[int] = []
        self.announced: list[int] = []

    def need(self, number: int) -> None:
        self.needed.append(number)

    def ready(self, number: int) -> None:
        self.announced.append(number)

    def poke(self) -> None:
        pass


@pytest.mark.parametrize("rows", [1, 7, 64, 300])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cut_passes_have_the_bits_of_whole_ones(rows: int, dtype: str) -> None:
    network = Network([70, 2100, 130, 10], dtype=dtype, dropout=0.2)
    panels = cut(network.shapes, network.dtype.itemsize)
    assert len(panels) > len(network.shapes)
    draw = np.random.default_rng(1)
    A0 = np.ones((rows, 71), dtype)
    A0[:, 1:] = draw.standard_normal((rows, 70))
    T = np.eye(10, dtype=dtype)[draw.integers(0, 10, rows)]
    log = Log()
    results = []
    for a_pass in (
        SlicePass(network, 300),
        CutPass(network, 300, columns(panels, len(network.shapes)), log),
    ):
        gradient = np.full(network.size, np.nan, dtype)
        loss = a_pass.forward(A0, T, (3, 0))
        list(a_pass.backward(network.views(gradient), 1 / rows))
        results.append((loss, gradient.tobytes()))
    assert results[0] == results[1]
    assert log.needed == list(range(len(panels)))
    backward = sorted(range(len(panels)), key=lambda p: (-panels[p].layer, p))
    assert log.announced == backward


def test_an_empty_slice_asks_and_tells_as_any_other() -> None:
    network = Network([70, 2100, 130, 10])
    panels = cut(network.shapes, 4)
    log = Log()
    a_pass = CutPass(network, 8, columns(panels, 3), log)
    a_pass.forward(a_pass.input(0), a_pass.target(0))
    gradient = np.full(network.size, np.nan, np.float32)
    list(a_pass.backward(network.views(gradient), 1.0))
    assert not gradient.any()
    assert sorted(log.needed) == sorted(log.announced) == list(range(len(panels)))
