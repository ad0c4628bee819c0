"""What all plots have in common: colours of the theme, marks beside colour, axes, hover texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from treesearch.report import cells
from treesearch.report.page.figure import plotly_text
from treesearch.search.promotion import BASELINE, FOUND, HUFFMAN

NLL = "validation NLL, nats per token"
REWARD = "reward, nats per token"
EVALUATIONS = "evaluations"
MINUTES = "search time, minutes"
SECONDS = "time of an evaluation, seconds"
COLOURS = {FOUND: "--found", BASELINE: "--baseline", HUFFMAN: "--huffman"}
SYMBOLS = {FOUND: "circle", BASELINE: "square", HUFFMAN: "star"}
KINDS = {FOUND: "found", BASELINE: "builders", HUFFMAN: "Huffman"}  # in legends
SERIES = tuple(f"--series-{number}" for number in range(1, 9))
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MARKS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "pentagon", "star-triangle-up")
WIDE = 10.0  # from this ratio on an axis is logarithmic
MAX_POINTS = 3000  # faint points of a plot
MAX_ROWS = 60  # of a table


def layout(x: dict[str, Any], y: dict[str, Any], *, height: int = 420, **more: Any) -> dict[str, Any]:
    """Two axes, and a legend above the plot."""
    return {
        "xaxis": x,
        "yaxis": y,
        "height": height,
        "margin": {"l": 56, "r": 16, "t": 8, "b": 48},
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "traceorder": "normal"},
        "hovermode": "closest",
        **more,
    }


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis; titles have units."""
    return {"title": {"text": title}, "automargin": True, "gridcolor": "--border", "zeroline": False, **more}


def log_axis(title: str, low: float, high: float, **more: Any) -> dict[str, Any]:
    """A logarithmic axis over (low, high) with few enough ticks to be read."""
    decades = math.log10(high) - math.log10(low)
    step: str | int = "D2" if decades < 2.2 else max(1, math.ceil(decades / 6))  # D2: at 1, 2 and 5
    return axis(title, type="log", range=[math.log10(low), math.log10(high)], dtick=step, tickformat="~g", **more)


def hover(*lines: str) -> str:
    """A template whose lines hold no text from outside: that stands in the custom data."""
    return "<br>".join(lines) + "<extra></extra>"


def short(value: float | None, digits: int = 6) -> float | None:
    """A number as the page stores it, with so many digits; None where it is no number."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{digits}g}")


def shorts(values: Sequence[float | None], digits: int = 6) -> list[float | None]:
    """The same for several."""
    return [short(value, digits) for value in values]


def inner_range(values: Sequence[float], keep: Sequence[float] = ()) -> tuple[float, float]:
    """A range that a few terrible values cannot stretch: three spreads beyond the quartiles, and all of ``keep``."""
    array = np.array([*values, *keep], np.float64)
    first, third = np.quantile(array, [0.25, 0.75]).tolist()
    reach = 3 * (third - first)
    low = max(float(array.min()), min([first - reach, *keep]))
    high = min(float(array.max()), max([third + reach, *keep]))
    return low, high


def padded(low: float, high: float, share: float = 0.07) -> list[float]:
    """A range with some room at both ends."""
    room = share * (high - low) or 0.05 * abs(high) or 1.0
    return [float(f"{low - room:.6g}"), float(f"{high + room:.6g}")]


def clipped_text(text: str, limit: int) -> str:
    """A text from outside for a narrow place, made ready for plotly."""
    return plotly_text(text if len(text) <= limit else f"{text[: limit - 1]}…")


def number(value: float | None, digits: int = 4) -> str:
    """A cell of a table, as in all tables; "-" also for what is not finite."""
    return cells.number(value if value is not None and math.isfinite(value) else None, digits)


def count(number: int, noun: str, plural: str | None = None) -> str:
    """``1 tree``, ``2,000 trees``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
