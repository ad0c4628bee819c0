"""What every metric means: `glossary_terms` and `glossary_page` looked up, in Markdown and in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from treesearch.errors import ConfigError, did_you_mean
from treesearch.report.glossary_page import PAGE_TERMS
from treesearch.report.glossary_terms import PLACES, TERMS, Metric

__all__ = [
    "GLOSSARY",
    "PLACES",
    "Metric",
    "glossary_markdown",
    "glossary_rows",
    "glossary_table",
    "lookup",
    "print_glossary",
]

GLOSSARY: tuple[Metric, ...] = (*TERMS, *PAGE_TERMS)


def lookup(name: str, *, where: str | None = None) -> Metric:
    """The entry of a metric in a place; ``where`` may be left out where the name means the same everywhere.

    Raises:
        ConfigError: No such place, no such metric there, or one that means different things in different places.
    """
    rows = glossary_rows(where)
    found = [metric for metric in rows if metric.name == name]
    if not found:
        place = "the glossary" if where is None else f"the glossary of {where}"
        raise ConfigError(f"{place} has no metric {name!r:.80}{did_you_mean(name, [metric.name for metric in rows])}")
    if len(found) > 1:
        places = "; ".join(", ".join(metric.where) for metric in found)
        raise ConfigError(f"{name!r} must come with where, since it differs between places: {places}")
    return found[0]


def glossary_rows(where: str | None = None) -> list[Metric]:
    """The entries of one place, or all, in the order of the glossary.

    Raises:
        ConfigError: No such place.
    """
    if where is not None and where not in PLACES:
        raise ConfigError(f"where must be one of {', '.join(PLACES)}, but got {where!r:.80}")
    return [metric for metric in GLOSSARY if where is None or where in metric.where]


def glossary_markdown(where: str | None = None) -> str:
    """A Markdown table of the entries of one place, or of all, with a newline at the end."""
    lines = ["| metric | unit | meaning | where |", "|---|---|---|---|"]
    for metric in glossary_rows(where):
        cells = (f"`{metric.name}`", metric.unit, metric.meaning, ", ".join(metric.where))
        lines.append(f"| {' | '.join(cell.replace('|', '&#124;').replace('*', '&#42;') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def glossary_table(metrics: Sequence[Metric]) -> Table:
    """Entries for people; fits 100 columns."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("metric", no_wrap=True)
    table.add_column("unit", max_width=14)
    table.add_column("meaning", ratio=1)
    table.add_column("where", min_width=max(map(len, PLACES)), max_width=12)
    for metric in metrics:
        table.add_row(Text(metric.name), Text(metric.unit), Text(metric.meaning), Text(", ".join(metric.where)))
    return table


def print_glossary(console: Console, *, where: str | None = None) -> None:
    """Print the entries of one place, or all.

    Raises:
        ConfigError: No such place.
    """
    console.print(glossary_table(glossary_rows(where)))
