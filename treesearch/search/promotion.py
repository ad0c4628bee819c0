"""Promotion: which trees of the frozen rung are trained jointly."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from treesearch.cost import CostModel, TreeCost
from treesearch.errors import ExecutionError
from treesearch.evaluation.memo import memo_keys
from treesearch.paths import block_roots
from treesearch.search.correction import Correction
from treesearch.search.evaluation_row import BUILDER, FROZEN, EvaluationRow
from treesearch.search.ledger import Ledger
from treesearch.search.rivals import best_of_at_most
from treesearch.tree import Tree

FOUND, BASELINE, DIVERSE = "found", "baseline", "diverse"
HUFFMAN = "huffman"
HEAVY = 0.01


@dataclass(frozen=True)
class Promoted:
    """A tree that left the frozen rung."""

    name: str  # row name in the comparison
    kind: str  # found, baseline, or diverse: trained to compare rungs
    row: EvaluationRow  # its frozen evaluation
    tree: Tree
    cost: TreeCost

    def frozen_reward(self, cost_model: CostModel) -> float:
        """Reward on the frozen rung under the model's λ, nats, whichever λ it was proposed for."""
        assert self.row.valid_nll is not None, "a tree is promoted for its score"
        return -self.row.valid_nll - cost_model.loss(self.cost)


def promote(
    ledger: Ledger,
    *,
    counts: NDArray[np.float64],
    cost_model: CostModel,
    num_trees: int,
    encoder: str | None = None,
    cost_weights: Sequence[float] = (),
    families: Sequence[str] = (),
    max_shared: float = 1.0,
    correction: Correction | None = None,
) -> list[Promoted]:
    """Huffman, and by frozen reward the best builders and the best found trees: of any cost, and of Huffman's at most.

    With each found tree the best builder of at most its cost, which it must beat.

    Costs are compared in what the reward charges: analytic units, or measured time where the cost model has a table,
    as `CostModel.no_dearer` does. A builder's own tree is never called found, whoever proposed it.

    Args:
        ledger: With the finished frozen rung.
        counts: [C] training counts.
        cost_model: What compute takes from the reward, at the λ that the run reports.
        num_trees: Trees of each of the four kinds, and of either kind for each further λ.
        encoder: Hash of the features; rows of other encoders are left out. None where there is only one.
        cost_weights: Further λs.
        families: Names of builders all of whose trees are promoted, whatever their reward.
        max_shared: Share of a tree's decisions, per example, that a better one of its kind may have too: with 1 a kind
            may consist of near copies.
        correction: Of frozen NLLs. With one, the first half of the places of each kind goes by frozen reward, the other
            half by what is left of it.

    Raises:
        ExecutionError: Huffman's evaluation failed, so that nothing can be compared.
    """
    evaluations = ledger.rows(FROZEN)
    labels = builder_labels(evaluations, encoder)
    rows = [row for row in evaluations if row.valid_nll is not None and encoder in (None, row.encoder)]
    builders = {row.tree_hash: row for row in reversed(rows) if row.tree_hash in labels}
    huffman = next((row for row in rows if row.label == HUFFMAN), None)
    if huffman is None:
        raise ExecutionError("the Huffman tree could not be evaluated, so nothing can be compared with it")
    found = {row.tree_hash: row for row in reversed(rows) if row.tree_hash not in labels}

    heavy = _HeavyNodes(ledger, counts)

    def best(candidates: Iterable[EvaluationRow], weight: float) -> list[EvaluationRow]:
        pool, taken = list(candidates), dict[str, EvaluationRow]()

        def fill(num: int, luck: Correction) -> None:
            for row in sorted(
                pool, key=lambda row: (luck.nats(row) - row.validation_reward(cost_model, weight), row.id)
            ):
                if len(taken) == num:
                    return
                if row.tree_hash not in taken and (
                    max_shared >= 1 or all(heavy.shared(row.tree_hash, other) <= max_shared for other in taken)
                ):
                    taken[row.tree_hash] = row

        fill(num_trees if correction is None else math.ceil(num_trees / 2), Correction())
        fill(num_trees, correction or Correction())
        return list(taken.values())

    def cheap(candidates: Iterable[EvaluationRow]) -> list[EvaluationRow]:
        limit = huffman.units(cost_model)
        return [row for row in candidates if cost_model.no_dearer(row.units(cost_model), limit)]

    chosen = {huffman.tree_hash: huffman}
    for pool in (builders, found):
        every, own = list(pool.values()), cost_model.weight
        for group, weight in [(every, own), (cheap(every), own), *((every, weight) for weight in cost_weights)]:
            for row in best(group, weight):
                chosen.setdefault(row.tree_hash, row)
                if pool is found:
                    rival = best_of_at_most(row.units(cost_model), builders.values(), cost_model, weight)
                    if rival is not None:
                        chosen.setdefault(rival.tree_hash, rival)
    for row in builders.values():
        if family(str(row.label)) in families:
            chosen.setdefault(row.tree_hash, row)

    def as_promoted(row: EvaluationRow) -> Promoted:
        name = HUFFMAN if row is huffman else labels.get(row.tree_hash, f"{FOUND} #{row.id}")
        kind = BASELINE if row.tree_hash in labels else FOUND
        return promoted(ledger, row, name, kind, counts, cost_model)

    return [as_promoted(row) for row in chosen.values()]


