"""Charts as shapes that a template writes as SVG.

A plot is HEIGHT pixels high and as wide as its place on the page: x is given in per cent, or from 0
to WIDTH in a drawing that is stretched to the place, y in pixels. So text keeps its size on any
screen, and colours are the style sheet's, light or dark.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from distnn.report.scales import Scale, epoch_scale, figure, scale_of

WIDTH, HEIGHT = 1000, 220
POINTS = 400  # of a line at most
HITS = 120  # places at most where the values under the mouse are shown
COLOURS, DASHES = 6, 3

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Tick:
    """A tick of an axis: `at` in per cent or pixels. Rare ones stay on a narrow screen."""

    at: float
    text: str
    is_rare: bool = True


@dataclass(frozen=True)
class Line:
    """One set of values: `paths` are SVG's, in the stretched drawing.

    Attributes:
        kind: "line", "dots", "point" or "area".
    """

    label: str
    colour: int
    dash: int
    paths: tuple[str, ...]
    kind: str = "line"


@dataclass(frozen=True)
class Mark:
    """A point that is pointed out, its text above or below what is drawn there."""

    x: float
    y: float
    text_y: float
    text: str
    colour: int
    at_end: bool


@dataclass(frozen=True)
class Hit:
    """A part of the width, and what it says of the values there."""

    x: float
    width: float
    text: str


@dataclass(frozen=True)
class Chart:
    """One plot.

    Attributes:
        about: what can be seen, in words.
        legend: whether the lines are named above the plot.
    """

    title: str
    about: str
    x_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    marks: tuple[Mark, ...] = ()
    hits: tuple[Hit, ...] = ()
    guide: str = ""
    note: str = ""
    legend: bool = True
    height: int = HEIGHT
    width: int = WIDTH


@dataclass(frozen=True)
class Series:
    """A line to be drawn; `best` is the index of a point to be marked."""

    label: str
    x: ArrayLike
    y: ArrayLike
    colour: int
    dash: int = 0
    best: int | None = None
    arrays: tuple[Values, Values] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        pair = (np.asarray(self.x, np.float64), np.asarray(self.y, np.float64))
        object.__setattr__(self, "arrays", pair)


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str = "epoch",
    bounds: Sequence[float] = (),
    may_be_log: bool = False,
    from_zero: bool = False,
) -> Chart:
    """Values by epoch.

    Args:
        from_zero: the axis begins at 0, so that what hardly changes looks so.
        bounds: what the axis does not go beyond, see `scale_of`.
    """
    xs = np.concatenate([one.arrays[0] for one in series])
    ys = np.concatenate([one.arrays[1] for one in series])
    x = epoch_scale(float(xs.min()), float(xs.max()))
    shown = np.append(ys, 0.0) if from_zero else ys
    y = scale_of(shown, may_be_log=may_be_log, bounds=(0, 1e300) if from_zero else bounds)
    lines = tuple(_line(x, y, one) for one in series)
    return Chart(
        title,
        _about(title, series),
        x_label,
        x_ticks(x),
        y_ticks(y),
        lines,
        tuple(_mark(x, y, one) for one in series if one.best is not None),
        _hits(x, series, x_label),
        note="logarithmic axis" if y.is_log else "",
        legend=len(series) > 1,
    )


def thinned(x: Values, y: Values, most: int = POINTS) -> tuple[Values, Values]:
    """At most `most` of the points: of each stretch the least, the largest and one that is missing.

    A peak or a gap of one epoch stays to be seen, which every tenth point would hide.
    """
    if len(x) <= most:
        return x, y
    kept = {0, len(x) - 1}
    edges = np.linspace(0, len(x), most // 3, dtype=int)
    for lo, hi in pairwise(edges.tolist()):
        part = y[lo:hi]
        is_lost = np.isnan(part)
        if is_lost.any():
            kept.add(lo + int(is_lost.argmax()))
        if not is_lost.all():
            kept |= {lo + int(np.nanargmin(part)), lo + int(np.nanargmax(part))}
    order = sorted(kept)
    return x[order], y[order]


def path(x: Scale, y: Scale, xs: Values, ys: Values) -> str:
    """A line through the points, with gaps where a value is not finite."""
    across, up = x.shares(xs) * WIDTH, (1 - y.shares(ys)) * HEIGHT
    is_drawn = np.isfinite(ys)
    words, is_open = [], False
    for k, (h, v) in enumerate(zip(across.tolist(), up.tolist(), strict=True)):
        if is_drawn[k]:
            words.append(f"{'L' if is_open else 'M'}{h:.1f} {v:.1f}")
            if not is_open and (k + 1 == len(is_drawn) or not is_drawn[k + 1]):
                words.append("h0")  # a point of its own, which a round cap makes a dot
        is_open = bool(is_drawn[k])
    return "".join(words)


def dots(x: Scale, y: Scale, xs: Values, ys: Values, layers: int = 8) -> tuple[str, ...]:
    """Points as strokes without length, in layers, so that many upon each other look darker."""
    across, up = x.shares(xs) * WIDTH, (1 - y.shares(ys)) * HEIGHT
    words = [f"M{h:.1f} {v:.1f}h0" for h, v in zip(across, up, strict=True) if math.isfinite(h + v)]
    return tuple("".join(words[k::layers]) for k in range(layers) if words[k::layers])


def bars(x: Scale, y: Scale, edges: Values, counts: Values) -> str:
    """A histogram's outline, filled down to the axis."""
    across, up = x.shares(edges) * WIDTH, (1 - y.shares(counts)) * HEIGHT
    words = [f"M{across[0]:.1f} {HEIGHT}"]
    for k, v in enumerate(up.tolist()):
        words.append(f"V{v:.1f}H{across[k + 1]:.1f}")
    return "".join([*words, f"V{HEIGHT}Z"])


