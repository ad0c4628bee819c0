"""Best reward so far, against evaluations and against time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from treesearch.report.page.figure import Figure, Table, Variant, plotly_text
from treesearch.report.page.figures.style import (
    DASHES,
    EVALUATIONS,
    MAX_POINTS,
    MAX_ROWS,
    MINUTES,
    REWARD,
    SERIES,
    axis,
    count,
    hover,
    inner_range,
    layout,
    number,
    padded,
    shorts,
)
from treesearch.report.page.run_view import RunView
from treesearch.report.page.series import Evaluation, best_so_far, evaluations, thinned
from treesearch.search.evaluation_row import BUILDER
from treesearch.search.promotion import HUFFMAN
from treesearch.visible import visible

KEY, TITLE = "progress", "Best reward so far"
Position = Callable[[Evaluation], float]


def progress_figure(view: RunView) -> Figure:
    """Best reward so far of the agent and of the builders, Huffman's, and every single evaluation."""
    every = evaluations(view)
    scored = [one for one in every if one.reward is not None]
    if not scored:
        why = (
            "Nothing has been evaluated yet."
            if not every
            else f"None of {count(len(every), 'evaluation')} gave a score."
        )
        return Figure(KEY, TITLE, why)
    variants = [_variant("by evaluations", every, lambda one: float(one.number), EVALUATIONS)]
    timed = sorted((one for one in every if one.minutes is not None), key=_minutes)
    if any(one.reward is not None for one in timed):
        variants.append(_variant("by time", timed, _minutes, MINUTES))
    return Figure(KEY, TITLE, " ".join(_sentences(view, every, scored, timed)), tuple(variants), _table(every))


def _minutes(one: Evaluation) -> float:
    assert one.minutes is not None
    return one.minutes


def agents_of(every: Sequence[Evaluation]) -> list[str]:
    """Who proposed trees, builders last."""
    return sorted(dict.fromkeys(one.row.agent for one in every), key=lambda agent: agent == BUILDER)


def _look(agent: str, place: int) -> tuple[str, str, str]:
    """Colour, dash and symbol."""
    if agent == BUILDER:
        return "--baseline", "dash", "square"
    return ("--found", "solid", "circle") if place == 0 else (SERIES[place % 8], DASHES[place % 6], "diamond")


def _variant(name: str, every: Sequence[Evaluation], position: Position, title: str) -> Variant:
    scored = [one for one in every if one.reward is not None]
    end = max(position(one) for one in every)
    singles: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    keep: list[float] = []
    for place, agent in enumerate(agents_of(scored)):
        colour, dash, symbol = _look(agent, place)
        own = [one for one in scored if one.row.agent == agent]
        shown = thinned(own, MAX_POINTS)
        label = "builders" if agent == BUILDER else plotly_text(agent)
        singles.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": f"{label}, each",
                "showlegend": False,
                "legendgroup": str(place),
                "x": shorts([position(one) for one in shown]),
                "y": shorts([one.reward for one in shown]),
                "customdata": [_who(one) for one in shown],
                "marker": {"color": colour, "symbol": symbol, "size": 5, "opacity": 0.3},
                "hovertemplate": hover("%{customdata}", "reward %{y:.4f} nats"),
            }
        )
        last_era = every[-1].era
        steps = [(position(one), one.reward, one.era) for one in own]
        xs, ys = best_so_far(steps, end=end if own[-1].era == last_era else None)
        keep += [value for value in ys[-1:] if value is not None]
        lines.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": label,
                "legendgroup": str(place),
                "x": shorts(xs),
                "y": shorts(ys),
                "line": {"color": colour, "dash": dash, "shape": "hv", "width": 2},
                "hovertemplate": hover("best so far %{y:.4f} nats", f"at %{{x:.4~g}} {title.rpartition(', ')[2]}"),
            }
        )
    huffman = _huffman(every, position, end)
    if huffman is not None:
        lines.append(huffman)
        keep += [value for value in huffman["y"] if value is not None]
    y_range = padded(*inner_range([one.reward for one in scored if one.reward is not None], keep))
    starts = [position(one) for before, one in pairwise(every) if before.era < one.era]
    shapes = [
        {
            "type": "line",
            "xref": "x",
            "yref": "paper",
            "x0": short_start,
            "x1": short_start,
            "y0": 0,
            "y1": 1,
            "line": {"color": "--muted", "dash": "dot", "width": 1},
        }
        for short_start in shorts(starts)
    ]
    notes = [
        {
            "x": start,
            "xref": "x",
            "y": 0,
            "yref": "paper",
            "yanchor": "bottom",
            "xanchor": "left",
            "text": "new encoder",
            "showarrow": False,
            "font": {"color": "--muted"},
        }
        for start in shorts(starts)[:5]
    ]
    return Variant(
        name,
        [*singles, *lines],
        layout(
            axis(title, range=padded(0.0, end, 0.02)), axis(REWARD, range=y_range), shapes=shapes, annotations=notes
        ),
    )


