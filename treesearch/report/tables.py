"""The comparison with Huffman as rows and as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from treesearch.evaluation.comparison import paired_difference, t_interval
from treesearch.search.confirm import FOUND, HUFFMAN, Confirmed


def comparison_rows(confirmed: Sequence[Confirmed]) -> list[dict[str, Any]]:
    """One JSON-able row per confirmed tree, Huffman first.

    ``test_nll`` and ``valid_nll`` are of joint training, nats per token; ``test_nll`` has Student's 95 % interval over
    seeds. ``difference`` is the test NLL minus Huffman's, paired by seed; ``perplexity_change`` is the same as a
    fraction of Huffman's perplexity. Costs are averages over the training counts.
    """
    huffman = next((c for c in confirmed if c.finalist.promoted.name == HUFFMAN), None)
    rows = []
    for entry in confirmed:
        promoted, test = entry.finalist.promoted, t_interval(entry.test_nll)
        row: dict[str, Any] = {
            "name": promoted.name,
            "kind": promoted.kind,
            "test_nll": test.as_dict(),
            "valid_nll": sum(entry.valid_nll) / len(entry.valid_nll),
            "cost": promoted.cost.cost,
            "cost_measured_us": promoted.cost.measured_us,
            "expected_depth": promoted.cost.expected_depth,
            "dot_products": promoted.cost.dot_products,
            "max_depth": promoted.cost.max_depth,
            "perplexity": math.exp(test.mean),
            "frozen_nll": promoted.row.valid_nll,
            "frozen_reward": promoted.row.reward,
            "learning_rate": entry.finalist.learning_rate,
            "tree": promoted.tree.hash,
        }
        if huffman is not None:
            difference = paired_difference(entry.test_nll, huffman.test_nll)
            row["difference"] = difference.as_dict()
            row["perplexity_change"] = {
                key: math.expm1(value) for key, value in difference.as_dict().items() if key != "n"
            }
        rows.append(row)
    return rows


def comparison_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows for people; fits 100 columns."""
    table = Table(
        title="Test split, trained jointly",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("tree", overflow="fold", min_width=12)
    measured = any(row.get("cost_measured_us") is not None for row in rows)
    headings = ["perplexity", "vs Huffman [95 %]", "test NLL", "valid NLL", "cost", "depth", "max"]
    for heading in headings + ["µs"] * measured:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        style = "bold" if row["kind"] == FOUND else ""
        table.add_row(
            Text(row["name"], style=style),
            _number(row.get("perplexity"), 1),
            _change(row),
            _number((row["test_nll"] or {}).get("mean"), 3),
            _number(row["valid_nll"], 3),
            _number(row["cost"], 2),
            _number(row["expected_depth"], 2),
            str(row["max_depth"]),
            *([_number(row.get("cost_measured_us"), 2)] * measured),
        )
    return table


def _change(row: dict[str, Any]) -> str:
    change = row.get("perplexity_change")
    if change is None or row["name"] == HUFFMAN:
        return "-"
    low, high = 100 * change["low"], 100 * change["high"]
    interval = "" if row["test_nll"]["n"] < 2 else f" [{low:+.1f}, {high:+.1f}]"
    return f"{100 * change['mean']:+.1f} %{interval}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
