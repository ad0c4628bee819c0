"""The comparison of confirmed trees as HTML, with what is significant in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from treesearch.report.cells import NONE, Cell, change_against_huffman, gain_cell, mean_cell, number
from treesearch.report.gains import side_of_zero
from treesearch.report.page import html
from treesearch.report.page.html import Column
from treesearch.report.tables import SHORT, comparison_notes
from treesearch.search.promotion import FOUND

SIDES = {None: NONE, -1: "better", 1: "worse", 0: "no"}  # of zero, on which a change of perplexity is


def comparison_section(comparison: Mapping[str, Any]) -> str:
    """Every confirmed tree with intervals, and the notes on significance below."""
    rows = comparison["rows"]
    metrics = list(dict.fromkeys(name for row in rows for name in row.get("metrics") or ()))
    optional = [
        (Column("measured cost, µs"), "cost_measured_us", 2),
        (Column("output layer, µs", "Per example, forward, backward and update"), "head_us", 2),
        (Column("training step, µs", "Per example"), "step_us", 2),
    ]
    shown = [one for one in optional if any(row.get(one[1]) is not None for row in rows)]
    columns = [
        Column("tree", number=False),
        Column("perplexity", "On the test split, after joint training"),
        Column("against Huffman [95 %]", "Change of perplexity, paired by seed"),
        Column("significant", "Whether the interval leaves out zero", number=False),
        Column("test NLL [95 %]", "Nats per token"),
        *(Column(f"{SHORT.get(name, name)}") for name in metrics),
        Column("valid NLL", "Nats per token"),
        Column("cost", "Binary-node units, averaged over the training data"),
        Column("depth", "Mean number of decisions"),
        Column("reward over the best builder of at most its cost [95 %]", "Nats, paired by seed"),
        *(column for column, _, _ in shown),
    ]
    cells = [
        [
            html.name(row["name"]),
            number(row["perplexity"], 2),
            _cell(gain_cell(change_against_huffman(row), 1, unit=" %")),
            _significant(row),
            _cell(mean_cell(row["test_nll"], 3)),
            *(_cell(mean_cell((row.get("metrics") or {}).get(name), 3)) for name in metrics),
            number(row["valid_nll"], 3),
            number(row["cost"], 2),
            number(row["expected_depth"], 2),
            _gain(row),
            *(number(row.get(key), digits) for _, key, digits in shown),
        ]
        for row in rows
    ]
    notes = "".join(f"<li>{html.text(note)}</li>" for note in comparison_notes(rows, comparison.get("gains") or ()))
    strong = [row["kind"] == FOUND for row in rows]
    table = html.table(columns, cells, strong=strong, label="Confirmed trees")
    seeds = f"{comparison['seeds']} fresh seeds" if comparison["seeds"] > 1 else "one fresh seed"
    told = (
        f"The test split, which nothing before has seen; {seeds}, Student intervals. In bold is what the search"
        " reports; other found trees are behind it on the validation split."
    )
    return f"<h3>Confirmed trees</h3><p>{told}</p>{table}<ul>{notes}</ul>"


def _significant(row: Mapping[str, Any]) -> str:
    change = change_against_huffman(row)
    return NONE if change is None else SIDES[side_of_zero(change)]


def _gain(row: Mapping[str, Any]) -> str:
    cell = _cell(gain_cell(row.get("reward_gain"), 4))
    return f"{cell} <small>over {html.name(row['best_builder'])}</small>" if "reward_gain" in row else cell


def _cell(cell: Cell) -> str:
    """The interval stands behind its mean, or where the table is wider than the window below it."""
    bounds = f' <span class="whole">{cell.interval}</span>' if cell.interval else ""
    return f'<span class="whole">{cell.mean}</span>{bounds}'


def runs_section(rows: Sequence[Mapping[str, Any]], differences: Sequence[str]) -> str:
    """Finished and unfinished runs side by side, and what keeps them from being compared.

    Args:
        rows: With ``name``, ``state``, ``agent``, ``evaluations``, ``frozen_reward``, ``best``, ``test_nll``,
            ``reward``, ``cost``; None where a run has none.
        differences: Lines of `treesearch.report.runs.differences`.
    """
    columns = [
        Column("run", number=False),
        Column("state", number=False),
        Column("agent", number=False),
        Column("evaluations"),
        Column("best reward, frozen rung", "Nats; comparable where encoders are the same"),
        Column("best found tree", number=False),
        Column("test NLL [95 %]", "Nats per token"),
        Column("reward", "On the test split, nats"),
        Column("cost", "Binary-node units"),
    ]
    cells = [
        [
            html.name(row["name"]),
            html.text(row["state"]),
            html.text(row["agent"]),
            str(row["evaluations"]),
            number(row["frozen_reward"], 4),
            html.name(row["best"] or NONE),
            _cell(mean_cell(row["test_nll"], 3)),
            number(row["reward"], 4),
            number(row["cost"], 2),
        ]
        for row in rows
    ]
    notes = "".join(f"<li>{html.text(line)}</li>" for line in differences)
    return html.table(columns, cells, label="Runs") + (f"<ul>{notes}</ul>" if notes else "")
