"""Confirmation: joint training of the candidates with fresh seeds, scored on the test split.

Every candidate, Huffman included, gets the learning rate of one grid that is best for it on validation data; the test
split is read only by the runs that are reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from treesearch.cost import TreeCost, tree_cost
from treesearch.errors import ExecutionError
from treesearch.search.executors import Executor, Task
from treesearch.search.ledger import CONFIRM, FAILED, FROZEN, JOINT, OK, EvaluationRow, Ledger
from treesearch.search.loop import BUILDER
from treesearch.search.worker import JointTask
from treesearch.tree import Tree

FOUND, BASELINE = "found", "baseline"
HUFFMAN = "huffman"


@dataclass(frozen=True)
class Finalist:
    """A tree to confirm."""

    name: str  # row name in the comparison
    kind: str  # found or baseline
    row: EvaluationRow  # its frozen evaluation
    tree: Tree


@dataclass(frozen=True)
class Confirmed:
    """A finalist with its joint results, seeds in the same order for all."""

    finalist: Finalist
    cost: TreeCost
    learning_rate: float
    valid_nll: list[float]  # one per seed, nats per token
    test_nll: list[float]  # one per seed, nats per token


def choose_finalists(ledger: Ledger, *, num_builders: int) -> list[Finalist]:
    """Huffman, the best builders by frozen reward, the best found tree, and the best found at no more than Huffman's cost.

    A builder's own tree is never called found, whoever proposed it.

    Raises:
        ExecutionError: Huffman's evaluation failed, so that nothing can be compared.
    """
    rows = [row for row in ledger.rows(FROZEN) if row.reward is not None]
    builders = {row.tree_hash: row for row in reversed(rows) if row.agent == BUILDER}
    huffman = next((row for row in rows if row.label == HUFFMAN), None)
    if huffman is None:
        raise ExecutionError("the Huffman tree could not be evaluated, so nothing can be compared with it")

    def best(candidates: list[EvaluationRow]) -> list[EvaluationRow]:
        return sorted(candidates, key=lambda row: (-(row.reward or 0.0), row.id))

    chosen = [(HUFFMAN, BASELINE, huffman)]
    others = [row for row in builders.values() if row.tree_hash != huffman.tree_hash]
    chosen += [(row.label or "", BASELINE, row) for row in best(others)[:num_builders]]
    found = best([row for row in rows if row.tree_hash not in builders])
    cheap = [row for row in found if (row.cost or 0.0) <= (huffman.cost or 0.0)]
    if found:
        chosen.append(("found", FOUND, found[0]))
    if cheap and cheap[0].tree_hash != found[0].tree_hash:
        chosen.append(("found, at most Huffman's cost", FOUND, cheap[0]))
    return [Finalist(name, kind, row, ledger.tree(row.tree_hash)) for name, kind, row in chosen]


def confirm(
    finalists: Sequence[Finalist],
    executor: Executor,
    ledger: Ledger,
    *,
    counts: NDArray[np.float64],
    in_features: int,
    cost_weight: float,
    learning_rates: Sequence[float],
    seeds: Sequence[int],
    selection_seed: int,
    on_row: Callable[[EvaluationRow], None],
) -> list[Confirmed]:
    """Choose each finalist's learning rate on validation data, then train it with every seed.

    Args:
        finalists: The trees.
        executor: Runs the trainings.
        ledger: Gets a row per training.
        counts: [C] training counts.
        in_features: D.
        cost_weight: λ.
        learning_rates: The grid.
        seeds: Of the reported runs; none of them is ``selection_seed``.
        selection_seed: Of the runs that choose the rate.
        on_row: Called with every new row.

    Returns:
        The finalists that trained with every seed; the ledger says why others are missing.
    """
    costs = [tree_cost(f.tree, counts, in_features=in_features) for f in finalists]

    def train(rung: str, jobs: Sequence[tuple[int, float, int]]) -> dict[tuple[int, float, int], EvaluationRow]:
        first_id = ledger.next_id()
        tasks = [
            Task(key, JointTask(finalists[index].tree, rate, seed, use_test=rung == CONFIRM))
            for key, (index, rate, seed) in enumerate(jobs)
        ]
        rows = {}
        for outcome in executor.run(tasks):
            index, rate, seed = jobs[outcome.task.key]
            cost = costs[index]
            row = EvaluationRow(
                id=first_id + outcome.task.key,
                rung=rung,
                batch=0,
                agent=finalists[index].row.agent,
                label=finalists[index].name,
                tree_hash=finalists[index].tree.hash,
                status=OK if outcome.ok else FAILED,
                reason=outcome.reason,
                attempts=outcome.attempts,
                cost=cost.cost,
                expected_depth=cost.expected_depth,
                dot_products=cost.dot_products,
                max_depth=cost.max_depth,
                learning_rate=rate,
                seed=seed,
                seconds=outcome.seconds,
                worker=outcome.worker,
            )
            if outcome.result is not None:
                valid_nll, test_nll = outcome.result.valid_nll, outcome.result.test_nll
                row = replace(
                    row, valid_nll=valid_nll, test_nll=test_nll, reward=-valid_nll - cost_weight * cost.cost
                )
            ledger.record(row, finalists[index].tree)
            on_row(row)
            rows[index, rate, seed] = row
        return rows

    selection = train(JOINT, [(i, rate, selection_seed) for i in range(len(finalists)) for rate in learning_rates])
    best_rate: dict[int, float] = {}
    for (index, rate, _), row in sorted(selection.items()):
        best = selection.get((index, best_rate.get(index, -1.0), selection_seed))
        if row.valid_nll is not None and (best is None or best.valid_nll is None or row.valid_nll < best.valid_nll):
            best_rate[index] = rate
    final = train(CONFIRM, [(i, rate, seed) for i, rate in best_rate.items() for seed in seeds])
    confirmed = []
    for index, rate in best_rate.items():
        rows = [final[index, rate, seed] for seed in seeds]
        valid = [row.valid_nll for row in rows if row.valid_nll is not None]
        test = [row.test_nll for row in rows if row.test_nll is not None]
        if len(test) == len(seeds):
            confirmed.append(Confirmed(finalists[index], costs[index], rate, valid, test))
    return confirmed
