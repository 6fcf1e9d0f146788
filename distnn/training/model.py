"""A trained run in a program: ``distnn.load(run_dir)``."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distnn.data.frames import column_values, is_frame, table_of
from distnn.data.part import Part, feature_rows
from distnn.data.preparation import Preparation
from distnn.data.rows import Rows
from distnn.errors import InputError
from distnn.nn.network import Network
from distnn.parallel.comm.communicator import Communicator, alone, communicator_of
from distnn.parallel.comm.shared_memory import SharedMemory, closing
from distnn.training import prediction
from distnn.training.output import predictions
from distnn.training.prediction import Trained

Array = NDArray[Any]


def load(run_dir: str, checkpoint: str = "auto", comm: Any = None) -> "Model":
    """A trained model from a run's directory.

    Args:
        run_dir: the run's directory.
        checkpoint: "best", "latest", the path of one, or "auto": the best where a validation set
            chose it, else the latest.
        comm: an MPI communicator whose ranks share the work; every method is then collective, with
            the same arguments on every rank. None: this process on its own, with or without MPI.

    Raises:
        InputError: there is no such run or checkpoint, or it is damaged; on every rank.
    """
    ranks = alone() if comm is None else communicator_of(comm)
    trained, problem = None, None
    try:
        trained = Trained.open(str(run_dir), checkpoint)
    except InputError as error:
        problem = error
    ranks.agree(problem)
    assert trained is not None
    return Model(trained, ranks)


class Model:
    """A trained network that takes raw rows, as they were before any preparation.

    Rows are a data frame (pandas, polars, pyarrow) with the columns of the training set, found by
    name, or an array (n, columns) in their order. Without a table in training, they are what the
    network was trained on.

    Attributes:
        network: with the trained weights.
        preparation: of the columns of a table; None where the run had none.
        classes: their names in the order of `predict_proba`; numbers from 0 on where the training
            set had those; None for regression.
    """

    def __init__(self, trained: Trained, comm: Communicator) -> None:
        self._trained, self._comm = trained, comm

    @property
    def network(self) -> Network:
        """The network alone: its `predict` takes prepared rows."""
        return self._trained.network

    @property
    def preparation(self) -> Preparation | None:
        """How the columns of a table become features."""
        return self._trained.preparation

    @property
    def classes(self) -> Sequence[Any] | None:
        """Names or numbers of the classes."""
        if not self._trained.is_classification:
            return None
        return self._trained.class_names or list(range(self._trained.classes))

    def predict(self, X: Any) -> Array:
        """The class of each row, (n,) names or numbers, or real targets in their own unit.

        Raises:
            InputError: the rows do not fit; on every rank.
        """
        return predictions(self._trained, self._outputs(X), probabilities=False)[0]

    def predict_proba(self, X: Any) -> Array:
        """Probabilities (n, classes), in the order of `classes`.

        Raises:
            InputError: as `predict`; the run is a regression.
        """
        if not self._trained.is_classification:
            raise InputError("the run is a regression", "predict_proba", "use predict")
        return predictions(self._trained, self._outputs(X), probabilities=True)[0]

    def evaluate(self, X: Any, T: Any) -> dict[str, Any]:
        """Measures on rows with their targets: what ``python -m distnn.evaluate`` prints.

        Args:
            T: classes by name or number, or real targets in their own unit; (n,) or (n, targets).

        Raises:
            InputError: rows or targets do not fit; on every rank.
        """

        def part() -> Part:
            y = column_values(T) if np.ndim(T) == 1 else np.asarray(T)
            rows = self._rows(X)
            if len(rows) != len(y):
                what = f"{len(rows)} rows and {len(y)} targets"
                raise InputError(what, "X", "give one target for each row")
            return self._trained.checked(Part(rows, y, "T"))

        opened = self._comm.on_first(part)
        return prediction.evaluate(self._comm, self._first, opened)

    @property
    def _first(self) -> Trained | None:
        return self._trained if self._comm.is_first else None

    def _rows(self, X: Any) -> Rows:
        if self.preparation is not None:
            return feature_rows(table_of(X), self.preparation)
        rows = Rows.of(np.asarray(X) if is_frame(X) else X, "X")
        if len(rows.shape) < 2 or rows.features != self.network.layers[0]:
            remedy = f"give rows of {self.network.layers[0]} features"
            raise InputError(f"has shape {rows.shape}", "X", remedy)
        return rows

    def _outputs(self, X: Any) -> Array:
        """The network's outputs (n, n_L) float64 on every rank."""
        A = prediction.predict(self._comm, self._first, self._comm.on_first(lambda: self._rows(X)))
        if self._comm.size == 1:
            assert A is not None
            return A
        shape = self._comm.broadcast(None if A is None else A.shape)
        memory = SharedMemory(self._comm)
        with closing(memory):
            shared = memory.array(tuple(shape), np.float64)
            if A is not None:
                shared[:] = A
            self._comm.broadcast_among_leaders(shared)
            return shared.copy()
