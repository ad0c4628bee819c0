"""Heat map of what the agent does, by depth and by share of examples, early and late in the search."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from treesearch.report.page.decision_map import (
    MAX_DEPTH,
    SHARES,
    Decisions,
    decisions,
    depth_bins,
    pooled,
    share_bins,
    use_by_bin,
)
from treesearch.report.page.figure import Figure, Table, Variant, plotly_text
from treesearch.report.page.figures.style import axis, clipped_text, count, hover
from treesearch.report.page.run_view import RunView
from treesearch.search.evaluation_row import BUILDER
from treesearch.visible import visible

KEY, TITLE = "actions", "Which actions the agent takes"
MAX_ACTIONS = 25
FULL = 0.5  # share of the strongest colour: shares above are rare, and all others would look alike
NAME_WIDTH = 30  # characters of an action beside the map
PARTS = (("whole search", None), ("first third", 0), ("last third", 2))
DEPTH_LABELS = [*map(str, range(MAX_DEPTH)), f"{MAX_DEPTH}+"]
SHARE_LABELS = [f"{100 * share:g}%+" for share in SHARES[:-1]] + [f"<{100 * SHARES[-2]:g}%"]


def actions_figure(view: RunView) -> Figure:
    """Share of the decisions in each column that take an action; columns sum to 1."""
    if not any(row.agent != BUILDER for row in view.frozen):
        return Figure(KEY, TITLE, "The agent has not proposed any tree yet.")
    made = decisions(view)
    if not made.action.size:
        told = any(row.actions is not None for row in view.frozen)
        return Figure(
            KEY,
            TITLE,
            "The run was written before decisions were kept, so depth and mass of its actions are not known."
            if told
            else "The trees of this agent were not built by actions.",
        )
    variants = []
    names, row_of = pooled(made.actions, limit=MAX_ACTIONS)
    for by, title, bins, labels in (
        ("depth", "depth, edges", depth_bins(made.depth), DEPTH_LABELS),
        ("mass", "share of examples", share_bins(made.share), SHARE_LABELS),
    ):
        parts = []
        for part, third in PARTS:
            chosen = np.ones(made.action.size, np.bool_) if third is None else made.third == third
            if chosen.any():
                uses = use_by_bin(
                    row_of[made.action[chosen]], bins[chosen], num_actions=len(names), num_bins=len(labels)
                )
                parts.append((f"by {by}, {part}", uses))
        variants += _variants(parts, names, labels, title)
    return Figure(KEY, TITLE, _summary(made), tuple(variants), _table(made))


def _variants(
    parts: list[tuple[str, NDArray[np.int64]]], names: list[str], labels: list[str], title: str
) -> list[Variant]:
    """With the same columns and the same scale of colours for all parts, so that they can be compared."""
    used = np.flatnonzero(np.sum([uses for _, uses in parts], axis=(0, 1)))
    first, last = int(used[0]), int(used[-1]) + 1
    largest = max(float((uses / np.maximum(uses.sum(0), 1)).max()) for _, uses in parts)
    return [_variant(name, uses[:, first:last], names, labels[first:last], title, largest) for name, uses in parts]


def _variant(
    name: str, uses: NDArray[np.int64], names: list[str], labels: list[str], title: str, largest: float
) -> Variant:
    totals = uses.sum(0)
    shares = [
        [round(int(use) / int(total), 4) if use else None for use, total in zip(row, totals, strict=True)]
        for row in uses
    ]
    shown = [plotly_text(one) for one in names]
    strongest = min(largest, FULL)
    trace: dict[str, Any] = {
        "type": "heatmap",
        "x": list(range(len(labels))),
        "y": list(range(len(names))),
        "z": shares,
        "customdata": [
            [
                [action, label.replace("<", "&lt;"), int(use), int(total)]
                for label, use, total in zip(labels, row, totals, strict=True)
            ]
            for action, row in zip(shown, uses, strict=True)
        ],
        "zmin": 0,
        "zmax": strongest,
        "colorscale": "--sequential",
        "xgap": 1,
        "ygap": 1,
        "colorbar": {
            "orientation": "h",
            "title": {"text": "share of a column", "side": "top"},
            "thickness": 10,
            "len": 0.9,
            "ypad": 0,
            "ticklabeloverflow": "allow",  # else that at the end is left out
            "tickvals": [0, strongest],
            "ticktext": ["0%", f"{strongest:.0%}{'+' if largest > FULL else ''}"],
            "y": 1.01,
            "yanchor": "bottom",
        },
        "hoverongaps": False,
        "hovertemplate": hover(
            "%{customdata[0]}", "at %{customdata[1]}: %{z:.1%}", "%{customdata[2]} of %{customdata[3]} decisions"
        ),
    }
    ticks = [label.replace("<", "&lt;") for label in labels]
    x = axis(title, tickvals=trace["x"], ticktext=ticks, showgrid=False)
    y = {
        "tickvals": trace["y"],
        "ticktext": [clipped_text(one, NAME_WIDTH) for one in names],
        "tickfont": {"size": 10},
        "autorange": "reversed",
        "automargin": True,
        "showgrid": False,
        "zeroline": False,
    }
    height = 150 + 20 * len(names)
    return Variant(
        name, [trace], {"xaxis": x, "yaxis": y, "height": height, "margin": {"l": 40, "r": 8, "t": 8, "b": 48}}
    )


def _summary(made: Decisions) -> str:
    root = made.depth == 0
    sizes = (count(made.action.size, "decision"), count(made.num_trees, "tree"), count(len(made.actions), "action"))
    text = "{} in {}, of {}".format(*sizes)
    if len(made.actions) > MAX_ACTIONS:
        text += f" (the {MAX_ACTIONS - 1} most used are shown, the others together)"
    if not root.any():
        return f"{text}."
    parts = []
    for words, third in (("first", 0), ("last", 2)):
        chosen = made.action[root & (made.third == third)]
        if chosen.size:
            uses = np.bincount(chosen)
            top = int(uses.argmax())
            parts.append(f"in the {words} third {visible(made.actions[top])} ({uses[top] / chosen.size:.0%})")
    return (
        f"{text}; blank means never. At the root the agent most often takes, {', '.join(parts)}."
        if parts
        else f"{text}."
    )


def _table(made: Decisions) -> Table:
    """Share of each action among all decisions, at the root and below, early and late."""
    num = len(made.actions)
    columns = []
    for chosen in (
        np.ones(made.action.size, np.bool_),
        made.depth == 0,
        made.depth > 0,
        made.third == 0,
        made.third == 2,
    ):
        uses = np.bincount(made.action[chosen], minlength=num)
        columns.append([f"{use / uses.sum():.1%}" if uses.sum() else "-" for use in uses])
    total = np.bincount(made.action, minlength=num)
    rows = tuple(
        (visible(name), f"{total[place]:,}", *(column[place] for column in columns))
        for place, name in enumerate(made.actions[:MAX_ACTIONS])
    )
    headings = ("action", "taken", "all", "at the root", "below", "first third", "last third")
    left = num - len(rows)
    return Table(headings, rows, f"{count(left, 'less used action')} left out." if left else "")
