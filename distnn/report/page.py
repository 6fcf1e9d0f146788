"""The page: what the templates show, and the text of it."""

import base64
import hashlib
import math
import time
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import distnn
from distnn.errors import InputError
from distnn.report import compare
from distnn.report.charts import COLOURS, DASHES, Chart, Series, line_chart
from distnn.report.classes import Confusion, confusion
from distnn.report.palette import DARK, LIGHT
from distnn.report.record import FINISHED, UNDER_WAY, RunRecord, is_number
from distnn.report.residuals import Residuals
from distnn.report.scales import duration, figure, percent
from distnn.report.timing import Phases, bench_command, phases_of

TEMPLATES = Path(__file__).parent / "templates"
PARTS = {"train": ("training", 1, 0), "validation": ("validation", 2, 1), "test": ("test", 3, 2)}
WATCHED = ("validation_loss", "test_loss", "train_loss")
SHARES = ("accuracy", "precision", "recall", "f1", "auc")


@dataclass(frozen=True)
class RunView:
    """One run as the page shows it."""

    record: RunRecord
    number: int
    colour: int
    dash: int
    sentence: str
    facts: list[tuple[str, str, str]]
    charts: list[Chart]
    speed: list[Chart]
    classes: Confusion | None
    residuals: Sequence[Residuals]
    phases: Phases | None
    bench: str
    scores: list[list[str]]
    hashes: list[tuple[str, str]]
    table: list[list[str]]
    missing: list[str]


@dataclass(frozen=True)
class Applied:
    """What a trained network gives for its test set, where it was applied: see `apply`."""

    counts: Any = None
    residuals: Sequence[Residuals] = ()


def page(
    records: Sequence[RunRecord],
    *,
    applied: Sequence[Applied] = (),
    bench: Mapping[str, Any] | None = None,
    refresh: int = 0,
) -> str:
    """The text of a page about one or several runs: whole, and with no address outside it.

    Args:
        applied: of each run.
        bench: what ``distnn.bench --json`` wrote.
        refresh: seconds after which a browser reads the page again; 0: never.

    Raises:
        InputError: jinja2 is not installed.
    """
    runs = [
        _view(record, number, applied[number] if applied else Applied(), bench)
        for number, record in enumerate(records)
    ]
    environment = _environment()
    style = environment.get_template("style.css").render(light=LIGHT, dark=DARK)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return environment.get_template("page.html").render(
        title=records[0].name if len(records) == 1 else f"{len(records)} runs compared",
        runs=runs,
        style=style,
        style_digest=digest,
        refresh=refresh if any(one.status == UNDER_WAY for one in records) else 0,
        charts=_overlaid(records) if len(records) > 1 else [],
        results=compare.results(records),
        differences=compare.differences(records),
        written=time.strftime("%Y-%m-%d %H:%M:%S"),
        version=distnn.__version__,
    )


def _environment() -> Any:
    try:
        import jinja2
    except ImportError:
        remedy = "pip install 'distnn[report]'"
        raise InputError("a report needs jinja2, which is not installed", remedy=remedy) from None
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(
        loader=loader, autoescape=lambda name: name != "style.css",
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "figure": figure, "percent": percent, "duration": duration, "shown": compare.shown,
        "words": compare.words,
    }  # fmt: skip
    return environment


def _view(
    record: RunRecord, number: int, applied: Applied, bench: Mapping[str, Any] | None
) -> RunView:
    counts = applied.counts if applied.counts is not None else _recorded_counts(record)
    classes = confusion(counts, _class_names(record))
    phases = phases_of(record, bench)
    return RunView(
        record, number, 1 + number % COLOURS, number // COLOURS % DASHES,
        _sentence(record), _key_figures(record), _curves(record), _speed([record]), classes,
        applied.residuals, phases, bench_command(record), _scores(record), _hashes(record),
        _table(record),
        [*record.missing, *_missing(record, classes, applied)],
    )  # fmt: skip


