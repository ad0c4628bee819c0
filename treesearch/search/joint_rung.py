"""The joint rung: encoder and tree are trained together, and every training is written down as it finishes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from treesearch.cost import CostModel
from treesearch.search.evaluation_row import CONFIRM, FAILED, OK, WARM, EvaluationRow
from treesearch.search.executors import Executor, Task
from treesearch.search.ledger import Ledger
from treesearch.search.promotion import Promoted
from treesearch.search.worker import JointScores, JointTask


class JointRung:
    """Trains trees jointly and writes each training into the ledger as it finishes.

    Args:
        executor: Runs the trainings.
        ledger: Where they go.
        cost_model: What compute takes from the reward.
        on_row: Called with every new row.
        time_limit: Seconds that a training may take.
    """

    def __init__(
        self,
        executor: Executor,
        ledger: Ledger,
        *,
        cost_model: CostModel,
        on_row: Callable[[EvaluationRow], None],
        time_limit: float | None = None,
    ) -> None:
        self._time_limit = time_limit
        self._executor = executor
        self._ledger = ledger
        self._cost_model = cost_model
        self._on_row = on_row
        self._token_nll: dict[str, dict[int, NDArray[np.float32]]] = {}  # by tree hash and seed
        self._metrics: dict[str, dict[int, Mapping[str, float]]] = {}  # by tree hash and seed

    def token_nll(self, tree_hash: str) -> NDArray[np.float64] | None:
        """NLL of each token of the test split, mean over all trainings of a tree that scored it; None without any."""
        by_seed = self._token_nll.get(tree_hash)
        if by_seed is None:
            return None
        runs = [by_seed[seed] for seed in sorted(by_seed)]  # whichever finished first
        return np.asarray(np.mean(runs, axis=0, dtype=np.float64))

    def metrics(self, tree_hash: str) -> dict[str, list[float]]:
        """What predictions on the test split are worth, by name, for each training of a tree that scored it."""
        by_seed = self._metrics.get(tree_hash, {})
        runs = [by_seed[seed] for seed in sorted(by_seed)]
        return {name: [run[name] for run in runs] for name in (runs[0] if runs else ())}

    def train(self, rung: str, jobs: Sequence[tuple[Promoted, float, int]]) -> list[EvaluationRow]:
        """Train each (tree, learning rate, seed).

        The test split is scored on rung ``confirm`` only. On rung ``warm`` training is one epoch from the search's
        encoder.
        """
        first_id = self._ledger.next_id()
        tasks = [
            Task(
                key,
                JointTask(promoted.tree, rate, seed, use_test=rung == CONFIRM, warm=rung == WARM),
                self._time_limit,
            )
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
                if scores.test_token_nll is not None:
                    self._token_nll.setdefault(promoted.tree.hash, {})[seed] = scores.test_token_nll
                    self._metrics.setdefault(promoted.tree.hash, {})[seed] = scores.test_metrics
            row = self._ledger.record(row, promoted.tree)
            self._on_row(row)
            rows[outcome.task.key] = row
        return [rows[key] for key in range(len(jobs))]
