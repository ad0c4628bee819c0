"""How long evaluations took, over the search and by what had to be done; what failed, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from treesearch.report.page.figure import Figure, Table, Variant, plotly_text
from treesearch.report.page.figures.style import (
    EVALUATIONS,
    MARKS,
    MAX_POINTS,
    MAX_ROWS,
    SECONDS,
    SERIES,
    axis,
    count,
    hover,
    layout,
    log_axis,
    number,
    padded,
    short,
    shorts,
)
from treesearch.report.page.run_view import RunView
from treesearch.report.page.series import Evaluation, evaluations, thinned
from treesearch.report.page.work import LOADS, load_of, reasons, seconds_by_load
from treesearch.search.evaluation_row import CACHED, FAILED, STOPPED
from treesearch.visible import visible

KEY, TITLE = "times", "How long evaluations took"
FAILURES_KEY, FAILURES_TITLE = "failures", "Evaluations without a score"
FLOOR = 0.001  # seconds, the least that the logarithmic axis shows
LOST = ((FAILED, "--bad", "x"), (STOPPED, "--muted", "triangle-down-open"))
REASON_WIDTH = 200  # characters


def times_figure(view: RunView) -> Figure:
    """Wall times in the workers."""
    by_load = seconds_by_load(view.rows)
    every = evaluations(view)
    lost = [one for one in every if one.row.status in (FAILED, STOPPED)]
    if not by_load and not lost:
        return Figure(KEY, TITLE, "No evaluation has finished yet.")
    variants = [_over_search(every)] if every else []
    if by_load:
        variants.append(_by_load(by_load))
    repeated = sum(row.status == CACHED for row in view.frozen)
    words = [
        f"{load}: {count(len(seconds), 'evaluation')}, {_seconds(float(np.median(seconds)))} in the median"
        for load, seconds in by_load.items()
    ]
    text = "; ".join(words)
    nothing = "No evaluation has given a score; those that failed or were stopped are marked."
    sentences = [f"{text[0].upper()}{text[1:]}." if text else nothing]
    if repeated:
        trees = count(repeated, "proposed tree had", "proposed trees had")
        sentences.append(f"{trees} been evaluated before and took no time, so nothing is drawn.")
    if any(second < FLOOR for seconds in by_load.values() for second in seconds):
        sentences.append("Times below 1 ms are drawn at 1 ms.")
    return Figure(KEY, TITLE, " ".join(sentences), tuple(variants), _table(by_load))


def failures_figure(view: RunView) -> Figure:
    """Reasons of failures and of early stops; a table, nothing to draw."""
    found = reasons(view)
    failed = sum(one.times for one in found if one.status == FAILED)
    stopped = sum(one.times for one in found if one.status == STOPPED)
    if not found:
        done = count(len(view.rows), "evaluation")
        return Figure(FAILURES_KEY, FAILURES_TITLE, f"None of {done} failed, and none was stopped early.")
    text = (
        f"Of {count(len(view.rows), 'evaluation')} on all rungs {failed:,} failed and {stopped:,} were stopped early."
    )
    rows = tuple(
        (f"{one.times:,}", one.status, one.rung, f"#{one.first}", _cut(visible(one.text))) for one in found[:MAX_ROWS]
    )
    left = len(found) - len(rows)
    note = f"{count(left, 'rarer reason is', 'rarer reasons are')} left out." if left else ""
    headings = ("evaluations", "what", "rung", "first", "reason")
    return Figure(FAILURES_KEY, FAILURES_TITLE, text, (), Table(headings, rows, note))


def _cut(text: str) -> str:
    return text if len(text) <= REASON_WIDTH else f"{text[: REASON_WIDTH - 1]}…"


def _seconds(value: float) -> str:
    if value < FLOOR:
        return "below 1 ms"
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"


def _over_search(every: Sequence[Evaluation]) -> Variant:
    data: list[dict[str, Any]] = []
    for place, load in enumerate(LOADS[:3]):
        own = [one for one in every if load_of(one.row) == load]
        if own:
            data.append(_points(load, own, SERIES[place], MARKS[place], strong=False))
    for status, colour, symbol in LOST:
        own = [one for one in every if one.row.status == status]
        if own:
            data.append(_points(status, own, colour, symbol, strong=True))
    shown = [max(one.row.seconds, FLOOR) for one in every if one.row.status != CACHED] or [FLOOR, 1.0]
    y = log_axis(SECONDS, min(shown) / 1.5, max(shown) * 1.5)
    return Variant("over the search", data, layout(axis(EVALUATIONS, range=padded(0.0, float(len(every)), 0.02)), y))


def _points(name: str, own: Sequence[Evaluation], colour: str, symbol: str, *, strong: bool) -> dict[str, Any]:
    shown = thinned(own, MAX_POINTS // 2)
    left = f" ({len(shown):,} of {len(own):,})" if len(shown) < len(own) else ""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name + left,
        "x": [one.number for one in shown],
        "y": shorts([max(one.row.seconds, FLOOR) for one in shown], 3),
        "customdata": [_who(one) for one in shown],
        "marker": {"color": colour, "symbol": symbol, "size": 9 if strong else 6, "opacity": 1 if strong else 0.6},
        "hovertemplate": hover("%{customdata}", "%{y:.3~g} s"),
    }


def _who(one: Evaluation) -> str:
    text = f"#{one.number} {plotly_text(one.row.label or one.row.agent)}"
    return text if one.row.reason is None else f"{text}<br>{plotly_text(one.row.reason[:80])}"


def _by_load(by_load: dict[str, list[float]]) -> Variant:
    """Boxes one below another: median, quartiles, and the least and the greatest."""
    data = []
    for place, (load, seconds) in enumerate(by_load.items()):
        least, first, median, third, most = quartiles([max(value, FLOOR) for value in seconds])
        data.append(
            {
                "type": "box",
                "orientation": "h",
                "name": load.replace(", ", ",<br>"),
                "y": [place],
                "q1": [short(first)],
                "median": [short(median)],
                "q3": [short(third)],
                "lowerfence": [short(least)],
                "upperfence": [short(most)],
                "line": {"color": SERIES[place]},
                "fillcolor": "--surface",
                "hoverinfo": "x",
            }
        )
    every = [max(value, FLOOR) for seconds in by_load.values() for value in seconds]
    y = {
        "tickvals": list(range(len(data))),
        "ticktext": [trace["name"] for trace in data],
        "autorange": "reversed",
        "automargin": True,
        "showgrid": False,
        "zeroline": False,
    }
    x = log_axis(SECONDS, min(every) / 1.3, max(every) * 1.3)
    height = 90 + 56 * len(data)
    return Variant("by what had to be done", data, layout(x, y, height=height, showlegend=False))


def quartiles(values: Sequence[float]) -> tuple[float, float, float, float, float]:
    """Least, first quartile, median, third quartile and greatest."""
    least, first, median, third, most = np.quantile(np.array(values, np.float64), [0, 0.25, 0.5, 0.75, 1]).tolist()
    return least, first, median, third, most


def _table(by_load: dict[str, list[float]]) -> Table:
    rows = tuple(
        (load, f"{len(seconds):,}", *(number(value, 3) for value in quartiles(seconds)), number(sum(seconds) / 60, 2))
        for load, seconds in by_load.items()
    )
    headings = ("what", "evaluations", "least, s", "1st quartile", "median", "3rd quartile", "most", "in all, minutes")
    return Table(headings, rows)
