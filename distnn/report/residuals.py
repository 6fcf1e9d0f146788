"""Predicted against true values of a regression, and what is left between them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distnn.report.charts import Chart, Line, bars, dots, path, x_ticks, y_ticks
from distnn.report.scales import Scale, figure, scale_of

DOTS = 1500
BINS = 41
MOST_TARGETS = 6

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Residuals:
    """One target's figures and its two charts."""

    name: str
    items: int
    rmse: float
    mae: float
    r2: float
    charts: tuple[Chart, Chart]


def residuals(name: str, true: Values, predicted: Values) -> Residuals:
    """The view of one target.

    Args:
        true, predicted: (n,), in the target's own unit.
    """
    error = predicted - true
    deviation = float(np.square(true - true.mean()).sum())
    with np.errstate(all="ignore"):
        r2 = 1 - float(np.square(error).sum()) / deviation if deviation > 0 else np.nan
        rmse, mae = float(np.sqrt(np.square(error).mean())), float(np.abs(error).mean())
    charts = (_scatter(name, true, predicted), _histogram(name, error))
    return Residuals(name, len(true), rmse, mae, r2, charts)


def _scatter(name: str, true: Values, predicted: Values) -> Chart:
    shown = np.unique(np.linspace(0, len(true) - 1, min(DOTS, len(true))).astype(int))
    scale = scale_of(np.concatenate([true[shown], predicted[shown]]))
    ends = np.array([scale.low, scale.high])
    some = f"{len(shown):,} of {len(true):,} rows, evenly spaced" if len(shown) < len(true) else ""
    return Chart(
        f"{name}: predicted against true",
        f"{name}: dots near the diagonal are predicted well",
        "true",
        x_ticks(scale),
        y_ticks(scale),
        (Line("rows", 1, 0, dots(scale, scale, true[shown], predicted[shown]), "dots"),),
        guide=path(scale, scale, ends, ends),
        note=some,
        legend=False,
    )


def _histogram(name: str, error: Values) -> Chart:
    finite = error[np.isfinite(error)]
    # the middle: one row that is far off would press all others into one bar
    low, high = np.percentile(finite, [0.25, 99.75]) if len(finite) else (-1.0, 1.0)
    reach = max(abs(float(low)), abs(float(high))) or 1.0
    edges = np.linspace(-reach, reach, BINS + 1)
    counts, _ = np.histogram(finite, edges)
    outside = len(error) - int(counts.sum())
    x = Scale(-reach, reach, False, scale_of(edges).ticks)
    y = scale_of(np.array([0.0, counts.max(initial=1)]), bounds=(0, 1e300))
    return Chart(
        f"{name}: predicted minus true",
        f"{name}: residuals, most within {figure(reach, 3)}",
        "residual",
        tuple(tick for tick in x_ticks(x) if 0 < tick.at < 100),
        y_ticks(y),
        (Line("rows", 1, 0, (bars(x, y, edges, counts.astype(np.float64)),), "area"),),
        guide=path(x, y, np.zeros(2), np.array([0.0, y.high])),
        note=f"{outside:,} rows beyond the ends" if outside else "",
        legend=False,
    )