def _sentence(record: RunRecord) -> str:
    """What was trained on what."""
    config, network = record.config, record.meta.get("network", {})
    layers = network.get("layers") or ["…", *config.get("hidden", []), "…"]
    kind = "classification" if record.is_classification else "regression"
    data = Path(str(config.get("data", "data"))).name
    return (
        f"A network of {'–'.join(map(str, layers))} units for {kind}, trained on {data} "
        f"with {config.get('optimizer', 'an optimizer')} "
        f"in batches of {config.get('batch_size', '?')}."
    )


def best_epoch(record: RunRecord) -> tuple[str, int] | None:
    """The measure by which an epoch is the best, and its index; None if there is no epoch.

    It is the epoch that the run itself chose, where it watched a validation set and is at its end.
    """
    metric = str(record.config.get("metric", "loss")).replace("-", "_")
    chosen, watched = record.summary.get("best_epoch"), f"validation_{metric}"
    numbers = record.epochs["epoch"]
    if is_number(chosen) and chosen in numbers and watched in record.epochs:
        return watched, numbers.index(chosen)
    for name in WATCHED:
        values = np.asarray(record.epochs.get(name, ()), np.float64)
        if np.isfinite(values).any():
            return name, int(np.nanargmin(values))
    return None


def _key_figures(record: RunRecord) -> list[tuple[str, str, str]]:
    """(name, value, remark) of what is looked at first."""
    epochs, summary = record.config.get("epochs"), record.summary
    is_best = record.status == FINISHED and is_number(summary.get("best_epoch"))
    end = "with the best weights" if is_best else "at the end"
    when = "so far" if record.status == UNDER_WAY else end
    facts = [("epochs", figure(record.done), f"of {figure(epochs)}" if epochs else "")]
    for name in ("test_accuracy", "test_r2", "validation_accuracy", "validation_r2"):
        if (value := record.last(name)) is not None:
            facts.append((compare.words(name), compare.measure(name, value), when))
            break
    for name in ("test_loss", "validation_loss", "train_loss"):
        if (value := record.last(name)) is not None:
            facts.append((compare.words(name), figure(value), "" if name == "train_loss" else when))
    if best := best_epoch(record):
        name, index = best
        at, value = record.epochs["epoch"][index], record.epochs[name][index]
        facts.append(("best epoch", figure(at), f"{compare.words(name)} {figure(value)}"))
    seconds = summary.get("seconds") if is_number(summary.get("seconds")) else _sum(record)
    ranks = record.meta.get("ranks")
    where = "" if ranks is None else f"on {figure(ranks)} rank{'s' if ranks != 1 else ''}"
    facts.append(("time", duration(seconds), where))
    return facts


def _sum(record: RunRecord) -> float | None:
    seconds = record.timings.get("seconds")
    return float(np.nansum(seconds)) if seconds else None


def _curves(record: RunRecord) -> list[Chart]:
    """A chart for each measure, with its parts of the data as lines; and the speed."""
    epochs, charts = record.epochs["epoch"], []
    if not epochs:
        return []
    best = best_epoch(record)
    for kind in _kinds([record]):
        series = [
            Series(
                label, epochs, values, colour, dash, best[1] if best and best[0] == name else None
            )
            for part, (label, colour, dash) in PARTS.items()
            if (values := record.epochs.get(name := f"{part}_{kind}")) and _any(values)
        ]
        if series:
            alone = f"{series[0].label} " if len(series) == 1 else ""
            charts.append(line_chart(alone + compare.words(kind), series, **_axis(kind)))
    return charts


def _overlaid(records: Sequence[RunRecord]) -> list[Chart]:
    """A chart for each measure, with a line for each run."""
    charts = []
    for kind in _kinds(records):
        for part, (label, _, _) in PARTS.items():
            series = _of_runs(records, f"{part}_{kind}")
            if series:
                charts.append(line_chart(f"{label} {compare.words(kind)}", series, **_axis(kind)))
    return charts + _speed(records)


