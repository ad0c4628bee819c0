"""Promotion and confirmation: from the frozen rung to joint training, and on to the test split.

The best trees of the frozen rung, builders' and found ones alike, are trained jointly with every learning rate of one
grid. Validation data chooses each tree's rate, and which trees are reported. Those are trained again with fresh seeds;
only these runs read the test split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from treesearch.cost import CostModel, TreeCost
from treesearch.errors import ExecutionError
from treesearch.search.executors import Executor, Task
from treesearch.search.ledger import CONFIRM, FAILED, FROZEN, JOINT, OK, EvaluationRow, Ledger
from treesearch.search.loop import BUILDER
from treesearch.search.worker import JointScores, JointTask
from treesearch.tree import Tree

FOUND, BASELINE = "found", "baseline"
HUFFMAN = "huffman"


@dataclass(frozen=True)
class Promoted:
    """A tree that left the frozen rung."""

    name: str  # row name in the comparison
    kind: str  # found or baseline
    row: EvaluationRow  # its frozen evaluation
    tree: Tree
    cost: TreeCost


@dataclass(frozen=True)
class Finalist:
    """A promoted tree with its best learning rate."""

    promoted: Promoted
    learning_rate: float
    valid_nll: float  # of the run that chose the rate, nats per token

    def reward(self, cost_model: CostModel) -> float:
        """Joint reward on validation data, nats."""
        return -self.valid_nll - cost_model.loss(self.promoted.cost)


@dataclass(frozen=True)
class Confirmed:
    """A finalist with its results on fresh seeds, in the same order for all."""

    finalist: Finalist
    valid_nll: list[float]  # one per seed, nats per token
    test_nll: list[float]  # one per seed, nats per token


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


def promote(ledger: Ledger, *, counts: NDArray[np.float64], cost_model: CostModel, num_trees: int) -> list[Promoted]:
    """Huffman, and by frozen reward the best builders and the best found trees: of any cost, and of Huffman's at most.

    Costs are compared in what the reward charges: analytic units, or measured microseconds where the cost model has a
    table. A builder's own tree is never called found, whoever proposed it.

    Args:
        ledger: With the finished frozen rung.
        counts: [C] training counts.
        cost_model: What compute takes from the reward.
        num_trees: Trees of each of the four kinds.

    Raises:
        ExecutionError: Huffman's evaluation failed, so that nothing can be compared.
    """
    evaluations = ledger.rows(FROZEN)
    labels = {row.tree_hash: row.label for row in reversed(evaluations) if row.agent == BUILDER}
    rows = [row for row in evaluations if row.reward is not None]
    builders = {row.tree_hash: row for row in reversed(rows) if row.tree_hash in labels}
    huffman = next((row for row in rows if row.label == HUFFMAN), None)
    if huffman is None:
        raise ExecutionError("the Huffman tree could not be evaluated, so nothing can be compared with it")
    found = {row.tree_hash: row for row in reversed(rows) if row.tree_hash not in labels}

    def best(candidates: Iterable[EvaluationRow]) -> list[EvaluationRow]:
        return sorted(candidates, key=lambda row: (-(row.reward or 0.0), row.id))[:num_trees]

    def charged(row: EvaluationRow) -> float:
        return cost_model.charged(row.cost or 0.0, row.cost_measured_us)

    def cheap(candidates: Iterable[EvaluationRow]) -> list[EvaluationRow]:
        return [row for row in candidates if charged(row) <= charged(huffman)]

    chosen = {huffman.tree_hash: (HUFFMAN, BASELINE, huffman)}
    for kind, pool in ((BASELINE, builders.values()), (FOUND, found.values())):
        for row in [*best(pool), *best(cheap(pool))]:
            chosen.setdefault(row.tree_hash, (labels.get(row.tree_hash) or f"{FOUND} #{row.id}", kind, row))
    promoted = []
    for name, kind, row in chosen.values():
        tree = ledger.tree(row.tree_hash)
        promoted.append(Promoted(name, kind, row, tree, cost_model.tree_cost(tree, counts)))
    return promoted


def choose_finalists(
    promoted: Sequence[Promoted], rung: JointRung, *, learning_rates: Sequence[float], seed: int, cost_model: CostModel
) -> list[Finalist]:
    """Train every promoted tree with every rate; keep those to report, by joint reward on validation data.

    Reported are Huffman, the best builder of any cost and the best of at most Huffman's cost, and the same two of the
    found trees; trees that diverge at every rate are left out, the ledger says why. Costs are compared as in `promote`.

    Raises:
        ExecutionError: Huffman diverged at every rate.
    """
    jobs = [(tree, rate, seed) for tree in promoted for rate in learning_rates]
    best: dict[str, Finalist] = {}
    for (tree, rate, _), row in zip(jobs, rung.train(JOINT, jobs), strict=True):
        known = best.get(tree.name)
        if row.valid_nll is not None and (known is None or row.valid_nll < known.valid_nll):
            best[tree.name] = Finalist(tree, rate, row.valid_nll)
    if HUFFMAN not in best:
        raise ExecutionError("the Huffman tree diverged at every rate of joint.learning_rates; add a smaller one")

    def charged(finalist: Finalist) -> float:
        return cost_model.charged(finalist.promoted.cost.cost, finalist.promoted.cost.measured_us)

    chosen = [best[HUFFMAN]]
    for kind in (BASELINE, FOUND):
        pool = sorted(
            (f for f in best.values() if f.promoted.kind == kind and f.promoted.name != HUFFMAN),
            key=lambda f: -f.reward(cost_model),
        )
        cheap = [f for f in pool if charged(f) <= charged(best[HUFFMAN])]
        for finalist in [*pool[:1], *cheap[:1]]:
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
