"""A bounded sample of rows that keep coming on all ranks, and that depends on no rank."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from distnn.checks import LARGEST_COUNT, LARGEST_SEED, number
from distnn.errors import InputError
from distnn.parallel.comm.communicator import Communicator, communicator_of

Array = NDArray[Any]

BLOCK = 1 << 14  # rows of a message


class Reservoir:
    """A uniform sample of `capacity` rows of all that were added on all ranks.

    Every row has a number of its own in the whole computation, as time step times cells plus cell.
    The sample is those rows whose (seed, number) have the smallest hashes (a bottom-k sample, Cohen
    and Kaplan 2007): a function of the seed and of the numbers that were added, whatever rank added
    a row, and in which order. Each rank keeps at most `capacity` of its own rows.

    Args:
        capacity: how many rows the sample has at most.
        features, outputs: n_0 and n_L, of a row and of its target.
        seed: of the sample.
        dtype: that rows and targets are kept in.
    """

    def __init__(
        self,
        capacity: int,
        features: int,
        outputs: int = 1,
        *,
        seed: int = 0,
        dtype: DTypeLike = "float32",
    ) -> None:
        self.capacity = number(capacity, "capacity", whole=True, least=1, most=LARGEST_COUNT)
        self.seed = number(seed, "seed", whole=True, least=0, most=LARGEST_SEED)
        number(features, "features", whole=True, least=1)
        number(outputs, "outputs", whole=True, least=1)
        self._features = features
        self._numbers = np.empty(0, np.int64)
        self._rows = np.empty((0, features + outputs), dtype)

    def __len__(self) -> int:
        """How many rows this rank keeps."""
        return len(self._numbers)

    def add(self, numbers: ArrayLike, X: ArrayLike, T: ArrayLike) -> None:
        """Rows of this rank; no other rank takes part.

        Args:
            numbers: (b,) of the rows in the whole computation, from 0; b may be 0.
            X, T: (b, n_0) and (b, n_L) or (b,).

        Raises:
            InputError: the three do not fit one another.
        """
        given = np.asarray(numbers, np.int64)
        x, t = np.asarray(X), np.asarray(T)
        b, outputs = len(given), self._rows.shape[1] - self._features
        t = t.reshape(b, outputs) if t.size == b * outputs else t
        if x.shape != (b, self._features) or t.shape != (b, outputs):
            what = f"{b} numbers, X of shape {x.shape}, T of shape {t.shape}"
            remedy = f"give (b,), (b, {self._features}) and (b, {outputs})"
            raise InputError(what, "Reservoir.add", remedy)
        chosen = _smallest(np.concatenate([self._numbers, given]), self.seed, self.capacity)
        kept, new = chosen[chosen < len(self)], chosen[chosen >= len(self)] - len(self)
        rows = np.empty((len(chosen), self._rows.shape[1]), self._rows.dtype)
        rows[: len(kept)] = self._rows[kept]
        rows[len(kept) :, : self._features], rows[len(kept) :, self._features :] = x[new], t[new]
        self._numbers = np.concatenate([self._numbers[kept], given[new]])
        self._rows = rows

    def sample(self, comm: Any = None) -> tuple[Array, Array, Array]:
        """The sample of all ranks, in the order of the numbers: for `Trainer.fit`. Collective.

        Args:
            comm: an MPI communicator; None means all ranks.

        Returns:
            Numbers (k,), rows (k, n_0) and targets (k, n_L), k <= capacity; the same everywhere.
        """
        ranks = communicator_of(comm)
        numbers = _of_all(ranks, self._numbers)
        chosen = _smallest(numbers, self.seed, self.capacity)
        is_mine = np.isin(self._numbers, numbers[chosen])
        own, rows = self._numbers[is_mine], self._rows[is_mine]
        numbers, rows = _of_all(ranks, own), _of_all(ranks, rows)
        order = np.argsort(numbers, kind="stable")
        numbers, rows = numbers[order], rows[order]
        return numbers, rows[:, : self._features], rows[:, self._features :]


def _smallest(numbers: NDArray[np.int64], seed: int, count: int) -> NDArray[np.intp]:
    """Where those numbers are that have the `count` smallest hashes, ascending."""
    if len(numbers) <= count:
        return np.arange(len(numbers))
    keys = _hashes(numbers, seed)
    return np.sort(np.lexsort((numbers, keys))[:count])  # the number decides between equal hashes


def _hashes(numbers: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    """splitmix64 (Steele, Lea and Flood 2014) of the number, from a start that the seed gives."""

    def mixed(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))

    gamma = np.uint64(0x9E3779B97F4A7C15)
    start = mixed(np.array([seed], np.uint64) + gamma)
    return mixed(start + numbers.astype(np.uint64) * gamma)


def _of_all(ranks: Communicator, own: Array) -> Array:
    """The arrays (b, ...) of all ranks, one after the other, on every rank."""
    extents = ranks.extents(len(own))
    whole = np.empty((max(end for _, end in extents), *own.shape[1:]), own.dtype)
    with ranks.status.waiting():
        for rank, (start, end) in enumerate(extents):
            if rank == ranks.rank:
                whole[start:end] = own
            for lo in range(start, end, BLOCK):
                ranks.mpi.Bcast(whole[lo : min(lo + BLOCK, end)], rank)
    return whole
