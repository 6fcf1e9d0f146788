"""From files to data sets that are held once per node.

Rank 0 reads, checks and scales; a data set that cannot be used is an error on every rank.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distnn.data.rows import Rows
from distnn.data.scaling import Scaling
from distnn.data.targets import CLASSIFICATION, REGRESSION, Targets
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.shared_memory import SharedMemory
from distnn.training.dataset import Dataset, allocate, digest, shared_bytes, spread, write

if TYPE_CHECKING:  # files are rank 0's affair
    from distnn.data.sources import Source

Array = NDArray[Any]


@dataclass(frozen=True)
class Shape:
    """What every rank must know of a data set before it is read."""

    task: str
    features: int
    outputs: int
    classes: int
    train_items: int
    test_items: int

    def bytes(self, itemsize: int) -> int:
        """What a node shares for it."""
        return sum(
            shared_bytes(items, self.features, self.outputs, self.class_column, itemsize)
            for items in (self.train_items, self.test_items)
        )

    @property
    def is_classification(self) -> bool:
        """Whether the targets are classes."""
        return self.task == CLASSIFICATION

    @property
    def class_column(self) -> int:
        """Number of classes if the targets are class numbers, else 0."""
        return self.classes if self.classes == self.outputs else 0


@dataclass
class Loader:
    """Rank 0's hold on a data set that is opened but not read, and what it learns in reading.

    Attributes:
        scale_targets: standardise real targets, so that a network with linear output need not
            first grow to the scale of dollars or kelvins.
        tensors: what a checkpoint must keep of it.
    """

    source: "Source"
    targets: Targets
    y_test: Array | None
    scale_targets: bool
    tensors: dict[str, Array] = field(default_factory=dict)

    @classmethod
    def open(cls, source: "Source", output: str | None, loss: str | None) -> "Loader":
        """Deduce the task of a source and check its targets; raises InputError."""
        targets = Targets.deduce(source.y_train, output, loss, source.y_train_where)
        y_test = None
        if source.y_test is not None:
            y_test = targets.check(source.y_test, source.y_test_where)
        scale = targets.task == REGRESSION and output in (None, "identity")
        return cls(source, targets, y_test, scale)

    def shape(self) -> Shape:
        """The sizes of the data set."""
        source, targets = self.source, self.targets
        classes = targets.classes if targets.values.ndim == 1 else 0
        test_items = 0 if source.x_test is None else len(source.x_test)
        return Shape(
            targets.task,
            source.x_train.features,
            targets.n_out,
            classes,
            len(source.x_train),
            test_items,
        )

    def read(self, train: Dataset, test: Dataset | None) -> None:
        """Fill the data sets; raises InputError for a value that is not finite."""
        source = self.source
        write(train, source.x_train, self.targets.values, None)
        self.tensors["data"] = digest(train)
        scaling = Scaling.measure(train.X, source.x_train.dtype)
        scaling.apply(train.X)
        self._keep("scaling", scaling)
        target_scaling = None
        if self.scale_targets:
            target_scaling = Scaling.standardise(train.T)
            target_scaling.apply_targets(train.T)
            self._keep("target_scaling", target_scaling)
        if test is not None and source.x_test is not None and self.y_test is not None:
            write_scaled(test, source.x_test, self.y_test, scaling, target_scaling)

    def recorded(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """What a checkpoint says of the data set (metadata and tensors), after `read`."""
        about = {
            "task": self.targets.task,
            "classes": self.targets.classes,
            "feature_names": self.source.feature_names,
            "target_names": self.source.target_names,
        }
        return about, self.tensors

    def _keep(self, name: str, scaling: Scaling) -> None:
        for key, array in scaling.arrays().items():
            self.tensors[f"{name}.{key}"] = array


def write_scaled(
    samples: Dataset, X: Rows, y: Array, scaling: Scaling, target_scaling: Scaling | None
) -> None:
    """Rank 0: fill a data set with the scaling of the training set."""
    write(samples, X, y, scaling)
    if target_scaling is not None:
        target_scaling.apply_targets(samples.T)


def load(
    comm: Communicator, memory: SharedMemory, shape: Shape, loader: Loader | None, dtype: Any
) -> tuple[Dataset, Dataset | None]:
    """The training set and the test set, if there is one. Collective.

    Args:
        loader: on rank 0.

    Raises:
        InputError: on every rank.
    """
    comm.status.enter("reading of data")
    sizes = (shape.features, shape.outputs, shape.class_column, dtype)
    train = allocate(memory, shape.train_items, *sizes)
    test = allocate(memory, shape.test_items, *sizes) if shape.test_items else None

    def read() -> None:
        assert loader is not None
        with np.errstate(over="ignore"):
            loader.read(train, test)

    comm.on_first(read)
    for samples in (train, test):
        if samples is not None:
            spread(comm, samples)
    return train, test


def saved_scaling(tensors: dict[str, Array], name: str) -> Scaling | None:
    """A scaling as a checkpoint keeps it; None if it has none of this name."""
    if f"{name}.shift" not in tensors:
        return None
    return Scaling.from_arrays({key: tensors[f"{name}.{key}"] for key in ("shift", "scale")})
