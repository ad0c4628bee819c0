"""Promotion and confirmation: from the frozen rung to joint training, and on to the test split.

The best trees of the frozen rung, builders' and found ones alike, are trained jointly with every learning rate of one
grid. Validation data chooses each tree's rate, and which trees are reported. Those are trained again with fresh seeds;
only these runs read the test split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from treesearch.cost import CostModel, TreeCost
from treesearch.errors import ExecutionError
from treesearch.paths import block_roots
from treesearch.search.executors import Executor, Task
from treesearch.search.frozen_rung import BUILDER
from treesearch.search.ledger import CONFIRM, FAILED, FROZEN, JOINT, OK, EvaluationRow, Ledger
from treesearch.search.worker import JointScores, JointTask
from treesearch.tree import Tree

FOUND, BASELINE, DIVERSE = "found", "baseline", "diverse"
HUFFMAN = "huffman"


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


@dataclass(frozen=True)
class Finalist:
    """A promoted tree with its best learning rate."""

    promoted: Promoted
    learning_rate: float
    valid_nll: float  # of the run that chose the rate, nats per token

    def units(self, cost_model: CostModel) -> float:
        """What the reward charges."""
        return cost_model.charged(self.promoted.cost.cost, self.promoted.cost.measured_us)

    def reward(self, cost_model: CostModel, cost_weight: float | None = None) -> float:
        """Joint reward on validation data, nats, under this λ or the model's."""
        weight = cost_model.weight if cost_weight is None else cost_weight
        return -self.valid_nll - weight * self.units(cost_model)


@dataclass(frozen=True)
class Confirmed:
    """A finalist with its results on fresh seeds, in the same order for all."""

    finalist: Finalist
    valid_nll: list[float]  # one per seed, nats per token
    test_nll: list[float]  # one per seed, nats per token

    def valid_reward(self, cost_model: CostModel) -> float:
        """Mean joint reward on validation data over the fresh seeds, nats: which tree is reported goes by it."""
        return float(-np.mean(self.valid_nll) - cost_model.weight * self.finalist.units(cost_model))


class JointRung:
    """Trains trees jointly and writes each training into the ledger as it finishes.

    Args:
        executor: Runs the trainings.
        ledger: Where they go.
        cost_model: What compute takes from the reward.
        on_row: Called with every new row.
    """

    def __init__(
        self, executor: Executor, ledger: Ledger, *, cost_model: CostModel, on_row: Callable[[EvaluationRow], None]
    ) -> None:
        self._executor = executor
        self._ledger = ledger
        self._cost_model = cost_model
        self._on_row = on_row

    def train(self, rung: str, jobs: Sequence[tuple[Promoted, float, int]]) -> list[EvaluationRow]:
        """Train each (tree, learning rate, seed); the test split is scored on rung ``confirm`` only."""
        first_id = self._ledger.next_id()
        tasks = [
            Task(key, JointTask(promoted.tree, rate, seed, use_test=rung == CONFIRM))
            for key, (promoted, rate, seed) in enumerate(jobs)
        ]
        rows: dict[int, EvaluationRow] = {}
        for outcome in self._executor.run(tasks):
            promoted, rate, seed = jobs[outcome.task.key]
            cost = promoted.cost
            row = EvaluationRow(
                id=first_id + outcome.task.key,
                rung=rung,
                batch=0,
                agent=promoted.row.agent,
                label=promoted.name,
                tree_hash=promoted.tree.hash,
                status=OK if outcome.ok else FAILED,
                reason=outcome.reason,
                attempts=outcome.attempts,
                cost=cost.cost,
                cost_measured_us=cost.measured_us,
                expected_depth=cost.expected_depth,
                dot_products=cost.dot_products,
                max_depth=cost.max_depth,
                cost_weight=self._cost_model.weight,
                learning_rate=rate,
                seed=seed,
                seconds=outcome.seconds,
                worker=outcome.worker,
            )
            if outcome.result is not None:
                scores: JointScores = outcome.result
                reward = -scores.valid_nll - self._cost_model.loss(cost)
                row = replace(
                    row, valid_nll=scores.valid_nll, test_nll=scores.test_nll, epochs=scores.epochs, reward=reward
                )
            self._ledger.record(row, promoted.tree)
            self._on_row(row)
            rows[outcome.task.key] = row
        return [rows[key] for key in range(len(jobs))]


