"""The gradient noise scale: unbiased for gradients of a known distribution, same on any ranks."""

import functools

import numpy as np
import pytest

from distnn import SGD, Adam, Network, Trainer
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.parallel.reduction.partition import bounds
from distnn.run.position import Position
from distnn.training.noise_scale import estimates, noise_scale


@pytest.mark.parametrize("slices", [2, 4, 7])
@pytest.mark.parametrize("scale", [1.0, 0.05])
def test_unbiased_for_gaussian_gradients(slices: int, scale: float) -> None:
    """Items' gradients N(G, diag(s^2)): |G|^2 = 2.5 and S = sum s^2 = 30, noise scale 12."""
    draw, n, items, steps = np.random.default_rng(0), 40, 30, 6000
    G = np.zeros(n)
    G[:10] = 0.5
    deviations = np.sqrt(np.linspace(0.5, 1, n) * 30 / np.linspace(0.5, 1, n).sum())
    sums = np.zeros(2)
    for _ in range(steps):
        g = (G + draw.standard_normal((items, n)) * deviations) * scale / items
        parts = [g[slice(*bounds(items, slices, k))].sum(axis=0) for k in range(slices)]
        squares = [float(part @ part) for part in parts]
        sums += estimates(squares, float(np.linalg.norm(g.sum(axis=0))), items, scale)
    assert sums / steps == pytest.approx([2.5, 30], rel=0.03)
    position = Position(signal=sums[0], noise=sums[1])
    assert noise_scale(position) == pytest.approx(12, rel=0.05)


def test_exact_without_noise_and_by_hand() -> None:
    """Three items in two slices, gradients 4 | 1, 1: means 4 and 1, of all 2.

    (1 + 16) / 2 - 4 = 4.5 over (1/2 + 1) / 2 - 1/3 = 5/12 is S = 10.8, and 4 - 3.6 = 0.4.
    """
    signal, noise = estimates([(4 / 3) ** 2, (2 / 3) ** 2], 2.0, 3, 1.0)
    assert (signal, noise) == (pytest.approx(0.4), pytest.approx(10.8))
    signal, noise = estimates([0.25, 0.25], 1.0, 8, 1.0)  # both slices have the whole's mean
    assert (signal, noise) == (pytest.approx(1.0), pytest.approx(0.0))


@pytest.mark.parametrize("squares", [[4.0], [0.0, 4.0, 0.0]])
def test_one_slice_with_items_says_nothing(squares: list[float]) -> None:
    assert estimates(squares, 2.0, 1, 1.0) == (0.0, 0.0)


def test_no_rate_and_no_signal() -> None:
    assert estimates([0.0, 0.0], 0.0, 4, 0.0) == (0.0, 0.0)
    assert np.isnan(noise_scale(Position(signal=-1.0, noise=3.0)))
    assert np.isnan(noise_scale(Position()))


WORLD = MPI.COMM_WORLD


@functools.cache
def communicator_of(ranks: int, shared: bool) -> Communicator | None:
    comm = WORLD.Split(0 if WORLD.rank < ranks else MPI.UNDEFINED, WORLD.rank)
    return None if comm == MPI.COMM_NULL else Communicator(comm, shared=shared)


def rows() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(4)
    return draw.standard_normal((70, 5)), draw.integers(0, 3, 70)


def trained(comm: Communicator, update: str, optimizer: object, **options: object) -> list[dict]:
    network = Network([5, 30, 3], dtype="float64", seed=2)
    trainer = Trainer(
        network, optimizer, comm=comm, update=update, slices=6, batch_size=16, **options
    )  # type: ignore[arg-type]
    return [*trainer.fit(*rows(), epochs=1), *trainer.fit(*rows(), epochs=1)]


@pytest.mark.mpi
@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("make", [lambda: SGD(0.1), lambda: Adam(0.01)], ids=["sgd", "adam"])
def test_the_same_bits_on_any_ranks_and_no_other_training(make, clip) -> None:
    found = {}
    for ranks in {1, 2, WORLD.size}:
        for shared, update in ((True, "rank0"), (True, "sharded"), (False, "sharded"),
                               (False, "rank0")):  # fmt: skip
            comm = communicator_of(ranks, shared)
            if comm is not None:
                records = trained(comm, update, make(), clip_norm=clip, noise_scale=True)
                found[f"{ranks} {shared} {update}"] = records
    alone = communicator_of(1, True)
    if alone is not None:
        plain = trained(alone, "rank0", make(), clip_norm=clip)
        found["off"] = [
            record | {"noise_scale": with_it["noise_scale"]}
            for record, with_it in zip(plain, found["1 True rank0"], strict=True)
        ]
        assert all("noise_scale" not in record for record in plain)
    found = WORLD.bcast({name: repr(records) for name, records in found.items()})
    assert len(set(found.values())) == 1, found


@pytest.mark.mpi
def test_it_is_that_of_the_items_gradients() -> None:
    """At rate 0, all steps see the same weights: S and |G|^2 of all items' gradients, computed one
    by one, are what the sums of an epoch estimate; with slices of one item nearly exactly."""
    X, T = rows()
    network = Network([5, 30, 3], dtype="float64", seed=2)
    each = [
        np.concatenate([dW.ravel() for dW in network.loss_and_gradients(X[[k]], T[[k]])[1]])
        for k in range(len(X))
    ]
    G, S = np.mean(each, axis=0), np.var(each, axis=0, ddof=1).sum()
    trainer = Trainer(network, Adam(0.0), slices=70, batch_size=70, noise_scale=True)
    (record,) = trainer.fit(X, T, epochs=1)
    expected = S / (G @ G - S / 70)
    assert record["noise_scale"] == pytest.approx(expected, rel=1e-9)