def _who(one: Evaluation) -> str:
    label = one.row.label or one.row.agent
    return f"#{one.number} {plotly_text(label)}"


def _huffman(every: Sequence[Evaluation], position: Position, end: float) -> dict[str, Any] | None:
    """Huffman's reward as a level line, one for each encoder."""
    rewards = {one.era: one.reward for one in reversed(every) if one.row.label == HUFFMAN and one.reward is not None}
    if not rewards:
        return None
    xs: list[float | None] = []
    ys: list[float | None] = []
    for era, reward in sorted(rewards.items()):
        own = [position(one) for one in every if one.era == era]
        xs += [min(own), end if era == every[-1].era else max(own), None]
        ys += [reward, reward, None]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "Huffman",
        "x": shorts(xs),
        "y": shorts(ys),
        "line": {"color": "--huffman", "dash": "dot", "width": 2},
        "marker": {"symbol": "star", "size": 10, "color": "--huffman"},
        "hovertemplate": hover("Huffman %{y:.4f} nats"),
    }


def _sentences(
    view: RunView, every: Sequence[Evaluation], scored: Sequence[Evaluation], timed: Sequence[Evaluation]
) -> list[str]:
    latest = [one for one in scored if one.era == every[-1].era] or list(scored)
    best = max(latest, key=_reward)
    builders_own = best.row.agent == BUILDER
    who = visible(f"builder {best.row.label}" if builders_own else f"a tree by {best.row.agent}")
    words = [f"The best reward is {_reward(best):.4f} nats: {who}, evaluation {best.number:,} of {len(every):,}"]
    huffman = next((one for one in latest if one.row.label == HUFFMAN), None)
    builders = [one for one in latest if one.row.agent == BUILDER]
    if huffman is not None:
        words[0] += f"; Huffman's is {_reward(huffman):.4f}"
    if builders:
        words[0] += f", the best builder's {max(map(_reward, builders)):.4f}"
    words[0] += "."
    if every[-1].era:
        again = count(every[-1].era, "time")
        words.append(f"The encoder was trained again {again}; rewards before and after cannot be compared.")
    if not timed:
        words.append("There are no times: no batch has ended, or the run was written before they were kept.")
    elif all(one.row.finished_at is None for one in timed):
        words.append(
            "The run was written before the time of each evaluation was kept: times are those of their batches."
        )
    outside = len(scored) - sum(len(thinned(_own(scored, agent), MAX_POINTS)) for agent in agents_of(scored))
    if outside:
        words.append(f"{count(outside, 'single evaluation')} of {len(scored):,} are not drawn.")
    return words


def _own(scored: Sequence[Evaluation], agent: str) -> list[Evaluation]:
    return [one for one in scored if one.row.agent == agent]


def _reward(one: Evaluation) -> float:
    assert one.reward is not None
    return one.reward


def improvements(every: Sequence[Evaluation]) -> list[Evaluation]:
    """The evaluations that were better than all before under their encoder."""
    found: list[Evaluation] = []
    for one in every:
        if one.reward is not None and (not found or found[-1].era != one.era or one.reward > _reward(found[-1])):
            found.append(one)
    return found


def _table(every: Sequence[Evaluation]) -> Table:
    steps = improvements(every)
    listed = steps[-MAX_ROWS:]
    rows = tuple(
        (
            f"{one.number:,}",
            number(one.minutes, 2),
            visible(one.row.label or one.row.agent),
            number(one.reward),
            number(one.row.valid_nll),
            number(one.row.cost, 3),
        )
        for one in listed
    )
    left_out = len(steps) - len(listed)
    more = f"; {left_out:,} earlier ones are left out" if left_out else ""
    note = f"The evaluations that were better than all before{more}."
    return Table(("evaluation", "minutes", "tree", "reward, nats", "NLL, nats", "cost"), rows, note)