def promote(
    ledger: Ledger,
    *,
    counts: NDArray[np.float64],
    cost_model: CostModel,
    num_trees: int,
    encoder: str | None = None,
    cost_weights: Sequence[float] = (),
) -> list[Promoted]:
    """Huffman, and by frozen reward the best builders and the best found trees: of any cost, and of Huffman's at most.

    Costs are compared in what the reward charges: analytic units, or measured time where the cost model has a table. A
    builder's own tree is never called found, whoever proposed it.

    Args:
        ledger: With the finished frozen rung.
        counts: [C] training counts.
        cost_model: What compute takes from the reward, at the λ that the run reports.
        num_trees: Trees of each of the four kinds, and of either kind for each further λ.
        encoder: Hash of the features; rows of other encoders are left out. None where there is only one.
        cost_weights: Further λs.

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

    def charged(row: EvaluationRow) -> float:
        return cost_model.charged(row.cost or 0.0, row.cost_measured_us)

    def best(candidates: Iterable[EvaluationRow], weight: float) -> list[EvaluationRow]:
        return sorted(candidates, key=lambda row: ((row.valid_nll or 0.0) + weight * charged(row), row.id))[:num_trees]

    def cheap(candidates: Iterable[EvaluationRow]) -> list[EvaluationRow]:
        return [row for row in candidates if charged(row) <= charged(huffman)]

    chosen = {huffman.tree_hash: (HUFFMAN, BASELINE, huffman)}
    for kind, pool in ((BASELINE, builders.values()), (FOUND, found.values())):
        own = cost_model.weight
        further = [row for weight in cost_weights for row in best(pool, weight)]
        for row in [*best(pool, own), *best(cheap(pool), own), *further]:
            chosen.setdefault(row.tree_hash, (labels.get(row.tree_hash, f"{FOUND} #{row.id}"), kind, row))
    return [promoted(ledger, row, name, kind, counts, cost_model) for name, kind, row in chosen.values()]


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


def at_best_rate(
    trees: Sequence[Promoted], rung: JointRung, *, learning_rates: Sequence[float], seed: int
) -> dict[str, Finalist]:
    """Train every tree with every rate; each with its best one by validation, by tree hash.

    Trees that diverge at every rate are left out, the ledger says why.
    """
    jobs = [(tree, rate, seed) for tree in trees for rate in learning_rates]
    best: dict[str, Finalist] = {}
    for (tree, rate, _), row in zip(jobs, rung.train(JOINT, jobs), strict=True):
        known = best.get(tree.tree.hash)
        if row.valid_nll is not None and (known is None or row.valid_nll < known.valid_nll):
            best[tree.tree.hash] = Finalist(tree, rate, row.valid_nll)
    return best


def choose_finalists(
    trained: Mapping[str, Finalist],
    *,
    cost_model: CostModel,
    num_finalists: int = 1,
    cost_weights: Sequence[float] = (),
) -> list[Finalist]:
    """The trees to confirm, by joint reward on validation data.

    Huffman; the best builders of any cost and of at most Huffman's; the same two of the found trees; and of either kind
    the best under each further λ. Costs are compared as in `promote`.

    Args:
        trained: Promoted trees at their best rates.
        cost_model: What compute takes from the reward, at the λ that the run reports.
        num_finalists: Trees of each of the four kinds.
        cost_weights: Further λs.

    Raises:
        ExecutionError: Huffman diverged at every rate.
    """
    huffman = next((finalist for finalist in trained.values() if finalist.promoted.name == HUFFMAN), None)
    if huffman is None:
        raise ExecutionError("the Huffman tree diverged at every rate of joint.learning_rates; add a smaller one")

    chosen = [huffman]
    for kind in (BASELINE, FOUND):
        pool = [f for f in trained.values() if f.promoted.kind == kind and f.promoted.name != HUFFMAN]
        cheap = [f for f in pool if f.units(cost_model) <= huffman.units(cost_model)]
        own = cost_model.weight
        groups = [(pool, own, num_finalists), (cheap, own, num_finalists), *((pool, w, 1) for w in cost_weights)]
        for group, weight, num in groups:
            for finalist in sorted(group, key=lambda f: -f.reward(cost_model, weight))[:num]:
                if finalist not in chosen:
                    chosen.append(finalist)
    return chosen


def confirm(finalists: Sequence[Finalist], rung: JointRung, *, seeds: Sequence[int]) -> list[Confirmed]:
    """Train every finalist with every seed and score the test split.

    Returns:
        The finalists that finished with every seed; the ledger says why others are missing.

    Raises:
        ExecutionError: Huffman is not among them, so that nothing can be compared.
    """
    jobs = [(finalist.promoted, finalist.learning_rate, seed) for finalist in finalists for seed in seeds]
    rows = rung.train(CONFIRM, jobs)
    confirmed = []
    for index, finalist in enumerate(finalists):
        own = rows[index * len(seeds) : (index + 1) * len(seeds)]
        valid = [row.valid_nll for row in own if row.valid_nll is not None]
        test = [row.test_nll for row in own if row.test_nll is not None]
        if len(test) == len(seeds):
            confirmed.append(Confirmed(finalist, valid, test))
        elif finalist.promoted.name == HUFFMAN:
            raise ExecutionError(
                f"the Huffman tree must finish with all {len(seeds)} seeds, but did with {len(test)}"
                f" at learning rate {finalist.learning_rate}; add a smaller one to joint.learning_rates"
            )
    return confirmed
