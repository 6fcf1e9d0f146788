"""A data set held once per node, as the passes read it."""

import hashlib
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from distnn.data.order import epoch_order
from distnn.data.rows import Rows, convert, fill, place_of
from distnn.data.scaling import Scaling
from distnn.nn.network import Network
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.shared_memory import ArraySpec, SharedMemory, needed_bytes

Array = NDArray[Any]

DIGEST_ROWS = 1000
# Up to so many classes, rows of the identity matrix are copied into T: half a microsecond less per
# slice than zeros with ones written into them (10 classes). 4 MB per rank in float32.
TABLE_CLASSES = 1024


class Dataset:
    """Rows and targets of n items, in memory that all ranks of a node share.

    Attributes:
        X: (n, 1 + n_0), the rows with a column of ones in front, so that a slice's A[0] is
            gathered by one copy, or is a view.
        T: (n, n_L) targets, or (n, 1) class numbers where `classes` > 0.
        weights: (n,) float64 of the rows, None where each counts 1.
        smoothing: share of each target of classes that `gather` spreads over all classes.
        digests: on rank 0, of all values, where those are not in memory, see `digests`.
    """

    def __init__(self, X: Array, T: Array, classes: int, weights: Array | None = None) -> None:
        self.X, self.T, self.classes, self.weights = X, T, classes, weights
        self.smoothing = 0.0
        self.digests: dict[str, str] = {}
        self._table = np.eye(classes, dtype=X.dtype) if classes <= TABLE_CLASSES else None
        self._labels = T[:, 0]
        self._classes = np.empty(0, np.intp)

    def __len__(self) -> int:
        return len(self.X)

    @property
    def total_weight(self) -> float:
        """What a sum over the rows is divided by for their mean."""
        return len(self) if self.weights is None else float(self.weights.sum())

    def order(self, memory: SharedMemory) -> "Order":
        """What gives the rows of the batches of an epoch. Collective over the node."""
        return EpochOrder(memory, len(self))

    def gather(self, rows: NDArray[np.intp], A0: Array, T: Array) -> None:
        """The given rows into A0 (b, 1 + n_0) and their targets into T (b, n_L).

        The rows are not checked (mode "clip" is numpy's way to write without a buffer between).
        """
        self.X.take(rows, 0, A0, "clip")
        if not self.classes:
            self.T.take(rows, 0, T, "clip")
            self._smooth(T)
            return
        if len(self._classes) < len(rows):
            self._classes = np.empty(len(rows), np.intp)
        classes = self._classes[: len(rows)]
        self._labels.take(rows, 0, classes, "clip")
        self._write_one_hot(classes, T)
        self._smooth(T)

    def _smooth(self, T: Array) -> None:
        """T (b, n_L) becomes (1 - E) T + E / C (Szegedy et al. 2016); one output has 2 classes."""
        if self.smoothing:
            np.multiply(T, 1 - self.smoothing, T)
            np.add(T, self.smoothing / max(2, T.shape[1]), T)

    def close(self) -> None:
        """End what works beside the training on this data set: nothing, here."""

    def view(self, lo: int, hi: int, T: Array) -> Array:
        """A view of the rows lo … hi, with their targets written into T (hi - lo, n_L)."""
        if self.classes:
            self._write_one_hot(self._labels[lo:hi], T)
        else:
            T[...] = self.T[lo:hi]
        return self.X[lo:hi]

    def _write_one_hot(self, classes: NDArray[np.intp], T: Array) -> None:
        """Class numbers (b,) as rows of T (b, n_L)."""
        if self._table is not None:
            self._table.take(classes, 0, T, "clip")
        else:
            T.fill(0)
            T[np.arange(len(classes)), classes] = 1


class Order(Protocol):
    """Gives the rows of each batch, for `Dataset.gather`."""

    def begin_epoch(self, seed: int, epoch: int, shuffle: bool) -> None:
        """The batches of this epoch are asked for from now on. Collective."""

    def batch(self, start: int, end: int) -> NDArray[np.intp]:
        """The rows start ... end of the epoch's order; fewer at its end."""


class EpochOrder:
    """The order of n items in an epoch, which the node's first rank draws.

    Others may read it when they have met that rank after `begin_epoch`.
    """

    def __init__(self, memory: SharedMemory, n: int) -> None:
        self._rows = memory.array(order_spec(n).shape, np.intp)
        self._is_drawn_here = memory.comm.node_rank == 0

    def begin_epoch(self, seed: int, epoch: int, shuffle: bool) -> None:
        """See `Order.begin_epoch`."""
        n = len(self._rows)
        if self._is_drawn_here and shuffle:
            epoch_order(n, seed, epoch, self._rows)
        elif self._is_drawn_here:
            self._rows[:] = np.arange(n)

    def batch(self, start: int, end: int) -> NDArray[np.intp]:
        """See `Order.batch`."""
        return self._rows[start:end]


