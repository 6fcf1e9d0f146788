"""A trained run as evaluate and predict need it: its network, its scaling, its task."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distnn.data.rows import Rows, fill
from distnn.data.scaling import Scaling
from distnn.data.sources import Part
from distnn.data.targets import CLASSIFICATION, check_like
from distnn.errors import InputError
from distnn.nn.backprop import SlicePass
from distnn.nn.network import Network
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.shared_memory import SharedMemory
from distnn.parallel.reduction.partition import bounds
from distnn.run import checkpoint
from distnn.run.checkpoint import Checkpoint, CheckpointError
from distnn.run.directory import RunDirectory
from distnn.run.files import reason, write_output
from distnn.training.dataset import Dataset, shared_bytes
from distnn.training.evaluation import ROWS, decide
from distnn.training.loading import saved_scaling
from distnn.training.session import MARGIN

Array = NDArray[Any]


@dataclass(frozen=True)
class Trained:
    """What a checkpoint says of a network. On rank 0 only.

    Attributes:
        scaling, target_scaling: of the training set.
        classes: number of classes, 0 for regression.
    """

    network: Network
    scaling: Scaling
    target_scaling: Scaling | None
    task: str
    classes: int
    checkpoint: Checkpoint

    @classmethod
    def open(cls, run_dir: str, which: str) -> "Trained":
        """Load the network of a run.

        Args:
            which: ``latest``, ``best`` or the path of a checkpoint.

        Raises:
            InputError: there is none, or it is damaged or not one of a training run.
        """
        directory = RunDirectory(run_dir)
        found = checkpoint.read(checkpoint.find(directory.checkpoints, which))
        return cls.of(found)

    @classmethod
    def of(cls, found: Checkpoint) -> "Trained":
        """The network of a checkpoint; raises InputError."""
        try:
            network = Network(**found.meta["network"])
            weights = found.weights()
            task, classes = str(found.meta["task"]), int(found.meta["classes"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"is no training run's: {error}", str(found.path)) from None
        scaling = saved_scaling(found.tensors, "scaling")
        whole = weights.shape == (network.size,) and weights.dtype == network.dtype
        if scaling is None or not whole or len(scaling.shift) != network.layers[0]:
            raise CheckpointError("does not fit the network that it describes", str(found.path))
        network.bind(weights)
        target_scaling = saved_scaling(found.tensors, "target_scaling")
        return cls(network, scaling, target_scaling, task, classes, found)

    @property
    def is_classification(self) -> bool:
        """Whether the network decides for classes."""
        return self.task == CLASSIFICATION

    def meta(self) -> dict[str, Any]:
        """What all ranks must know."""
        return {"network": self.network.config(), "classify": self.is_classification}

    def column_names(self) -> tuple[list[str] | None, list[str] | None]:
        """Names of the features and of the targets, where the training data had some."""
        return self.checkpoint.meta.get("feature_names"), self.checkpoint.meta.get("target_names")


def needed_bytes(config: dict[str, Any], items: int) -> int:
    """What a node shares for a network and a data set of so many items."""
    network = Network(**config)
    itemsize = network.dtype.itemsize
    data = shared_bytes(items, network.layers[0], network.layers[-1], 0, itemsize)
    return network.size * itemsize + data + MARGIN


def share_network(
    comm: Communicator, memory: SharedMemory, config: dict[str, Any], trained: Trained | None
) -> Network:
    """The network on every rank, its weights once per node. Collective."""
    network = Network(**config)
    vector = memory.array((network.size,), network.dtype)
    if trained is not None:
        vector[:] = trained.network.vector
    comm.broadcast_among_leaders(vector)
    network.bind(vector)
    return network


def load_rows(
    comm: Communicator,
    memory: SharedMemory,
    network: Network,
    items: int,
    trained: Trained | None,
    rows: Rows | None,
) -> Array:
    """Scaled rows (items, 1 + n_0), once per node. Collective.

    Args:
        trained, rows: on rank 0.

    Raises:
        InputError: on every rank, for a value that is not finite.
    """
    X = memory.array((items, 1 + network.layers[0]), network.dtype)

    def read() -> None:
        assert trained is not None
        assert rows is not None
        fill(rows, X)
        trained.scaling.apply(X)

    comm.on_first(read)
    comm.broadcast_among_leaders(X)
    return X


def load_samples(
    comm: Communicator,
    memory: SharedMemory,
    network: Network,
    items: int,
    trained: Trained | None,
    part: Part | None,
) -> Dataset:
    """Rows and targets as the network was trained on them. Collective; see `load_rows`."""
    X = load_rows(comm, memory, network, items, trained, part.x if part else None)
    T = memory.array((items, network.layers[-1]), network.dtype)

    def read() -> None:
        assert trained is not None
        assert part is not None
        outputs = network.layers[-1]
        y = check_like(part.y, trained.task, outputs, trained.classes, part.y_where)
        T[...] = np.eye(outputs)[y] if y.ndim == 1 and outputs > 1 else y.reshape(T.shape)
        if trained.target_scaling is not None:
            trained.target_scaling.apply_targets(T)

    comm.on_first(read)
    comm.broadcast_among_leaders(T)
    return Dataset(X, T, 0)


def outputs(comm: Communicator, network: Network, X: Array) -> Array | None:
    """The network's outputs (n, n_L) float64 for rows (n, 1 + n_0), on rank 0. Collective.

    Ranks share the rows in slices of fixed length, so that the bits do not depend on the ranks.
    """
    slices, width = -(-len(X) // ROWS), network.layers[-1]
    extents = [
        tuple(min(len(X), edge * ROWS) for edge in bounds(slices, comm.size, rank))
        for rank in range(comm.size)
    ]
    slice_pass = SlicePass(network, min(ROWS, len(X)))
    first, last = extents[comm.rank]
    A = np.empty((last - first, width))
    for lo in range(first, last, ROWS):
        hi = min(last, lo + ROWS)
        A[lo - first : hi - first] = slice_pass.outputs(X[lo:hi])
        comm.status.moved()
    gathered = comm.gather(A.reshape(-1), [(end - start) * width for start, end in extents])
    return None if gathered is None else gathered.reshape(-1, width)


def write_predictions(path: str, trained: Trained, A: Array, probabilities: bool) -> None:
    """Write class numbers, or real outputs in the targets' own units.

    Raises:
        InputError: no space, no permission; what was in the file before is untouched.
    """
    table, heading = _predictions(trained, A, probabilities)

    def write(aside: Path) -> None:
        with aside.open("wb") as file:
            if path.endswith(".npy"):
                # not the file itself: to one, numpy writes in a way that hides the system's reason
                np.save(SimpleNamespace(write=file.write), table, allow_pickle=False)
            else:
                text = "%d" if table.dtype.kind == "i" else "%.9g"
                head = ",".join(heading)
                np.savetxt(file, table, text, ",", header=head, comments="", encoding="utf-8")

    try:
        write_output(Path(path), write)
    except OSError as error:
        remedy = "give another --output"
        raise InputError(f"cannot be written: {reason(error)}", path, remedy) from None


def _predictions(trained: Trained, A: Array, probabilities: bool) -> tuple[Array, list[str]]:
    width = A.shape[1]
    if trained.is_classification and not probabilities:
        return decide(A), ["class"]
    if trained.is_classification:
        return A, [f"class_{k}" for k in range(width)] if width > 1 else ["class_1"]
    if trained.target_scaling is not None:
        trained.target_scaling.undo(A)
    names = trained.column_names()[1] or [f"output_{k}" for k in range(width)]
    return A[:, 0] if width == 1 else A, names
