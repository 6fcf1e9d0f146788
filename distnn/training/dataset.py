"""A data set held once per node, as the passes read it."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from distnn.data.rows import Rows, convert, fill, place_of
from distnn.data.scaling import Scaling, Units
from distnn.errors import InputError
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
    """

    def __init__(self, X: Array, T: Array, classes: int) -> None:
        self.X, self.T, self.classes = X, T, classes
        self._table = np.eye(classes, dtype=X.dtype) if classes <= TABLE_CLASSES else None
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
        self._write_one_hot(classes, T)

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


@dataclass(frozen=True)
class TrainingData:
    """What a network is trained on.

    Attributes:
        classify: whether the targets are classes; None: see `evaluation.are_classes`.
        recorded: on rank 0, what a checkpoint says of the data (metadata and tensors).
        units: of real targets, on every rank.
    """

    train: Dataset
    test: Dataset | None
    classify: bool | None
    recorded: Callable[[], tuple[Mapping[str, Any], Mapping[str, Array]]] | None
    units: Units | None = None


def array_specs(
    items: int, features: int, outputs: int, classes: int, dtype: DTypeLike
) -> tuple[ArraySpec, ArraySpec]:
    """X and T of a data set; a column of class numbers where `classes` > 0."""
    targets = (
        ArraySpec(1, (items, 1), np.intp) if classes else ArraySpec(1, (items, outputs), dtype)
    )
    return ArraySpec(1, (items, 1 + features), dtype), targets


def order_spec(items: int) -> ArraySpec:
    """The order of the items in an epoch."""
    return ArraySpec(1, (items,), np.intp)


def shared_bytes(items: int, features: int, outputs: int, classes: int, dtype: DTypeLike) -> int:
    """What a node shares to train on a data set: its arrays and the order of its items."""
    specs = array_specs(items, features, outputs, classes, dtype)
    return needed_bytes([*specs, order_spec(items)])


def allocate(
    memory: SharedMemory, items: int, features: int, outputs: int, classes: int, dtype: DTypeLike
) -> Dataset:
    """A data set to be written. Collective over the node; arguments as `array_specs`."""
    specs = array_specs(items, features, outputs, classes, dtype)
    X, T = (memory.array(spec.shape, spec.dtype) for spec in specs)
    return Dataset(X, T, classes)


def write(dataset: Dataset, X: Rows, T: Array, where: str, scaling: Scaling | None) -> None:
    """Rank 0: fill a data set from rows and checked targets, the rows scaled in place.

    Args:
        where: file and array of the targets, for error messages.

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
    found = {}
    for name, dataset in datasets.items():
        for kind, array in () if dataset is None else (("rows", dataset.X), ("targets", dataset.T)):
            hashed = hashlib.sha1(f"{array.shape} {array.dtype}".encode(), usedforsecurity=False)
            hashed.update(np.ascontiguousarray(array).data.cast("B"))
            found[f"{name} {kind}"] = hashed.hexdigest()
    return found


def share(comm: Communicator, dataset: Dataset) -> None:
    """Copy what rank 0 wrote to every node. Collective."""
    comm.broadcast_among_leaders(dataset.X)
    comm.broadcast_among_leaders(dataset.T)


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
    rows, targets, are_numbers = _checked(comm, network, X, T, partitioned)
    extents = comm.extents(len(rows))
    items = sum(end - start for start, end in extents)
    if items == 0:
        raise InputError("has no rows", where="X", remedy="give at least one")
    classes = network.layers[-1] if are_numbers else 0
    dataset = allocate(memory, items, network.layers[0], network.layers[-1], classes, network.dtype)
    start, end = extents[comm.rank]
    dataset.X[start:end, 0] = 1
    dataset.X[start:end, 1:] = rows
    dataset.T[start:end] = targets.reshape(dataset.T[start:end].shape)
    for rank, (start, end) in enumerate(extents):
        node = comm.node_of(rank)
        comm.broadcast_among_leaders(dataset.X[start:end], node)
        comm.broadcast_among_leaders(dataset.T[start:end], node)
    return dataset


def _checked(
    comm: Communicator, network: Network, X: Any, T: Any, partitioned: bool
) -> tuple[Array, Array, bool]:
    """This rank's share of rows and targets, and whether targets are class numbers (n,)."""
    rows = np.empty((0, network.layers[0]), network.dtype)
    targets = np.empty((0, network.layers[-1]), network.dtype)
    problem: InputError | None = None
    if partitioned or comm.is_first:
        try:
            rows, targets = network.rows(X), network.compact_targets(T)
            if len(rows) != len(targets):
                what = f"{len(rows)} rows and {len(targets)} targets"
                raise InputError(what, where="X", remedy="give one target per row")
        except InputError as error:
            problem = _of_a_rank(comm, error) if partitioned else error
    comm.agree(problem)
    kinds = {1: "class numbers", 2: "a matrix", 0: "nothing"}
    kind = targets.ndim if len(targets) else 0
    kind_of_all = comm.largest(kind)
    if kind not in (0, kind_of_all):
        what = f"are {kinds[kind]}, and on another rank {kinds[kind_of_all]}"
        remedy = "give the same kind on every rank"
        problem = _of_a_rank(comm, InputError(what, "targets", remedy))
    comm.agree(problem)
    return rows, targets, kind_of_all == 1


def _of_a_rank(comm: Communicator, error: InputError) -> InputError:
    """An error in the rows that one rank gave, which names it."""
    return InputError(error.what, f"{error.where} of rank {comm.callers_rank}", error.remedy)
