"""Autocomplete: how long the top ten of a prefix take, by best-first search and by its rivals, and how few decisions.

Queries are drawn by a seeded generator: one to four words of Zipf's law, spelt in syllables; the n-th that appears has
the count ``C / n``, rounded down, at least 1, so that half of them have been asked once. Prefixes are the first one to
eight characters of queries drawn by count: what people type. One thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treesearch.applications.autocomplete import CompletionIndex, Completions, completion_tree, size_rows
from treesearch.bench.autocomplete_rivals import RangeMaxima, by_partition, by_scan
from treesearch.tree import Tree

SIZES = (10_000, 100_000, 1_000_000)
TOP = 10
NUM_PREFIXES = 1000
LONGEST = 8  # characters of a prefix
REPEATS = 3  # of each prefix; its median counts
NUM_WORDS = 50_000


def run(sizes: Sequence[int] = SIZES, num_prefixes: int = NUM_PREFIXES, repeats: int = REPEATS) -> list[dict[str, Any]]:
    """One row for each number of completions, on Huffman's tree and on a balanced one; see `measure`.

    All runs once on a few completions first: compilation is in no figure.
    """
    _warm_up()
    rows = []
    for size in sizes:
        completions = Completions.of(synthetic_queries(size, np.random.default_rng(0)))
        for name in ("huffman", "balanced"):
            begin = perf_counter()
            tree = completion_tree(name, completions)
            build_seconds = perf_counter() - begin
            row = measure(completions, tree, num_prefixes=num_prefixes, repeats=repeats)
            rows.append({"tree": name, **row, "tree_seconds": build_seconds})
    return rows


def _warm_up() -> None:
    completions = Completions.of(synthetic_queries(50, np.random.default_rng(0)))
    measure(completions, completion_tree("balanced", completions), num_prefixes=10, repeats=1)


def synthetic_queries(num: int, rng: np.random.Generator) -> dict[str, float]:
    """``num`` different queries with counts."""
    syllables = np.array([a + b + c for a in "bcdfghklmnprstvw" for b in "aeiou" for c in ("", "", "n", "r", "s")])
    letters = rng.integers(syllables.size, size=(NUM_WORDS, 4))
    lengths = rng.choice([1, 2, 3, 4], p=[0.25, 0.4, 0.25, 0.1], size=NUM_WORDS)
    words = ["".join(syllables[row[:length]]) for row, length in zip(letters, lengths, strict=True)]
    share = 1 / np.arange(1, NUM_WORDS + 1)
    share /= share.sum()
    queries: dict[str, None] = {}
    while len(queries) < num:
        drawn = rng.choice(NUM_WORDS, p=share, size=(num, 4)).tolist()
        sizes = rng.choice([1, 2, 3, 4], p=[0.15, 0.35, 0.3, 0.2], size=num).tolist()
        for row, size in zip(drawn, sizes, strict=True):
            queries[" ".join([words[word] for word in row[:size]])] = None
    return {query: float(max(1, num // rank)) for rank, query in zip(range(1, num + 1), queries, strict=False)}


def typed_prefixes(completions: Completions, num: int, rng: np.random.Generator) -> list[str]:
    """Beginnings of one to eight characters of queries drawn by count."""
    classes = rng.choice(len(completions), p=completions.probabilities, size=num).tolist()
    lengths = rng.integers(1, LONGEST + 1, size=num).tolist()
    return [completions.texts[cls][:length] for cls, length in zip(classes, lengths, strict=True)]


def measure(completions: Completions, tree: Tree, *, num_prefixes: int, repeats: int) -> dict[str, Any]:
    """Times, memory and decisions of an index over completions.

    Returns:
        ``completions``; ``seconds`` of building the index (without the tree) and its ``megabytes``; of the top ten of
        typed prefixes ``median_ms``, ``p99_ms`` and ``worst_letter_ms`` (of all prefixes of one character, that which
        takes longest), and ``visited``, the median number of decisions looked at; the same of the rivals; and the
        expected decisions of the tree, the entropy in bits, and the decisions and cost of balanced and flat.
    """
    begin = perf_counter()
    index = CompletionIndex(completions, tree)
    index.complete("", 1)  # bounds are made here
    seconds = perf_counter() - begin
    row: dict[str, Any] = {"completions": len(completions), "seconds": seconds, "megabytes": index.nbytes / 1e6}
    rng = np.random.default_rng(1)
    prefixes = typed_prefixes(completions, num_prefixes, rng)
    letters = sorted(
        {completions.texts[cls][0] for cls in range(0, len(completions), max(1, len(completions) // 10_000))}
    )
    maxima = RangeMaxima(index.probability_C)
    searches: dict[str, Callable[[str], NDArray[np.int64]]] = {
        "": lambda prefix: index.search(prefix, TOP).classes,
        "scan_": lambda prefix: by_scan(index.probability_C, *index.matches(prefix), TOP),
        "partition_": lambda prefix: by_partition(index.probability_C, *index.matches(prefix), TOP),
        "maxima_": lambda prefix: maxima.top(*index.matches(prefix), TOP),
    }
    for prefix in (*letters, *prefixes):
        expected = searches[""](prefix)
        for name in ("scan_", "partition_", "maxima_"):
            assert np.array_equal(searches[name](prefix), expected), (name, prefix)
    row["visited"] = float(np.median([index.search(prefix, TOP).num_visited for prefix in prefixes]))
    row["matches"] = float(np.median([high - low for low, high in map(index.matches, prefixes)]))
    times = {name: _times(call, prefixes, repeats) for name, call in searches.items()}
    worst = {name: float(_times(call, letters, repeats).max()) for name, call in searches.items()}
    for name in searches:
        row[f"{name}median_ms"] = float(np.median(times[name]))
        row[f"{name}p99_ms"] = float(np.quantile(times[name], 0.99))
        row[f"{name}worst_letter_ms"] = worst[name]
    sizes = {size["tree"]: size for size in size_rows(completions, {"own": tree})}
    row |= {"decisions": sizes["own"]["decisions"], "entropy_bits": completions.entropy}
    row |= {"balanced_decisions": sizes["balanced"]["decisions"], "flat_cost": sizes["flat"]["cost"]}
    return row


def _times(call: Callable[[str], object], prefixes: Sequence[str], repeats: int) -> NDArray[np.float64]:
    """Milliseconds for each prefix, the median of its repeats."""
    times = np.empty((repeats, len(prefixes)))
    for turn in range(repeats):
        for place, prefix in enumerate(prefixes):
            begin = perf_counter()
            call(prefix)
            times[turn, place] = 1e3 * (perf_counter() - begin)
    return np.median(times, axis=0)
