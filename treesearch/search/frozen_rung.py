"""The frozen rung of a search: candidates in, ledger rows and scores out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from treesearch.cost import CostModel
from treesearch.errors import ExecutionError
from treesearch.evaluation.scores import TreeScore, score_tree
from treesearch.search.executors import Executor
from treesearch.search.ledger import CACHED, FAILED, FROZEN, OK, STOPPED, EvaluationRow, Ledger
from treesearch.search.nodes import NodeEvaluator, Verdict
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
    cost_weight: float | None = None  # the λ that it is for, nats per unit; None: the one that the run reports


@dataclass(frozen=True)
class Objective:
    """What the reward is made of."""

    counts: NDArray[np.float64]  # [C] training counts
    cost_model: CostModel  # what compute takes
    encoder: str  # hash of the features


@dataclass(frozen=True)
class EarlyStop:
    """When the evaluation of a proposal is not worth finishing."""

    margin: float  # nats that its reward may lie below the best under its λ
    subset_tokens: int | None = None  # training tokens on which all are scored first; None: no such rung


class FrozenRung:
    """Evaluates candidates on frozen features and writes each into the ledger as it finishes.

    Args:
        executor: Runs the evaluations.
        ledger: Where they go.
        objective: What the reward is made of.
        on_row: Called with every new row.
        early_stop: When to give up on a proposal; None never.
        memoise: Whether nodes that an earlier tree had are looked up instead of trained again.
        forest_size: See `NodeEvaluator`.
    """

    def __init__(
        self,
        executor: Executor,
        ledger: Ledger,
        objective: Objective,
        on_row: Callable[[EvaluationRow], None],
        *,
        early_stop: EarlyStop | None = None,
        memoise: bool = True,
        forest_size: int | None = None,
    ) -> None:
        self._ledger = ledger
        self._objective = objective
        self._on_row = on_row
        self._early_stop = early_stop
        self._evaluator = NodeEvaluator(executor, memoise=memoise, forest_size=forest_size)
        self._subset: NodeEvaluator | None = None
        if early_stop is not None and early_stop.subset_tokens is not None:
            self._subset = NodeEvaluator(
                executor, max_tokens=early_stop.subset_tokens, memoise=memoise, forest_size=forest_size
            )
        self._known: dict[str, TreeScore] = {}
        self._on_subset: dict[str, TreeScore] = {}
        self._failures: list[str] = []

    def known(self, tree: Tree) -> TreeScore | None:
        """The score of a tree that was evaluated before."""
        return self._known.get(tree.hash)

    def evaluate(self, candidates: Sequence[Candidate], batch: int) -> list[TreeScore | None]:
        """Score candidates; a tree that was seen before is not evaluated again.

        Builders' trees are always finished. A proposal that is stopped early is given an estimate: what is known of
        its nodes, and of the others what trees like it cost.

        Returns:
            In the order of the candidates; None where the evaluation failed.

        Raises:
            ExecutionError: Too many evaluations in a row have failed.
        """
        first_id = self._ledger.next_id()
        first_of: dict[str, int] = {}
        for position, candidate in enumerate(candidates):
            first_of.setdefault(candidate.tree.hash, position)
        new = [position for tree_hash, position in first_of.items() if tree_hash not in self._known]
        stopped = self._hopeless(candidates, new)
        new = [position for position in new if position not in stopped]
        if self._subset is not None:
            failed = self._score(self._subset, self._on_subset, candidates, new)
            stopped |= self._behind(candidates, [position for position in new if position not in failed])
            new = [position for position in new if position not in stopped]
        reasons: dict[str, str] = {}
        for verdict in self._evaluator.run([candidates[position].tree for position in new]):
            position = new[verdict.position]
            candidate = candidates[position]
            if verdict.node_nll is not None:
                self._known[candidate.tree.hash] = self._score_tree(candidate.tree, verdict.node_nll)
                self._failures.clear()
            else:
                reasons[candidate.tree.hash] = str(verdict.reason)
                self._failures.append(str(verdict.reason))
            self._record(first_id + position, batch, candidate, verdict, reasons.get(candidate.tree.hash))
            if len(self._failures) >= MAX_CONSECUTIVE_FAILURES:
                raise ExecutionError(
                    f"{len(self._failures)} evaluations in a row failed, the first with: {self._failures[0]}"
                )
        recorded = set(new)
        hopeless = {candidates[position].tree.hash: reason_score for position, reason_score in stopped.items()}
        for position, candidate in enumerate(candidates):
            if position not in recorded:
                reason, _ = hopeless.get(candidate.tree.hash, (reasons.get(candidate.tree.hash), None))
                stop = candidate.tree.hash in hopeless
                self._record(first_id + position, batch, candidate, None, reason, stopped=stop)
        estimates = {tree_hash: estimate for tree_hash, (_, estimate) in hopeless.items()}
        return [self._known.get(candidate.tree.hash, estimates.get(candidate.tree.hash)) for candidate in candidates]

    # -- early stop ----------------------------------------------------------------------------------------------------

    def _hopeless(self, candidates: Sequence[Candidate], new: Sequence[int]) -> dict[int, tuple[str, TreeScore]]:
        """Proposals too dear to come near the best, were their NLL that of their known nodes or the best so far."""
        if self._early_stop is None or not self._known:
            return {}
        best_nll = min(score.valid_nll for score in self._known.values())
        stopped = {}
        for position in new:
            candidate = candidates[position]
            if candidate.agent == BUILDER:
                continue
            weight, tree = self._weight(candidate), candidate.tree
            at_least = max(best_nll, self._evaluator.known_nll(tree))
            estimate = self._estimate(tree, at_least)
            bound, best = estimate.reward(weight), self._best_reward(self._known, weight)
            if bound < best - self._early_stop.margin:
                reason = f"hopeless: reward at most {bound:.4f} at an NLL of {at_least:.4f}, but the best is {best:.4f}"
                stopped[position] = (reason, estimate)
        return stopped

    def _behind(self, candidates: Sequence[Candidate], new: Sequence[int]) -> dict[int, tuple[str, TreeScore]]:
        """Proposals that lie too far behind on the subset of tokens; estimates are scaled to the whole."""
        assert self._early_stop is not None
        both = [tree_hash for tree_hash in self._on_subset if tree_hash in self._known]
        if not both:
            return {}
        scale = float(np.mean([self._known[h].valid_nll / self._on_subset[h].valid_nll for h in both]))
        stopped = {}
        for position in new:
            candidate = candidates[position]
            if candidate.agent == BUILDER:
                continue
            weight, score = self._weight(candidate), self._on_subset[candidate.tree.hash]
            best = self._best_reward(self._on_subset, weight)
            if score.reward(weight) < best - self._early_stop.margin:
                reason = f"behind: reward {score.reward(weight):.4f} on the subset, where the best is {best:.4f}"
                stopped[position] = (reason, self._score_tree(candidate.tree, score.node_nll * scale))
        return stopped

    def _estimate(self, tree: Tree, valid_nll: float) -> TreeScore:
        """A tree of this NLL whose nodes share it like the bits that they decide."""
        bits = tree.pass_shares(self._objective.counts) * np.log2(tree.arities)
        return self._score_tree(tree, valid_nll * bits / bits.sum())

    def _best_reward(self, scores: dict[str, TreeScore], weight: float) -> float:
        return max(score.reward(weight) for score in scores.values())

    # -- scores and rows -----------------------------------------------------------------------------------------------

    def _score(
        self,
        evaluator: NodeEvaluator,
        scores: dict[str, TreeScore],
        candidates: Sequence[Candidate],
        positions: Sequence[int],
    ) -> set[int]:
        """Score trees into ``scores``; returns the positions that failed."""
        failed = set()
        for verdict in evaluator.run([candidates[position].tree for position in positions]):
            position = positions[verdict.position]
            if verdict.node_nll is None:
                failed.add(position)
            else:
                tree = candidates[position].tree
                scores[tree.hash] = self._score_tree(tree, verdict.node_nll)
        return failed

    def _score_tree(self, tree: Tree, node_nll: NDArray[np.float64]) -> TreeScore:
        objective = self._objective
        return score_tree(tree, node_nll, counts=objective.counts, cost_model=objective.cost_model)

    def _weight(self, candidate: Candidate) -> float:
        own = candidate.cost_weight
        return self._objective.cost_model.weight if own is None else own

    def _record(
        self,
        row_id: int,
        batch: int,
        candidate: Candidate,
        verdict: Verdict | None,
        reason: str | None,
        *,
        stopped: bool = False,
    ) -> None:
        objective, weight = self._objective, self._weight(candidate)
        score = self._known.get(candidate.tree.hash)
        subset = self._on_subset.get(candidate.tree.hash)
        cost = objective.cost_model.tree_cost(candidate.tree, objective.counts) if score is None else score.cost
        status = OK if verdict is not None else CACHED
        if score is None:
            status = STOPPED if stopped else FAILED
        row = EvaluationRow(
            id=row_id,
            rung=FROZEN,
            batch=batch,
            agent=candidate.agent,
            label=candidate.label,
            tree_hash=candidate.tree.hash,
            status=status,
            reason=reason,
            attempts=0 if verdict is None else verdict.attempts,
            cost_weight=weight,
            reward=None if score is None else score.reward(weight),
            valid_nll=None if score is None else score.valid_nll,
            subset_nll=None if subset is None else subset.valid_nll,
            cost=cost.cost,
            cost_measured_us=cost.measured_us,
            expected_depth=cost.expected_depth,
            dot_products=cost.dot_products,
            max_depth=cost.max_depth,
            num_nodes=candidate.tree.num_internal,
            nodes_trained=0 if verdict is None else verdict.num_trained,
            actions=None if candidate.actions is None else json.dumps(candidate.actions),
            encoder=objective.encoder,
            seconds=0.0 if verdict is None else verdict.seconds,
            worker="" if verdict is None else verdict.worker,
        )
        self._ledger.record(row, candidate.tree)
        self._on_row(row)
