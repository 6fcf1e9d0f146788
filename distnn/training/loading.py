"""From files to data sets that are held once per node.

Rank 0 reads, checks and scales; a data set that cannot be used is an error on every rank.
"""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from distnn.config.options import TrainConfig
from distnn.data.scaling import Scaling, Units, log_of_targets
from distnn.data.targets import CLASSIFICATION, REGRESSION, Targets
from distnn.errors import InputError, printable
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.shared_memory import SharedMemory, needed_bytes
from distnn.training.dataset import (
    Dataset,
    RowLayout,
    allocate,
    array_specs,
    digest,
    share,
    shared_bytes,
    write,
)
from distnn.training.opening import held_rows, rows_of, table_options, targets_of
from distnn.training.streamed import StreamedDataset, WindowSizes, window_specs
from distnn.training.streaming import (
    Encoder,
    Measured,
    StreamDescription,
    begin_streaming,
    check_streamed,
    measure,
)
from distnn.training.weighting import check_some, checked_weights

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
    validation_items: int = 0
    weighted: bool = False
    window: int = 0
    block: int = 0

    def row(self, dtype: DTypeLike) -> RowLayout:
        """What each of its rows is made of."""
        return RowLayout(self.features, self.outputs, self.class_column, dtype, self.weighted)

    def bytes(self, dtype: DTypeLike) -> int:
        """What a node shares for it."""
        others = [n for n in (self.test_items, self.validation_items) if n]
        specs = [spec for n in others for spec in array_specs(n, self.row(dtype))]
        if self.window:
            windows = window_specs(self.window_sizes, self.row(dtype))
            return needed_bytes([*windows, *specs])
        train = shared_bytes(self.train_items, self.row(dtype))
        return train + needed_bytes(specs)

    @property
    def window_sizes(self) -> WindowSizes:
        """Of a training set that is read in windows."""
        return WindowSizes(self.train_items, self.window, self.block)

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
        test, validation: their targets checked; None without one.
        scale_targets: standardise real targets, so that a network with linear output need not
            first grow to the scale of dollars or kelvins.
        transform: of real targets, before they are scaled: "log" or None.
        tensors: what a checkpoint keeps of it, complete when it is read.
        window: rows of a window, at least; 0: the training set is held in memory.
        measured: what a pass over a training set that is read in windows gave.
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
    validation: "Part | None" = None
    window: int = 0
    measured: Measured | None = None

    @classmethod
    def open(
        cls,
        source: "Source",
        config: TrainConfig,
        validation: "Part | float | None" = None,
    ) -> "Loader":
        """Deduce the task of a source, if it is not given, and check its targets.

        Args:
            config: task, output, loss, transform of the targets, and seed.
            validation: a set, or a share of the training rows, drawn by `data.split.held_out`.

        Raises:
            InputError: targets or weights cannot be used, do not fit the task or have no logarithm.
        """
        train, test = _weighed(source.train), _weighed(source.test)
        assert train is not None
        transform = config.target_transform
        targets = targets_of(train, config)
        if transform is not None and targets.task != REGRESSION:
            remedy = "leave it out, or say --task regression"
            raise InputError("the targets are classes", "--target-transform", remedy)
        if train.blocks is not None:
            check_streamed(config)
        if isinstance(validation, float):
            held = held_rows(targets, validation, config.seed)
            train, validation = rows_of(train, ~held), rows_of(train, held)
            targets = replace(targets, values=targets.values[~held])
        test, validation = (
            part and replace(part, y=targets.check(part.y, part.y_where))
            for part in (test, _weighed(validation))
        )
        if transform is not None:
            targets = replace(targets, values=log_of_targets(targets.values, targets.where))
            test, validation = (
                part and replace(part, y=log_of_targets(part.y, part.y_where))
                for part in (test, validation)
            )
        scale = targets.task == REGRESSION and config.output in (None, "identity")
        window = 0
        if train.blocks is not None:
            from distnn.data.streams import check_classes, window_rows  # which rank 0 alone needs

            check_classes(targets)
            window = window_rows(train.x.features, config.batch_size, config.window)
        return cls(train, targets, test, scale, transform, validation=validation, window=window)

    def description(self) -> list[str]:
        """What was understood of the data: one line, and one for whatever else is to be known."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        rows = {name: len(part.x) for name, part in parts.items() if part is not None}
        counts = ", ".join(f"{count} {name}" for name, count in rows.items())
        features = f"{self.train.x.features} features"
        first = f"{self.targets.description()}, {features}, {sum(rows.values())} rows: {counts}"
        return [first, *(printable(note) for note in self.train.notes)]

    def shape(self) -> Shape:
        """The sizes of the data set."""
        rows, targets = self.train.x, self.targets
        classes = targets.classes if targets.values.ndim == 1 else 0
        test_items = 0 if self.test is None else len(self.test.x)
        validation_items = 0 if self.validation is None else len(self.validation.x)
        parts = (self.train, self.test, self.validation)
        weighted = any(part is not None and part.weights is not None for part in parts)
        block = 0
        if self.train.blocks is not None:
            weighted |= self.train.blocks.is_weighted
            block = max(self.train.blocks.sizes)
        return Shape(
            targets.task, rows.features, targets.n_out, classes, len(rows), test_items,
            validation_items, weighted, self.window, block,
        )  # fmt: skip

    def read(self, train: Dataset, test: Dataset | None, validation: Dataset | None = None) -> None:
        """Fill the data sets; raises InputError for a value that is not finite or too large.

        Of a training set that is read in windows, all is learnt and nothing written yet.
        """
        scaling = self._recorded("scaling", train.X.shape[1] - 1)
        target_scaling = self._recorded("target_scaling", train.T.shape[1])
        preparation = self.train.preparation
        mask = None if preparation is None else preparation.is_scaled
        if isinstance(train, StreamedDataset):
            assert self.train.blocks is not None
            encoder = Encoder.of(self.train.blocks, self.targets, self.transform)
            self.measured = measured = measure(encoder, train)
            self.tensors["data"] = measured.digest
            source, dtype = self.train.x.dtype, train.X.dtype
            scaling = scaling or measured.rows.feature_scaling(source, dtype, mask)
            if self.scale_targets:
                target_scaling = target_scaling or measured.targets.scaling(dtype)
        else:
            values, where = self.targets.values, self.targets.where
            write(train, self.train.x, values, where, None, self.train.weights)
            self.tensors["data"] = digest(train)
            scaling = scaling or Scaling.measure(train.X, self.train.x.dtype, mask)
            scaling.apply(train.X)
            if self.scale_targets:
                target_scaling = target_scaling or Scaling.standardise(train.T)
                target_scaling.apply_targets(train.T)
        self._keep("scaling", scaling)
        if not self.scale_targets:
            target_scaling = None
        if target_scaling is not None:
            self._keep("target_scaling", target_scaling)
        for dataset, part in ((test, self.test), (validation, self.validation)):
            if dataset is not None and part is not None:
                write_scaled(dataset, part, scaling, target_scaling)

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

    def found(self) -> StreamDescription:
        """What every rank must know of a training set that is read in windows, after `read`."""
        assert self.train.blocks is not None
        assert self.measured is not None
        encoder = Encoder.of(self.train.blocks, self.targets, self.transform)
        scaling = saved_scaling(self.tensors, "scaling")
        preparation = self.train.preparation
        return StreamDescription(
            replace(encoder, scaling=scaling, units=self.units()),
            self.measured,
            None if preparation is None else preparation.to_json(),
        )

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
    write(dataset, part.x, part.y, part.y_where, scaling, part.weights)
    if target_scaling is not None:
        target_scaling.apply_targets(dataset.T)


class Loaded(NamedTuple):
    """The data sets of a run."""

    train: Dataset
    test: Dataset | None
    validation: Dataset | None
    units: Units


def load(
    comm: Communicator,
    memory: SharedMemory,
    shape: Shape,
    loader: Loader | None,
    dtype: DTypeLike,
    config: TrainConfig | None = None,
) -> Loaded:
    """The training set, and test and validation set, if there are some. Collective.

    Args:
        loader: on rank 0.
        config: says where the files are, for a training set that is read in windows.

    Raises:
        InputError: on every rank.
    """
    comm.status.enter("reading of data")

    def room(items: int) -> Dataset:
        return allocate(memory, items, shape.row(dtype))

    train: Dataset
    if shape.window:
        specs = window_specs(shape.window_sizes, shape.row(dtype))
        arrays = [memory.array(spec.shape, spec.dtype) for spec in specs]
        train = StreamedDataset(memory, arrays, shape.window_sizes, shape.class_column)
    else:
        train = room(shape.train_items)
    test = room(shape.test_items) if shape.test_items else None
    validation = room(shape.validation_items) if shape.validation_items else None

    def read() -> dict[str, Any]:
        assert loader is not None
        with np.errstate(over="ignore"):
            loader.read(train, test, validation)
        return loader.units().to_json()

    units = Units.from_json(comm.broadcast(comm.on_first(read)))
    if isinstance(train, StreamedDataset):
        assert config is not None
        options, found = table_options(config), None if loader is None else loader.found()
        begin_streaming(comm, train, config.data, config.target, options, found)
    in_memory = [None if isinstance(train, StreamedDataset) else train, test, validation]
    for dataset in filter(None, in_memory):
        share(comm, dataset)
        check_some(dataset, "weight")
    return Loaded(train, test, validation, units)


def _weighed(part: "Part | None") -> "Part | None":
    """A part with its weights checked."""
    if part is None or part.weights is None:
        return part
    return replace(part, weights=checked_weights(part.weights, len(part.x), "weight"))


def saved_scaling(tensors: dict[str, Array], name: str) -> Scaling | None:
    """A scaling as a checkpoint keeps it; None if it has none of this name."""
    if f"{name}.shift" not in tensors:
        return None
    return Scaling.from_arrays({key: tensors[f"{name}.{key}"] for key in ("shift", "scale")})