class _HeavyNodes:
    """How much trees of a ledger have in common, by the nodes that at least `HEAVY` of the examples pass."""

    def __init__(self, ledger: Ledger, counts: NDArray[np.float64]) -> None:
        self._ledger, self._counts = ledger, counts
        self._nodes: dict[str, dict[bytes, float]] = {}

    def shared(self, one: str, other: str) -> float:
        """Share of the decisions of ``one``, per example, that ``other`` has too; both are tree hashes."""
        own, others = self._of(one), self._of(other)
        return sum(mass for key, mass in own.items() if key in others) / sum(own.values())

    def _of(self, tree_hash: str) -> dict[bytes, float]:
        if tree_hash not in self._nodes:
            tree = self._ledger.tree(tree_hash)
            shares = tree.pass_shares(self._counts)
            keys = memo_keys(tree)
            self._nodes[tree_hash] = {keys[n].tobytes(): float(shares[n]) for n in np.flatnonzero(shares >= HEAVY)}
        return self._nodes[tree_hash]


def family(label: str) -> str:
    """The builder's name in a label such as ``clustered(arity=16)``."""
    return label.partition("(")[0]


def builder_labels(rows: Sequence[EvaluationRow], encoder: str | None = None) -> dict[str, str]:
    """Names of the builders' trees, by tree hash; of those that were built for an earlier encoder the names say so."""
    labels: dict[str, str] = {}
    for row in rows:
        if row.agent == BUILDER and encoder in (None, row.encoder):
            labels.setdefault(row.tree_hash, str(row.label))
    for row in rows:
        if row.agent == BUILDER:
            labels.setdefault(row.tree_hash, f"{row.label}, earlier encoder #{row.id}")
    return labels


def promoted(
    ledger: Ledger, row: EvaluationRow, name: str, kind: str, counts: NDArray[np.float64], cost_model: CostModel
) -> Promoted:
    """A tree of the ledger with its cost."""
    tree = ledger.tree(row.tree_hash)
    return Promoted(name, kind, row, tree, cost_model.tree_cost(tree, counts))


def diverse(
    ledger: Ledger, *, counts: NDArray[np.float64], cost_model: CostModel, num_trees: int, encoder: str
) -> list[Promoted]:
    """Trees that differ as much as possible: to see how well rungs agree where it is not only about details.

    Each tree is a point: ranks of cost, of frozen NLL, of expected depth and of nodes, and the share of its nodes under
    projections. Huffman is taken first, then always the tree farthest from those taken.
    """
    rows: dict[str, EvaluationRow] = {}
    for row in ledger.rows(FROZEN):
        if row.encoder == encoder and row.valid_nll is not None:
            rows.setdefault(row.tree_hash, row)
    pool = list(rows.values())
    trees = [ledger.tree(row.tree_hash) for row in pool]
    columns = [
        _ranks([row.cost for row in pool]),
        _ranks([row.valid_nll for row in pool]),
        _ranks([row.expected_depth for row in pool]),
        _ranks([tree.num_internal for tree in trees]),
        np.array([float((block_roots(tree) >= 0).mean()) if tree.num_internal else 0.0 for tree in trees]),
    ]
    place = np.stack(columns, axis=1)
    taken = [next((i for i, row in enumerate(pool) if row.label == HUFFMAN), 0)]
    while len(taken) < min(num_trees, len(pool)):
        distance = np.min([np.abs(place - place[i]).sum(1) for i in taken], axis=0)
        distance[taken] = -1.0
        taken.append(int(distance.argmax()))
    return [
        promoted(ledger, pool[i], pool[i].label or f"{FOUND} #{pool[i].id}", DIVERSE, counts, cost_model) for i in taken
    ]


def _ranks(values: Sequence[float | int | None]) -> NDArray[np.float64]:
    order = np.argsort(np.argsort(np.array(values, np.float64), kind="stable"), kind="stable")
    return order / max(1, len(values) - 1)