def x_ticks(scale: Scale) -> tuple[Tick, ...]:
    """Ticks in per cent of the width; every second gives way on a narrow screen."""
    places = (100 * scale.shares(scale.ticks)).tolist()
    return tuple(
        Tick(round(at, 2), tick_text(value), k % 2 == 0 or len(places) < 5)
        for k, (at, value) in enumerate(zip(places, scale.ticks, strict=True))
    )


def y_ticks(scale: Scale) -> tuple[Tick, ...]:
    """Ticks in pixels from the top."""
    places = ((1 - scale.shares(scale.ticks)) * HEIGHT).tolist()
    pairs = zip(places, scale.ticks, strict=True)
    return tuple(Tick(round(at, 1), tick_text(value)) for at, value in pairs)


def tick_text(value: float) -> str:
    """The number beside a tick, short."""
    size = abs(value)
    if size >= 1e9 or 0 < size < 1e-4:
        return figure(value, 3)
    for unit, letter in ((1e6, "M"), (1e4, "k")):
        if size >= unit:
            return f"{value / (1e3 if letter == 'k' else 1e6):g}{letter}".replace("-", "−")
    return f"{float(f'{value:.6g}'):,.10g}".replace("-", "−")


def _line(x: Scale, y: Scale, one: Series) -> Line:
    xs, ys = thinned(*one.arrays)
    if np.isfinite(ys).sum() == 1:  # a line would not be seen
        return Line(one.label, one.colour, one.dash, dots(x, y, xs, ys), "point")
    return Line(one.label, one.colour, one.dash, (path(x, y, xs, ys),))


def _mark(x: Scale, y: Scale, one: Series) -> Mark:
    assert one.best is not None
    at, value = one.arrays[0][one.best], one.arrays[1][one.best]
    across = float(x.shares(at))
    text = f"best: epoch {int(at)}, {figure(float(value))}"
    up = float((1 - y.shares(value)) * HEIGHT)
    text_y = 12 if up > HEIGHT / 3 else HEIGHT - 8
    return Mark(round(100 * across, 2), round(up, 1), text_y, text, one.colour, across > 0.5)


def _hits(x: Scale, series: Sequence[Series], x_label: str) -> tuple[Hit, ...]:
    places = np.unique(np.concatenate([one.arrays[0] for one in series]))
    if len(places) > HITS:
        places = places[np.linspace(0, len(places) - 1, HITS).astype(int)]
    rows = [dict(zip(*(part.tolist() for part in one.arrays), strict=True)) for one in series]
    centres = x.shares(places)
    ends = np.concatenate([[0.0], (centres[1:] + centres[:-1]) / 2, [1.0]])
    hits = []
    for k, place in enumerate(places.tolist()):
        values = [
            f"{one.label}: {figure(row[place])}"
            for one, row in zip(series, rows, strict=True)
            if place in row
        ]
        text = "\n".join([f"{x_label} {int(place)}", *values])
        hits.append(
            Hit(round(100 * ends[k], 2), round(100 * (ends[k + 1] - ends[k]) + 0.005, 2), text)
        )
    return tuple(hits)


def _about(title: str, series: Sequence[Series]) -> str:
    parts = []
    for one in series:
        y = one.arrays[1][np.isfinite(one.arrays[1])]
        if len(y):
            parts.append(f"{one.label} from {figure(float(y[0]))} to {figure(float(y[-1]))}")
    return f"{title}: {'; '.join(parts) or 'no finite value'}"
