"""Benchmarks behind ``treesearch bench NAME``: figures, never tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.table import Table

from treesearch.bench import audit, autocomplete, cost, distributed, exchange, faults, frozen, search, softmax, trees

BENCHMARKS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "audit": audit.run,
    "autocomplete": autocomplete.run,
    "cost": cost.run,
    "distributed": distributed.run,
    "exchange": exchange.run,
    "faults": faults.run,
    "frozen": frozen.run,
    "search": search.run,
    "softmax": softmax.run,
    "trees": trees.run,
}


def benchmark_table(name: str, rows: Sequence[dict[str, Any]]) -> Table:
    """The rows of a benchmark for people."""
    table = Table(title=name, title_justify="left")
    for column in rows[0]:
        table.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right")
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
