"""A trained model applied: what a checkpoint holds of it, its measures and its predictions."""

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distnn.data.rows import Rows, fill
from distnn.data.scaling import Scaling
from distnn.data.sources import ARRAYS, Part, check_features
from distnn.data.targets import CLASSIFICATION, check_like
from distnn.errors import InputError
from distnn.nn.backprop import SlicePass
from distnn.nn.network import Network, decide
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.shared_memory import ArraySpec, SharedMemory, needed_bytes
from distnn.run import checkpoint
from distnn.run.checkpoint import Checkpoint
from distnn.run.directory import RunDirectory
from distnn.run.files import reason, write_output
from distnn.training.dataset import allocate, array_specs, digests, share
from distnn.training.evaluation import ROWS, Evaluation, Units, rank_slices
from distnn.training.loading import saved_scaling, write_scaled
from distnn.training.saved import check_test_set, checked_network, evaluated_weights, settings_of
from distnn.training.weighting import check_some, checked_weights

Array = NDArray[Any]
log = logging.getLogger(__name__)

NO_PREPARATION = (
    "a program trained it on rows as it gave them, and no scaling is recorded:"
    " the rows must be prepared as that program does"
)


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
        trained = cls.of(found)
        if settings_of(found).data == ARRAYS:
            log.warning("%s: %s", run_dir, NO_PREPARATION)
        return trained

    @classmethod
    def of(cls, found: Checkpoint) -> "Trained":
        """The network of a checkpoint; raises InputError."""
        network = checked_network(found)
        network.bind(evaluated_weights(found))
        scaling = saved_scaling(found.tensors, "scaling")
        assert scaling is not None
        target_scaling = saved_scaling(found.tensors, "target_scaling")
        return cls(
            network, scaling, target_scaling, found.meta["task"], found.meta["classes"], found
        )

    @property
    def is_classification(self) -> bool:
        """Whether the network decides for classes."""
        return self.task == CLASSIFICATION

    def checked(self, part: Part) -> Part:
        """A part with targets that fit the network; raises InputError."""
        check_features(part.x, self.network.layers[0])
        outputs = self.network.layers[-1]
        weight = part.weight
        if weight is not None:
            weight = checked_weights(weight, len(part.x), "weight")
        y = check_like(part.y, self.task, outputs, self.classes, part.y_where)
        return replace(part, y=y, weight=weight)

    def column_names(self) -> tuple[list[str] | None, list[str] | None]:
        """Names of the features and of the targets, where the training data had some."""
        return self.checkpoint.meta.get("feature_names"), self.checkpoint.meta.get("target_names")


def evaluate(
    comm: Communicator, trained: Trained | None, part: Part | None, is_own: bool = False
) -> dict[str, Any]:
    """Number of items and all measures, see `Evaluation.report`, on every rank. Collective.

    Args:
        trained, part: on rank 0; the targets are checked already, see `Trained.checked`.
        is_own: on rank 0, whether the part is to be the test set that the run had.

    Raises:
        InputError: on every rank, for a value that is not finite, or a test set that has changed.
    """
    common = None
    if trained is not None and part is not None:
        outputs = trained.network.layers[-1]
        classes = outputs if part.y.ndim == 1 and outputs > 1 else 0
        common = [
            trained.network.config(), trained.is_classification, len(part.x), classes,
            part.weight is not None, asdict(Units.of(trained.target_scaling)),
        ]  # fmt: skip
    config, classify, items, classes, weighted, units = comm.broadcast(common)
    network = Network(**config)
    sizes = (items, network.layers[0], network.layers[-1], classes, network.dtype, weighted)
    comm = comm.with_memory(needed_bytes([_weights_spec(network), *array_specs(*sizes)]))
    memory = SharedMemory(comm)
    _share_weights(memory, network, trained)
    dataset = allocate(memory, *sizes)

    def read() -> None:
        assert trained is not None
        assert part is not None
        write_scaled(dataset, part, trained.scaling, trained.target_scaling)
        if is_own:
            check_test_set(trained.checkpoint, part.x.where, digests(test=dataset))

    comm.on_first(read)
    share(comm, dataset)
    check_some(dataset, "weight")
    with np.errstate(all="ignore"):
        evaluation = Evaluation(comm, network, dataset, "", classify, units=Units(**units))
        measures = evaluation.report()
    return {"items": items, **measures}


def predict(comm: Communicator, trained: Trained | None, rows: Rows | None) -> Array | None:
    """The network's outputs (n, n_L) float64 for unscaled rows, on rank 0. Collective.

    Args:
        trained, rows: on rank 0.

    Raises:
        InputError: on every rank, for a value that is not finite.
    """
    common = trained and rows and [trained.network.config(), len(rows)]
    config, items = comm.broadcast(common)
    network = Network(**config)
    spec, _ = array_specs(items, network.layers[0], network.layers[-1], 0, network.dtype)
    comm = comm.with_memory(needed_bytes([_weights_spec(network), spec]))
    memory = SharedMemory(comm)
    _share_weights(memory, network, trained)
    X = memory.array(spec.shape, spec.dtype)

    def read() -> None:
        assert trained is not None
        assert rows is not None
        fill(rows, X)
        trained.scaling.apply(X)

    comm.on_first(read)
    comm.broadcast_among_leaders(X)
    with np.errstate(all="ignore"):
        return _outputs(comm, network, X)


def _weights_spec(network: Network) -> ArraySpec:
    return ArraySpec(1, (network.size,), network.dtype)


def _share_weights(memory: SharedMemory, network: Network, trained: Trained | None) -> None:
    """Give the network on every rank its weights, held once per node. Collective."""
    vector = memory.array((network.size,), network.dtype)
    if trained is not None:
        vector[:] = trained.network.vector
    memory.comm.broadcast_among_leaders(vector)
    network.bind(vector)


def _outputs(comm: Communicator, network: Network, X: Array) -> Array | None:
    """The network's outputs (n, n_L) float64 for rows (n, 1 + n_0), on rank 0. Collective.

    Ranks share the rows in slices of fixed length, so that the bits do not depend on the ranks.
    """
    slices, width = rank_slices(comm, len(X)), network.layers[-1]
    counts = [sum(hi - lo for lo, hi in own) * width for own in slices]
    slice_pass = SlicePass(network, min(ROWS, len(X)))
    A = np.empty((counts[comm.rank] // width, width))
    done = 0
    for lo, hi in slices[comm.rank]:
        A[done : done + hi - lo] = slice_pass.outputs(X[lo:hi])
        done += hi - lo
        comm.status.moved()
    gathered = comm.gather(A.reshape(-1), counts)
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
