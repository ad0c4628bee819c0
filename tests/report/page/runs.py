"""Run folders for tests of the page: written through the real ledger, with made-up scores, in seconds."""

from __future__ import annotations

from pathlib import Path

from treesearch import build_tree
from treesearch.bench.made_up_runs import (
    Vocabulary,
    begun_run,
    evaluation_row,
    huffman_tree,
    large,
    searched_run,
    sorted_zipf_counts,
)
from treesearch.config import make_config
from treesearch.search.promotion import HUFFMAN
from treesearch.search.run_folder import RunFolder

__all__ = ["HOSTILE_LABEL", "HOSTILE_NAMES", "HOSTILE_REASON", "failures_only", "hostile", "large", "unfinished"]

HOSTILE_NAMES = (
    "<script>window.hacked=1</script>",
    '<img src=x onerror="window.hacked=1">',
    "</script>",
    "</script><script>window.hacked=1</script>",
    "<!--",
    "]]>",
    '"><b>bold',
    "'><svg/onload=window.hacked=1>",
    "javascript:alert(1)",
    "&lt;i&gt; &amp; &#60;",
    "${window.hacked=1} {{window.hacked=1}} %{x}",
    "[bold red]rich[/]",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x00nul",
    "\x01\x02\x7f\x9b31m",
    "line\nbreak\r\ttab",
    "\u2028\u2029",
    "safe\u202egnp.exe",  # the rest runs from right to left
    "\u2066isolate",
    "עברית",  # Hebrew
    "العربية",  # Arabic
    "👩‍👩‍👧‍👦",
    "🏳️‍🌈 flag",
    "",
    " ",
    "\u200b",  # a space of no width
    "long" * 75,
    "\u0301\u0323",  # accents on nothing
    "Z\u0351\u0352\u0357algo",
    "constructor",
    "__proto__",
    "=HYPERLINK(1)",
)
HOSTILE_LABEL = '<img src=x onerror="window.hacked=1">(arity=2)\x1b[31m'
HOSTILE_REASON = "ValueError: <script>window.hacked=1</script> \x1b[31m \u202egnp"


def failures_only(folder: Path) -> RunFolder:
    """A search none of whose evaluations gave a score."""
    run, names, counts = RunFolder(folder), [f"w{c}" for c in range(6)], sorted_zipf_counts(6)
    with begun_run(run, make_config({}), names, counts) as ledger:
        for number, tree in enumerate((huffman_tree(counts), build_tree("balanced", counts=counts, arity=4)), start=1):
            reason = f"FloatingPointError: validation NLL is nan in evaluation {number}"
            ledger.record(
                evaluation_row(number, tree, label=HUFFMAN if number == 1 else "balanced(arity=4)", reason=reason), tree
            )
    return run


def unfinished(folder: Path) -> RunFolder:
    """A search that has begun, of which no evaluation has finished."""
    run = RunFolder(folder)
    with begun_run(run, make_config({}), [f"w{c}" for c in range(6)], sorted_zipf_counts(6)):
        return run


def hostile(folder: Path) -> RunFolder:
    """A finished search over `HOSTILE_NAMES`; a builder's label and the reason of a failure are hostile as well."""
    made = Vocabulary(HOSTILE_NAMES, seed=0, arities=(2, 4), num_found=3)
    return searched_run(folder, made, num_evaluations=24, batch_size=6, label=HOSTILE_LABEL, reason=HOSTILE_REASON)
