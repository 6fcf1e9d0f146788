"""Loss, accuracy and R2: against their definitions, and the same on any number of ranks."""

import math

import numpy as np
import pytest
from drawn import drawn
from hypothesis import strategies as st

from distnn import Network
from distnn.nn.network import decide
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.parallel.comm.shared_memory import SharedMemory
from distnn.training.arrays import from_arrays
from distnn.training.evaluation import ROWS, Evaluation, are_classes, correct

LENGTHS = [ROWS - 1, ROWS, ROWS + 1, 5 * ROWS + 3]


def measure(network: Network, X: np.ndarray, T: np.ndarray, comm: Communicator) -> dict[str, float]:
    memory = SharedMemory(comm)
    dataset = from_arrays(comm, memory, network, X, T)
    measures = Evaluation(comm, network, dataset, "test_").measure()
    memory.close()
    return measures


def rows(n: int) -> np.ndarray:
    return np.random.default_rng(n).normal(size=(n, 3))


COMMS = [Communicator(), Communicator(MPI.COMM_SELF), Communicator(shared=False)]


def regression() -> Network:
    return Network([3, 5, 2], "tanh", "identity", "squared-error", dtype="float64")


@pytest.mark.mpi
@drawn(st.integers(1, 6) | st.sampled_from(LENGTHS), max_examples=15)
def test_classification(n: int) -> None:
    network = Network([3, 6, 4], "tanh", seed=n)
    X, y = rows(n), np.random.default_rng(n).integers(0, 4, n)
    results = [measure(network, X, y, comm) for comm in COMMS]
    assert results[1:] == results[:1] * (len(COMMS) - 1)  # to the last bit
    assert results[0]["test_accuracy"] == np.mean(network.predict(X) == y)
    P = network.forward(X).astype(np.float64)
    assert results[0]["test_loss"] == pytest.approx(-np.log(P[np.arange(n), y]).mean(), rel=1e-5)


@pytest.mark.mpi
@drawn(st.integers(2, 6) | st.sampled_from(LENGTHS), max_examples=15)
def test_regression(n: int) -> None:
    network = regression()
    X = rows(n)
    T = np.stack([100 + X[:, 0], X[:, 1] * X[:, 2]], axis=1)
    results = [measure(network, X, T, comm) for comm in COMMS]
    assert results[1:] == results[:1] * (len(COMMS) - 1)
    residual = ((T - network.forward(X)) ** 2).sum(axis=0)
    deviation = ((T - T.mean(axis=0)) ** 2).sum(axis=0)
    assert results[0]["test_r2"] == pytest.approx((1 - residual / deviation).mean(), rel=1e-9)
    assert results[0]["test_loss"] == pytest.approx(residual.sum() / n, rel=1e-12)


@pytest.mark.mpi
def test_r2_of_a_perfect_and_of_the_mean_prediction() -> None:
    network = Network([3, 1], output="identity", loss="squared-error", dtype="float64")
    X = rows(40)
    network.weights[0][:, 0] = 2, 1, 0, -1
    perfect = 2 + X[:, 0] - X[:, 2]
    assert measure(network, X, perfect, COMMS[0])["test_r2"] == pytest.approx(1)
    network.weights[0][:, 0] = perfect.mean(), 0, 0, 0
    assert measure(network, X, perfect, COMMS[0])["test_r2"] == pytest.approx(0, abs=1e-12)


@pytest.mark.mpi
def test_r2_of_constant_targets_is_no_number() -> None:
    assert math.isnan(measure(regression(), rows(5), np.ones((5, 2)), COMMS[0])["test_r2"])


@pytest.mark.mpi
def test_r2_far_from_zero_keeps_its_digits() -> None:
    network = Network([3, 1], output="identity", loss="squared-error")  # float32
    X = rows(1000).astype(np.float32)
    T = (1e6 + 100 * X[:, 0]).astype(np.float32)
    network.weights[0][:, 0] = 1e6, 100, 0, 0
    assert measure(network, X, T, COMMS[0])["test_r2"] == pytest.approx(1, abs=1e-5)


@pytest.mark.mpi
def test_again_with_other_weights() -> None:
    network, comm = Network([3, 4], seed=0), COMMS[0]
    X, y = rows(30), np.random.default_rng(0).integers(0, 4, 30)
    memory = SharedMemory(comm)
    evaluation = Evaluation(comm, network, from_arrays(comm, memory, network, X, y), "")
    first = evaluation.measure()
    assert evaluation.measure() == first
    network.weights[0][...] = 0
    assert evaluation.measure()["loss"] == pytest.approx(math.log(4), rel=1e-6)
    memory.close()


@pytest.mark.mpi
def test_dropout_is_for_training_only() -> None:
    plain, dropping = Network([3, 9, 2], seed=1), Network([3, 9, 2], seed=1, dropout=0.9)
    y = np.arange(20) % 2
    assert measure(plain, rows(20), y, COMMS[0]) == measure(dropping, rows(20), y, COMMS[0])


def test_decide() -> None:
    assert decide(np.array([[0.1, 0.7, 0.2], [0.5, 0.5, 0]])).tolist() == [1, 0]
    assert decide(np.array([[0.4], [0.5], [0.6]])).tolist() == [0, 1, 1]


def test_correct_counts_decisions_for_the_same_class() -> None:
    A = np.array([[0.2, 0.8], [0.6, 0.4], [0.6, 0.4]])
    T = np.array([[0.4, 0.6], [0.4, 0.6], [1, 0]])  # soft labels decide as well
    assert correct(A, T) == 2


@pytest.mark.parametrize(
    ("network", "T", "expected"),
    [
        (Network([3, 4]), np.zeros(5, int), True),
        (Network([3, 4]), np.full((5, 4), 0.25), True),
        (Network([3, 1], output="sigmoid", loss="binary-cross-entropy"), np.zeros(5), True),
        (Network([3, 4], output="sigmoid", loss="squared-error"), np.zeros(5, int), True),
        (Network([3, 4], output="sigmoid", loss="squared-error"), np.zeros((5, 4)), False),
        (Network([3, 1], output="identity", loss="squared-error"), np.zeros(5), False),
    ],
)
def test_are_classes(network: Network, T: np.ndarray, expected: bool) -> None:
    comm = Communicator(MPI.COMM_SELF)
    dataset = from_arrays(comm, SharedMemory(comm), network, rows(5), T)
    assert are_classes(network, dataset) == expected
