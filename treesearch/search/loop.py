"""The search loop: ask, evaluate, record, tell."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from treesearch.cost import CostModel
from treesearch.errors import ExecutionError
from treesearch.evaluation.scores import TreeScore, score_tree
from treesearch.search.executors import Executor, Outcome, Task
from treesearch.search.ledger import CACHED, FAILED, FROZEN, OK, EvaluationRow, Ledger
from treesearch.search.worker import FrozenTask
from treesearch.tree import Tree

BUILDER = "builder"
MAX_CONSECUTIVE_FAILURES = 20


@dataclass(frozen=True)
class Candidate:
    """A tree to evaluate and where it comes from."""

    tree: Tree
    agent: str
    label: str | None = None
    actions: tuple[str, ...] | None = None


class Proposer(Protocol):
    """An agent as the loop sees it; `treesearch.launch` makes one from an agent."""

    def ask(self, num: int) -> Sequence[Candidate]:
        """Propose ``num`` trees."""

    def tell(self, scores: Sequence[TreeScore | None]) -> dict[str, float]:
        """Learn from the scores of the last `ask`, in its order; None where the evaluation failed."""

    def pack(self) -> bytes:
        """The whole state."""

    def unpack(self, state: bytes) -> None:
        """Go back to a packed state."""


@dataclass(frozen=True)
class Objective:
    """What the reward is made of."""

    counts: NDArray[np.float64]  # [C] training counts
    cost_model: CostModel  # what compute takes
    encoder: str  # hash of the features


class FrozenRung:
    """Evaluates candidates on frozen features and writes each into the ledger as it finishes.

    Args:
        executor: Runs the evaluations.
        ledger: Where they go.
        objective: What the reward is made of.
        on_row: Called with every new row.
    """

    def __init__(
        self, executor: Executor, ledger: Ledger, objective: Objective, on_row: Callable[[EvaluationRow], None]
    ) -> None:
        self._executor = executor
        self._ledger = ledger
        self._objective = objective
        self._on_row = on_row
        self._known: dict[str, TreeScore] = {}
        self._failures: list[str] = []

    def evaluate(self, candidates: Sequence[Candidate], batch: int) -> list[TreeScore | None]:
        """Score candidates; a tree that was seen before is not evaluated again.

        Raises:
            ExecutionError: Too many evaluations in a row have failed.
        """
        first_id = self._ledger.next_id()
        first_of: dict[str, int] = {}
        for position, candidate in enumerate(candidates):
            first_of.setdefault(candidate.tree.hash, position)
        tasks = [
            Task(position, FrozenTask(candidates[position].tree))
            for tree_hash, position in first_of.items()
            if tree_hash not in self._known
        ]
        evaluated = {task.key for task in tasks}
        failed: dict[str, str] = {}
        for outcome in self._executor.run(tasks):
            candidate = candidates[outcome.task.key]
            if outcome.result is not None:
                objective = self._objective
                self._known[candidate.tree.hash] = score_tree(
                    candidate.tree,
                    outcome.result,
                    counts=objective.counts,
                    cost_model=objective.cost_model,
                )
                self._failures.clear()
            else:
                failed[candidate.tree.hash] = str(outcome.reason)
                self._failures.append(str(outcome.reason))
            self._record(first_id + outcome.task.key, batch, candidate, outcome, outcome.reason)
            if len(self._failures) >= MAX_CONSECUTIVE_FAILURES:
                raise ExecutionError(
                    f"{len(self._failures)} evaluations in a row failed, the first with: {self._failures[0]}"
                )
        for position, candidate in enumerate(candidates):
            if position not in evaluated:
                self._record(first_id + position, batch, candidate, None, failed.get(candidate.tree.hash))
        return [self._known.get(candidate.tree.hash) for candidate in candidates]

    def _record(
        self, row_id: int, batch: int, candidate: Candidate, outcome: Outcome | None, reason: str | None
    ) -> None:
        objective = self._objective
        score = self._known.get(candidate.tree.hash)
        cost = objective.cost_model.tree_cost(candidate.tree, objective.counts) if score is None else score.cost
        row = EvaluationRow(
            id=row_id,
            rung=FROZEN,
            batch=batch,
            agent=candidate.agent,
            label=candidate.label,
            tree_hash=candidate.tree.hash,
            status=FAILED if score is None else OK if outcome is not None else CACHED,
            reason=reason,
            attempts=0 if outcome is None else outcome.attempts,
            reward=None if score is None else score.reward,
            valid_nll=None if score is None else score.valid_nll,
            cost=cost.cost,
            cost_measured_us=cost.measured_us,
            expected_depth=cost.expected_depth,
            dot_products=cost.dot_products,
            max_depth=cost.max_depth,
            actions=None if candidate.actions is None else json.dumps(candidate.actions),
            encoder=objective.encoder,
            seconds=0.0 if outcome is None else outcome.seconds,
            worker="" if outcome is None else outcome.worker,
        )
        self._ledger.record(row, candidate.tree)
        self._on_row(row)


def search(
    rung: FrozenRung,
    proposer: Proposer,
    builders: Sequence[Candidate],
    ledger: Ledger,
    *,
    evaluations: int,
    batch_size: int,
) -> None:
    """Spend a budget of evaluations: the builders first, then synchronous batches of proposals.

    Args:
        rung: Evaluates.
        proposer: The agent.
        builders: Evaluated first, on the same budget; the agent is not told.
        ledger: Gets the agent's state after every batch.
        evaluations: The budget, builders included.
        batch_size: Proposals between two updates of the agent; does not depend on the number of workers.
    """
    rung.evaluate(builders[:evaluations], batch=0)
    ledger.finish_batch(0, proposer.pack(), {})
    spent, batch = len(builders), 0
    while spent < evaluations:
        batch += 1
        candidates = proposer.ask(min(batch_size, evaluations - spent))
        assert candidates, "a proposer proposes what it is asked for"  # or the budget would never be spent
        scores = rung.evaluate(candidates, batch)
        metrics = proposer.tell(scores)
        ledger.finish_batch(batch, proposer.pack(), metrics)
        spent += len(candidates)