def _of_runs(records: Sequence[RunRecord], name: str) -> list[Series]:
    return [
        Series(one.name, one.epochs["epoch"], values, 1 + k % COLOURS, k // COLOURS % DASHES)
        for k, one in enumerate(records)
        if (values := one.epochs.get(name)) and _any(values)
    ]


def _speed(records: Sequence[RunRecord]) -> list[Chart]:
    series = [
        Series(one.name if len(records) > 1 else "samples per second", one.timings["epoch"], values,
               1 + k % COLOURS, k // COLOURS % DASHES)
        for k, one in enumerate(records)
        if (values := one.timings.get("samples_per_second")) and _any(values)
    ]  # fmt: skip
    return [line_chart("samples per second", series, from_zero=True)] if series else []


def _kinds(records: Sequence[RunRecord]) -> list[str]:
    """The measures without their part of the data, the loss first."""
    names = dict.fromkeys(name for one in records for name in one.epochs)
    found = [name.partition("_")[2] for name in names if name.partition("_")[0] in PARTS]
    return sorted(dict.fromkeys(found), key=lambda kind: kind != "loss")


def _axis(kind: str) -> dict[str, Any]:
    return {"bounds": (0, 1) if kind.endswith(SHARES) else (), "may_be_log": kind == "loss"}


def _any(values: array) -> bool:
    return any(map(math.isfinite, values))


def _table(record: RunRecord, most: int = 100) -> list[list[str]]:
    """The epochs' values as text, heading first; of many epochs, evenly spaced ones."""
    names = [name for name in record.epochs if name != "epoch"]
    count = len(record.epochs["epoch"])
    rows = np.unique(np.linspace(0, max(count - 1, 0), min(most, count)).astype(int)).tolist()
    values = [
        [figure(record.epochs["epoch"][k]), *(figure(record.epochs[name][k]) for name in names)]
        for k in rows
    ]
    return [["epoch", *map(compare.words, names)], *values]


def _hashes(record: RunRecord) -> list[tuple[str, str]]:
    """What proves which weights and data these are."""
    known = {
        "weights": record.summary.get("weights_sha256"),
        "best weights": record.summary.get("best_weights_sha256"),
        "optimizer state": record.summary.get("optimizer_sha256"),
        **{f"{name} data": digest for name, digest in record.meta.get("data", {}).items()},
        "run": record.meta.get("run"),
    }
    return [(name, str(value)) for name, value in known.items() if value]


def _recorded_counts(record: RunRecord) -> Any:
    """The confusion matrix of the summary, whatever part of the data it is of."""
    found = (record.summary.get(f"{part}_confusion") for part in ("test", "validation"))
    return next((counts for counts in found if counts), None)


def _scores(record: RunRecord) -> list[list[str]]:
    """The single measures of the summary by part of the data, heading first; empty if few."""
    numbers = {k: float(v) for k, v in record.summary.items() if is_number(v)}
    parts = [part for part in PARTS if any(name.startswith(f"{part}_") for name in numbers)]
    kinds = dict.fromkeys(k.partition("_")[2] for k in numbers if k.partition("_")[0] in parts)
    if len(kinds) < 2:
        return []
    rows = [
        [
            compare.words(kind),
            *(compare.measure(kind, numbers.get(f"{part}_{kind}")) for part in parts),
        ]
        for kind in kinds
    ]
    return [["", *(PARTS[part][0] for part in parts)], *rows]


def _class_names(record: RunRecord) -> Sequence[Any] | None:
    for names in (record.summary.get("class_names"), record.meta.get("class_names")):
        if isinstance(names, list):
            return names
    return None


def _missing(record: RunRecord, classes: Confusion | None, applied: Applied) -> list[str]:
    lines = []
    if not record.done:
        lines.append("No epoch is complete: there are no curves.")
    if record.is_classification and classes is None:
        lines.append("The run holds no confusion matrix: --evaluate applies the network.")
    if not record.is_classification and not applied.residuals:
        lines.append("The run holds no predictions: --evaluate applies the network.")
    return lines
