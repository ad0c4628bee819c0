"""Where trees lie in cost and NLL, and which of them no other one beats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

from treesearch.evaluation.front import Point, pareto_front
from treesearch.report.page.run_view import RunView
from treesearch.search.evaluation_row import FROZEN, JOINT, WARM, EvaluationRow
from treesearch.search.promotion import BASELINE, FOUND, HUFFMAN
from treesearch.search.trained_scores import trained_scores


@dataclass(frozen=True)
class Place:
    """A tree with its score on one rung."""

    row: EvaluationRow  # its evaluation; of several the first, and above the frozen rung the one with the best rate
    name: str  # the builder's label, or "found #id" by its frozen evaluation
    kind: str  # found, baseline or huffman
    cost: float  # units that the reward charges
    nll: float  # validation, nats per token
    reward: float  # under the λ that the run reports, nats


def is_number(value: float | None) -> TypeGuard[float]:
    """Whether there is a value that can be drawn."""
    return value is not None and math.isfinite(value)


def perplexity(nll: float) -> float:
    """exp(NLL), infinite where that is too large for a float."""
    return math.exp(nll) if nll < 700 else math.inf


def frozen_places(view: RunView) -> list[Place]:
    """Every tree that the frozen rung scored under the latest encoder, once, by the first evaluation."""
    first: dict[str, EvaluationRow] = {}
    for row in view.scored:
        first.setdefault(row.tree_hash, row)
    return _places(view, {tree_hash: (row, row.valid_nll) for tree_hash, row in first.items()})


def joint_places(view: RunView) -> list[Place]:
    """Every tree that was trained jointly, by `treesearch.search.trained_scores`."""
    return _trained_places(view, JOINT)


def warm_places(view: RunView) -> list[Place]:
    """The same of the trees that were trained from the search's encoder."""
    return _trained_places(view, WARM)


def _trained_places(view: RunView, rung: str) -> list[Place]:
    scores = trained_scores(row for row in view.rows if row.rung == rung)
    return _places(view, {tree_hash: (score.row, score.valid_nll) for tree_hash, score in scores.items()})


def _places(view: RunView, scored: dict[str, tuple[EvaluationRow, float | None]]) -> list[Place]:
    labels = view.builders
    first_id: dict[str, int] = {}
    for row in view.frozen:
        first_id.setdefault(row.tree_hash, row.id)
    huffman = {row.tree_hash for row in view.frozen if row.label == HUFFMAN}
    places = []
    for tree_hash, (row, nll) in scored.items():
        cost = view.units(row)
        if not is_number(nll) or not is_number(cost):
            continue
        if tree_hash in huffman:
            name, kind = HUFFMAN, HUFFMAN
        elif tree_hash in labels:
            name, kind = labels[tree_hash], BASELINE
        else:
            own = row.label if row.rung != FROZEN and row.label else f"{FOUND} #{first_id.get(tree_hash, row.id)}"
            name, kind = own, FOUND
        places.append(Place(row, name, kind, cost, nll, -nll - view.config.cost.weight * cost))
    return places


def front(places: Sequence[Place]) -> list[Place]:
    """Those that no other one beats, by rising cost."""
    return [places[position] for position in pareto_front([Point(place.cost, place.nll) for place in places])]
