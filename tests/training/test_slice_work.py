"""Slices in stacks, and the sum of their gradients, against one pass for each slice."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distnn.config.options import TrainConfig
from distnn.nn.backprop import SlicePass
from distnn.nn.network import Network
from distnn.nn.optimizers import SGD
from distnn.parallel.reduction import tree
from distnn.training.slice_work import STACK, SliceWork
from distnn.training.vectors import layout_of


def definition(g: list[np.ndarray], a: int, b: int) -> np.ndarray:
    """T(a, b), restated."""
    if b - a == 1:
        return g[a]
    m = 1
    while 2 * m < b - a:
        m *= 2
    return definition(g, a, a + m) + definition(g, a + m, b)


@settings(max_examples=25, deadline=None)
@given(
    slices=st.integers(1, 20), data=st.data(), items=st.lists(st.integers(1, 60), min_size=1),
    precision=st.sampled_from(["float32", "float64"]), dropout=st.sampled_from([0.0, 0.4]),
    layers=st.sampled_from([(5, 7, 3), (9, 12, 8, 4), (3, 2)]),
)  # fmt: skip
@example(slices=8, data=None, items=[50, 3], precision="float32", dropout=0.4, layers=(784, 300, 3))
def test_the_sums_of_a_rank(
    slices: int, data: st.DataObject | None, items: list[int], precision: str, dropout: float,
    layers: tuple[int, ...],
) -> None:  # fmt: skip
    """For any run of slices and any sizes of batches, one after the other."""
    lo, hi = (0, slices) if data is None else sorted(
        data.draw(st.lists(st.integers(0, slices), min_size=2, max_size=2, unique=True))
    )  # fmt: skip
    net = Network(layers, "gelu", dtype=precision, dropout=dropout)
    pieces = tree.pieces(lo, hi, slices)
    tasks, count = tree.slice_tasks(lo, hi, slices)
    vectors = [np.full(net.size, np.nan, precision) for _ in range(count)]
    layout = layout_of(net, SGD(), TrainConfig(slices=slices))
    exchange = SimpleNamespace(layout=layout, tasks=tasks, vectors=vectors)
    works = SliceWork(net, exchange, max(items))
    rng = np.random.default_rng(0)
    for step, size in enumerate(items):
        X, T = rng.standard_normal((size, layers[0])), rng.random((size, layers[-1]))
        losses = np.full(slices, np.nan)
        for work in works.for_batch(size):
            for stack in work.stacks:
                assert np.size(stack.slices) <= STACK
                A0, targets = stack.rows
                A0[:, 1:], targets[...] = X[stack.items], T[stack.items]
                losses[stack.slices] = stack.run.forward(stack.A0, stack.T, (step, stack.slices))
            work.backward.run(0.25)
        assert [work.is_last for work in works.for_batch(size)][-1]
        gradients, alone = [], SlicePass(net, size)
        for k in range(slices):
            rows = slice(k * size // slices, (k + 1) * size // slices)
            A0 = alone.input(rows.stop - rows.start)
            A0[:, 1:] = X[rows]
            loss = alone.forward(A0, T[rows].astype(precision), (step, k))
            assert losses[k] == loss or not lo <= k < hi
            gradients.append(np.empty(net.size, precision))
            alone.backward(net.views(gradients[-1]), 0.25)
        for piece, vector in zip(pieces, vectors, strict=False):
            assert vector.tobytes() == definition(gradients, *piece).tobytes()


@pytest.mark.parametrize(("slices", "rows"), [(1, 64), (8, 64), (64, 8)])
def test_memory_is_that_of_some_slices(slices: int, rows: int) -> None:
    """However many slices there are."""
    net, batch = Network([4, 5, 2]), 64
    tasks, count = tree.slice_tasks(0, slices, slices)
    vectors = [np.empty(net.size, "f4") for _ in range(count)]
    layout = layout_of(net, SGD(), TrainConfig(slices=slices))
    work = SliceWork(net, SimpleNamespace(layout=layout, tasks=tasks, vectors=vectors), batch)
    assert work._whole.input(rows).shape == (rows, 5)
    with pytest.raises(ValueError, match="reshape"):
        work._whole.input(rows + 1)
    assert count <= 1 + slices.bit_length()
