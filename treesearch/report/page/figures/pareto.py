"""The Pareto front of a run: cost against NLL, on the frozen rung and after joint training."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from textwrap import wrap
from typing import Any

from treesearch.cost import no_dearer
from treesearch.report.page.figure import Figure, Table, Variant, plotly_text
from treesearch.report.page.figures.style import (
    COLOURS,
    KINDS,
    MAX_POINTS,
    MAX_ROWS,
    NLL,
    SYMBOLS,
    WIDE,
    axis,
    count,
    hover,
    inner_range,
    layout,
    log_axis,
    number,
    padded,
    shorts,
)
from treesearch.report.page.places import Place, front, frozen_places, joint_places, perplexity
from treesearch.report.page.run_view import RunView
from treesearch.report.page.series import thinned
from treesearch.search.promotion import BASELINE, FOUND, HUFFMAN
from treesearch.visible import visible

KEY, TITLE = "pareto", "Pareto front: cost against likelihood"
ON_FRONT = "found, front"
HOVER_WIDTH = 44  # characters of a line
FEW = 30  # points that need not be faint
HOVER = hover(
    "<b>%{customdata[0]}</b>, by %{customdata[1]}",
    "NLL %{y:.4f} nats, perplexity %{customdata[3]}",
    "cost %{x:.3f}, expected depth %{customdata[4]}",
    "reward %{customdata[5]}",
    "%{customdata[2]}",
)


def pareto_figure(view: RunView) -> Figure:
    """Cost and validation NLL of all trees; found ones, builders and Huffman marked, and the front."""
    frozen, joint = frozen_places(view), joint_places(view)
    if not frozen and not joint:
        return Figure(KEY, TITLE, "No evaluation has given a score yet, so there is no front.")
    variants = [
        _variant(name, places, cost_title(view), whole=len(places) <= MAX_POINTS)
        for name, places in (("frozen encoder", frozen), ("joint training", joint))
        if places
    ]
    main = frozen or joint
    return Figure(
        KEY, TITLE, " ".join(_sentences(frozen, joint, view.measured)), tuple(variants), _table(front(main), main)
    )


def cost_title(view: RunView) -> str:
    """The title of an axis with what the reward charges."""
    return "cost, measured (Huffman's = its depth)" if view.measured else "cost, binary-node units"


def _variant(name: str, places: Sequence[Place], title: str, *, whole: bool) -> Variant:
    best = front(places)
    on_front = {id(place) for place in best}
    dominated = [place for place in places if id(place) not in on_front and place.kind == FOUND]
    groups = [
        ("found", FOUND, dominated if whole else thinned(dominated, MAX_POINTS), False),
        (ON_FRONT, FOUND, [place for place in best if place.kind == FOUND], True),
        (KINDS[BASELINE], BASELINE, [place for place in places if place.kind == BASELINE], True),
        (KINDS[HUFFMAN], HUFFMAN, [place for place in places if place.kind == HUFFMAN], True),
    ]
    line = {
        "type": "scatter",
        "mode": "lines",
        "name": "front",
        "x": shorts([place.cost for place in best]),
        "y": shorts([place.nll for place in best]),
        "line": {"shape": "hv", "color": "--text", "width": 1},
        "hoverinfo": "skip",
    }
    data = [line, *(_points(name, kind, group, strong) for name, kind, group, strong in groups if group)]
    (x_low, x_high), (y_low, y_high) = shown(places, best)
    x = (
        log_axis(title, x_low / 1.1, x_high * 1.1)
        if x_low > 0 and x_high / x_low > WIDE
        else axis(title, range=padded(x_low, x_high))
    )
    return Variant(name, data, layout(x, axis(NLL, range=padded(y_low, y_high)), height=460))


def shown(places: Sequence[Place], best: Sequence[Place]) -> tuple[tuple[float, float], tuple[float, float]]:
    """The ranges of cost and of NLL that a plot begins with: always the front and Huffman, not every terrible tree."""
    keep = [*best, *(place for place in places if place.kind == HUFFMAN)]
    logs = inner_range([math.log(max(p.cost, 1e-9)) for p in places], [math.log(max(p.cost, 1e-9)) for p in keep])
    costs = (math.exp(logs[0]), math.exp(logs[1]))
    return costs, inner_range([place.nll for place in places], [place.nll for place in keep])


def _points(name: str, kind: str, places: Sequence[Place], strong: bool) -> dict[str, Any]:
    strong = strong or len(places) <= FEW
    outline = {"line": {"color": "--text", "width": 1.5}} if name == ON_FRONT else {}
    size = {HUFFMAN: 15, BASELINE: 9}.get(kind, 8 if strong else 5)
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": shorts([place.cost for place in places]),
        "y": shorts([place.nll for place in places]),
        "marker": {
            "color": COLOURS[kind],
            "symbol": SYMBOLS[kind],
            "size": size,
            "opacity": 1 if strong else 0.35,
            **outline,
        },
        "customdata": [_custom(place) for place in places],
        "hovertemplate": HOVER,
    }


def _custom(place: Place) -> list[str]:
    return [
        plotly_text(place.name),
        plotly_text(place.row.agent),
        "<br>".join(
            map(plotly_text, wrap(in_brief(place.row.action_names()), HOVER_WIDTH, max_lines=4, placeholder=" …"))
        ),
        number(perplexity(place.nll), 1),
        number(place.row.expected_depth, 2),
        number(place.reward),
    ]


def in_brief(actions: Sequence[str], *, limit: int = 4) -> str:
    """The first action and the most used ones with how often they were taken."""
    if not actions:
        return ""
    uses = Counter(actions).most_common()
    words = [name if times == 1 else f"{name} x{times}" for name, times in uses[:limit]]
    more = f", {len(uses) - limit} more" if len(uses) > limit else ""
    return f"first {actions[0]}; {', '.join(words)}{more}" if len(uses) > 1 else ", ".join(words)


def _sentences(frozen: Sequence[Place], joint: Sequence[Place], measured: bool) -> list[str]:
    words = []
    for where, places in (("On the frozen encoder", frozen), ("After joint training", joint)):
        if not places:
            continue
        best = front(places)
        num_found = sum(place.kind == FOUND for place in best)
        text = f"{where}, {len(best)} of {count(len(places), 'tree')} lie on the front, {num_found} of them found"
        words.append(f"{text}{_at_huffmans_cost(places, measured)}.")
        outside = num_outside(places, best)
        if outside:
            words.append(f"{count(outside, 'tree lies', 'trees lie')} outside the plot; zoom out to see them.")
        dominated = sum(place.kind == FOUND for place in places) - num_found
        if len(places) > MAX_POINTS and dominated > MAX_POINTS:
            words.append(f"Of {dominated:,} found trees off the front {MAX_POINTS:,} are drawn.")
    return words


def _at_huffmans_cost(places: Sequence[Place], measured: bool) -> str:
    huffman = next((place for place in places if place.kind == HUFFMAN), None)
    if huffman is None:
        return ""
    affordable = (place for place in places if no_dearer(place.cost, huffman.cost, measured=measured))
    best = min(affordable, key=lambda place: place.nll)
    if best.nll >= huffman.nll:
        return "; none of at most Huffman's cost has a lower NLL than Huffman"
    change = 100 * math.expm1(best.nll - huffman.nll)
    return (
        f"; of at most Huffman's cost {visible(best.name)} is best, {best.nll:.4f} against {huffman.nll:.4f} nats"
        f" (perplexity {change:+.1f} %)"
    )


def num_outside(places: Sequence[Place], best: Sequence[Place]) -> int:
    """How many trees the ranges that a plot begins with leave out."""
    (x_low, x_high), (y_low, y_high) = shown(places, best)
    slack = 1 + 1e-9
    return sum(not (x_low / slack <= place.cost <= x_high * slack and y_low <= place.nll <= y_high) for place in places)


def _table(best: Sequence[Place], places: Sequence[Place]) -> Table:
    huffman = [place for place in places if place.kind == HUFFMAN and place not in best]
    listed = [*thinned(best, MAX_ROWS - len(huffman)), *huffman]
    rows = tuple(
        (
            visible(place.name),
            visible(place.row.agent),
            number(place.cost, 3),
            number(place.row.expected_depth, 2),
            number(place.nll),
            number(perplexity(place.nll), 2),
            number(place.reward),
        )
        for place in listed
    )
    note = f"{len(listed) - len(huffman)} of {count(len(best), 'tree')} on the front" + (
        ", and Huffman" if huffman else ""
    )
    headings = ("tree", "proposed by", "cost", "expected depth", "NLL, nats", "perplexity", "reward, nats")
    return Table(headings, rows, f"{note}. {len(places) - len(listed):,} other trees are left out.")
