"""Figures as the text of table cells, the same for the terminal and for pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from treesearch.search.promotion import HUFFMAN

NONE = "-"  # where there is no value
LARGE = 1e7  # from here on a number is written with an exponent, so that no column is without end
LARGE_SIGNED = 1e4


@dataclass(frozen=True)
class Cell:
    """A mean, and the bounds of its 95 % interval where it has one."""

    mean: str
    interval: str = ""  # "[low, high]"

    def __str__(self) -> str:
        return f"{self.mean} {self.interval}" if self.interval else self.mean


def number(value: float | None, digits: int) -> str:
    """A number with so many digits behind the point."""
    if value is None:
        return NONE
    return f"{value:.{digits}f}" if abs(value) < LARGE else f"{value:.3e}"


def signed(value: float, digits: int) -> str:
    """The same of a difference, with its sign."""
    return f"{value:+.{digits}f}" if abs(value) < LARGE_SIGNED else f"{value:+.1e}"


def mean_cell(value: Mapping[str, Any] | None, digits: int) -> Cell:
    """Of ``mean``, ``low``, ``high`` and ``n``; one seed has no interval."""
    return _cell(value, partial(number, digits=digits))


def gain_cell(value: Mapping[str, Any] | None, digits: int, *, unit: str = "") -> Cell:
    """The same of a difference; the unit stands behind its mean."""
    return _cell(value, partial(signed, digits=digits), unit)


def _cell(value: Mapping[str, Any] | None, write: Callable[[float], str], unit: str = "") -> Cell:
    if value is None:
        return Cell(NONE)
    interval = f"[{write(value['low'])}, {write(value['high'])}]" if value["n"] > 1 else ""
    return Cell(write(value["mean"]) + unit, interval)


def percent_against_huffman(row: Mapping[str, Any]) -> dict[str, float]:
    """The change of perplexity in percent of Huffman's: ``mean``, ``low``, ``high`` and ``n`` seeds."""
    change = row["perplexity_change"]
    return {key: 100 * change[key] for key in ("mean", "low", "high")} | {"n": row["test_nll"]["n"]}


def change_against_huffman(row: Mapping[str, Any]) -> dict[str, float] | None:
    """The same; None for Huffman's own row, and where Huffman was not confirmed."""
    known = row["name"] != HUFFMAN and row.get("perplexity_change") is not None
    return percent_against_huffman(row) if known else None
