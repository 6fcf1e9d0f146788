"""What rank 0 opens as a configuration says: sets of rows, and which of them are held out."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distnn.config.options import TrainConfig
from distnn.data.options import TableOptions
from distnn.data.split import held_out, selected
from distnn.data.targets import CLASSIFICATION, REGRESSION, Targets
from distnn.errors import InputError

if TYPE_CHECKING:  # only rank 0 opens files
    from distnn.data.part import Part
    from distnn.data.preparation import Preparation


def table_options(config: TrainConfig) -> TableOptions:
    """How the columns of a table are to be used."""
    return TableOptions(
        config.drop,
        config.categorical,
        config.weight,
        config.missing == "impute",
        config.delimiter,
    )


def open_validation(config: TrainConfig, train: "Part") -> "Part | float | None":
    """Rank 0: the validation set that a configuration asks for, or the share of the rows."""
    if config.validation is None or config.validation_share is not None:
        return config.validation_share
    from distnn.data.sources import check_features, open_test_data

    options, names = table_options(config), train.target_names
    part = open_test_data(config.validation, config.target, train.preparation, names, options)
    check_features(part.x, train.x.features)
    return part


def measured_part(config: TrainConfig, preparation: "Preparation | None") -> "tuple[Part, bool]":
    """Rank 0: what a run's results are measured on, opened anew.

    Returns:
        The test set, or without one the validation set; its targets are not checked. Whether it is
        the test set.

    Raises:
        InputError: there is neither.
    """
    from distnn.data.sources import open_data

    options = table_options(config)
    source = open_data(config.data, config.test_data, config.target, options, preparation)
    if source.test is not None:
        return source.test, True
    validation = open_validation(config, source.train)
    if isinstance(validation, float):
        held = held_rows(targets_of(source.train, config), validation, config.seed)
        validation = rows_of(source.train, held)
    if validation is None:
        raise InputError(
            "has neither a test nor a validation set",
            config.data,
            "measure another set: evaluate --data",
        )
    return validation, False


def rows_to_learn_from(config: TrainConfig) -> "Callable[[Part], NDArray[np.bool_]] | None":
    """Which rows (n,) of a training part a preparation may be learnt from: those that are not held
    out for validation; None: all."""
    share = config.validation_share
    if share is None:
        return None
    return lambda part: ~held_rows(targets_of(part, config), share, config.seed)


def targets_of(train: "Part", config: TrainConfig) -> Targets:
    """The targets of a training part, and what they are; raises InputError."""
    task = config.task
    if config.target_transform is not None and task is None:
        task = REGRESSION  # a logarithm is of amounts
    by_value = train.preparation is not None
    return Targets.deduce(train.y, config.output, config.loss, train.y_where, task, by_value)


def held_rows(targets: Targets, share: float, seed: int) -> NDArray[np.bool_]:
    """Which rows (n,) are held out for validation."""
    values, labels = targets.values, None
    if targets.task == CLASSIFICATION:
        labels = values if values.ndim == 1 else values.argmax(axis=1)
    return held_out(len(values), share, seed, labels)


def rows_of(part: "Part", keep: NDArray[np.bool_]) -> "Part":
    """Those of its rows for which ``keep`` (n,) is True."""
    weights = None if part.weights is None else part.weights[keep]
    return replace(part, x=selected(part.x, keep), y=part.y[keep], weights=weights)
