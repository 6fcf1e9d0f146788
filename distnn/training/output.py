"""The file of predictions: names of classes, probabilities, or numbers in the targets' own unit."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distnn.errors import InputError
from distnn.nn.network import decide, probabilities_of
from distnn.run.files import reason, write_output
from distnn.training.prediction import Trained

Array = NDArray[Any]

STEP = 1 << 14  # rows that are made text at a time


def predictions(trained: Trained, A: Array, probabilities: bool) -> tuple[Array, list[str]]:
    """What is predicted, and the names of its columns.

    Args:
        A: the network's outputs (n, n_L) float64; they are overwritten for regression.
        probabilities: of the classes, in place of their names.

    Returns:
        (n,) names or numbers of classes; (n, classes) probabilities; (n,) or (n, targets) real
        numbers in the targets' own unit.
    """
    if trained.is_classification and not probabilities:
        return decided(trained, A), ["class"]
    if trained.is_classification:
        A = probabilities_of(A)
        return A, trained.class_names or [f"class_{k}" for k in range(A.shape[1])]
    trained.units.undo(A)
    titles = trained.target_names or [f"output_{k}" for k in range(A.shape[1])]
    return A[:, 0] if A.shape[1] == 1 else A, titles


def decided(trained: Trained, A: Array) -> Array:
    """The classes (n,) that outputs decide for: names, or whole numbers where all names are."""
    numbers, names = decide(A), trained.class_names
    if names is None:
        return numbers
    if all(name.lstrip("-").isdecimal() and len(name) < 18 for name in names):
        return np.array([int(name) for name in names])[numbers]
    return np.array(names)[numbers]


def write_predictions(
    path: str,
    trained: Trained,
    A: Array,
    probabilities: bool,
    ids: tuple[str, list[str]] | None = None,
) -> None:
    """Write predictions as .csv or .npy; in a .csv file, the class stands before probabilities.

    Args:
        A: as for `predictions`.
        ids: name and values of a column in front of them; .csv only.

    Raises:
        InputError: no space, no permission; what was in the file before is untouched.
    """
    front: dict[str, Sequence[str]] = {} if ids is None else {ids[0]: ids[1]}
    if probabilities and not path.endswith(".npy"):
        front["class"] = _texts(decided(trained, A))
    table, heading = predictions(trained, A, probabilities)

    def write(aside: Path) -> None:
        with aside.open("wb") as file:
            if path.endswith(".npy"):
                # not the file itself: to one, numpy writes in a way that hides the system's reason
                np.save(SimpleNamespace(write=file.write), table, allow_pickle=False)
                return
            for text in _lines([*front, *heading], list(front.values()), table):
                file.write(text.encode())

    try:
        write_output(Path(path), write)
    except OSError as error:
        remedy = "give another --output"
        raise InputError(f"cannot be written: {reason(error)}", path, remedy) from None


def _lines(heading: list[str], front: Sequence[Sequence[str]], table: Array) -> Iterator[str]:
    """The text of the file in parts.

    Args:
        front: columns before those of the table.
    """
    yield _csv([heading])
    for start in range(0, len(table), STEP):
        block = table[start : start + STEP]
        columns = [block] if block.ndim == 1 else list(block.T)
        texts = [values[start : start + STEP] for values in front]
        texts += [_texts(column) for column in columns]
        yield _csv(zip(*texts, strict=True))


def _texts(column: Array) -> list[str]:
    if column.dtype.kind == "f":
        return [f"{value:.9g}" for value in column.tolist()]
    return [str(value) for value in column.tolist()]


def _csv(rows: Iterable[Iterable[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
