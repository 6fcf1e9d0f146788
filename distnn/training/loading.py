"""From files to data sets that are held once per node.

Rank 0 reads, checks and scales; a data set that cannot be used is an error on every rank.
"""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from distnn.data.scaling import Scaling, Units, log_of_targets
from distnn.data.targets import CLASSIFICATION, REGRESSION, Targets
from distnn.errors import InputError, printable
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.shared_memory import SharedMemory, needed_bytes
from distnn.training.dataset import (
    Dataset,
    allocate,
    array_specs,
    digest,
    share,
    shared_bytes,
    write,
)

if TYPE_CHECKING:  # only rank 0 opens files
    from distnn.data.sources import Part, Source

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

    def sizes(self, dtype: DTypeLike) -> tuple[int, int, int, DTypeLike]:
        """Features, outputs, number of classes where targets are a column of them, and dtype."""
        return self.features, self.outputs, self.class_column, dtype

    def bytes(self, dtype: DTypeLike) -> int:
        """What a node shares for it."""
        test = array_specs(self.test_items, *self.sizes(dtype)) if self.test_items else ()
        return shared_bytes(self.train_items, *self.sizes(dtype)) + needed_bytes(test)

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
    """On rank 0: a data set that is open but not read yet.

    Attributes:
        train: the training part, as it was opened.
        targets: its targets, checked.
        test: the test part, its targets checked; None without one.
        scale_targets: standardise real targets, so that a network with linear output need not
            first grow to the scale of dollars or kelvins.
        transform: of real targets, before they are scaled: "log" or None.
        tensors: what a checkpoint keeps of it, complete when it is read.
        scaled_as: tensors of the run's checkpoint, if it goes on: data are scaled as those that the
            network was trained on, also where they have changed.
    """

    train: "Part"
    targets: Targets
    test: "Part | None"
    scale_targets: bool
    transform: str | None = None
    tensors: dict[str, Array] = field(default_factory=dict)
    scaled_as: dict[str, Array] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        source: "Source",
        output: str | None,
        loss: str | None,
        task: str | None = None,
        transform: str | None = None,
    ) -> "Loader":
        """Deduce the task of a source, if it is not given, and check its targets.

        Raises:
            InputError: targets that do not fit the task, or have no logarithm.
        """
        train, test = source.train, source.test
        by_value = train.preparation is not None
        if transform is not None and task is None:
            task = REGRESSION  # a logarithm is of amounts
        targets = Targets.deduce(train.y, output, loss, train.y_where, task, by_value)
        if test is not None:
            test = replace(test, y=targets.check(test.y, test.y_where))
        if transform is not None:
            if targets.task != REGRESSION:
                remedy = "leave it out, or say --task regression"
                raise InputError("the targets are classes", "--target-transform", remedy)
            values = log_of_targets(targets.values, targets.where)
            targets = replace(targets, values=values)
            test = test and replace(test, y=log_of_targets(test.y, test.y_where))
        scale = targets.task == REGRESSION and output in (None, "identity")
        return cls(train, targets, test, scale, transform)

    def description(self) -> list[str]:
        """What was understood of the data: one line, and one for whatever else is to be known."""
        rows, test = len(self.train.x), 0 if self.test is None else len(self.test.x)
        parts = f"{rows} train, {test} test" if test else f"{rows} train"
        features = f"{self.train.x.features} features"
        first = f"{self.targets.description()}, {features}, {rows + test} rows: {parts}"
        return [first, *(printable(note) for note in self.train.notes)]

    def shape(self) -> Shape:
        """The sizes of the data set."""
        rows, targets = self.train.x, self.targets
        classes = targets.classes if targets.values.ndim == 1 else 0
        test_items = 0 if self.test is None else len(self.test.x)
        return Shape(targets.task, rows.features, targets.n_out, classes, len(rows), test_items)

    def read(self, train: Dataset, test: Dataset | None) -> None:
        """Fill the data sets; raises InputError for a value that is not finite or too large."""
        write(train, self.train.x, self.targets.values, self.targets.where, None)
        self.tensors["data"] = digest(train)
        scaling = self._recorded("scaling", train.X.shape[1] - 1)
        if scaling is None:
            preparation = self.train.preparation
            mask = None if preparation is None else preparation.is_scaled
            scaling = Scaling.measure(train.X, self.train.x.dtype, mask)
        scaling.apply(train.X)
        self._keep("scaling", scaling)
        target_scaling = None
        if self.scale_targets:
            target_scaling = self._recorded("target_scaling", train.T.shape[1])
            if target_scaling is None:
                target_scaling = Scaling.standardise(train.T)
            target_scaling.apply_targets(train.T)
            self._keep("target_scaling", target_scaling)
        if test is not None and self.test is not None:
            write_scaled(test, self.test, scaling, target_scaling)

    def recorded(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """What a checkpoint says of the data set (metadata and tensors), after `read`."""
        about = {
            "task": self.targets.task,
            "classes": self.targets.classes,
            "feature_names": self.train.feature_names,
            "target_names": self.train.target_names,
            "class_names": self.targets.names,
        }
        if self.train.preparation is not None:
            about["preparation"] = self.train.preparation.to_json()
        if self.transform is not None:
            about["target_transform"] = self.transform
        return about, self.tensors

    def units(self) -> Units:
        """The unit of real targets, after `read`."""
        return Units(saved_scaling(self.tensors, "target_scaling"), self.transform)

    def _recorded(self, name: str, columns: int) -> Scaling | None:
        scaling = saved_scaling(self.scaled_as, name)
        return scaling if scaling is not None and len(scaling.shift) == columns else None

    def _keep(self, name: str, scaling: Scaling) -> None:
        for key, array in scaling.arrays().items():
            self.tensors[f"{name}.{key}"] = array


def write_scaled(
    dataset: Dataset, part: "Part", scaling: Scaling, target_scaling: Scaling | None
) -> None:
    """Rank 0: fill a data set with rows and checked targets, scaled as the training set."""
    write(dataset, part.x, part.y, part.y_where, scaling)
    if target_scaling is not None:
        target_scaling.apply_targets(dataset.T)


def load(
    comm: Communicator, memory: SharedMemory, shape: Shape, loader: Loader | None, dtype: DTypeLike
) -> tuple[Dataset, Dataset | None]:
    """The training set and the test set, if there is one. Collective.

    Args:
        loader: on rank 0.

    Raises:
        InputError: on every rank.
    """
    comm.status.enter("reading of data")
    sizes = shape.sizes(dtype)
    train = allocate(memory, shape.train_items, *sizes)
    test = allocate(memory, shape.test_items, *sizes) if shape.test_items else None

    def read() -> None:
        assert loader is not None
        with np.errstate(over="ignore"):
            loader.read(train, test)

    comm.on_first(read)
    for dataset in filter(None, (train, test)):
        share(comm, dataset)
    return train, test


def saved_scaling(tensors: dict[str, Array], name: str) -> Scaling | None:
    """A scaling as a checkpoint keeps it; None if it has none of this name."""
    if f"{name}.shift" not in tensors:
        return None
    return Scaling.from_arrays({key: tensors[f"{name}.{key}"] for key in ("shift", "scale")})
