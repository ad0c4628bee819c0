"""What the agent learns: rewards of its batches, and what it says of its updates, one small plot below another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treesearch.errors import ConfigError
from treesearch.report.glossary import lookup
from treesearch.report.glossary_terms import NONE, TRACKER
from treesearch.report.page.figure import Figure, Table, Variant, plotly_text
from treesearch.report.page.figures.style import (
    EVALUATIONS,
    MAX_ROWS,
    axis,
    count,
    hover,
    inner_range,
    number,
    padded,
    shorts,
)
from treesearch.report.page.run_view import RunView
from treesearch.report.page.series import BatchRewards, agent_metrics, batch_rewards, thinned
from treesearch.visible import visible

KEY, TITLE = "learning", "What the agent learns"
MAX_BATCHES = 400  # points of a curve
MAX_METRICS = 20
PANEL, GAP, FOOT = 130, 34, 48  # pixels of a small plot, between two, and below the last
Metrics = dict[str, list[tuple[int, float]]]


def learning_figure(view: RunView) -> Figure:
    """Rewards of the agent's batches, and each of its metrics, over evaluations."""
    rewards = batch_rewards(view, view.agent, limit=MAX_BATCHES)
    metrics = dict(list(agent_metrics(view, limit=MAX_BATCHES).items())[:MAX_METRICS])
    if not rewards and not metrics:
        return Figure(KEY, TITLE, f"No tree that {visible(view.agent)} proposed has a score yet.")
    panels: list[tuple[str, list[dict[str, Any]], list[float]]] = []
    if rewards:
        panels.append(("reward, nats per token: mean, quartiles, best", *_reward_traces(rewards)))
    for place, (name, points) in enumerate(metrics.items()):
        panels.append((plotly_text(named(name)), *_metric_trace(place, name, points)))
    variant = _stacked(panels)
    return Figure(KEY, TITLE, " ".join(_sentences(view, rewards, metrics)), (variant,), _table(rewards, metrics))


def named(name: str) -> str:
    """A metric with its unit, where the glossary knows one."""
    try:
        unit = lookup(f"agent/{name}", where=TRACKER).unit
    except ConfigError:  # an agent from outside: what its numbers are, only it knows
        return name
    return name if unit == NONE else f"{name}, {unit}"


def _reward_traces(rewards: Sequence[BatchRewards]) -> tuple[list[dict[str, Any]], list[float]]:
    x = [one.evaluations for one in rewards]
    band = {
        "type": "scatter",
        "mode": "lines",
        "name": "quartiles",
        "x": [*x, *x[::-1]],
        "y": shorts([*(one.low for one in rewards), *(one.high for one in reversed(rewards))]),
        "fill": "toself",
        "fillcolor": "--found",
        "opacity": 0.2,
        "line": {"width": 0, "color": "--found"},
        "hoverinfo": "skip",
    }
    looks = (("mean", "solid", "circle"), ("best", "dot", "triangle-up"))
    lines = [
        {
            "type": "scatter",
            "mode": "lines+markers" if len(x) < 60 else "lines",
            "name": name,
            "x": x,
            "y": shorts([getattr(one, name) for one in rewards]),
            "line": {"color": "--found", "dash": dash, "width": 2},
            "marker": {"symbol": symbol, "size": 5, "color": "--found"},
            "hovertemplate": hover("%{y:.4f} nats", "after %{x} evaluations"),
        }
        for name, dash, symbol in looks
    ]
    shown = inner_range([one.low for one in rewards], [value for one in rewards for value in (one.mean, one.best)])
    return [band, *lines], list(shown)


def _metric_trace(
    place: int, name: str, points: Sequence[tuple[int, float]]
) -> tuple[list[dict[str, Any]], list[float]]:
    values = [value for _, value in points]
    trace = {
        "type": "scatter",
        "mode": "lines+markers" if len(points) < 60 else "lines",
        "name": plotly_text(name),
        "x": [x for x, _ in points],
        "y": shorts(values),
        "line": {"color": "--accent", "width": 2},
        "marker": {"size": 5, "color": "--accent"},
        "hovertemplate": hover("%{y:.4~g}", "after %{x} evaluations"),
    }
    return [trace], [min(values), max(values)]


