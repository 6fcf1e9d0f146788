"""A trained model applied: what a checkpoint holds of it, its measures and its predictions."""

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distnn.config.options import ARRAYS, TrainConfig
from distnn.data.part import Part
from distnn.data.preparation import Preparation
from distnn.data.rows import Rows, fill
from distnn.data.scaling import Scaling, Units, log_of_targets
from distnn.data.sources import check_features
from distnn.data.targets import CLASSIFICATION, check_like
from distnn.nn.backprop import SlicePass
from distnn.nn.network import Network
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.shared_memory import SharedMemory, closing, needed_bytes
from distnn.run import checkpoint
from distnn.run.checkpoint import Checkpoint
from distnn.run.directory import RunDirectory
from distnn.training.dataset import RowLayout, allocate, array_specs, digests, share
from distnn.training.evaluation import ROWS, Evaluation, rank_slices
from distnn.training.loading import saved_scaling, write_scaled
from distnn.training.saved import (
    check_identity,
    check_set,
    checked_network,
    evaluated_weights,
    preparation_of,
    settings_of,
)
from distnn.training.vectors import share_weights, weights_spec
from distnn.training.weighting import check_some, checked_weights

Array = NDArray[Any]
log = logging.getLogger(__name__)

FAR = 10.0  # deviations, or times a deviation, that rows are off those of the training
NO_PREPARATION = (
    "a program trained it on rows as it gave them, and no scaling is recorded:"
    " the rows must be prepared as that program does"
)


