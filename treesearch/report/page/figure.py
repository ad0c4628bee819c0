"""What a plot of the page is: plotly dictionaries in variants, words, and the same numbers as a table."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

from treesearch.visible import visible


@dataclass(frozen=True)
class Table:
    """Numbers for who cannot see or hover a plot; plain text, which the page escapes."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]  # each as long as the headings
    note: str = ""  # what was left out; empty where nothing was


@dataclass(frozen=True)
class Variant:
    """One state of a plot. JSON-able, without NaN.

    Colours, and nothing else, are strings that begin with ``--``: the page puts those of its theme in their place.
    """

    name: str  # plain text
    data: list[dict[str, Any]]
    layout: dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """A plot with its words; one without variants has nothing to draw, and its summary says why."""

    key: str  # id of the element
    title: str  # plain text
    summary: str  # one or two plain sentences with the figures that matter
    variants: tuple[Variant, ...] = ()  # several are switched by a control above the plot
    table: Table | None = None


def plotly_text(text: str) -> str:
    """A text from outside as plotly must get it to show it literally: plotly reads a kind of HTML in every text.

    What begins with ``--`` gets an entity in front, so that it is never taken for a colour of the theme.
    """
    escaped = html.escape(visible(text), quote=False)
    return f"&#45;{escaped[1:]}" if escaped.startswith("--") else escaped
