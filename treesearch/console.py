"""What commands print: data on standard output, all else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from rich.table import Table


def stdout() -> Console:
    """Standard output; 100 columns where it is no terminal."""
    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 100)


def tell(message: str) -> None:
    """Print a line on standard error."""
    print(message, file=sys.stderr, flush=True)


def print_rows(rows: list[dict[str, Any]], table: Callable[[list[dict[str, Any]]], Table], *, as_json: bool) -> None:
    """Print rows as JSON, or as the table that is made of them."""
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        stdout().print(table(rows))
