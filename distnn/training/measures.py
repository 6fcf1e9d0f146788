"""The measures of an evaluation as a table for people, and as a file."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distnn.errors import InputError, printable
from distnn.run.files import reason, write_output
from distnn.run.metrics import plain

# In the order of the table; what a report has not is left out.
ROWS = (
    "items", "loss", "log_loss", "accuracy", "balanced_accuracy", "f1", "auc", "rmse", "mae", "r2",
)  # fmt: skip
SHARES = ("accuracy", "balanced_accuracy", "f1", "auc", "precision", "recall", "r2")
MOST_ROWS = 30  # classes or targets shown; the file has them all
MOST_COLUMNS = 12  # classes of a confusion matrix shown


def measures_text(
    measures: Mapping[str, Any], part: str, names: Sequence[str] | None = None
) -> str:
    """Aligned lines of the measures whose names start with a part's; empty if there are none.

    Args:
        measures: of `Evaluation.report`, or a run's summary.
        part: "test" or "validation"; "" where names have nothing in front.
        names: of the classes or targets; None: numbers from 0 on.
    """
    prefix = f"{part}_" if part else ""
    own = {name: measures.get(prefix + name) for name in (*ROWS, "classes", "targets", "confusion")}
    rows = [
        (f"{part} {name}".strip().replace("_", " "), _number(name, own[name]))
        for name in ROWS
        if own[name] is not None
    ]
    width = max((len(name) for name, _ in rows), default=0)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    for kind, name in (("classes", "class"), ("targets", "target")):
        if objects := own[kind]:
            lines += _table(name, objects, _named(names, len(objects)))
    matrix = own["confusion"]
    if matrix and len(matrix) <= MOST_COLUMNS:
        known = _named(names, len(matrix))
        head = ["class", *(f"as {name}" for name in known)]
        rows_of = [
            [name, *(_number("", n) for n in row)] for name, row in zip(known, matrix, strict=True)
        ]
        lines += _aligned([head, *rows_of])
    return "\n".join(lines)


def measures_line(measures: Mapping[str, Any], part: str) -> str:
    """The single figures of a part in one line; empty if there are none."""
    own = {name: measures.get(f"{part}_{name}") for name in ROWS}
    losses = own["loss"], own["log_loss"]
    if None not in losses and math.isclose(*losses, rel_tol=1e-4):  # type: ignore[arg-type]
        del own["log_loss"]  # it is the loss
    return ", ".join(
        f"{part} {name.replace('_', ' ')} {value:.4g}"
        for name, value in own.items()
        if value is not None
    )


def write_measures(path: str, measures: Mapping[str, Any]) -> None:
    """Write measures as one JSON object; raises InputError."""
    text = json.dumps(plain(measures), indent=2, allow_nan=False) + "\n"

    def write(aside: Path) -> None:
        aside.write_text(text)

    try:
        write_output(Path(path), write)
    except OSError as error:
        what = f"cannot be written: {reason(error)}"
        raise InputError(what, path, "give another --json") from None


def _named(names: Sequence[str] | None, count: int) -> Sequence[str]:
    """Names, or numbers where there are none; printable and short."""
    return [str(k) for k in range(count)] if names is None else [printable(n)[:20] for n in names]


def _table(name: str, objects: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """One line for each class or target, some of them if there are many."""
    columns = list(objects[0])
    rows = [
        [own, *(_number(c, one[c]) for c in columns)]
        for own, one in zip(names, objects, strict=True)
    ]
    left_out = len(rows) - MOST_ROWS
    more = [f"and {left_out} more"] if left_out > 0 else []
    return _aligned([[name, *columns], *rows[:MOST_ROWS]]) + more


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{text:>{w}}" for text, w in zip(row, widths, strict=True)) for row in rows)
    return list(lines)


def _number(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, int):
        return str(value)
    return f"{value:.4f}" if name in SHARES else f"{value:.6g}"
