"""Several runs side by side: their results, and what differs between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from distnn.report.record import RunRecord, is_number
from distnn.report.scales import duration, figure, percent

LOW, HIGH = "loss rmse mae", "accuracy r2 f1 auc"
MISSING = "–"


@dataclass(frozen=True)
class Entry:
    """A cell: its text, and whether it is the best of its row."""

    text: str
    is_best: bool = False


def results(records: Sequence[RunRecord]) -> list[tuple[str, list[Entry]]]:
    """Rows of (measure, a cell per run)."""
    rows = [
        ("status", [Entry(one.status) for one in records]),
        ("epochs", [Entry(figure(one.done)) for one in records]),
    ]
    names = dict.fromkeys(name for one in records for name in one.epochs)
    held = [{k: v for k, v in one.meta.get("data", {}).items() if "test" in k} for one in records]
    is_fair = all(one == held[0] for one in held)  # measured on the same rows
    for name in names:
        if name.startswith(("train_", "validation_", "test_")):
            values = [one.last(name) for one in records]
            rows.append((words(name), _ranked(name, values, is_fair)))
    for name, shown in (("seconds", duration), ("samples_per_second", figure)):
        values = [_number(one.summary.get(name)) for one in records]
        rows.append((words(name), [Entry(shown(value)) for value in values]))
    return rows


def differences(records: Sequence[RunRecord]) -> list[tuple[str, list[str]]]:
    """Rows of (what, its value in each run), where the runs are not alike."""
    tables = [_facts(one) for one in records]
    names = dict.fromkeys(name for table in tables for name in table)
    rows = [(name, [shown(table.get(name)) for table in tables]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def shown(value: Any) -> str:
    """A value of a configuration or fingerprint, as text."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(map(str, value)) if len(value) <= 40 else f"{len(value)} values"
    return f"{value:.10g}" if isinstance(value, float) else str(value)[:500]


def words(name: str) -> str:
    """A key as words: test_loss -> test loss."""
    return name.replace("_", " ")


def measure(name: str, value: float | None) -> str:
    """A measure for people: shares of rightly decided items in per cent."""
    return percent(value) if name.endswith("accuracy") else figure(value)


def is_low_best(name: str) -> bool:
    """Whether less of a measure is better."""
    return any(name.endswith(end) for end in LOW.split())


def _ranked(name: str, values: Sequence[float | None], is_fair: bool) -> list[Entry]:
    known = [value for value in values if value is not None]
    best = (min if is_low_best(name) else max)(known, default=None)
    is_race = is_fair and len(known) > 1 and not name.startswith("train_")
    return [Entry(measure(name, v), is_race and v is not None and v == best) for v in values]


def _facts(record: RunRecord) -> dict[str, Any]:
    ranks = {name: record.summary.get(name) for name in ("ranks", "nodes")}
    if weights := record.summary.get("weights_sha256"):
        ranks["weights (sha256)"] = str(weights)[:16]
    prints = record.meta.get("fingerprint", {})
    data = {f"{name} data (sha256)": one[:16] for name, one in record.meta.get("data", {}).items()}
    return {**record.config, **ranks, **data, **prints}


def _number(value: Any) -> float | None:
    return float(value) if is_number(value) else None
