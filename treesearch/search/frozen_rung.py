"""The frozen rung of a search: candidates in, ledger rows and scores out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from treesearch.cost import CostModel
from treesearch.errors import ExecutionError
from treesearch.evaluation.memo import NewNodes, NodeMemo
from treesearch.evaluation.scores import TreeScore, score_tree
from treesearch.search.evaluation_row import BUILDER, CACHED, FAILED, FROZEN, OK, STOPPED, EvaluationRow
from treesearch.search.executors import Executor
from treesearch.search.ledger import Ledger
from treesearch.search.nodes import NodeEvaluator, Verdict
from treesearch.tree import Tree


@dataclass(frozen=True)
class Candidate:
    """A tree to evaluate and where it comes from."""

    tree: Tree
    agent: str
    label: str | None = None
    actions: tuple[str, ...] | None = None
    decisions: tuple[tuple[int, float], ...] | None = None  # of each action: depth of the node, its share of examples
    cost_weight: float | None = None  # the λ that it is for, nats per unit; None: the one that the run reports
    number: int | None = None  # the proposer's name for it while it is under way
    batch: int | None = None  # for which it was asked; None: it was not


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


@dataclass(frozen=True)
class _Known:
    """What is kept of the score of a tree. Its nodes are remembered on their own: trees share them."""

    valid_nll: float  # nats per token
    units: float

    def reward(self, cost_weight: float) -> float:
        """As of the score."""
        return -self.valid_nll - cost_weight * self.units


@dataclass(frozen=True)
class _Stop:
    reason: str
    estimate: TreeScore


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
        time_limit: See `NodeEvaluator`.
        max_consecutive_failures: Evaluations in a row that may fail before the search gives up.
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
        time_limit: float | None = None,
        max_consecutive_failures: int = 20,
    ) -> None:
        self._max_failures = max_consecutive_failures
        self._ledger = ledger
        self._objective = objective
        self._on_row = on_row
        self._early_stop = early_stop
        self._memos: dict[str, NodeMemo] = {}

        def evaluator(memo: str, max_tokens: int | None) -> NodeEvaluator:
            self._memos[memo] = NodeMemo()
            return NodeEvaluator(
                executor,
                memo=self._memos[memo],
                max_tokens=max_tokens,
                reuse=memoise,
                forest_size=forest_size,
                time_limit=time_limit,
            )

        self._evaluator = evaluator("all tokens", None)
        subset_tokens = None if early_stop is None else early_stop.subset_tokens
        self._subset = None if subset_tokens is None else evaluator("subset", subset_tokens)
        self._known: dict[str, _Known] = {}
        self._on_subset: dict[str, _Known] = {}
        self._failures: list[str] = []
        self._written: Counter[str] = Counter()  # rows that an interrupted stream has left, by tree

    def known(self, tree: Tree) -> TreeScore | None:
        """The score of a tree that was evaluated before and whose nodes are still remembered."""
        return self._recalled(self._known, self._evaluator, tree)

    @property
    def encoder(self) -> str:
        """Hash of the features."""
        return self._objective.encoder

    def new_nodes(self) -> dict[str, NewNodes]:
        """What each memo has learned since the last call; `restore` takes it."""
        return {name: memo.take_new() for name, memo in self._memos.items()}

    def restore(self, batch: int) -> None:
        """Know what the ledger knows of trees under this encoder, of which this batch was the last one."""
        for name, memo in self._memos.items():
            for keys, nll in self._ledger.nodes(name):
                memo.store(keys, nll)
            memo.take_new()
        model = self._objective.cost_model
        for row in self._ledger.rows(FROZEN):
            if row.encoder == self.encoder:
                if row.valid_nll is not None:
                    self._known[row.tree_hash] = _Known(row.valid_nll, row.units(model))
                if row.subset_nll is not None:
                    self._on_subset[row.tree_hash] = _Known(row.subset_nll, row.units(model))
                if row.batch > batch:
                    self._written[row.tree_hash] += 1

    def evaluate(self, candidates: Sequence[Candidate], batch: int, *, finish: bool = False) -> list[TreeScore | None]:
        """Score candidates; a tree that was seen before is not evaluated again.

        Builders' trees are always finished. A proposal that is stopped early is given an estimate: what is known of
        its nodes, and of the others what trees like it cost. A tree that is proposed for several λs at once is stopped
        where it is hopeless under all of them.

        Args:
            candidates: Trees, of which some may be the same.
            batch: Number for the ledger.
            finish: Stop none of them early.

        Returns:
            In the order of the candidates; None where the evaluation failed.

        Raises:
            ExecutionError: Too many evaluations in a row have failed.
        """
        first_id = self._ledger.next_id()
        scores: dict[str, TreeScore] = {}
        same: dict[str, list[int]] = {}  # positions of each tree that is new
        for position, candidate in enumerate(candidates):
            tree_hash = candidate.tree.hash
            known = scores.get(tree_hash) or self.known(candidate.tree)
            if known is None:
                same.setdefault(tree_hash, []).append(position)
            else:
                scores[tree_hash] = known
        stopped = self._stopped(candidates, list(same.values()), None if finish else self._early_stop)
        new = [positions[0] for positions in same.values() if positions[0] not in stopped]
        reasons: dict[str, str] = {}
        for verdict in self._evaluator.run([candidates[position].tree for position in new]):
            position = new[verdict.position]
            candidate = candidates[position]
            score = self._take(candidate.tree, verdict)
            if score is None:
                reasons[candidate.tree.hash] = str(verdict.reason)
            else:
                scores[candidate.tree.hash] = score
            self._record(first_id + position, batch, candidate, score, verdict, verdict.reason)
            self._give_up_on_failures()
        recorded = set(new)
        for position, candidate in enumerate(candidates):
            if position not in recorded:
                tree_hash, stop = candidate.tree.hash, stopped.get(position)
                reason = reasons.get(tree_hash) if stop is None else stop.reason
                row_id, is_stopped = first_id + position, stop is not None
                self._record(row_id, batch, candidate, scores.get(tree_hash), None, reason, stopped=is_stopped)
        return [
            stopped[position].estimate if position in stopped else scores.get(candidate.tree.hash)
            for position, candidate in enumerate(candidates)
        ]

    def stream(
        self,
        candidates: Iterable[Candidate],
        on_score: Callable[[Candidate, TreeScore | None], None],
        batch: Callable[[], int],
    ) -> None:
        """Score candidates one by one as workers come free, each known to the ledger before its score is told.

        As `evaluate` otherwise, but without the rung of a subset of tokens. Rows are numbered as they finish, and the
        nodes of each are stored with it; what an interrupted stream had finished is not evaluated again.

        Args:
            candidates: Taken late: they may depend on all scores told so far.
            on_score: Told of each, None where the evaluation failed; called in this thread, perhaps while a candidate
                is taken.
            batch: Number of the batch in which the next score is told.

        Raises:
            ExecutionError: Too many evaluations in a row have failed.
        """
        assert self._subset is None, "a stream has no rung of a subset"
        under_way: dict[str, list[Candidate]] = {}  # by tree
        order: list[str] = []

        def new_trees() -> Iterator[Tree]:
            for candidate in candidates:
                tree_hash = candidate.tree.hash
                if tree_hash in under_way:
                    under_way[tree_hash].append(candidate)
                elif (score := self.known(candidate.tree)) is not None:
                    settle(candidate, score)
                elif (stop := self._not_worth(candidate)) is not None:
                    settle(candidate, stop.estimate, reason=stop.reason, stopped=True)
                else:
                    under_way[tree_hash] = [candidate]
                    order.append(tree_hash)
                    yield candidate.tree

        def settle(
            candidate: Candidate,
            score: TreeScore | None,
            verdict: Verdict | None = None,
            *,
            reason: str | None = None,
            stopped: bool = False,
        ) -> None:
            if self._written[candidate.tree.hash]:
                self._written[candidate.tree.hash] -= 1
            else:
                measured = None if stopped else score
                row_id, nodes = self._ledger.next_id(), self.new_nodes()
                self._record(row_id, batch(), candidate, measured, verdict, reason, stopped=stopped, nodes=nodes)
            on_score(candidate, score)

        def finish(verdict: Verdict) -> None:
            first, *same = under_way.pop(order[verdict.position])
            score = self._take(first.tree, verdict)
            settle(first, score, verdict, reason=verdict.reason)
            for candidate in same:
                settle(candidate, score, reason=verdict.reason)
            self._give_up_on_failures()

        proposed = iter(candidates)
        candidates = chain(self._written_first(proposed), proposed)
        self._evaluator.stream(new_trees(), finish)

    def _written_first(self, candidates: Iterator[Candidate]) -> list[Candidate]:
        """Those up to the last one whose row an interrupted stream has left, and these in front.

        They are proposed again only as long as nothing new is told, which would be after a batch of others.
        """
        left, written, others = self._written.copy(), [], []
        while left.total() and (candidate := next(candidates, None)) is not None:
            if left[candidate.tree.hash]:
                left[candidate.tree.hash] -= 1
                written.append(candidate)
            else:
                others.append(candidate)
        return written + others

    def penalty(self, candidate: Candidate) -> TreeScore | None:
        """What to tell of a failure: the tree's own cost at the highest NLL so far; None before there is one."""
        if not self._known:
            return None
        return self._estimate(candidate.tree, max(score.valid_nll for score in self._known.values()))

    # -- early stop ----------------------------------------------------------------------------------------------------

    def _stopped(
        self, candidates: Sequence[Candidate], trees: Sequence[Sequence[int]], stop: EarlyStop | None
    ) -> dict[int, _Stop]:
        """What is not worth finishing, by position; ``trees`` holds the positions of each."""
        stopped = {} if stop is None else self._agreed(candidates, trees, partial(self._hopeless, stop.margin))
        if self._subset is None:
            return stopped
        running = [positions for positions in trees if positions[0] not in stopped]
        self._score_subset(self._subset, [candidates[positions[0]].tree for positions in running])
        scale = self._subset_scale()
        if stop is not None and scale is not None:
            scored = [positions for positions in running if candidates[positions[0]].tree.hash in self._on_subset]
            behind = partial(self._behind, self._subset, stop.margin, scale)
            stopped |= self._agreed(candidates, scored, behind)
        return stopped

    def _agreed(
        self,
        candidates: Sequence[Candidate],
        trees: Sequence[Sequence[int]],
        judge: Callable[[Candidate], _Stop | None],
    ) -> dict[int, _Stop]:
        """The stops, by position, of trees that get one under each of their λs and are no builder's."""
        agreed: dict[int, _Stop] = {}
        for positions in trees:
            if all(candidates[position].agent != BUILDER for position in positions):
                judged = {position: judge(candidates[position]) for position in positions}
                stops = {position: stop for position, stop in judged.items() if stop is not None}
                if len(stops) == len(positions):
                    agreed |= stops
        return agreed

    def _not_worth(self, candidate: Candidate) -> _Stop | None:
        """Why a single proposal is not worth finishing; None where it is, or its row is there already."""
        if self._early_stop is None or candidate.agent == BUILDER or self._written[candidate.tree.hash]:
            return None
        return self._hopeless(self._early_stop.margin, candidate)

    def _hopeless(self, margin: float, candidate: Candidate) -> _Stop | None:
        """Too dear to come near the best, were its NLL that of its known nodes or the best so far."""
        if not self._known:
            return None
        weight, tree = self._weight(candidate), candidate.tree
        best_nll = min(score.valid_nll for score in self._known.values())
        at_least = max(best_nll, self._evaluator.known_nll(tree))
        estimate = self._estimate(tree, at_least)
        bound, best = estimate.reward(weight), _best_reward(self._known, weight)
        if bound >= best - margin:
            return None
        reason = f"hopeless: reward at most {bound:.4f} at an NLL of {at_least:.4f}, but the best is {best:.4f}"
        return _Stop(reason, estimate)

    def _behind(self, subset: NodeEvaluator, margin: float, scale: float, candidate: Candidate) -> _Stop | None:
        """Too far behind on the subset of tokens; the estimate is scaled to the whole."""
        weight, score = self._weight(candidate), self._recalled(self._on_subset, subset, candidate.tree)
        if score is None:  # forgotten since by a full memo
            return None
        reward, best = score.reward(weight), _best_reward(self._on_subset, weight)
        if reward >= best - margin:
            return None
        reason = f"behind: reward {reward:.4f} on the subset, where the best is {best:.4f}"
        return _Stop(reason, replace(self._score_tree(candidate.tree, score.node_nll * scale), exact=False))

    def _subset_scale(self) -> float | None:
        """NLL after all tokens over NLL after the subset, the mean over the trees that have both; None without any."""
        both = sorted(self._on_subset.keys() & self._known.keys())  # the last digits of a mean depend on the order
        ratios = [self._known[h].valid_nll / self._on_subset[h].valid_nll for h in both]
        return float(np.mean(ratios)) if ratios else None

    def _estimate(self, tree: Tree, valid_nll: float) -> TreeScore:
        """A tree of this NLL whose nodes share it like the bits that they decide."""
        bits = tree.pass_shares(self._objective.counts) * np.log2(tree.arities)
        return replace(self._score_tree(tree, valid_nll * bits / bits.sum()), exact=False)

    # -- scores and rows -----------------------------------------------------------------------------------------------

    def _score_subset(self, evaluator: NodeEvaluator, trees: Sequence[Tree]) -> None:
        """Score trees on the subset; one that fails there is left to fail on the whole."""
        new = [tree for tree in trees if self._recalled(self._on_subset, evaluator, tree) is None]
        for verdict in evaluator.run(new):
            if verdict.node_nll is not None:
                tree = new[verdict.position]
                self._on_subset[tree.hash] = self._kept(self._score_tree(tree, verdict.node_nll))

    def _recalled(self, known: Mapping[str, _Known], evaluator: NodeEvaluator, tree: Tree) -> TreeScore | None:
        """The score of a tree that was evaluated before, from its nodes."""
        node_nll = evaluator.recall(tree) if tree.hash in known else None
        return None if node_nll is None else self._score_tree(tree, node_nll)

    def _take(self, tree: Tree, verdict: Verdict) -> TreeScore | None:
        """The score of a tree that was evaluated, which is known from now on; None for a failure, which is counted."""
        if verdict.node_nll is None:
            self._failures.append(str(verdict.reason))
            return None
        self._failures.clear()
        score = self._score_tree(tree, verdict.node_nll)
        self._known[tree.hash] = self._kept(score)
        return score

    def _give_up_on_failures(self) -> None:
        if len(self._failures) >= self._max_failures:
            raise ExecutionError(
                f"{len(self._failures)} evaluations in a row failed (search.max_consecutive_failures), the first"
                f" with: {self._failures[0]}; mend that and resume"
            )

    def _score_tree(self, tree: Tree, node_nll: NDArray[np.float64]) -> TreeScore:
        objective = self._objective
        return score_tree(tree, node_nll, counts=objective.counts, cost_model=objective.cost_model)

    def _kept(self, score: TreeScore) -> _Known:
        """To the bit what `restore` makes of its row."""
        return _Known(score.valid_nll, self._objective.cost_model.charged(score.cost.cost, score.cost.measured_us))

    def _weight(self, candidate: Candidate) -> float:
        own = candidate.cost_weight
        return self._objective.cost_model.weight if own is None else own

    def _record(
        self,
        row_id: int,
        batch: int,
        candidate: Candidate,
        score: TreeScore | None,
        verdict: Verdict | None,
        reason: str | None,
        *,
        stopped: bool = False,
        nodes: Mapping[str, NewNodes] | None = None,
    ) -> None:
        objective, weight = self._objective, self._weight(candidate)
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
            staleness=None if candidate.batch is None else batch - candidate.batch,
            actions=None if candidate.actions is None else json.dumps(candidate.actions),
            decisions=None if candidate.decisions is None else json.dumps(candidate.decisions),
            encoder=objective.encoder,
            seconds=0.0 if verdict is None else verdict.seconds,
            worker="" if verdict is None else verdict.worker,
        )
        self._on_row(self._ledger.record(row, candidate.tree, nodes))


def _best_reward(scores: Mapping[str, _Known], weight: float) -> float:
    return max(score.reward(weight) for score in scores.values())
