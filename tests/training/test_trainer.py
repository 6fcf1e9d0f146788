"""The trainer's public contract, against plain numpy restated here, on any number of ranks."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from drawn import drawn
from hypothesis import strategies as st
from small import CLASSES, bits, classes, network, rows

from distnn import SGD, Adam, Momentum, Trainer
from distnn.data.order import epoch_order
from distnn.parallel.comm import communicator as communicator_module
from distnn.parallel.comm.mpi import MPI

WORLD, SELF = MPI.COMM_WORLD, MPI.COMM_SELF


def fitted(X: Any, T: Any, epochs: int = 2, comm: Any = None, **options: Any) -> bytes:
    """The bits of a small network after training."""
    net = network()
    options = {"optimizer": Adam(0.01), "batch_size": 16, "slices": 8} | options
    Trainer(net, comm=comm, **options).fit(X, T, epochs)
    return bits(net)


# --- what a step computes ----------------------------------------------------------------------


@pytest.mark.mpi
@drawn(st.tuples(st.integers(1, 40), st.integers(0, 5)), max_examples=10)
def test_the_gradient_of_a_batch_is_the_mean_over_its_items(case: tuple[int, int]) -> None:
    n, more = case
    net, slices = network(), WORLD.size + more
    X, T = rows(n), classes(n)
    loss, gradients = net.loss_and_gradients(X, T)
    before = [W.copy() for W in net.weights]
    history = Trainer(net, SGD(1.0), batch_size=n + more, slices=slices).fit(X, T, epochs=1)
    for W0, W, dW in zip(before, net.weights, gradients, strict=True):
        np.testing.assert_allclose(W0 - W, dW, rtol=1e-12, atol=1e-14)
    assert history[0]["train_loss"] == pytest.approx(loss, rel=1e-13)


def restated_sgd(
    weights: list[np.ndarray], X: np.ndarray, T: np.ndarray, batch: int, epochs: int, rate: float
) -> list[float]:
    """Plain SGD for one tanh layer and softmax, item by item: dW = mean of a (a - y)."""
    W1, W2 = weights
    losses = []
    for epoch in range(epochs):
        order, total = epoch_order(len(X), 5, epoch), 0.0
        for start in range(0, len(X), batch):
            chosen = order[start : start + batch]  # the last one may be short
            G1, G2 = np.zeros_like(W1), np.zeros_like(W2)
            for i in chosen:
                a0 = np.concatenate([[1.0], X[i]])
                a1 = np.concatenate([[1.0], np.tanh(a0 @ W1)])
                e = np.exp(a1 @ W2)
                p = e / e.sum()
                total -= np.log(p[T[i]])
                d2 = p - np.eye(CLASSES)[T[i]]
                d1 = (W2[1:] @ d2) * (1 - a1[1:] ** 2)
                G1 += np.outer(a0, d1) / len(chosen)
                G2 += np.outer(a1, d2) / len(chosen)
            W1 -= rate * G1
            W2 -= rate * G2
        losses.append(total / len(X))
    return losses


@pytest.mark.mpi
@pytest.mark.parametrize("comm", [None, SELF], ids=["all ranks", "one rank"])
@pytest.mark.parametrize(("n", "batch"), [(53, 10), (50, 10), (41, 40), (7, 64), (1, 1)])
def test_training_is_sgd_as_restated(n: int, batch: int, comm: Any) -> None:
    X, T, net = rows(n), classes(n), network()
    expected = [W.copy() for W in net.weights]
    losses = restated_sgd(expected, X, T, batch, epochs=3, rate=0.3)
    history = Trainer(net, SGD(0.3), batch_size=batch, slices=7, seed=5, comm=comm).fit(X, T, 3)
    for W, expected_W in zip(net.weights, expected, strict=True):
        np.testing.assert_allclose(W, expected_W, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose([record["train_loss"] for record in history], losses, rtol=1e-12)


@pytest.mark.mpi
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"update": "sharded"},
        {"clip_norm": 0.05},
        {"clip_norm": 0.05, "update": "sharded"},
        {"optimizer": Momentum(0.1), "batch_size": 5},
        {"schedule": "cosine", "warmup": 3},
    ],
    ids=str,
)
def test_all_ranks_give_the_bits_of_one(options: dict[str, Any]) -> None:
    X, T = rows(53), classes(53)
    assert fitted(X, T, **options) == fitted(X, T, comm=SELF, **options)
    assert len(set(WORLD.allgather(fitted(X, T, **options)))) == 1


@pytest.mark.mpi
def test_bits_depend_on_slices_and_seed() -> None:
    X, T = rows(53), classes(53)
    first = fitted(X, T)
    assert fitted(X, T) == first
    assert fitted(X, T, slices=9) != first
    assert fitted(X, T, seed=1) != first
    assert fitted(X, T, update="sharded") == first


@pytest.mark.mpi
def test_without_slices_there_are_eight_whatever_the_ranks() -> None:
    X, T = rows(30), classes(30)
    assert fitted(X, T, slices=None) == fitted(X, T, slices="auto") == fitted(X, T, slices=8)


# --- fit, and fit again ------------------------------------------------------------------------


@pytest.mark.mpi
@pytest.mark.parametrize("update", ["rank0", "sharded"])
def test_a_second_fit_goes_on(update: str) -> None:
    X, T, once, twice = rows(30), classes(30), network(), network()
    options = {"batch_size": 8, "slices": 5, "update": update, "optimizer": Adam(0.02)}
    whole = Trainer(once, **options).fit(X, T, epochs=5)
    trainer = Trainer(twice, **options)
    parts = trainer.fit(X, T, epochs=2) + trainer.fit(X, T, epochs=2) + trainer.fit(X, T, epochs=1)
    assert bits(twice) == bits(once)
    assert parts == whole
    assert [record["epoch"] for record in whole] == [1, 2, 3, 4, 5]
    assert [record["step"] for record in whole] == [4, 8, 12, 16, 20]


@pytest.mark.mpi
def test_the_first_ranks_weights_are_trained() -> None:
    net = network()
    expected = fitted(rows(20), classes(20), optimizer=SGD(0.1))
    if WORLD.rank != 0:
        for W in net.weights:
            W[...] = np.nan
    Trainer(net, SGD(0.1), batch_size=16, slices=8).fit(rows(20), classes(20), 2)
    assert bits(net) == expected


@pytest.mark.mpi
def test_weights_changed_between_two_fits_are_trained_on() -> None:
    X, T, net = rows(20), classes(20), network()
    trainer = Trainer(net, SGD(0.1), batch_size=20, slices=4)
    trainer.fit(X, T, 1)
    for W in net.weights:
        W[...] = 0
    record = trainer.fit(X, T, 1)[0]
    assert record["train_loss"] == pytest.approx(np.log(CLASSES))


@pytest.mark.mpi
def test_history_measures_the_test_set_after_each_epoch() -> None:
    X, T, net = rows(40), classes(40), network()
    X_test, T_test = rows(301), classes(301)
    trainer = Trainer(net, SGD(0.2), batch_size=8, slices=5)
    for epoch in (1, 2):
        record = trainer.fit(X, T, epochs=1, test=(X_test, T_test))[0]
        loss, _ = net.loss_and_gradients(X_test, T_test)
        assert set(record) >= {"epoch", "step", "learning_rate", "train_loss"}
        assert record["epoch"] == epoch
        assert record["test_loss"] == pytest.approx(loss, rel=1e-12)
        assert record["test_accuracy"] == np.mean(net.predict(X_test) == T_test)
    assert len({str(record) for record in WORLD.allgather(record)}) == 1


@pytest.mark.mpi
def test_the_learning_rate_follows_the_schedule_of_this_fit() -> None:
    X, T = rows(16), classes(16)
    trainer = Trainer(network(), SGD(0.4), batch_size=8, slices=4, schedule="linear")
    rates = [record["learning_rate"] for record in trainer.fit(X, T, epochs=4)]
    assert rates == sorted(rates, reverse=True)
    assert 0 <= rates[-1] < rates[0] <= 0.4


# --- rows and targets --------------------------------------------------------------------------


@pytest.mark.mpi
@pytest.mark.parametrize(
    "share",
    [
        lambda rank, size: (rank + 1) / (size * (size + 1) / 2),
        lambda rank, size: float(rank == 0),
        lambda rank, size: float(rank == size - 1),
        lambda rank, size: 1 / size,
    ],
    ids=["rank + 1 parts", "all at the first", "all at the last", "equal parts"],
)
@pytest.mark.parametrize("one_hot", [False, True])
def test_partitioned_rows_are_those_of_all_ranks_in_order(
    share: Callable[[int, int], float], one_hot: bool
) -> None:
    n = 53
    X, T = rows(n), classes(n)
    T = np.eye(CLASSES)[T] if one_hot else T
    cuts = np.cumsum([0] + [share(rank, WORLD.size) for rank in range(WORLD.size)])
    lo, hi = np.rint(n * cuts[WORLD.rank : WORLD.rank + 2]).astype(int)

    def fit(*data: Any, **options: Any) -> bytes:
        net = network()
        Trainer(net, batch_size=16, slices=8).fit(*data, 2, **options)
        return bits(net)

    assert fit(X[lo:hi], T[lo:hi], partitioned=True) == fit(X, T)


@pytest.mark.mpi
def test_partitioned_is_in_the_order_of_the_callers_ranks() -> None:
    backwards = WORLD.Split(0, -WORLD.rank)
    X, T = rows(8 * WORLD.size), classes(8 * WORLD.size)
    own = slice(8 * backwards.rank, 8 * backwards.rank + 8)
    net = network()
    Trainer(net, Adam(0.01), batch_size=16, slices=8, comm=backwards).fit(
        X[own], T[own], 2, partitioned=True
    )
    assert bits(net) == fitted(X, T)


SAME_TARGETS: dict[str, Callable[[np.ndarray], Any]] = {
    "uint8": lambda T: T.astype(np.uint8),
    "whole floats": lambda T: T.astype(np.float32),
    "a list": lambda T: T.tolist(),
    "one-hot": lambda T: np.eye(CLASSES)[T],
    "one-hot integers": lambda T: np.eye(CLASSES, dtype=int)[T],
    "one-hot float32": lambda T: np.eye(CLASSES, dtype=np.float32)[T],
}


@pytest.mark.mpi
@pytest.mark.parametrize("kind", SAME_TARGETS)
def test_kinds_of_class_targets(kind: str) -> None:
    X, T = rows(20), classes(20)
    assert fitted(X, SAME_TARGETS[kind](T), slices=4) == fitted(X, T, slices=4)


SAME_ROWS: dict[str, Callable[[np.ndarray], Any]] = {
    "a list": lambda X: X.tolist(),
    "columns first": np.asfortranarray,
    "every other": lambda X: np.repeat(X, 2, axis=0)[::2],
    "images": lambda X: X.reshape(-1, 2, 2),
    "read-only": lambda X: np.broadcast_to(X, X.shape),
    "big-endian": lambda X: X.astype(">f8"),
}


@pytest.mark.mpi
@pytest.mark.parametrize("kind", SAME_ROWS)
def test_kinds_of_rows(kind: str) -> None:
    X, T = rows(20), classes(20)
    assert fitted(SAME_ROWS[kind](X), T, slices=4) == fitted(X, T, slices=4)


@pytest.mark.mpi
def test_the_callers_arrays_stay_as_they_are() -> None:
    X, T = rows(20), classes(20)
    fitted(X, T)
    assert np.array_equal(X, rows(20))
    assert np.array_equal(T, classes(20))


def test_soft_labels_pull_towards_their_mean() -> None:
    X = np.zeros((40, 4))
    soft = np.tile([0.7, 0.2, 0.1], (40, 1))
    net = network()
    Trainer(net, Adam(0.1), batch_size=40, slices=4).fit(X, soft, epochs=150)
    np.testing.assert_allclose(net.forward(X[:1])[0], [0.7, 0.2, 0.1], atol=2e-3)


@pytest.mark.mpi
def test_regression_with_several_outputs() -> None:
    X = rows(200)
    T = np.stack([X[:, 0] + 2, X[:, 1] * 3], axis=1)  # linear: to be found exactly
    net = network(layers=[4, 2], output="identity", loss="squared-error")
    trainer = Trainer(net, SGD(0.1), batch_size=50, slices=4)
    history = trainer.fit(X, T, epochs=20, test=(X, T))
    W = np.zeros((5, 2))
    W[0, 0], W[1, 0], W[2, 1] = 2, 1, 3
    np.testing.assert_allclose(net.weights[0], W, atol=1e-3)
    assert history[-1]["test_r2"] > 0.9999
    assert "test_accuracy" not in history[-1]


@pytest.mark.mpi
def test_one_target_per_row_may_be_a_vector_or_a_column() -> None:
    X = rows(20)
    results = []
    for T in (X[:, 0], X[:, :1]):
        net = network(layers=[4, 3, 1], output="identity", loss="half-squared-error")
        Trainer(net, batch_size=8, slices=4).fit(X, T, 2)
        results.append(bits(net))
    assert results[0] == results[1]


def test_two_classes_with_a_single_sigmoid_output() -> None:
    X = rows(200)
    T = (X[:, 0] > 0).astype(int)
    net = network(layers=[4, 1], output="sigmoid", loss="binary-cross-entropy")
    history = Trainer(net, Adam(0.1), batch_size=50, slices=4).fit(X, T, 15, test=(X, T))
    assert history[-1]["test_accuracy"] == np.mean(net.predict(X) == T)
    assert history[-1]["test_accuracy"] > 0.97


# --- ranks, communicators, memory --------------------------------------------------------------


@pytest.mark.mpi
def test_two_teams_train_beside_each_other() -> None:
    half = WORLD.Split(WORLD.rank % 2, WORLD.rank)
    n = 20 + WORLD.rank % 2
    assert fitted(rows(n), classes(n), comm=half) == fitted(rows(n), classes(n), comm=SELF)
    half.Free()


@pytest.mark.mpi
def test_too_little_shared_memory_is_told_and_gives_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    X, T = rows(53), classes(53)
    expected = fitted(X, T)
    monkeypatch.setattr(communicator_module, "shared_memory_room", lambda: 0)
    caplog.clear()
    assert fitted(X, T) == expected
    messages = [message for message in caplog.messages if "shared memory" in message]
    assert len(messages) == (1 if WORLD.rank == 0 else 0)


def test_any_number_of_trainers() -> None:
    X, T = rows(4), classes(4)
    for _ in range(800):  # MPICH has some 2,000 communicators in all
        net = network()
        Trainer(net, SGD(0.1), batch_size=4, slices=8)
    Trainer(net, SGD(0.1), batch_size=4, slices=8).fit(X, T, 1)


def test_any_number_of_communicators() -> None:
    for _ in range(800):
        comm = SELF.Dup()
        Trainer(network(), comm=comm, slices=8)
        comm.Free()


@pytest.mark.mpi
@pytest.mark.parametrize("taken", ["before a fit", "between two fits"])
def test_views_of_the_weights_outlive_a_fit(taken: str) -> None:
    X, T = rows(20), classes(20)
    trainer = Trainer(network(), SGD(0.1), batch_size=8, slices=5)
    if taken == "between two fits":
        trainer.fit(X, T, 1)
    views, before = trainer.network.weights, trainer.network.vector.copy()
    trainer.fit(X, T, 2)
    flat = np.concatenate([W.reshape(-1) for W in views])
    assert not np.array_equal(flat, before)
    assert flat.tobytes() == bits(trainer.network)
    for W in views:  # it is seen by predictions and by the next fit
        W[:] = 0
    assert np.ptp(trainer.network.forward(X)) == 0
    trainer.fit(X, T, 1)
    assert not views[0].any()  # units without weights learn nothing
    assert views[1][0].any()
