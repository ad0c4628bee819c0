"""Several runs in one plot: best reward so far, and fronts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from treesearch.report.page.figure import Figure, Table, Variant, plotly_text
from treesearch.report.page.figures.pareto import cost_title
from treesearch.report.page.figures.style import (
    DASHES,
    EVALUATIONS,
    MARKS,
    MAX_ROWS,
    MINUTES,
    NLL,
    REWARD,
    SERIES,
    WIDE,
    axis,
    clipped_text,
    count,
    hover,
    inner_range,
    layout,
    log_axis,
    number,
    padded,
    shorts,
)
from treesearch.report.page.mean_lines import MeanLine, mean_line
from treesearch.report.page.places import Place, front, frozen_places, joint_places
from treesearch.report.page.run_view import RunView
from treesearch.report.page.series import Points, best_so_far, evaluations
from treesearch.visible import visible

NAME_WIDTH = 40
MAX_GROUPS = 24  # lines that colour, dash and mark still tell apart
MAX_STEPS = 400  # points of a line


def progress_of_runs(views: Sequence[RunView]) -> Figure:
    """Best reward so far of every run; of those of a group that have finished the mean, least and greatest."""
    key, title = "runs-progress", "Best reward so far, run by run"
    lines = {view.name: run_lines(view) for view in views}
    groups = grouped(views)
    drawn = dict(list(groups.items())[:MAX_GROUPS])
    variants = []
    for place, (name, x_title) in enumerate((("by evaluations", EVALUATIONS), ("by time", MINUTES))):
        # A run without a score has no line yet; it does not take that of its group away.
        known = {view.name: lines[view.name][place] for view in views if lines[view.name][place][0]}
        means: dict[str, MeanLine | None] = {}
        alone: list[tuple[str, str, Points]] = []
        for group, own in drawn.items():
            together = [one.name for one in averaged(own)]
            means[group] = mean_line([known[run] for run in together if run in known])
            others = [one.name for one in own if one.name in known and one.name not in together]
            alone += [(group, run, known[run]) for run in others]
        if alone or any(line is not None for line in means.values()):
            variants.append(_progress_variant(name, means, alone, x_title))
    if not variants:
        return Figure(key, title, "None of the runs has an evaluation with a score yet.")
    return Figure(
        key, title, " ".join(_progress_sentences(views, groups, lines)), tuple(variants), _table(groups, lines)
    )


def run_lines(view: RunView) -> tuple[Points, Points]:
    """Best reward so far under the latest encoder, against evaluations and against minutes."""
    every = evaluations(view)
    latest = [one for one in every if one.era == every[-1].era]
    timed = sorted((one.minutes, one.reward) for one in latest if one.minutes is not None and one.reward is not None)
    by_number = best_so_far((float(one.number), one.reward, 0) for one in latest)
    return by_number, best_so_far((minutes, reward, 0) for minutes, reward in timed)


def averaged(own: Sequence[RunView]) -> list[RunView]:
    """The runs of a group that its figures are of: all where it has one, else those that have finished."""
    return list(own) if len(own) == 1 else [view for view in own if view.finished]


def grouped(views: Sequence[RunView]) -> dict[str, list[RunView]]:
    """The runs of each group, in the order in which groups first appear."""
    groups: dict[str, list[RunView]] = {}
    for view in views:
        groups.setdefault(view.group, []).append(view)
    return groups


def _look(place: int) -> tuple[str, str, str]:
    """Colour, dash and mark: the first eight groups differ in all three, and no two of them in none."""
    turn = place + place // 8
    return SERIES[place % 8], DASHES[turn % 6], MARKS[turn % 8]


def _progress_variant(
    name: str, means: dict[str, MeanLine | None], alone: Sequence[tuple[str, str, Points]], title: str
) -> Variant:
    """Lines of groups, and of single runs: group, name and line."""
    data: list[dict[str, Any]] = []
    values: list[float] = []
    highest: list[float] = []
    looks = {group: _look(place) for place, group in enumerate(means)}
    for group, own in means.items():
        if own is None:
            continue
        colour, dash, symbol = looks[group]
        line = _fewer(own)
        highest.append(float(own.high[-1]))
        values += [float(line.low[-1]), float(line.high[-1]), float(np.median(line.low))]
        label = clipped_text(group, NAME_WIDTH)
        if line.num_runs > 1:
            data.append(_band(line, label, colour))
            label += f" (mean of {line.num_runs})"
        marks = {"marker": {"color": colour, "symbol": symbol, "size": 8, "maxdisplayed": 8}}
        style = {"color": colour, "dash": dash, "width": 2}
        data.append(_best_line(line.x.tolist(), line.mean.tolist(), style, name=label) | marks)
    told = {group for group, own in means.items() if own is not None}  # in the legend
    for group, run, (xs, ys) in alone:
        colour, dash, _ = looks[group]
        known = [y for y in ys if y is not None]
        values += [known[-1], float(np.median(known))]
        highest.append(max(known))
        style = {"color": colour, "dash": dash, "width": 1}
        label = clipped_text(group, NAME_WIDTH)
        thin = {"mode": "lines", "text": clipped_text(run, NAME_WIDTH), "showlegend": group not in told}
        data.append(_best_line(xs, ys, style, name=label) | thin)
        told.add(group)
    y = axis(REWARD, range=padded(*inner_range(values, highest)))
    return Variant(name, data, layout(axis(title, rangemode="tozero"), y, height=440))


def _best_line(
    xs: Sequence[float | None], ys: Sequence[float | None], style: dict[str, Any], *, name: str
) -> dict[str, Any]:
    """A step line with marks."""
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": shorts(xs),
        "y": shorts(ys),
        "line": style | {"shape": "hv"},
        "text": name,
        "hovertemplate": hover("%{text}", "best so far %{y:.4f} nats", "at %{x:.4~g}"),
    }


def _fewer(line: MeanLine) -> MeanLine:
    keep = np.unique(np.linspace(0, line.x.size - 1, min(line.x.size, MAX_STEPS)).round().astype(np.int64))
    return MeanLine(line.x[keep], line.mean[keep], line.low[keep], line.high[keep], line.num_runs)


def _band(line: MeanLine, label: str, colour: str) -> dict[str, Any]:
    """Between least and greatest, with the corners of steps."""
    xs = np.repeat(line.x, 2)[1:]
    low, high = np.repeat(line.low, 2)[:-1], np.repeat(line.high, 2)[:-1]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": label,
        "showlegend": False,
        "x": shorts([*xs.tolist(), *xs[::-1].tolist()]),
        "y": shorts([*low.tolist(), *high[::-1].tolist()]),
        "fill": "toself",
        "fillcolor": colour,
        "opacity": 0.18,
        "line": {"width": 0, "color": colour},
        "hoverinfo": "skip",
    }


def last_best(line: Points) -> float | None:
    """The best reward of all."""
    return line[1][-1] if line[1] else None


def _progress_sentences(
    views: Sequence[RunView], groups: dict[str, list[RunView]], lines: dict[str, tuple[Points, Points]]
) -> list[str]:
    ends = {view.name: last_best(lines[view.name][0]) for view in views}
    scored = {name: end for name, end in ends.items() if end is not None}
    most = max(scored.values())
    leaders = [name for name, end in scored.items() if end == most]
    who = f"{visible(leaders[0])} has" if len(leaders) == 1 else f"{len(leaders)} share"
    so_far = "" if all(view.finished for view in views) else " so far"
    words = [f"Of {count(len(views), 'run')} {who} the best reward{so_far}, {most:.4f} nats."]
    if len(groups) < len(views):
        words.append("Runs that differ in their seed alone are one line, their mean, in a band from least to greatest.")
        unfinished = sum(not view.finished for own in groups.values() if len(own) > 1 for view in own)
        if unfinished:
            words.append(f"{count(unfinished, 'run')} not finished: a thin line, and in no mean.")
    if len({view.encoder for view in views}) > 1:
        words.append("The runs have different encoders, so part of a difference may be theirs.")
    if len({view.config.cost.weight for view in views}) > 1:
        words.append("They do not share one λ, so their rewards cannot be compared.")
    if len({view.measured for view in views}) > 1:
        words.append("Some are charged measured time and some analytic cost, so their rewards cannot be compared.")
    if len(groups) > MAX_GROUPS:
        words.append(f"Only the first {MAX_GROUPS} of {len(groups)} are drawn.")
    return words


def _table(groups: dict[str, list[RunView]], lines: dict[str, tuple[Points, Points]]) -> Table:
    rows = []
    for group, own in list(groups.items())[:MAX_ROWS]:
        ends = [end for end in (last_best(lines[view.name][0]) for view in averaged(own)) if end is not None]
        spread = (sum(ends) / len(ends), min(ends), max(ends)) if ends else (None, None, None)
        done = sum(len(view.frozen) for view in own)
        rows.append((visible(group), visible(own[0].agent), f"{len(averaged(own))}", f"{done:,}", *map(number, spread)))
    headings = ("run", "agent", "runs", "evaluations", "best reward, nats (mean)", "least", "greatest")
    left = len(groups) - len(rows)
    return Table(headings, tuple(rows), f"{count(left, 'run')} left out." if left else "")


def fronts_of_runs(views: Sequence[RunView]) -> Figure:
    """The Pareto fronts of all runs, on the frozen rung and after joint training."""
    key, title = "runs-fronts", "Pareto fronts, run by run"
    groups = list(grouped(views))
    shown = [view for view in views if groups.index(view.group) < MAX_GROUPS]
    variants, sentences = [], []
    rows: list[tuple[str, ...]] = []
    for name, places_of in (("frozen encoder", frozen_places), ("joint training", joint_places)):
        fronts = {view.name: front(places_of(view)) for view in shown}
        every = front([place for best in fronts.values() for place in best])
        if not every:
            continue
        variants.append(_fronts_variant(name, shown, fronts, groups))
        common = {(place.cost, place.nll) for place in every}  # several runs may have found one of them
        own = {run: sum((place.cost, place.nll) in common for place in best) for run, best in fronts.items()}
        most = max(own.values())
        leaders = [run for run, num in own.items() if num == most]
        who = f"most of them ({most}) of {visible(leaders[0])}" if len(leaders) == 1 else ""
        who = who or f"{most} of them in each of {len(leaders)} runs"
        sentences.append(f"{name.capitalize()}: the common front has {count(len(every), 'tree')}, {who}.")
        rows += [
            (visible(run), name, f"{len(best)}", f"{own[run]}", number(min(place.nll for place in best)))
            for run, best in fronts.items()
            if best
        ]
    if not variants:
        return Figure(key, title, "None of the runs has an evaluation with a score yet.")
    if len(shown) < len(views):
        sentences.append(f"Only the first {MAX_GROUPS} of {len(groups)} are drawn.")
    headings = ("run", "rung", "trees on its front", "of these on the common front", "lowest NLL, nats")
    note = f"{len(rows) - MAX_ROWS} rows left out." if len(rows) > MAX_ROWS else ""
    return Figure(key, title, " ".join(sentences), tuple(variants), Table(headings, tuple(rows[:MAX_ROWS]), note))


def _fronts_variant(
    name: str, views: Sequence[RunView], fronts: dict[str, list[Place]], groups: Sequence[str]
) -> Variant:
    data = []
    for view in views:
        best = fronts[view.name]
        if not best:
            continue
        colour, dash, symbol = _look(groups.index(view.group))
        first = next(one for one in views if one.group == view.group and fronts[one.name]) is view
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": clipped_text(view.group, NAME_WIDTH),
                "legendgroup": f"group {groups.index(view.group)}",
                "showlegend": first,
                "x": shorts([place.cost for place in best]),
                "y": shorts([place.nll for place in best]),
                "line": {"color": colour, "dash": dash, "shape": "hv", "width": 1.5},
                "marker": {"color": colour, "symbol": symbol, "size": 7},
                "customdata": [[plotly_text(view.name), plotly_text(place.name)] for place in best],
                "hovertemplate": hover("%{customdata[0]}", "%{customdata[1]}", "NLL %{y:.4f} nats, cost %{x:.3f}"),
            }
        )
    points = [place for best in fronts.values() for place in best]
    low, high = min(place.cost for place in points), max(place.cost for place in points)
    title = cost_title(views[0])
    x = (
        log_axis(title, low / 1.1, high * 1.1)
        if low > 0 and high / low > WIDE
        else axis(title, range=padded(low, high))
    )
    y = axis(NLL, range=padded(*inner_range([place.nll for place in points])))
    return Variant(name, data, layout(x, y, height=460))
