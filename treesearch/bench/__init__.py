"""Benchmarks behind ``treesearch bench NAME``: figures, never tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.table import Table

from treesearch.bench import (
    audit,
    autocomplete,
    cost,
    distributed,
    exchange,
    faults,
    frozen,
    gpu,
    report,
    search,
    softmax,
    trees,
)

BENCHMARKS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "audit": audit.run,
    "autocomplete": autocomplete.run,
    "cost": cost.run,
    "distributed": distributed.run,
    "exchange": exchange.run,
    "faults": faults.run,
    "frozen": frozen.run,
    "gpu": gpu.run,
    "report": report.run,
    "search": search.run,
    "softmax": softmax.run,
    "trees": trees.run,
}


def benchmark_table(name: str, rows: Sequence[dict[str, Any]]) -> Table:
    """The rows of a benchmark for people."""
    table = Table(title=name, title_justify="left")
    columns = list(dict.fromkeys(column for row in rows for column in row))
    for column in columns:
        table.add_column(column, justify="left" if isinstance(rows[0].get(column), str) else "right")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
