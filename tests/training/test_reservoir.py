"""The sample depends on the numbers that were added, and on nothing else."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distnn import InputError, Network, Trainer
from distnn.parallel.comm.mpi import MPI
from distnn.training.reservoir import Reservoir

WORLD = MPI.COMM_WORLD


def features(numbers: np.ndarray) -> np.ndarray:
    return np.stack([np.sin(numbers), np.cos(numbers)], axis=1)


def filled(parts: list[np.ndarray], capacity: int, seed: int = 0) -> Reservoir:
    reservoir = Reservoir(capacity, 2, seed=seed, dtype="float64")
    for numbers in parts:
        reservoir.add(numbers, features(numbers), numbers)
    return reservoir


@given(st.integers(1, 60), st.integers(0, 120), st.integers(0, 5), st.randoms())
def test_order_and_parts_do_not_matter(capacity: int, n: int, seed: int, random: object) -> None:
    whole = filled([np.arange(n)], capacity, seed)
    shuffled = np.random.default_rng(n).permutation(n)
    parts = filled(np.array_split(shuffled, 7), capacity, seed)
    assert len(whole) == min(n, capacity)
    for one, other in zip(whole.sample(MPI.COMM_SELF), parts.sample(MPI.COMM_SELF), strict=True):
        assert np.array_equal(one, other)
    numbers, X, T = whole.sample(MPI.COMM_SELF)
    assert np.array_equal(X, features(numbers))
    assert np.array_equal(T[:, 0], numbers)


def test_every_row_is_as_likely() -> None:
    """1,000 seeds, 10 of 100 rows: each row about 100 times, within five standard deviations."""
    counts = np.zeros(100)
    for seed in range(1000):
        numbers, _, _ = filled([np.arange(100)], 10, seed).sample(MPI.COMM_SELF)
        counts[numbers] += 1
    assert counts.sum() == 10_000
    assert abs(counts - 100).max() < 5 * np.sqrt(1000 * 0.1 * 0.9)


def test_what_does_not_fit() -> None:
    with pytest.raises(InputError, match=r"give \(b,\), \(b, 2\)"):
        Reservoir(5, 2).add([1, 2], np.zeros((3, 2)), np.zeros(2))
    with pytest.raises(InputError, match="capacity"):
        Reservoir(0, 2)


@pytest.mark.mpi
@pytest.mark.parametrize("split", ["in turn", "uneven", "all on the last"])
def test_it_does_not_matter_which_rank_adds_a_row(split: str) -> None:
    numbers = np.arange(300)
    ranks = {
        "in turn": numbers % WORLD.size,
        "uneven": np.minimum(numbers // 250, WORLD.size - 1),  # of more ranks, some have none
        "all on the last": np.full(300, WORLD.size - 1),
    }
    mine = filled([numbers[ranks[split] == WORLD.rank]], 64).sample()
    whole = filled([numbers], 64).sample(MPI.COMM_SELF)
    for one, other in zip(mine, whole, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.mpi
def test_training_from_it_depends_on_no_rank() -> None:
    hashes = []
    for comm in (WORLD, MPI.COMM_SELF):
        reservoir, net = Reservoir(50, 2), Network([2, 8, 1], "tanh", "identity", "squared-error")
        trainer = Trainer(net, batch_size=16, slices=8, comm=comm)
        for begin in (0, 100, 200):  # the rows keep coming
            numbers = np.arange(begin + comm.rank, begin + 100, comm.size)
            reservoir.add(numbers, features(numbers), np.sin(2 * numbers))
            _, X, T = reservoir.sample(comm)
            trainer.fit(X, T, 2)
        hashes.append(hashlib.sha256(net.vector.tobytes()).hexdigest())
    assert WORLD.allgather(hashes) == [[hashes[0]] * 2] * WORLD.size
