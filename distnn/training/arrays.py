"""Data sets from arrays in memory, the same on every rank or each rank its own rows."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distnn.checks import number
from distnn.data.split import held_out
from distnn.errors import InputError
from distnn.nn.network import Network, decide
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.shared_memory import SharedMemory
from distnn.training.dataset import Dataset, RowLayout, allocate
from distnn.training.weighting import check_some, checked_weights

Array = NDArray[Any]


class Share(NamedTuple):
    """This rank's rows (b, n_0), targets, (b,) class numbers or (b, n_L), and weights (b,)."""

    rows: Array
    targets: Array
    weights: Array | None

    def where(self, mask: NDArray[np.bool_]) -> "Share":
        """Those of the rows for which the mask (b,) is True."""
        weights = None if self.weights is None else self.weights[mask]
        return Share(self.rows[mask], self.targets[mask], weights)


def from_arrays(
    comm: Communicator,
    memory: SharedMemory,
    network: Network,
    X: Any,
    T: Any,
    partitioned: bool = False,
    weights: Any = None,
) -> Dataset:
    """A data set from arrays in memory. Collective.

    Args:
        X, T: rows (n, n_0) and targets as `Network.targets` takes them: the same on every rank,
            of which rank 0's are used, or, if `partitioned`, each rank's own rows; the data set
            is then all of them, in the order of the caller's ranks.
        weights: of the rows (n,), on every rank or on none.

    Raises:
        InputError: on every rank, if any rank's arrays do not fit the network.
    """
    share, are_numbers = _checked(comm, network, X, T, partitioned, weights)
    return _spread(comm, memory, network, share, are_numbers)


def split_arrays(
    comm: Communicator,
    memory: SharedMemory,
    network: Network,
    X: Any,
    T: Any,
    partitioned: bool,
    weights: Any,
    validation: float,
    seed: int,
) -> tuple[Dataset, Dataset]:
    """As `from_arrays`, with a share of the rows in a data set of its own, drawn by `held_out`.

    Rows are numbered over all ranks, in the order of the caller's: the split is the same however
    they are spread.
    """
    validation = number(validation, "validation", above=0, below=1)
    share, are_numbers = _checked(comm, network, X, T, partitioned, weights)
    mask = _mask(comm, network, share, are_numbers, validation, seed)
    train, held = (
        _spread(comm, memory, network, share.where(rows), are_numbers) for rows in (~mask, mask)
    )
    return train, held


def _mask(
    comm: Communicator,
    network: Network,
    share: Share,
    are_numbers: bool,
    validation: float,
    seed: int,
) -> NDArray[np.bool_]:
    """Which of this rank's rows are held out. Every rank computes the mask of all rows."""
    extents = comm.extents(len(share.rows))
    n = max(end for _, end in extents)
    start, end = extents[comm.rank]
    classes = None
    if are_numbers or network.output in ("softmax", "sigmoid"):
        memory = SharedMemory(comm)
        shared = memory.array((n,), np.intp)
        shared[start:end] = share.targets if share.targets.ndim == 1 else decide(share.targets)
        for rank, (lo, hi) in enumerate(extents):
            comm.broadcast_among_leaders(shared[lo:hi], comm.node_of(rank))
        classes = shared.copy()
        comm.node_comm.Barrier()  # nobody reads any more
        memory.close()
    return held_out(n, validation, seed, classes)[start:end]


def _spread(
    comm: Communicator, memory: SharedMemory, network: Network, share: Share, are_numbers: bool
) -> Dataset:
    """The shares of all ranks as one data set, held once per node. Collective."""
    extents = comm.extents(len(share.rows))
    items = sum(end - start for start, end in extents)
    if items == 0:
        raise InputError("has no rows", where="X", remedy="give at least one")
    classes = network.layers[-1] if are_numbers else 0
    weighted = comm.largest(share.weights is not None) > 0
    dataset = allocate(memory, items, RowLayout.of(network, classes, weighted))
    start, end = extents[comm.rank]
    dataset.X[start:end, 0] = 1
    dataset.X[start:end, 1:] = share.rows
    dataset.T[start:end] = share.targets.reshape(dataset.T[start:end].shape)
    arrays = [dataset.X, dataset.T]
    if dataset.weights is not None:
        if share.weights is not None:
            dataset.weights[start:end] = share.weights
        arrays.append(dataset.weights)
    for rank, (start, end) in enumerate(extents):
        node = comm.node_of(rank)
        for array in arrays:
            comm.broadcast_among_leaders(array[start:end], node)
    check_some(dataset, "sample_weight")
    return dataset


def _checked(
    comm: Communicator, network: Network, X: Any, T: Any, partitioned: bool, weights: Any
) -> tuple[Share, bool]:
    """This rank's share, and whether targets are class numbers (n,)."""
    share = Share(
        np.empty((0, network.layers[0]), network.dtype),
        np.empty((0, network.layers[-1]), network.dtype),
        None,
    )
    problem: InputError | None = None
    if partitioned or comm.is_first:
        try:
            share = _share(network, X, T, weights)
        except InputError as error:
            problem = _of_a_rank(comm, error) if partitioned else error
    comm.agree(problem)
    kinds = {1: "class numbers", 2: "a matrix", 0: "nothing"}
    kind = share.targets.ndim if len(share.targets) else 0
    kind_of_all = comm.largest(kind)
    if kind not in (0, kind_of_all):
        what = f"are {kinds[kind]}, and on another rank {kinds[kind_of_all]}"
        remedy = "give the same kind on every rank"
        problem = _of_a_rank(comm, InputError(what, "targets", remedy))
    weighted = comm.largest(share.weights is not None and len(share.rows) > 0)
    if partitioned and weighted and share.weights is None and len(share.rows):
        what, remedy = "is missing here, and on another rank given", "give it on every rank"
        problem = problem or _of_a_rank(comm, InputError(what, "sample_weight", remedy))
    comm.agree(problem)
    if kind_of_all == 1 and not len(share.targets):  # of a rank without rows
        share = share._replace(targets=np.empty(0, np.intp))
    return share, kind_of_all == 1


def _share(network: Network, X: Any, T: Any, weights: Any) -> Share:
    rows, targets = network.rows(X), network.compact_targets(T)
    if len(rows) != len(targets):
        what = f"{len(rows)} rows and {len(targets)} targets"
        raise InputError(what, where="X", remedy="give one target per row")
    w = None if weights is None else checked_weights(weights, len(rows), "sample_weight")
    return Share(rows, targets, w)


def _of_a_rank(comm: Communicator, error: InputError) -> InputError:
    """An error in the rows that one rank gave, which names it."""
    return InputError(error.what, f"{error.where} of rank {comm.callers_rank}", error.remedy)