@dataclass(frozen=True)
class Trained:
    """What a checkpoint says of a network. On rank 0 only.

    Attributes:
        scaling: of the features of the training set.
        units: of its targets.
        classes: number of classes, 0 for regression.
        preparation: of its table's columns; None where it was none.
        seen: moments of rows that a program gave, which are not scaled; None for files.
    """

    network: Network
    scaling: Scaling
    units: Units
    task: str
    classes: int
    checkpoint: Checkpoint
    preparation: Preparation | None
    seen: Scaling | None

    @classmethod
    def open(cls, run_dir: str, which: str) -> "Trained":
        """Load the network of a run.

        Args:
            which: of `checkpoint.chosen`.

        Raises:
            InputError: there is none, or it is damaged or not one of a training run.
        """
        directory = RunDirectory(run_dir)
        found = checkpoint.chosen(directory.checkpoints, which)
        if found.path.parent == directory.checkpoints:  # else somebody named another's
            check_identity(found, directory.identity())
        return cls.of(found)

    @classmethod
    def of(cls, found: Checkpoint) -> "Trained":
        """The network of a checkpoint; raises InputError."""
        network = checked_network(found)
        network.bind(evaluated_weights(found))
        scaling = saved_scaling(found.tensors, "scaling")
        assert scaling is not None
        target_scaling = saved_scaling(found.tensors, "target_scaling")
        units = Units(target_scaling, found.meta.get("target_transform"))
        seen = saved_scaling(found.tensors, "seen")
        preparation = preparation_of(found)
        names = found.meta.get("feature_names")
        if preparation is None and names is not None:  # of distnn before it had them
            preparation = Preparation.of_numbers(names, len(names))
        return cls(
            network, scaling, units, found.meta["task"], found.meta["classes"], found,
            preparation, seen,
        )  # fmt: skip

    @property
    def weights_text(self) -> str:
        """Whose weights they are, in words."""
        epoch = self.checkpoint.meta["position"]["epoch"]
        return f"weights of epoch {epoch} ({self.checkpoint.path.name})"

    @property
    def is_classification(self) -> bool:
        """Whether the network decides for classes."""
        return self.task == CLASSIFICATION

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes; None where they are numbers from 0 on, and for regression."""
        return self.checkpoint.meta.get("class_names")

    @property
    def target_names(self) -> list[str] | None:
        """Names of the targets, where the training data had some."""
        return self.checkpoint.meta.get("target_names")

    @property
    def settings(self) -> TrainConfig:
        """The options that it was trained with."""
        return settings_of(self.checkpoint)

    @property
    def has_no_preparation(self) -> bool:
        """Whether a program gave the rows, and how it made them is not known here."""
        return self.settings.data == ARRAYS and self.preparation is None

    def checked(self, part: Part) -> Part:
        """A part with targets that fit the network; raises InputError."""
        check_features(part.x, self.network.layers[0])
        outputs = self.network.layers[-1]
        weights = part.weights
        if weights is not None:
            weights = checked_weights(weights, len(part.x), "weight")
        y = check_like(part.y, self.task, outputs, self.classes, part.y_where, self.class_names)
        if self.units.transform is not None:
            y = log_of_targets(y, part.y_where)
        return replace(part, y=y, weights=weights)

    def warn_of(self, X: Array, where: str) -> None:
        """Say that rows look unlike those of the training, where nothing prepares them.

        Args:
            X: (n, 1 + n_0), column 0 of ones.
        """
        if not self.has_no_preparation:
            return
        log.warning("%s: %s", where, NO_PREPARATION)
        if self.seen is None:
            return
        here = Scaling.standardise(X[:, 1:])
        far = np.abs(here.shift - self.seen.shift) * self.seen.scale > FAR
        varies = (self.seen.scale != 1) & (here.scale != 1) & (len(X) > 1)
        ratio = self.seen.scale / here.scale
        odd = np.flatnonzero(far | (varies & ((ratio > FAR) | (ratio < 1 / FAR))))
        if len(odd):
            j = int(odd[0])
            log.warning(
                "%s: rows look unlike those of the training: column %d has mean %.4g, there %.4g"
                " with a deviation of %.4g (%d of %d columns)",
                where, j, here.shift[j], self.seen.shift[j], 1 / self.seen.scale[j], len(odd),
                len(far),
            )  # fmt: skip


def evaluate(
    comm: Communicator, trained: Trained | None, part: Part | None, which: str = ""
) -> dict[str, Any]:
    """Number of items and all measures, see `Evaluation.report`, on every rank. Collective.

    Args:
        trained, part: on rank 0; the targets are checked already, see `Trained.checked`.
        which: on rank 0, which set of the run the part is to be: "test", "validation" or none.

    Raises:
        InputError: on every rank, for a value that is not finite, or a test set that has changed.
    """
    common = None
    if trained is not None and part is not None:
        outputs = trained.network.layers[-1]
        classes = outputs if part.y.ndim == 1 and outputs > 1 else 0
        common = [
            trained.network.config(), trained.is_classification, len(part.x), classes,
            part.weights is not None, trained.units.to_json(),
        ]  # fmt: skip
    config, classify, items, classes, weighted, units = comm.broadcast(common)
    network = Network(**config)
    row = RowLayout.of(network, classes, weighted)
    comm = comm.with_memory(needed_bytes([weights_spec(network), *array_specs(items, row)]))
    memory = SharedMemory(comm)
    with closing(memory), np.errstate(all="ignore"):
        share_weights(memory, network, lambda vector: _copied(trained, vector))
        dataset = allocate(memory, items, row)

        def read() -> None:
            assert trained is not None
            assert part is not None
            write_scaled(dataset, part, trained.scaling, trained.units.scaling)
            trained.warn_of(dataset.X, part.x.where)
            if which:
                check_set(trained.checkpoint, part.x.where, which, digests(**{which: dataset}))

        comm.on_first(read)
        share(comm, dataset)
        check_some(dataset, "weight")
        own = Units.from_json(units)
        measures = Evaluation(comm, network, dataset, "", classify, units=own).report()
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
    spec, _ = array_specs(items, RowLayout.of(network, 0))
    comm = comm.with_memory(needed_bytes([weights_spec(network), spec]))
    memory = SharedMemory(comm)
    with closing(memory), np.errstate(all="ignore"):
        share_weights(memory, network, lambda vector: _copied(trained, vector))
        X = memory.array(spec.shape, spec.dtype)

        def read() -> None:
            assert trained is not None
            assert rows is not None
            fill(rows, X)
            trained.scaling.apply(X)
            trained.warn_of(X, rows.where)

        comm.on_first(read)
        comm.broadcast_among_leaders(X)
        return _outputs(comm, network, X)


def _copied(trained: Trained | None, vector: Array) -> None:
    assert trained is not None
    vector[:] = trained.network.vector


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
