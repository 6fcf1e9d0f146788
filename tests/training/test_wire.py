"""Gradients rounded to bfloat16: the definition, restated for one process, and what is refused."""

import itertools
from typing import Any

import numpy as np
import pytest

from distnn import SGD, Adam, DivergenceError, GradientTrainer, Network, Trainer
from distnn.config.options import TrainConfig
from distnn.data.order import epoch_order
from distnn.errors import InputError
from distnn.nn.backprop import SlicePass
from distnn.parallel.comm.communicator import Communicator
from distnn.training.factory import resolve
from distnn.training.loading import Shape

ITEMS, BATCH, SLICES, RATE = 44, 20, 7, 0.3  # the last batch is short, with an empty slice


def rounded(numbers: np.ndarray) -> np.ndarray:
    """To 8 significant bits, ties to even: for numbers that are not below 2**-126."""
    assert (np.abs(numbers[numbers != 0]) >= 2.0**-126).all()
    fraction, exponent = np.frexp(numbers.astype(np.float64))
    return np.ldexp(np.rint(fraction * 256), exponent - 8).astype(np.float32)


def total(g: list[np.ndarray], a: int, b: int) -> np.ndarray:
    """T(a, b), each node of the tree rounded."""
    if b - a == 1:
        return rounded(g[a])
    m = 1
    while 2 * m < b - a:
        m *= 2
    return rounded(total(g, a, a + m) + total(g, a + m, b))


@pytest.mark.mpi
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("clip", [None, 0.05])
def test_a_step_is_its_definition(shared: bool, clip: float | None) -> None:
    draw = np.random.default_rng(0)
    X, T = draw.standard_normal((ITEMS, 6)).astype("f4"), draw.integers(0, 3, ITEMS)
    network, alone = (Network([6, 40, 3], "tanh", seed=2) for _ in range(2))
    options: dict[str, Any] = {"batch_size": BATCH, "slices": SLICES, "clip_norm": clip}
    comm = Communicator(shared=shared)
    trainer = Trainer(network, SGD(RATE), comm=comm, wire="bfloat16", **options)
    trainer.fit(X, T, epochs=2)
    vector = np.empty(alone.size, np.float32)
    alone.draw(vector)
    alone.bind(vector)
    for epoch in range(2):
        order = epoch_order(ITEMS, 0, epoch)
        for start in range(0, ITEMS, BATCH):
            batch = order[start : start + BATCH]
            g = total([gradient(alone, X, T, batch, k) for k in range(SLICES)], 0, SLICES)
            if clip is not None:
                assert alone.size < 1024  # one granule
                norm = np.sqrt(np.float64(np.vecdot(g, g)))
                g = g * np.float32(clip / norm) if norm > clip else g
            vector -= g * np.float32(RATE)
    assert np.array_equal(network.vector, vector)


def gradient(net: Network, X: np.ndarray, T: np.ndarray, batch: np.ndarray, k: int) -> np.ndarray:
    """Of slice k of a batch, of the mean over the batch."""
    rows = batch[k * len(batch) // SLICES : (k + 1) * len(batch) // SLICES]
    found = np.empty(net.size, np.float32)
    one = SlicePass(net, max(1, len(rows)))
    A0, targets = one.input(len(rows)), one.target(len(rows))
    A0[:, 1:], targets[:] = X[rows], np.eye(3)[T[rows]]
    one.forward(A0, targets)
    one.backward(net.views(found), np.array(1 / len(batch), np.float32))
    return found


@pytest.mark.mpi
@pytest.mark.parametrize("shared", [True, False])
def test_a_gradient_of_the_callers_is_rounded_too(shared: bool) -> None:
    rows = np.random.default_rng(1).standard_normal((ITEMS, 5)).astype("f4")

    def own(theta: np.ndarray, numbers: np.ndarray) -> tuple[float, np.ndarray]:
        return 1.0, rows[numbers].sum(axis=0)

    trainer = GradientTrainer(
        np.zeros(5, "f4"), own, ITEMS, SGD(1.0), comm=Communicator(shared=shared),
        wire="bfloat16", batch_size=ITEMS, slices=SLICES,
    )  # fmt: skip
    trainer.fit(1)
    order, edges = epoch_order(ITEMS, 0, 0), [k * ITEMS // SLICES for k in range(SLICES + 1)]
    parts = [rows[order[lo:hi]].sum(axis=0) for lo, hi in itertools.pairwise(edges)]
    expected = total([part * np.float32(1 / ITEMS) for part in parts], 0, SLICES)
    assert np.array_equal(trainer.theta, -expected)


def test_what_is_not_finite_is_seen() -> None:
    X = np.full((16, 3), 1e30, np.float32)
    trainer = Trainer(Network([3, 4, 2]), SGD(1e30), wire="bfloat16", batch_size=4)
    with pytest.raises(DivergenceError), np.errstate(all="ignore"):
        trainer.fit(X, np.arange(16) % 2, epochs=3)


@pytest.mark.parametrize(
    ("options", "precision"), [({"reduce": "mpi"}, "float32"), ({}, "float64")]
)
def test_where_sums_cannot_be_rounded_it_is_refused(
    options: dict[str, Any], precision: str
) -> None:
    with pytest.raises(InputError, match="rounds each sum"):
        Trainer(Network([3, 2], dtype=precision), Adam(), wire="bfloat16", **options)
    config = TrainConfig(wire="bfloat16", precision=precision, **options)
    theta = np.zeros(2, precision)
    with pytest.raises(InputError, match="rounds each sum"):
        GradientTrainer(theta, lambda _, __: (0, theta), 5, wire="bfloat16", **options)
    with pytest.raises(InputError, match="rounds each sum"):
        resolve(config, Shape("classification", 3, 2, 2, 8, 0))


def test_a_resumed_run_keeps_its_wire(tmp_path: Any) -> None:
    X, T = np.eye(8, 3), np.arange(8) % 2
    options: dict[str, Any] = {"run_dir": str(tmp_path / "run"), "resume": True}
    Trainer(Network([3, 2]), wire="bfloat16", **options).fit(X, T, epochs=1)
    with pytest.raises(InputError, match="started with bfloat16"):
        Trainer(Network([3, 2]), wire="float32", **options).fit(X, T, epochs=2)
