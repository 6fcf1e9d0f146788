"""What one training works on: its training set, and the sets that it is measured on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distnn.checks import shown
from distnn.config.options import TrainConfig
from distnn.data.scaling import Units
from distnn.errors import InputError
from distnn.nn.network import Network
from distnn.parallel.comm.communicator import Communicator
from distnn.parallel.comm.shared_memory import SharedMemory
from distnn.training.arrays import from_arrays, split_arrays
from distnn.training.dataset import Dataset, RowLayout, shared_bytes
from distnn.training.early_stopping import PREFIX
from distnn.training.evaluation import Evaluation, are_classes, check_metric
from distnn.training.weighting import balance, check_class_weight, check_smoothing

if TYPE_CHECKING:  # what takes data frames is loaded where there are some
    from distnn.training.framed import Framed

Recorded = tuple[Mapping[str, Any], Mapping[str, NDArray[Any]]]


@dataclass(frozen=True)
class TrainingData:
    """What a network is trained on.

    Attributes:
        classify: whether the targets are classes; None: see `evaluation.are_classes`.
        recorded: on rank 0, what a checkpoint says of the data (metadata and tensors).
        validation: what is watched after each epoch; the test set is then measured at the end.
        units: of real targets.
    """

    train: Dataset
    test: Dataset | None
    classify: bool | None
    recorded: Callable[[], Recorded] | None
    validation: Dataset | None = None
    units: Units | None = None

    def evaluations(self, comm: Communicator, network: Network, metric: str) -> list[Evaluation]:
        """Those of the validation and of the test set, as far as there are some, in this order."""
        sets = {PREFIX: self.validation, "test_": self.test}
        return [
            Evaluation(comm, network, dataset, prefix, self.classify, metric, self.units)
            for prefix, dataset in sets.items()
            if dataset is not None
        ]


@dataclass(frozen=True)
class Arrays:
    """What a program gave to `Trainer.fit`.

    Attributes:
        train, test: rows, targets and weights or None.
        validation: the same, or a share of the training rows.
        partitioned: whether each rank has its own rows.
    """

    train: tuple[Any, Any, Any]
    test: tuple[Any, Any, Any] | None
    validation: tuple[Any, Any, Any] | float | None
    partitioned: bool

    @classmethod
    def of(
        cls, X: Any, T: Any, weights: Any, test: Any, validation: Any, partitioned: bool
    ) -> "Arrays":
        """The arguments, checked as far as they are no arrays; raises InputError."""
        held: Any = validation
        if not (validation is None or isinstance(validation, float)):
            held = _triple(validation, "validation", "give (rows, targets), or a share as 0.1")
        tested = None if test is None else _triple(test, "test", "give (rows, targets)")
        return cls((X, T, weights), tested, held, partitioned)

    def must_agree(self) -> dict[str, Any]:
        """What of them must be the same on every rank, as plain values."""
        is_share = isinstance(self.validation, float)
        return {
            "test": self.test is not None,
            "partitioned": self.partitioned,
            "validation": self.validation if is_share else self.validation is not None,
        }

    @property
    def _sets(self) -> list[tuple[Any, Any, Any]]:
        others = [one for one in (self.test, self.validation) if isinstance(one, tuple)]
        return [self.train, *others]

    @property
    def pairs(self) -> list[tuple[Any, Any]]:
        """(X, T) of the training set, and of test and validation set as far as they are given."""
        return [(X, T) for X, T, _ in self._sets]

    @property
    def are_plain(self) -> bool:
        """Whether all of them are numpy's arrays of numbers, in which there is nothing to do."""
        return all(
            type(one) is np.ndarray and one.dtype.kind in "biuf"
            for pair in self.pairs
            for one in pair
        )

    def with_pairs(self, pairs: Sequence[tuple[Any, Any]]) -> "Arrays":
        """The same with other (X, T), in the order of `pairs`."""
        left = iter(pairs)

        def replaced(old: Any) -> Any:
            return (*next(left), old[2]) if isinstance(old, tuple) else old

        train, test = replaced(self.train), replaced(self.test)
        return replace(self, train=train, test=test, validation=replaced(self.validation))

    def bytes(self, comm: Communicator, network: Network) -> int:
        """What a node is going to share for them, about."""
        items = [len(X) if hasattr(X, "__len__") else 0 for X, _, _ in self._sets]
        if self.partitioned:
            items[0] = comm.total(items[0])
        n_L = network.layers[-1]
        classes = [n_L if np.ndim(T) == 1 else 0 for _, T, _ in self._sets]
        return sum(
            shared_bytes(n, RowLayout.of(network, column, weighted=True))
            for n, column in zip(items, classes, strict=True)
        )

    def load(
        self,
        comm: Communicator,
        memory: SharedMemory,
        network: Network,
        config: TrainConfig,
        framed: "Framed | None",
    ) -> TrainingData:
        """Their rows in shared memory. Collective.

        Args:
            framed: on rank 0, what prepared data frames, if there were some.

        Raises:
            InputError: on every rank.
        """

        def loaded(given: Any) -> Dataset | None:
            if not isinstance(given, tuple):
                return None
            X, T, w = given
            return from_arrays(comm, memory, network, X, T, weights=w)

        X, T, w = self.train
        validation: Dataset | None
        if isinstance(self.validation, float):
            rows = X, T, self.partitioned, w
            train, validation = split_arrays(
                comm, memory, network, *rows, self.validation, config.seed
            )
        else:
            train = from_arrays(comm, memory, network, X, T, self.partitioned, w)
            validation = loaded(self.validation)
        classify = are_classes(network, train)
        check_options(config, classify, validation is not None)
        if config.class_weight is not None:
            balance(comm, memory, train)

        def recorded() -> Recorded:
            from distnn.training.framed import recorded

            return recorded(network, train, framed)

        return TrainingData(train, loaded(self.test), classify, recorded, validation)


def check_options(config: TrainConfig, is_classification: bool, has_validation: bool) -> None:
    """InputError if an option does not fit the task, or needs a validation set."""
    check_metric(config.metric, is_classification)
    check_smoothing(config.label_smoothing, is_classification)
    check_class_weight(config.class_weight, is_classification)
    if has_validation or (config.patience is None and config.metric == "loss"):
        return
    name = "metric" if config.patience is None else "patience"
    what = "there is no validation set to watch; a test set is not one"
    raise InputError(what, name, "give one with validation, as --validation 0.1")


def _triple(rows: Any, name: str, remedy: str) -> tuple[Any, Any, Any]:
    """Rows, targets, and weights or None."""
    if isinstance(rows, (tuple, list)) and len(rows) == 2:
        return rows[0], rows[1], None
    if isinstance(rows, (tuple, list)) and len(rows) == 3:
        return rows[0], rows[1], rows[2]
    raise InputError(f"{shown(rows)} is not a pair", name, remedy)