class RowLayout(NamedTuple):
    """What a row of a data set is made of.

    Attributes:
        features, outputs: n_0 and n_L.
        classes: how many, where targets are class numbers; 0 where each row has n_L targets.
        dtype: of features and targets.
        weighted: whether rows have weights.
    """

    features: int
    outputs: int
    classes: int
    dtype: DTypeLike
    weighted: bool = False

    @classmethod
    def of(cls, network: Network, classes: int, weighted: bool = False) -> "RowLayout":
        """What a network takes."""
        return cls(network.layers[0], network.layers[-1], classes, network.dtype, weighted)


def array_specs(items: int, row: RowLayout) -> tuple[ArraySpec, ...]:
    """X, T and the weights, if any, of a data set; class numbers where `classes` > 0."""
    numbers, targets = ArraySpec(1, (items, 1), np.intp), (items, row.outputs)
    weights = (ArraySpec(1, (items,), np.float64),) if row.weighted else ()
    return (
        ArraySpec(1, (items, 1 + row.features), row.dtype),
        numbers if row.classes else ArraySpec(1, targets, row.dtype),
        *weights,
    )


def order_spec(items: int) -> ArraySpec:
    """The order of the items in an epoch."""
    return ArraySpec(1, (items,), np.intp)


def shared_bytes(items: int, row: RowLayout) -> int:
    """What a node shares to train on a data set: its arrays and the order of its items."""
    return needed_bytes([*array_specs(items, row), order_spec(items)])


def allocate(memory: SharedMemory, items: int, row: RowLayout) -> Dataset:
    """A data set to be written. Collective over the node."""
    X, T, *weights = (memory.array(one.shape, one.dtype) for one in array_specs(items, row))
    return Dataset(X, T, row.classes, weights[0] if weights else None)


def write(
    dataset: Dataset,
    X: Rows,
    T: Array,
    where: str,
    scaling: Scaling | None,
    weights: Array | None = None,
) -> None:
    """Rank 0: fill a data set from rows and checked targets, the rows scaled in place.

    Args:
        where: file and array of the targets, for error messages.
        weights: (n,) checked; None for 1, where the data set has some.

    Raises:
        InputError: a value is not finite, or beyond the range of the data set's type.
    """
    fill(X, dataset.X)
    if scaling is not None:
        scaling.apply(dataset.X)
    convert(
        T.reshape(dataset.T.shape),
        dataset.T,
        lambda row, column: f"{where}, {place_of(row, column)}",
    )
    if dataset.weights is not None:
        dataset.weights[:] = 1 if weights is None else weights


def digest(dataset: Dataset) -> Array:
    """32 bytes that differ for another data set: of its targets and some rows, before scaling.

    A checkpoint of distnn before `digests` has nothing else to compare.
    """
    some = dataset.X[:: max(1, len(dataset) // DIGEST_ROWS)]
    hashed = hashlib.sha256(f"{dataset.X.shape} {dataset.X.dtype}".encode())
    for array in (some, dataset.T):
        hashed.update(np.ascontiguousarray(array).data.cast("B"))
    return np.frombuffer(hashed.digest(), np.uint8)


def digests(**datasets: Dataset | None) -> dict[str, str]:
    """Rank 0: digests of all values of prepared data, by what they are of.

    SHA-1 is the fastest here, and nobody need be kept from forging data.
    """
    found: dict[str, str] = {}
    for name, dataset in datasets.items():
        found |= {} if dataset is None else dataset.digests
        for kind, array in () if dataset is None or dataset.digests else _arrays(dataset):
            hashed = hashlib.sha1(f"{array.shape} {array.dtype}".encode(), usedforsecurity=False)
            hashed.update(np.ascontiguousarray(array).data.cast("B"))
            found[f"{name} {kind}"] = hashed.hexdigest()
    return found


def share(comm: Communicator, dataset: Dataset) -> None:
    """Copy what rank 0 wrote to every node. Collective."""
    for _, array in _arrays(dataset):
        comm.broadcast_among_leaders(array)


def _arrays(dataset: Dataset) -> list[tuple[str, Array]]:
    arrays = [("rows", dataset.X), ("targets", dataset.T)]
    return arrays if dataset.weights is None else [*arrays, ("weights", dataset.weights)]
