"""Trees scored node by node: what earlier trees trained is looked up, what is new is trained once, by one worker.

Results do not depend on the number of workers, nor on which tree of a batch a shared node is trained for: on frozen
features a node's result is the same, to the bit, whatever tree it stands in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from treesearch.evaluation.frozen import NodeScores
from treesearch.evaluation.memo import Keys, NodeMemo, memo_keys
from treesearch.search.executors import Executor, Outcome, Task
from treesearch.search.worker import ForestTask, FrozenTask
from treesearch.tree import Tree

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """What became of one tree."""

    position: int  # in the batch
    node_nll: FloatArray | None  # [N] nats per token of the validation split; None where training failed
    reason: str | None  # of the failure
    num_trained: int  # nodes that were trained for this tree; others had them already
    attempts: int = 0  # 0 where nothing had to be trained
    seconds: float = 0.0  # wall time in workers
    worker: str = ""


@dataclass(eq=False)
class _Pending:  # compared by identity, so that it can be a key
    position: int
    tree: Tree
    keys: Keys
    node_nll: FloatArray  # what is known of its nodes; NaN elsewhere
    missing: NDArray[np.bool_]
    owners: set[int] = field(default_factory=set)  # positions of the trees that train what this one lacks
    num_trained: int = 0
    outcome: Outcome | None = None
    reason: str | None = None  # why it has failed
    seconds: float = 0.0


class NodeEvaluator:
    """Scores trees on frozen features, each node once.

    Args:
        executor: Runs the training.
        max_tokens: Training tokens read; None for all that the workers have.
        memo: Where nodes are remembered.
        reuse: Whether remembered nodes are looked up instead of trained again; else every tree is trained whole.
        forest_size: Trees that a worker trains in one pass, in torch and whole; None: one at a time, by the compiled
            kernel, new nodes only.
        time_limit: Seconds that a worker may take for one tree or forest.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        memo: NodeMemo,
        max_tokens: int | None = None,
        reuse: bool = True,
        forest_size: int | None = None,
        time_limit: float | None = None,
    ) -> None:
        self._executor = executor
        self._time_limit = time_limit
        self._max_tokens = max_tokens
        self._memo = memo
        self._reuse = reuse
        self._forest_size = forest_size

    def known_nll(self, tree: Tree) -> float:
        """NLL of the nodes that are known already, nats per token of the validation split: a bound from below."""
        return float(np.nansum(self._memo.look_up(memo_keys(tree)))) if self._reuse else 0.0

    def recall(self, tree: Tree) -> FloatArray | None:
        """NLL of the nodes of a tree, [N] nats per token of the validation split; None unless all are remembered."""
        node_nll = self._memo.look_up(memo_keys(tree))
        return None if np.isnan(node_nll).any() else node_nll

    def run(self, trees: Sequence[Tree]) -> Iterator[Verdict]:
        """Score distinct trees; a verdict comes as soon as its last node is trained, in any order."""
        waiting = [self._pending(position, tree) for position, tree in enumerate(trees)]
        trained = list(waiting)
        while waiting:  # again, only where a tree waited for another one that failed
            fresh = NodeMemo()  # what this round trains
            wanted = self._assign(waiting)
            groups = {group[0].position: group for group in _batched(wanted, self._forest_size or 1)}
            done = {pending.position for pending in waiting if pending not in wanted}
            yield from self._finished(waiting, done, fresh)
            for outcome in self._executor.run([self._task(key, group, wanted) for key, group in groups.items()]):
                group = groups[outcome.task.key]
                for pending, result in zip(group, self._results(outcome, len(group)), strict=True):
                    pending.outcome = outcome
                    pending.seconds += outcome.seconds / len(group)
                    if isinstance(result, NodeScores):
                        _take(pending, result, wanted[pending], fresh)
                    else:
                        pending.reason = result
                    done.add(pending.position)
                yield from self._finished(waiting, done, fresh)
        for pending in trained:  # in this order, whichever finished first: it decides what a full memo forgets
            self._memo.store(pending.keys, pending.node_nll)

    def stream(self, trees: Iterable[Tree], on_verdict: Callable[[Verdict], None]) -> None:
        """Score distinct trees, each taken when a worker is free for it, and tell of each as it is finished.

        A tree is not held up for another one: a new node that two have under way is trained for both.

        Args:
            trees: They may depend on the verdicts so far.
            on_verdict: Called in this thread; also while the next tree is taken, where it has no new nodes.
        """
        under_way: dict[int, list[_Pending]] = {}

        def tasks() -> Iterator[Task]:
            wanting = self._wanting(trees, on_verdict)
            while group := list(islice(wanting, self._forest_size or 1)):
                under_way[group[0].position] = group
                yield self._task(group[0].position, group, {one: one.missing for one in group}, durable=False)

        for outcome in self._executor.run(tasks()):
            group = under_way.pop(outcome.task.key)
            for pending, result in zip(group, self._results(outcome, len(group)), strict=True):
                pending.outcome, pending.num_trained = outcome, int(pending.missing.sum())
                pending.seconds = outcome.seconds / len(group)
                if isinstance(result, NodeScores):
                    _take(pending, result, pending.missing, self._memo)
                    on_verdict(_verdict(pending, pending.node_nll, None))
                else:
                    on_verdict(_verdict(pending, None, result))

    def _wanting(self, trees: Iterable[Tree], on_verdict: Callable[[Verdict], None]) -> Iterator[_Pending]:
        """Those that have something to train; the others are told of."""
        for position, tree in enumerate(trees):
            pending = self._pending(position, tree)
            if pending.missing.any():
                yield pending
            else:
                on_verdict(_verdict(pending, pending.node_nll, None))

    def _pending(self, position: int, tree: Tree) -> _Pending:
        keys = memo_keys(tree)
        known = self._memo.look_up(keys) if self._reuse else np.full(len(keys), np.nan)
        return _Pending(position, tree, keys, known, np.isnan(known))

    def _task(
        self,
        key: int,
        group: Sequence[_Pending],
        wanted: Mapping[_Pending, NDArray[np.bool_]],
        *,
        durable: bool = True,
    ) -> Task:
        payload: FrozenTask | ForestTask
        if self._forest_size is not None:
            payload = ForestTask(tuple(one.tree for one in group), self._max_tokens)
        else:
            own = wanted[group[0]]
            payload = FrozenTask(group[0].tree, None if own.all() else own, self._max_tokens)
        return Task(key, payload, self._time_limit, durable)

    def _results(self, outcome: Outcome, num: int) -> list[NodeScores | str]:
        """For each tree of a task its scores, or why there are none."""
        if outcome.result is None:
            return [str(outcome.reason)] * num
        return [outcome.result] if self._forest_size is None else list(outcome.result)

    def _assign(self, waiting: Sequence[_Pending]) -> dict[_Pending, NDArray[np.bool_]]:
        """Give each unknown node to the first tree that has it; which trees have to be trained, and which nodes."""
        assigned = {}
        owner = NodeMemo()
        for pending in waiting:
            pending.owners = {pending.position}
            wanted = pending.missing.copy()
            if self._reuse:
                owned = owner.look_up(pending.keys)
                others = wanted & ~np.isnan(owned)
                pending.owners.update(np.unique(owned[others]).astype(int).tolist())
                wanted &= ~others
                owner.store(pending.keys[wanted], np.full(int(wanted.sum()), float(pending.position)))
            pending.num_trained += int(wanted.sum())
            if wanted.any():
                assigned[pending] = wanted
        return assigned

    def _finished(self, waiting: list[_Pending], done: set[int], fresh: NodeMemo) -> Iterator[Verdict]:
        """The verdicts that are complete; they leave ``waiting``."""
        for pending in [one for one in waiting if one.owners <= done]:
            if pending.reason is not None:
                waiting.remove(pending)
                yield _verdict(pending, None, pending.reason)
                continue
            if pending.missing.any():  # trained for others, unless those have failed
                pending.node_nll[pending.missing] = fresh.look_up(pending.keys[pending.missing])
                pending.missing = np.isnan(pending.node_nll)
            if not pending.missing.any():
                waiting.remove(pending)
                yield _verdict(pending, pending.node_nll, None)


def _verdict(pending: _Pending, node_nll: FloatArray | None, reason: str | None) -> Verdict:
    outcome = pending.outcome
    if outcome is None:
        return Verdict(pending.position, node_nll, reason, pending.num_trained)
    return Verdict(
        pending.position,
        node_nll,
        reason,
        pending.num_trained,
        outcome.attempts,
        pending.seconds,
        outcome.worker,
    )


def _take(pending: _Pending, scores: NodeScores, wanted: NDArray[np.bool_], fresh: NodeMemo) -> None:
    """Keep what a tree's own training gave."""
    nll = scores.nll / scores.num_tokens
    assert np.isfinite(nll[wanted]).all(), "a worker fails where a node has no finite NLL"
    pending.node_nll[wanted] = nll[wanted]
    fresh.store(pending.keys[wanted], nll[wanted])
    pending.missing = np.isnan(pending.node_nll)


def _batched(pending: Mapping[_Pending, object], size: int) -> Iterator[list[_Pending]]:
    left = iter(pending)
    while group := list(islice(left, size)):
        yield group
