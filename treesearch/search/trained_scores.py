"""One score for each tree that was trained above the frozen rung, comparable whatever seeds it was trained with."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from treesearch.evaluation.comparison import adjusted_means
from treesearch.search.evaluation_row import EvaluationRow


@dataclass(frozen=True)
class TrainedScore:
    """What a tree's trainings on one rung say of it."""

    row: EvaluationRow  # with the best rate, by the first seed
    valid_nll: float  # nats per token; see `trained_scores`
    num_seeds: int  # with which it was trained at that rate


def trained_scores(rows: Iterable[EvaluationRow]) -> dict[str, TrainedScore]:
    """By tree hash, of the rows of one rung; trees without any score are left out.

    The learning rate is the best with the first seed, with which all rates were tried. Better trees were trained with
    further seeds at that rate. A mean over other seeds is not comparable: one seed may be kinder than another, and the
    first one has chosen the rate. So NLLs are taken as a tree's own part plus a seed's, fitted to all trees together,
    and a score is what that says of the mean over all seeds: the plain mean for a tree that was trained with them all.

    Args:
        rows: In the order of the ledger.
    """
    by_tree: dict[str, list[EvaluationRow]] = {}
    for row in rows:
        by_tree.setdefault(row.tree_hash, []).append(row)
    best: dict[str, EvaluationRow] = {}
    by_seed: dict[str, dict[int, float]] = {}
    for tree_hash, own in by_tree.items():
        scored = [(row, row.valid_nll) for row in own if row.valid_nll is not None and math.isfinite(row.valid_nll)]
        grid = [(nll, row.id, row) for row, nll in scored if row.seed == own[0].seed]
        if not grid:
            continue
        chosen = best[tree_hash] = min(grid)[2]
        by_seed[tree_hash] = {row.seed or 0: nll for row, nll in scored if row.learning_rate == chosen.learning_rate}
    means = adjusted_means(list(by_seed.values()))
    return {
        tree_hash: TrainedScore(best[tree_hash], mean, len(seeds))
        for (tree_hash, seeds), mean in zip(by_seed.items(), means, strict=True)
    }
