"""Colours of the page, light and dark.

The lines' colours differ in lightness as well as in hue, after Okabe and Ito's palette for all
kinds of colour vision (jfly.uni-koeln.de/color), and have a contrast of at least 3:1 to the panel;
lines differ in their dashes, too. Every text has at least 4.5:1 (WCAG 2.2, 1.4.3), see the tests.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Palette:
    """Colours as ``#rrggbb``.

    Attributes:
        lines: of a chart's lines, and of phases.
        ramp: of a share of 0, then above 0 up to 1, in equal parts.
        turns: the level of the ramp from which the second colour of `text_on_ramp` is used.
    """

    page: str
    panel: str
    ink: str
    soft: str
    rule: str
    grid: str
    accent: str
    good: str
    bad: str
    lines: tuple[str, ...]
    ramp: tuple[str, ...]
    turns: int
    text_on_ramp: tuple[str, str]


LIGHT = Palette(
    page="#f6f7f8", panel="#ffffff", ink="#1b1f24", soft="#59616b", rule="#d9dde2",
    grid="#e8ebee", accent="#0b5c9e", good="#00704f", bad="#b3261e",
    lines=("#0b63a8", "#c24d00", "#00795a", "#9b3f7d", "#7d6200", "#4b5563", "#7aa6cc"),
    ramp=("#ffffff", "#e9f2fa", "#d3e5f4", "#b5d3ec", "#8fbde0", "#63a2d2", "#4a8fc6", "#226dab",
          "#125593", "#0a3d6e"),
    turns=7, text_on_ramp=("#0b1016", "#ffffff"),
)  # fmt: skip
DARK = Palette(
    page="#121518", panel="#1a1e22", ink="#e6e9ec", soft="#a2abb5", rule="#30373e",
    grid="#272d33", accent="#7dbdf2", good="#4fd1a5", bad="#ff8f85",
    lines=("#5fb0ee", "#ff9257", "#44cfa3", "#e39bcb", "#dcc04e", "#b4bdc9", "#39617f"),
    ramp=("#1a1e22", "#1b2a38", "#1d3850", "#204a6d", "#265e8d", "#4d94cd", "#6cacde", "#8ec3ec",
          "#b5daf6", "#dff0fd"),
    turns=5, text_on_ramp=("#ffffff", "#0b1016"),
)  # fmt: skip
LEVELS = len(LIGHT.ramp)
