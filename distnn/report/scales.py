"""Where values lie on an axis, the ticks of it, and how numbers are written."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

LOG_FROM = 30  # times between the least and the largest value, from which on an axis is logarithmic


@dataclass(frozen=True)
class Scale:
    """An axis from `low` to `high`, linear or logarithmic, with its ticks."""

    low: float
    high: float
    is_log: bool
    ticks: tuple[float, ...]

    def shares(self, values: ArrayLike) -> NDArray[np.float64]:
        """How far along the axis the values are, 0 to 1; NaN stays."""
        low, high, v = self.low, self.high, np.asarray(values, np.float64)
        if self.is_log:
            with np.errstate(all="ignore"):
                low, high, v = math.log(low), math.log(high), np.log(v)
        # halves, because the difference of two finite numbers may be infinite
        return np.clip((v / 2 - low / 2) / (high / 2 - low / 2), 0, 1)


def scale_of(values: ArrayLike, *, may_be_log: bool = False, bounds: Sequence[float] = ()) -> Scale:
    """An axis that shows all finite values, with a margin, and whole ticks.

    Args:
        may_be_log: take a logarithmic axis where values are positive and far apart.
        bounds: what the axis does not go beyond, as 0 and 1 for a share.
    """
    v = np.asarray(values, np.float64)
    v = v[np.isfinite(v)]
    low, high = (float(v.min()), float(v.max())) if len(v) else (0.0, 1.0)
    if may_be_log and low > 0 and high / LOG_FROM > low:
        low, high = low / 1.15, min(high * 1.15, 1e308)
        return Scale(low, high, True, log_ticks(low, high))
    margin = 0.04 * (high - low) or abs(high) * 0.1 or 0.5
    low, high = max(low - margin, -8e307), min(high + margin, 8e307)
    if bounds:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Scale(low, high, False, linear_ticks(low, high))


def epoch_scale(first: float, last: float) -> Scale:
    """An axis of whole numbers, without a margin."""
    low, high = (first, last) if last > first else (first - 0.5, first + 0.5)
    ticks = [tick for tick in linear_ticks(low, high, 8) if tick == int(tick)]
    return Scale(low, high, False, tuple(ticks) if len(ticks) > 1 else tuple({first, last}))


def linear_ticks(low: float, high: float, most: int = 6) -> tuple[float, ...]:
    """Multiples of 1, 2 or 5 times a power of ten, from `low` to `high`, no more than `most`."""
    rough = high / most - low / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if power * factor >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    return tuple(k * step for k in range(first, last + 1))


def log_ticks(low: float, high: float, most: int = 6) -> tuple[float, ...]:
    """Powers of ten from `low` to `high`, every so many; also 2 and 5 times them where few are."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    stride = max(1, -(-(last - first) // most))
    factors = (1, 2, 5) if last - first <= 2 else (1, 3) if last - first <= 3 else (1,)
    ticks = [f * 10.0**power for power in range(first, last + 1, stride) for f in factors]
    return tuple(tick for tick in ticks if low <= tick <= high)


def figure(value: float | int | None, digits: int = 4) -> str:
    """A number for people: so many significant digits, whole numbers with commas."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, int) or (abs(value) < 1e9 and value == int(value)):
        return f"{int(value):,}".replace("-", "−")
    if abs(value) >= 10 ** (digits - 1) and abs(value) < 1e9:
        return f"{value:,.0f}".replace("-", "−")
    text = f"{value:.{digits}g}"
    mantissa, is_power, power = text.partition("e")
    if is_power:
        text = f"{mantissa}e{int(power)}"
    return text.replace("-", "−")


def percent(share: float | None) -> str:
    """A share in per cent."""
    return "–" if share is None or math.isnan(share) else f"{100 * share:.2f} %"


def duration(seconds: float | None) -> str:
    """Seconds as people say them: 0.37 s, 42 s, 3 min 05 s, 2 h 05 min."""
    if seconds is None or math.isnan(seconds):
        return "–"
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole // 60 % 60:02d} min"
