"""Where the time of a run's steps went, by phase and rank, and how near it is to the limit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from distnn.report.palette import LIGHT
from distnn.report.record import RunRecord, is_number

MOST_RANKS = 64  # that are drawn
MOST_PHASES = 24


@dataclass(frozen=True)
class Part:
    """A phase of a rank: seconds, and its place in per cent of the longest rank."""

    phase: str
    colour: int
    start: float
    width: float
    seconds: float


@dataclass(frozen=True)
class Phases:
    """Seconds per step of ranks by phase.

    Attributes:
        source: what measured it.
        names: (phase, colour, mean share of the step).
        ranks: the parts of each that is drawn, with its number in front.
        ranks_in_all: that have figures; the shares are means over these.
        ratio: of the step to the least that the machine allows; None if it was not measured.
    """

    source: str
    names: tuple[tuple[str, int, float], ...]
    ranks: tuple[tuple[int, tuple[Part, ...]], ...]
    ranks_in_all: int
    ratio: float | None = None
    seconds: float | None = None


def phases_of(record: RunRecord, bench: Mapping[str, Any] | None) -> Phases | None:
    """What is known of a run's phases: by its own trace, else by a measurement of its network."""
    found = _phases(record.phases.get("ranks"), "the run's own trace")
    figures = matching(record, bench)
    if figures is None:
        return found
    measured = found or _phases(figures.get("parts_of_rank"), "distnn.bench, the same network")
    if measured is None or not is_number(figures.get("ratio")):
        return measured
    return Phases(**{**vars(measured), "ratio": figures["ratio"], "seconds": figures["seconds"]})


def matching(record: RunRecord, bench: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The figures of a ``--json`` file of ``distnn.bench`` for a run's network and batch."""
    layers = record.meta.get("network", {}).get("layers")
    for figures in (bench or {}).get("figures", ()):
        same = (
            figures.get("layers") == layers,
            figures.get("batch") == record.config.get("batch_size"),
        )
        if all(same) and figures.get("ranks") == record.meta.get("ranks"):
            return figures
    return None


def bench_command(record: RunRecord) -> str:
    """The command that measures a run's network; empty if the network is not known."""
    network, ranks = record.meta.get("network", {}), record.meta.get("ranks", 1)
    layers = network.get("layers")
    if not isinstance(layers, list) or "batch_size" not in record.config:
        return ""
    case = f"{'-'.join(map(str, layers))}:{record.config['batch_size']}:{network.get('activation')}"
    start = f"mpirun -n {ranks} " if ranks != 1 else ""
    slices = f" --slices {record.config['slices']}" if record.config.get("slices") else ""
    optimizer = f" --optimizer {record.config.get('optimizer', 'sgd')}"
    return f"{start}python -m distnn.bench --networks {case}{optimizer}{slices} --json bench.json"


def _phases(ranks: Any, source: str) -> Phases | None:
    numbered = enumerate(ranks if isinstance(ranks, list) else ())
    row_of = {rank: row for rank, row in numbered if _is_row(row)}
    if not row_of:
        return None
    rows = row_of.values()
    names = list(dict.fromkeys(name for row in rows for name in row))[:MOST_PHASES]
    colours = {name: 1 + k % len(LIGHT.lines) for k, name in enumerate(names)}
    longest = max(sum(row.values()) for row in rows) or 1.0
    total = sum(sum(row.values()) for row in rows) or 1.0
    shares = {name: sum(row.get(name, 0.0) for row in rows) / total for name in names}
    drawn = tuple(
        (rank, _parts(row, names, colours, longest))
        for rank, row in islice(row_of.items(), MOST_RANKS)
    )
    known = tuple((name, colours[name], shares[name]) for name in names)
    return Phases(source, known, drawn, len(rows))


def _parts(
    row: Mapping[str, float], names: Sequence[str], colours: Mapping[str, int], longest: float
) -> tuple[Part, ...]:
    parts, start = [], 0.0
    for name in names:
        width = 100 * row.get(name, 0.0) / longest
        parts.append(
            Part(name, colours[name], round(start, 3), round(width, 3), row.get(name, 0.0))
        )
        start += width
    return tuple(parts)


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and all(is_number(v) and v >= 0 for v in row.values())
