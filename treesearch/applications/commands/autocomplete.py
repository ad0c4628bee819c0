"""`treesearch apply autocomplete`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from treesearch.console import print_rows, stdout, tell


def autocomplete(
    queries: Annotated[
        Path, typer.Option(help="Lines 'query TAB count', or 'query' for a count of one; counts of equals add up.")
    ],
    prefix: Annotated[
        str | None, typer.Option(help="What has been typed; left out: a prompt, a prefix a line on standard input.")
    ] = None,
    top: Annotated[
        int, typer.Option(min=1, help="Completions to print, best first; of equals the first in order.")
    ] = 10,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a list of completions with probabilities; at the prompt one a line.")
    ] = False,
    tree: Annotated[
        str, typer.Option(help="huffman, balanced, categories, or a tree file or run folder over these queries.")
    ] = "huffman",
    categories: Annotated[
        Path | None, typer.Option(help="Of --tree categories: lines 'query TAB category'; the rest is one of its own.")
    ] = None,
    ignore_case: Annotated[bool, typer.Option("--ignore-case", help="Match whatever the case.")] = False,
) -> None:
    """Complete queries: the most probable ones that begin with a prefix, exactly, by best-first search down a tree."""
    from treesearch.applications.autocomplete import (
        CompletionIndex,
        answer_lines,
        completion_rows,
        completion_table,
        completion_tree,
        load_completions,
        size_rows,
        size_table,
        typed_lines,
    )

    completions = load_completions(queries)
    own = completion_tree(tree, completions, categories=categories)
    index = CompletionIndex(completions, own, ignore_case=ignore_case)
    if prefix is not None:
        print_rows(completion_rows(index.complete(prefix, top)), completion_table, as_json=as_json)
    if not as_json:
        stdout().print(size_table(completions, size_rows(completions, {tree: own})))
    if prefix is None:
        tell("a prefix a line; an empty line ends")
        answer_lines(lambda line: index.complete(line, top), typed_lines(), as_json=as_json)
