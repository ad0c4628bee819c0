"""The confirmed trees against Huffman: change of perplexity with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from treesearch.report.cells import change_against_huffman, gain_cell, percent_against_huffman
from treesearch.report.gains import side_of_zero
from treesearch.report.page.figure import Figure, Table, Variant
from treesearch.report.page.figures.style import (
    COLOURS,
    MAX_ROWS,
    SYMBOLS,
    axis,
    clipped_text,
    count,
    hover,
    layout,
    number,
    padded,
    shorts,
)
from treesearch.report.page.run_view import RunView
from treesearch.report.tables import CANDIDATE
from treesearch.search.promotion import BASELINE, FOUND
from treesearch.visible import visible

KEY, TITLE = "confirmed", "Confirmed on the test split, against Huffman"
NAME_WIDTH = 44
ROW = 44  # pixels
LOOKS = {
    FOUND: ("found", COLOURS[FOUND], SYMBOLS[FOUND]),
    CANDIDATE: ("found, not reported", COLOURS[FOUND], "circle-open"),
    BASELINE: ("builders", COLOURS[BASELINE], SYMBOLS[BASELINE]),
}
OTHERS = ("for comparing rungs", "--muted", "diamond-open")


def confirmed_figure(view: RunView) -> Figure:
    """Perplexity against Huffman's of every confirmed tree, with 95 % intervals over seeds."""
    if view.in_study:
        return Figure(KEY, TITLE, "Nothing is confirmed in a study: its searches end on the frozen rung.")
    if view.comparison is None:
        why = "The search still runs." if view.running else "The search has not finished."
        return Figure(KEY, TITLE, f"{why} Nothing has been confirmed on the test split yet.")
    rows = [row for row in view.comparison["rows"] if change_against_huffman(row) is not None]
    if not rows:
        return Figure(KEY, TITLE, "No tree was confirmed beside Huffman's, so there is nothing to compare.")
    rows.sort(key=lambda row: row["perplexity_change"]["mean"])
    shown = rows[:MAX_ROWS]
    return Figure(KEY, TITLE, _summary(rows), (_variant(shown),), _table(shown, len(rows)))


def _legend_place(kind: str) -> tuple[int, str]:
    return (list(LOOKS).index(kind) if kind in LOOKS else len(LOOKS), kind)


def _percent(row: Mapping[str, Any], key: str) -> float:
    return percent_against_huffman(row)[key]


def _variant(rows: Sequence[Mapping[str, Any]]) -> Variant:
    data: list[dict[str, Any]] = []
    for kind in sorted({row["kind"] for row in rows}, key=_legend_place):
        own = [(place, row) for place, row in enumerate(rows) if row["kind"] == kind]
        name, colour, symbol = LOOKS.get(kind, OTHERS)
        means = [_percent(row, "mean") for _, row in own]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": shorts(means),
                "y": [place for place, _ in own],
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": shorts([_percent(row, "high") - mean for (_, row), mean in zip(own, means, strict=True)]),
                    "arrayminus": shorts(
                        [mean - _percent(row, "low") for (_, row), mean in zip(own, means, strict=True)]
                    ),
                    "color": colour,
                    "thickness": 2,
                    "width": 5,
                },
                "customdata": [
                    [clipped_text(row["name"], 80), _interval(row), number(row["perplexity"], 2)] for _, row in own
                ],
                "marker": {"color": colour, "symbol": symbol, "size": 10},
                "hovertemplate": hover("%{customdata[0]}", "%{customdata[1]}", "perplexity %{customdata[2]}"),
            }
        )
    names = [
        {
            "text": clipped_text(row["name"], NAME_WIDTH),
            "x": 0,
            "xref": "paper",
            "xanchor": "left",
            "y": place,
            "yref": "y",
            "yanchor": "bottom",
            "yshift": 5,
            "showarrow": False,
        }
        for place, row in enumerate(rows)
    ]
    line = {"type": "line", "xref": "x", "yref": "paper", "x0": 0, "x1": 0, "y0": 0, "y1": 1}
    line["line"] = {"color": "--huffman", "dash": "dash", "width": 2}
    low, high = min(_percent(row, "low") for row in rows), max(_percent(row, "high") for row in rows)
    x = axis("perplexity against Huffman's, %", range=padded(min(low, 0.0), max(high, 0.0)))
    y = {
        "range": [len(rows) - 0.4, -0.9],
        "showticklabels": False,
        "showgrid": False,
        "zeroline": False,
    }
    more = {"shapes": [line], "annotations": names}
    return Variant("perplexity", data, layout(x, y, height=110 + ROW * len(rows), **more))


def _interval(row: Mapping[str, Any]) -> str:
    cell = gain_cell(percent_against_huffman(row), 2, unit=" %")
    return str(cell) if cell.interval else f"{cell.mean} (one seed)"


def _summary(rows: Sequence[Mapping[str, Any]]) -> str:
    better = sum(side_of_zero(percent_against_huffman(row)) == -1 for row in rows)
    best = rows[0]
    seeds = int(best["test_nll"]["n"])
    if seeds > 1:
        trees = count(len(rows), "confirmed tree has", "confirmed trees have")
        text = f"{better} of {trees} a lower perplexity than Huffman (95 % interval over {seeds} seeds below zero)."
    else:
        text = f"{count(len(rows), 'tree')} trained with one seed, so there is no interval."
    return f"{text} The lowest is that of {visible(best['name'])}: {_interval(best)}."


def _table(rows: Sequence[Mapping[str, Any]], total: int) -> Table:
    cells = tuple(
        (
            visible(row["name"]),
            visible(row["kind"]),
            _interval(row),
            number(row["perplexity"], 2),
            number(row["cost"], 3),
        )
        for row in rows
    )
    note = f"{count(total - len(rows), 'tree')} with a higher perplexity left out." if total > len(rows) else ""
    return Table(("tree", "kind", "change against Huffman [95 %]", "perplexity", "cost"), cells, note)
