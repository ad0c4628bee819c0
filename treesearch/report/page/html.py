"""Text as HTML. Whatever comes from a run passes through `text` or `name`, so that none of it is markup."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from treesearch.visible import visible

LONG_HEADING = 30  # letters, from which a column of short cells is not as narrow as its cells
BOUNDS = "[95 %]"  # of a heading, on one line


def text(content: object) -> str:
    """Any text, escaped."""
    return html.escape(visible(str(content)))


def name(content: object) -> str:
    """A name that may run from right to left, escaped and kept from turning what stands beside it."""
    return f"<bdi>{text(content)}</bdi>"


def lines(content: str) -> str:
    """Several lines as they are."""
    return f'<pre tabindex="0">{chr(10).join(text(line) for line in content.splitlines())}</pre>'


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, what it says on hover, whether it holds numbers."""

    heading: str
    explanation: str = ""
    number: bool = True


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, strong: Sequence[bool] = (), label: str) -> str:
    """A table; cells are HTML already, the first of each row is its heading.

    Args:
        columns: One for each cell of a row.
        rows: Of HTML.
        strong: Which rows stand out.
        label: What the table shows, for who does not see it.
    """
    head = "".join(_heading(column) for column in columns)
    body = []
    for number, row in enumerate(rows):
        cells = [f'<th scope="row">{row[0]}</th>']
        for column, cell in zip(columns[1:], row[1:], strict=True):
            cells.append(f'<td class="number">{cell}</td>' if column.number else f"<td>{cell}</td>")
        mark = ' class="strong"' if number < len(strong) and strong[number] else ""
        body.append(f"<tr{mark}>{''.join(cells)}</tr>")
    # A table that is wider than the window scrolls in a box of its own, which keys reach too.
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(label)}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def details(summary: str, content: str, *, shown: bool = False) -> str:
    """Content that opens on demand; both are HTML."""
    return f"<details{' open' if shown else ''}><summary>{summary}</summary>{content}</details>"


def _heading(column: Column) -> str:
    marks = ["number"] * column.number + ["long"] * (len(column.heading) > LONG_HEADING)
    css = f' class="{" ".join(marks)}"' if marks else ""
    title = f' title="{text(column.explanation)}"' if column.explanation else ""
    content = text(column.heading).replace(BOUNDS, f'<span class="whole">{BOUNDS}</span>')
    return f'<th scope="col"{css}{title}>{content}</th>'