def _stacked(panels: Sequence[tuple[str, list[dict[str, Any]], list[float]]]) -> Variant:
    """One plot below another with one axis of evaluations."""
    height = len(panels) * (PANEL + GAP) + FOOT
    inside = len(panels) * (PANEL + GAP)
    data: list[dict[str, Any]] = []
    layout: dict[str, Any] = {
        "height": height,
        "margin": {"l": 56, "r": 16, "t": 0, "b": FOOT},
        "showlegend": False,
        "hovermode": "closest",
        "annotations": [],
    }
    for place, (title, traces, shown) in enumerate(panels):
        suffix = "" if place == 0 else str(place + 1)
        top = 1 - (place * (PANEL + GAP) + GAP) / inside
        data += [{**trace, "xaxis": "x", "yaxis": f"y{suffix}"} for trace in traces]
        layout[f"yaxis{suffix}"] = {
            "domain": [max(0.0, top - PANEL / inside), top],
            "anchor": "x",
            "automargin": True,
            "gridcolor": "--border",
            "zeroline": False,
            "nticks": 5,
            "range": padded(shown[0], shown[1], 0.1),
        }
        layout["annotations"].append(
            {
                "text": title,
                "x": 0,
                "xref": "paper",
                "xanchor": "left",
                "y": top,
                "yref": "paper",
                "yanchor": "bottom",
                "showarrow": False,
                "align": "left",
            }
        )
    last = "y" if len(panels) == 1 else f"y{len(panels)}"
    layout["xaxis"] = axis(EVALUATIONS, anchor=last, rangemode="tozero")
    return Variant("by evaluations", data, layout)


def _sentences(view: RunView, rewards: Sequence[BatchRewards], metrics: Metrics) -> list[str]:
    words = []
    if rewards:
        first, last = rewards[0], rewards[-1]
        words.append(
            f"The mean reward of a batch went from {first.mean:.4f} to {last.mean:.4f} nats, the best of a batch from"
            f" {first.best:.4f} to {last.best:.4f}."
        )
    if not metrics:
        words.append(f"{visible(view.agent)} has no policy that it trains, or has not told of an update yet.")
    elif "entropy" in metrics:
        points = metrics["entropy"]
        words.append(f"The entropy of the policy went from {points[0][1]:.3f} to {points[-1][1]:.3f}.")
    else:
        words.append(
            f"{count(len(metrics), 'number')} of its updates over {count(len(view.batches), 'batch', 'batches')}."
        )
    batches = len({row.batch for row in view.frozen})
    if batches > MAX_BATCHES:
        words.append(f"Of {batches:,} batches several at a time are drawn as one point.")
    if view.frozen and any(row.encoder != view.encoder for row in view.frozen):
        words.append("The encoder was trained again meanwhile, so early and late rewards cannot be compared.")
    return words


def _table(rewards: Sequence[BatchRewards], metrics: Metrics) -> Table:
    by_x = {name: dict(points) for name, points in metrics.items()}
    by_reward = {one.evaluations: one for one in rewards}
    every = sorted({*by_reward, *(x for points in by_x.values() for x in points)})
    listed = thinned(every, MAX_ROWS)
    rows = []
    for x in listed:
        reward = by_reward.get(x)
        cells = [None] * 2 if reward is None else [reward.mean, reward.best]
        rows.append((f"{x:,}", *map(number, cells), *(number(points.get(x)) for points in by_x.values())))
    headings = (EVALUATIONS, "mean reward, nats", "best reward, nats", *(visible(named(name)) for name in metrics))
    note = f"{len(listed)} of {count(len(every), 'point')} of the curves." if len(listed) < len(every) else ""
    return Table(headings, tuple(rows), note)
