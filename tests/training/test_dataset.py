"""Data sets once per node: what every rank reads is what was given, wherever it came from."""

import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from distnn import InputError, Network
from distnn.parallel.comm import communicator as communicator_module
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.mpi import MPI
from distnn.parallel.comm.shared_memory import SharedMemory
from distnn.training.arrays import from_arrays
from distnn.training.dataset import Dataset, RowLayout, allocate, digest, shared_bytes

CLASSES = 4


def rows(n: int) -> np.ndarray:
    return np.arange(3.0 * n, dtype=np.float32).reshape(n, 3)


def labels(n: int) -> np.ndarray:
    return np.arange(n) * 7 % CLASSES


@pytest.fixture(params=["one node", "nodes dealt out", "a node per rank"])
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    if request.param == "nodes dealt out":

        def split(base: MPI.Comm, shared: bool) -> MPI.Comm:
            return base.Split(base.rank % 2, base.rank)

        monkeypatch.setattr(communicator_module, "_node_communicator", split)
    memory = SharedMemory(Communicator(shared=request.param != "a node per rank"))
    yield memory
    memory.close()


def check(dataset: Dataset, X: np.ndarray, one_hot: np.ndarray) -> None:
    """Both ways to read: gathered rows, and a stretch."""
    n = len(X)
    assert len(dataset) == n
    order = np.random.default_rng(1).permutation(n)[: n // 2 + 1]
    A0, T = np.empty((len(order), 4), np.float32), np.empty((len(order), CLASSES), np.float32)
    dataset.gather(order, A0, T)
    assert np.array_equal(A0, np.c_[np.ones(len(order)), X[order]])
    assert np.array_equal(T, one_hot[order])
    T = np.empty((n - n // 3, CLASSES), np.float32)
    assert np.array_equal(dataset.view(n // 3, n, T)[:, 1:], X[n // 3 :])
    assert np.array_equal(T, one_hot[n // 3 :])


@pytest.mark.mpi
@pytest.mark.parametrize("n", [1, 2, 50])
@pytest.mark.parametrize("kind", ["numbers", "one-hot"])
def test_the_same_on_every_rank(memory: SharedMemory, n: int, kind: str) -> None:
    X, one_hot = rows(n), np.eye(CLASSES, dtype=np.float32)[labels(n)]
    T = labels(n) if kind == "numbers" else one_hot
    dataset = from_arrays(memory.comm, memory, Network([3, CLASSES]), X, T)
    assert dataset.classes == (CLASSES if kind == "numbers" else 0)
    check(dataset, X, one_hot)


@pytest.mark.mpi
def test_the_first_ranks_rows_are_used(memory: SharedMemory) -> None:
    own = rows(9) if MPI.COMM_WORLD.rank == 0 else rows(2) + 1
    targets = labels(9) if MPI.COMM_WORLD.rank == 0 else labels(2)
    dataset = from_arrays(memory.comm, memory, Network([3, CLASSES]), own, targets)
    check(dataset, rows(9), np.eye(CLASSES)[labels(9)])


@pytest.mark.mpi
@pytest.mark.parametrize("kind", ["numbers", "one-hot"])
def test_each_rank_its_own(memory: SharedMemory, kind: str) -> None:
    rank, size = MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size
    n = size * (size - 1) // 2 + 1  # the caller's rank r has r rows, and the last one more
    own = slice(rank * (rank - 1) // 2, n if rank == size - 1 else rank * (rank + 1) // 2)
    one_hot = np.eye(CLASSES, dtype=np.float32)[labels(n)]
    T = labels(n) if kind == "numbers" else one_hot
    network = Network([3, CLASSES])
    dataset = from_arrays(memory.comm, memory, network, rows(n)[own], T[own], True)
    check(dataset, rows(n), one_hot)


@pytest.mark.mpi
def test_no_rank_has_rows(memory: SharedMemory) -> None:
    with pytest.raises(InputError, match="X: has no rows"):
        from_arrays(memory.comm, memory, Network([3, 4]), rows(0), labels(0), True)


@pytest.mark.parametrize("classes", [0, CLASSES])
def test_a_node_has_room_for_what_is_allocated(classes: int) -> None:
    memory = SharedMemory(Communicator(MPI.COMM_SELF))
    row = RowLayout(3, CLASSES, classes, np.float32)
    dataset = allocate(memory, 10, row)
    used = dataset.X.nbytes + dataset.T.nbytes + 10 * 8  # and the order of the items
    pages = 3 * 2 * 4096  # of each array, its first and its last
    assert used <= shared_bytes(10, row) <= used + pages


def test_with_and_without_a_table_of_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distnn.training.dataset.TABLE_CLASSES", CLASSES - 1)
    memory = SharedMemory(Communicator(MPI.COMM_SELF))
    dataset = from_arrays(memory.comm, memory, Network([3, CLASSES]), rows(50), labels(50))
    check(dataset, rows(50), np.eye(CLASSES)[labels(50)])


def test_memory_for_many_classes_is_that_of_the_rows() -> None:
    many, memory = 100_000, SharedMemory(Communicator(MPI.COMM_SELF))
    network, classes = Network([3, many]), np.arange(2000) * 37
    A0, T = np.empty((2, 4), np.float32), np.empty((2, many), np.float32)
    tracemalloc.start()
    dataset = from_arrays(memory.comm, memory, network, rows(2000), classes)
    dataset.gather(np.array([1999, 3]), A0, T)
    dataset.view(7, 9, T)
    assert tracemalloc.get_traced_memory()[1] < 10e6  # one-hot rows: 800 MB, a table: 40 GB
    tracemalloc.stop()
    assert np.argwhere(T).tolist() == [[0, 7 * 37], [1, 8 * 37]]


def test_another_data_set_has_another_digest() -> None:
    memory, network = SharedMemory(Communicator(MPI.COMM_SELF)), Network([3, CLASSES])

    def of(X: np.ndarray, T: np.ndarray) -> bytes:
        return digest(from_arrays(memory.comm, memory, network, X, T)).tobytes()

    X, T = rows(2500), labels(2500)
    first = of(X, T)
    other_rows, other_targets = X.copy(), T.copy()
    other_rows[:, 1] += 1
    other_targets[-1] = 0 if T[-1] else 1
    assert of(X, T) == first
    assert len({first, of(other_rows, T), of(X, other_targets), of(X[:-1], T[:-1])}) == 4
