"""Data frames and text labels for `Trainer.fit`: what they become, and what the run keeps of it."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distnn.data.categories import canonical
from distnn.data.frames import column_values, is_frame, table_of
from distnn.data.part import feature_rows
from distnn.data.preparation import Preparation
from distnn.data.rows import fill
from distnn.data.scaling import Scaling
from distnn.data.scan import scan
from distnn.data.targets import CLASSIFICATION, REGRESSION, check_like, is_text
from distnn.errors import InputError
from distnn.nn.network import Network
from distnn.training.dataset import Dataset, digest
from distnn.training.evaluation import are_classes

Array = NDArray[Any]

log = logging.getLogger(__name__)


def prepare(X: Any, drop: str | None = None, categorical: str | None = None) -> Preparation:
    """How the columns of a data frame become features, as `Trainer.fit` does it.

    Its `width` is the first width of the network to be trained: a column of numbers gives one
    feature, a column of text or booleans one for each category, and where a column has gaps, one
    more.

    Args:
        X: a data frame of pandas, polars or pyarrow.
        drop, categorical: names of columns, joined by commas: those to leave out, and those whose
            numbers are categories.

    Raises:
        InputError: a column cannot be used.
    """
    table = table_of(X)
    dropped = [] if drop is None else table.columns_of(drop, "drop")
    chosen = [] if categorical is None else table.columns_of(categorical, "categorical")
    features = [j for j in range(table.columns) if j not in dropped]
    found = scan(table, features, categorical=chosen)
    for note in found.notes:
        log.info("%s", note)
    return found.preparation


@dataclass(frozen=True)
class Framed:
    """What the rows and labels of a training set taught.

    Attributes:
        preparation, scaling: of the columns; None where the rows were no data frame.
        names: of the classes; None where the targets were no text.
    """

    preparation: Preparation | None
    scaling: Scaling | None
    names: tuple[str, ...] | None

    @classmethod
    def learn(cls, network: Network, X: Any, T: Any, preparation: Preparation | None) -> "Framed":
        """From the training set.

        Args:
            preparation: of `prepare`; None: it is learnt.

        Raises:
            InputError: a column cannot be used, or the network has another width.
        """
        scaling = None
        if is_frame(X):
            preparation = prepare(X) if preparation is None else preparation
            if preparation.width != network.layers[0]:
                what = f"gives {preparation.width} features, the network takes {network.layers[0]}"
                remedy = f"build it as Network([{preparation.width}, ...]), see distnn.prepare"
                raise InputError(what, "X", remedy)
            filled = _filled(preparation, X, network)
            scaling = Scaling.measure(filled, np.float64, preparation.is_scaled)
        return cls(preparation if is_frame(X) else None, scaling, _names(T, network))

    def rows(self, network: Network, X: Any) -> Any:
        """Prepared rows (n, n_0); what is no data frame stays as it is."""
        if self.preparation is None or self.scaling is None:
            return X
        filled = _filled(self.preparation, X, network)
        self.scaling.apply(filled)
        return filled[:, 1:]

    def targets(self, T: Any) -> Any:
        """Class numbers (n,) of text, or what T holds as an array."""
        values = column_values(T) if np.ndim(T) == 1 else T
        if self.names is None:
            return values
        numbers = check_like(values, "classification", 0, len(self.names), "targets", self.names)
        return numbers

    def about(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """What a checkpoint keeps, besides what it keeps of arrays: metadata and tensors."""
        about: dict[str, Any] = {"class_names": self.names}
        tensors: dict[str, Array] = {}
        if self.preparation is not None and self.scaling is not None:
            about["preparation"] = self.preparation.to_json()
            about["feature_names"] = self.preparation.features
            tensors = {f"scaling.{key}": array for key, array in self.scaling.arrays().items()}
        return about, tensors


def as_arrays(
    network: Network, sets: list[Any], preparation: Preparation | None, framed: Framed | None
) -> tuple[list[Any], Framed | None]:
    """Data frames and text labels as arrays; what is neither stays as it is.

    Args:
        sets: (X, T) of the training set, and of others.
        framed: of the fit before, which is used again; None: it is learnt from the training set.
    """
    if not any(is_frame(X) or hasattr(T, "to_numpy") or is_text(T) for X, T in sets):
        return sets, framed
    if framed is None:
        framed = Framed.learn(network, sets[0][0], sets[0][1], preparation)
    return [(framed.rows(network, X), framed.targets(T)) for X, T in sets], framed


def recorded(
    network: Network, train: Dataset, framed: Framed | None
) -> tuple[dict[str, Any], dict[str, Array]]:
    """What a checkpoint keeps of a training set that a program gave: metadata and tensors."""
    is_classification = are_classes(network, train)
    about: dict[str, Any] = {
        "task": CLASSIFICATION if is_classification else REGRESSION,
        "classes": network.layers[-1] if is_classification else 0,
    }
    kept = {
        "scaling": Scaling.none(network.layers[0]),  # rows are used as they are
        "seen": Scaling.standardise(train.X[:, 1:]),
    }
    tensors = {
        f"{name}.{key}": array for name, one in kept.items() for key, array in one.arrays().items()
    }
    if framed is not None:
        more, prepared = framed.about()
        about, tensors = about | more, tensors | prepared
    return about, tensors | {"data": digest(train)}


def _filled(preparation: Preparation, X: Any, network: Network) -> Array:
    rows = feature_rows(table_of(X), preparation)
    filled = np.empty((len(rows), 1 + rows.features), network.dtype)
    fill(rows, filled)
    return filled


def _names(T: Any, network: Network) -> tuple[str, ...] | None:
    values = column_values(T) if np.ndim(T) == 1 else np.asarray(T)
    if not is_text(values):
        return None
    if any(value is None for value in values):
        raise InputError("a label is missing", "targets", "leave rows without a label out")
    names = tuple(sorted({canonical(value) or "" for value in values.tolist()}))
    if len(names) != max(2, network.layers[-1]):
        what = f"holds {len(names)} classes, the network has {network.layers[-1]} outputs"
        raise InputError(what, "targets", f"build it with {len(names)} outputs")
    return names
