"""A data set held once per node, as the passes read it."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distnn.data.rows import Rows, fill
from distnn.data.scaling import Scaling
from distnn.errors import InputError
from distnn.nn.network import Network
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.shared_memory import SharedMemory

Array = NDArray[Any]

DIGEST_ROWS = 1000


class Dataset:
    """Rows and targets of n items, in memory that all ranks of a node share.

    Attributes:
        X: (n, 1 + n_0), the rows with a column of ones in front, so that a slice's A[0] is
            gathered by one copy, or is a view.
        T: (n, n_L) targets, or (n, 1) class numbers where `classes` > 0.
    """

    def __init__(self, X: Array, T: Array, classes: int) -> None:
        self.X, self.T, self.classes = X, T, classes
        self._one_hot = np.eye(classes, dtype=X.dtype)
        self._labels = T[:, 0]
        self._classes = np.empty(0, np.intp)

    def __len__(self) -> int:
        return len(self.X)

    def gather(self, rows: NDArray[np.intp], A0: Array, T: Array) -> None:
        """The given rows into A0 (b, 1 + n_0) and their targets into T (b, n_L).

        The rows are not checked (mode "clip" is numpy's way to write without a buffer between).
        """
        self.X.take(rows, 0, A0, "clip")
        if not self.classes:
            self.T.take(rows, 0, T, "clip")
            return
        if len(self._classes) < len(rows):
            self._classes = np.empty(len(rows), np.intp)
        classes = self._classes[: len(rows)]
        self._labels.take(rows, 0, classes, "clip")
        self._one_hot.take(classes, 0, T, "clip")

    def stretch(self, lo: int, hi: int, T: Array) -> Array:
        """A view of the rows lo … hi, with their targets written into T (hi - lo, n_L)."""
        if self.classes:
            self._one_hot.take(self._labels[lo:hi], 0, T, "clip")
        else:
            T[...] = self.T[lo:hi]
        return self.X[lo:hi]


def allocate(
    memory: SharedMemory, items: int, features: int, outputs: int, classes: int, dtype: Any
) -> Dataset:
    """Room for a data set; a column of class numbers where `classes` > 0. Collective."""
    X = memory.array((items, 1 + features), dtype)
    T = memory.array((items, 1 if classes else outputs), np.intp if classes else dtype)
    return Dataset(X, T, classes)


def shared_bytes(items: int, features: int, outputs: int, classes: int, itemsize: int) -> int:
    """What a node shares for a data set: `allocate`'s arrays, and the order of its items."""
    number = np.dtype(np.intp).itemsize
    target = number if classes else outputs * itemsize
    return items * ((1 + features) * itemsize + target + number)


def write(samples: Dataset, X: Rows, T: Array, scaling: Scaling | None) -> None:
    """Rank 0: fill a data set from rows and checked targets, the rows scaled in place.

    Raises:
        InputError: a value is not finite.
    """
    fill(X, samples.X)
    if scaling is not None:
        scaling.apply(samples.X)
    samples.T[...] = T.reshape(samples.T.shape)


def digest(samples: Dataset) -> Array:
    """32 bytes by which another data set is told from this one: from its targets and some rows.

    Not all rows, because gigabytes of them would take longer to look through than to train on.
    """
    some = samples.X[:: max(1, len(samples) // DIGEST_ROWS)]
    hashed = hashlib.sha256(f"{samples.X.shape} {samples.X.dtype}".encode())
    for array in (some, samples.T):
        hashed.update(np.ascontiguousarray(array).data.cast("B"))
    return np.frombuffer(hashed.digest(), np.uint8)


def spread(comm: Communicator, samples: Dataset) -> None:
    """Every node gets what rank 0 wrote. Collective."""
    comm.broadcast_among_leaders(samples.X)
    comm.broadcast_among_leaders(samples.T)


def from_arrays(
    comm: Communicator,
    memory: SharedMemory,
    network: Network,
    X: Any,
    T: Any,
    partitioned: bool = False,
) -> Dataset:
    """A data set from arrays in memory. Collective.

    Args:
        X, T: rows (n, n_0) and targets as `Network.targets` takes them: the same on every rank,
            of which rank 0's are used, or, if `partitioned`, each rank's own rows; the data set
            is then all of them, in the order of the caller's ranks.

    Raises:
        InputError: on every rank, if any rank's arrays do not fit the network.
    """
    rows, targets = _checked(comm, network, X, T, partitioned)
    extents = comm.extents(len(rows))
    items = sum(end - start for start, end in extents)
    if items == 0:
        raise InputError("has no rows", where="X", remedy="give at least one")
    classes = network.layers[-1] if comm.largest(targets.ndim == 1) else 0
    samples = allocate(memory, items, network.layers[0], network.layers[-1], classes, network.dtype)
    start, end = extents[comm.rank]
    samples.X[start:end, 0] = 1
    samples.X[start:end, 1:] = rows
    samples.T[start:end] = targets.reshape(samples.T[start:end].shape)
    for rank, (start, end) in enumerate(extents):
        node = comm.node_of(rank)
        comm.broadcast_among_leaders(samples.X[start:end], node)
        comm.broadcast_among_leaders(samples.T[start:end], node)
    return samples


def _checked(
    comm: Communicator, network: Network, X: Any, T: Any, partitioned: bool
) -> tuple[Array, Array]:
    """This rank's share of the rows, and its targets: class numbers (n,), or (n, n_L)."""
    rows = np.empty((0, network.layers[0]), network.dtype)
    targets = np.empty((0, network.layers[-1]), network.dtype)
    problem: InputError | None = None
    if partitioned or comm.is_first:
        try:
            rows, targets = network.rows(X), network.targets(T)
            if len(rows) != len(targets):
                what = f"{len(rows)} rows and {len(targets)} targets"
                raise InputError(what, where="X", remedy="give one target per row")
            if np.ndim(T) == 1 and network.layers[-1] > 1:
                targets = np.asarray(T).astype(np.intp)  # (n,), a fraction of one-hot's memory
        except InputError as error:
            problem = _of_a_rank(comm, error) if partitioned else error
    comm.agree(problem)
    kinds = {1: "class numbers", 2: "a matrix", 0: "nothing"}
    kind = (0 if not len(targets) else targets.ndim) if partitioned or comm.is_first else 0
    kind_of_all = comm.largest(kind)
    if kind not in (0, kind_of_all):
        what = f"are {kinds[kind]}, and on another rank {kinds[kind_of_all]}"
        remedy = "give the same kind on every rank"
        problem = _of_a_rank(comm, InputError(what, "targets", remedy))
    comm.agree(problem)
    return rows, targets if kind else np.empty((0,) * kind_of_all)


def _of_a_rank(comm: Communicator, error: InputError) -> InputError:
    """An error in the rows that one rank gave, which names it."""
    return InputError(error.what, f"{error.where} of rank {comm.callers_rank}", error.remedy)
