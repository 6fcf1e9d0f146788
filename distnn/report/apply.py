"""A run's network applied to its test set, for what the run itself does not hold."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distnn.config.toml_file import read_recorded
from distnn.data.part import Part
from distnn.data.scaling import Units
from distnn.nn.network import decide
from distnn.report.page import Applied
from distnn.report.residuals import MOST_TARGETS, Residuals, residuals
from distnn.run.directory import RunDirectory
from distnn.training.opening import measured_part
from distnn.training.prediction import Trained, predict

if TYPE_CHECKING:
    from distnn.parallel.comm.communicator import Communicator


def apply(comm: "Communicator", run_dir: str | None) -> Applied:
    """What a run's weights give for its test set, on rank 0. Collective.

    They are the best ones where a validation set chose them, else the newest.

    Args:
        run_dir: on rank 0.

    Raises:
        InputError: on every rank: there is no checkpoint, or no test set.
    """
    trained, part = comm.on_first(lambda: _open(str(run_dir))) or (None, None)
    A = predict(comm, trained, part.x if part is not None else None)
    if trained is None or part is None or A is None:
        return Applied()
    if trained.is_classification:
        return Applied(counts=_counts(A, np.asarray(part.y), trained.classes))
    return Applied(residuals=_residuals(trained, A, np.asarray(part.y, np.float64)))


def _open(run_dir: str) -> tuple[Trained, Part]:
    trained = Trained.open(run_dir, "auto")
    config = read_recorded(RunDirectory(run_dir).config)
    part, _ = measured_part(config, trained.preparation)
    return trained, trained.checked(part)


def _counts(A: NDArray, y: NDArray, classes: int) -> NDArray[np.int64]:
    """(classes, classes): how often each true class was taken for each."""
    classes = max(classes, 2)
    true = (decide(y) if y.ndim > 1 and y.shape[1] > 1 else y.reshape(-1)).astype(np.intp)
    places = true * classes + decide(A).astype(np.intp).reshape(-1)
    return np.bincount(places, minlength=classes**2).reshape(classes, classes)


def _residuals(trained: Trained, A: NDArray, y: NDArray) -> Sequence[Residuals]:
    trained.units.undo(A)
    y = Units(transform=trained.units.transform).own(y.reshape(len(A), -1))  # (n, n_L)
    names = trained.target_names or [f"target {k}" for k in range(A.shape[1])]
    if A.shape[1] == 1 and trained.target_names is None:
        names = ["target"]
    columns = range(min(A.shape[1], MOST_TARGETS))
    return [residuals(names[k], y[:, k], A[:, k]) for k in columns]
