"""How well the cheap rungs rank trees: their NLL against that of the rungs above."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from treesearch.evaluation.comparison import rank_correlation
from treesearch.report.page.figure import Figure, Table, Variant, plotly_text
from treesearch.report.page.figures.style import (
    COLOURS,
    KINDS,
    MAX_ROWS,
    SYMBOLS,
    axis,
    count,
    hover,
    inner_range,
    layout,
    number,
    padded,
    shorts,
)
from treesearch.report.page.places import Place, frozen_places, joint_places, warm_places
from treesearch.report.page.run_view import RunView
from treesearch.search.evaluation_row import FROZEN, JOINT, WARM
from treesearch.search.promotion import BASELINE, FOUND, HUFFMAN
from treesearch.visible import visible

KEY, TITLE = "rungs", "Do the rungs agree?"
TITLES = {FROZEN: "NLL on the frozen encoder", WARM: "NLL after warm training", JOINT: "NLL after joint training"}


@dataclass(frozen=True)
class Pair:
    """Two rungs and the trees that were on both."""

    lower: str
    upper: str
    trees: list[tuple[Place, float, float]]  # NLL on the lower rung, on the upper

    @property
    def tau(self) -> float | None:
        """Kendall's τ-b; None with fewer than three trees or without any order."""
        return rank_correlation([low for _, low, _ in self.trees], [high for _, _, high in self.trees])


def rung_pairs(view: RunView) -> list[Pair]:
    """Frozen against joint, warm against joint, frozen against warm; those that have a tree on both."""
    by_rung = {FROZEN: frozen_places(view), WARM: warm_places(view), JOINT: joint_places(view)}
    pairs = []
    for lower, upper in ((FROZEN, JOINT), (WARM, JOINT), (FROZEN, WARM)):
        below = {place.row.tree_hash: place.nll for place in by_rung[lower]}
        trees = [
            (place, below[place.row.tree_hash], place.nll) for place in by_rung[upper] if place.row.tree_hash in below
        ]
        pairs.append(Pair(lower, upper, trees))
    return [pair for pair in pairs if pair.trees]


def rungs_figure(view: RunView) -> Figure:
    """NLL of every tree on two rungs, and Kendall's τ."""
    pairs = rung_pairs(view)
    if not pairs:
        return Figure(KEY, TITLE, "No tree has been trained above the frozen rung yet.")
    sentences = []
    for pair in pairs:
        tau = "not defined" if pair.tau is None else f"{pair.tau:.2f}"
        sentences.append(f"{pair.lower} against {pair.upper}: Kendall's τ {tau} on {count(len(pair.trees), 'tree')}")
    text = "; ".join(sentences)
    return Figure(
        KEY,
        TITLE,
        f"{text[0].upper()}{text[1:]}. 1 would be the same order, 0 none in common.",
        tuple(_variant(pair) for pair in pairs),
        _table(pairs),
    )


def _variant(pair: Pair) -> Variant:
    data = []
    for kind in (FOUND, BASELINE, HUFFMAN):
        own = [(place, low, high) for place, low, high in pair.trees if place.kind == kind]
        if own:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": KINDS[kind],
                    "x": shorts([low for _, low, _ in own]),
                    "y": shorts([high for _, _, high in own]),
                    "customdata": [plotly_text(place.name) for place, _, _ in own],
                    "marker": {"color": COLOURS[kind], "symbol": SYMBOLS[kind], "size": 15 if kind == HUFFMAN else 9},
                    "hovertemplate": hover(
                        "%{customdata}", f"{pair.lower} %{{x:.4f}} nats", f"{pair.upper} %{{y:.4f}} nats"
                    ),
                }
            )
    huffman = [(low, high) for place, low, high in pair.trees if place.kind == HUFFMAN]
    x_range = padded(*inner_range([low for _, low, _ in pair.trees], [low for low, _ in huffman]))
    y_range = padded(*inner_range([high for _, _, high in pair.trees], [high for _, high in huffman]))
    x = axis(f"{TITLES[pair.lower]}, nats per token", range=x_range)
    y = axis(f"{TITLES[pair.upper]}, nats", range=y_range)
    return Variant(f"{pair.lower} against {pair.upper}", data, layout(x, y))


def _table(pairs: Sequence[Pair]) -> Table:
    nll: dict[str, dict[str, float]] = {}
    names: dict[str, Place] = {}
    for pair in pairs:
        for place, low, high in pair.trees:
            names.setdefault(place.row.tree_hash, place)
            nll.setdefault(place.row.tree_hash, {}).update({pair.lower: low, pair.upper: high})
    rungs = [rung for rung in (FROZEN, WARM, JOINT) if any(rung in known for known in nll.values())]
    last = rungs[-1]
    order = sorted(nll, key=lambda tree_hash: (nll[tree_hash].get(last, float("inf")), names[tree_hash].name))
    rows = tuple(
        (visible(names[tree].name), *(number(nll[tree].get(rung)) for rung in rungs)) for tree in order[:MAX_ROWS]
    )
    left = len(order) - len(rows)
    note = f"{count(left, 'tree')} with a higher NLL left out." if left else ""
    return Table(("tree", *(f"{TITLES[rung]}, nats" for rung in rungs)), rows, note)
