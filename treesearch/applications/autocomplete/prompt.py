"""Completions for people: a table, and a prompt that answers every line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Any, TextIO

from rich import box
from rich.table import Table

from treesearch.applications.autocomplete.completion_index import Completion
from treesearch.console import stdout
from treesearch.errors import DataError
from treesearch.visible import visible

PROMPT = "> "
Answer = Callable[[str], list[Completion]]


def completion_rows(completions: Sequence[Completion]) -> list[dict[str, Any]]:
    """Completions as JSON has them."""
    return [completion._asdict() for completion in completions]


def completion_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows for people."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("completion", overflow="fold")
    table.add_column("probability", justify="right", no_wrap=True)
    for row in rows:
        table.add_row(visible(row["completion"]), f"{row['probability']:.3g}")
    return table


def answer_lines(answer: Answer, lines: Iterator[str], *, as_json: bool = False) -> None:
    """Print what completes each line, and how long the search took; as JSON a list a line, without times.

    An empty line ends it, and so does an interrupt.
    """
    answer("")  # what is computed once, or compiled, is in nobody's time
    try:
        for line in lines:
            if not line:
                return
            begin = perf_counter()
            rows = completion_rows(answer(line))
            milliseconds = 1e3 * (perf_counter() - begin)
            if as_json:
                print(json.dumps(rows, ensure_ascii=False), flush=True)
                continue
            if rows:
                stdout().print(completion_table(rows))
            count = f"{len(rows)} completion{'s' if len(rows) != 1 else ''}" if rows else "no completion"
            print(f"{count}, {milliseconds:.2f} ms", flush=True)
    except KeyboardInterrupt:
        print(flush=True)


def typed_lines(stream: TextIO | None = None) -> Iterator[str]:
    """Lines of standard input without their ends; on a terminal after a prompt, with its line editor.

    Raises:
        DataError: A line is not UTF-8.
    """
    stream = sys.stdin if stream is None else stream
    try:
        if stream.isatty():
            while True:
                try:
                    yield input(PROMPT)
                except EOFError:
                    print()
                    return
        else:
            for line in stream:
                yield line.removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise DataError("lines of standard input must be UTF-8 text, but one is not; convert it") from None
