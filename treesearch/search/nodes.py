"""Trees scored node by node: what earlier trees trained is looked up, what is new is trained once, by one worker.

Results do not depend on the number of workers, nor on which tree of a batch a shared node is trained for: on frozen
features a node's result is the same, to the bit, whatever tree it stands in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    seconds: float = 0.0  # wall time in the worker
    worker: str = ""


@dataclass(eq=False)
class _Pending:  # compared by identity, so that it can be a key
    position: int
    tree: Tree
    keys: Keys
    num_trained: int = 0
    outcome: Outcome | None = None
    node_nll: FloatArray | None = None  # of the nodes trained for it
    owners: set[int] = field(default_factory=set)  # positions of the trees that train what this one lacks


class NodeEvaluator:
    """Scores trees on frozen features, each node once.

    Args:
        executor: Runs the training.
        max_tokens: Training tokens read; None for all that the workers have.
        memoise: Whether to remember nodes; without, every tree is trained whole.
        forest_size: Trees that a worker trains in one pass, in torch and whole; None: one at a time, by the compiled
            kernel, new nodes only.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        max_tokens: int | None = None,
        memoise: bool = True,
        forest_size: int | None = None,
    ) -> None:
        self._executor = executor
        self._max_tokens = max_tokens
        self._forest_size = forest_size
        self._memo = NodeMemo() if memoise else None

    def known_nll(self, tree: Tree) -> float:
        """NLL of the nodes that are known already, nats per token of the validation split: a bound from below."""
        return 0.0 if self._memo is None else float(np.nansum(self._memo.look_up(memo_keys(tree))))

    def run(self, trees: Sequence[Tree]) -> Iterator[Verdict]:
        """Score distinct trees; a verdict comes as soon as its last node is trained, in any order."""
        waiting = [_Pending(position, tree, memo_keys(tree)) for position, tree in enumerate(trees)]
        while waiting:  # again, only where a tree waited for another one that failed
            missing = self._assign(waiting)
            groups = {group[0].position: group for group in _batched(missing, self._forest_size or 1)}
            done = {pending.position for pending in waiting} - {pending.position for pending in missing}
            yield from self._finished(waiting, done)
            for outcome in self._executor.run([self._task(key, group, missing) for key, group in groups.items()]):
                group = groups[outcome.task.key]
                for pending, scores in zip(group, self._results(outcome, len(group)), strict=True):
                    pending.outcome = outcome
                    done.add(pending.position)
                    if scores is not None:
                        pending.node_nll = scores.nll / scores.num_tokens
                        if self._memo is not None:
                            self._memo.store(pending.keys, pending.node_nll)
                yield from self._finished(waiting, done)

    def _task(self, key: int, group: Sequence[_Pending], missing: Mapping[_Pending, NDArray[np.bool_]]) -> Task:
        if self._forest_size is not None:
            return Task(key, ForestTask(tuple(pending.tree for pending in group), self._max_tokens))
        wanted = missing[group[0]]
        return Task(key, FrozenTask(group[0].tree, None if wanted.all() else wanted, self._max_tokens))

    def _results(self, outcome: Outcome, num: int) -> list[NodeScores | None]:
        if outcome.result is None:
            return [None] * num
        return [outcome.result] if self._forest_size is None else list(outcome.result)

    def _assign(self, waiting: Sequence[_Pending]) -> dict[_Pending, NDArray[np.bool_]]:
        """Give each unknown node to the first tree that has it; which trees have to be trained, and which nodes."""
        assigned = {}
        owner = NodeMemo()
        for pending in waiting:
            pending.owners = {pending.position}
            missing = np.ones(len(pending.keys), np.bool_)
            if self._memo is not None:
                missing = np.isnan(self._memo.look_up(pending.keys))
                owned = owner.look_up(pending.keys[missing])
                pending.owners.update(np.unique(owned[~np.isnan(owned)]).astype(int).tolist())
                missing[np.flatnonzero(missing)[~np.isnan(owned)]] = False
                owner.store(pending.keys[missing], np.full(int(missing.sum()), float(pending.position)))
            pending.num_trained += int(missing.sum())
            if missing.any():
                assigned[pending] = missing
        return assigned

    def _finished(self, waiting: list[_Pending], done: set[int]) -> Iterator[Verdict]:
        """The verdicts that are complete; they leave ``waiting``."""
        for pending in [one for one in waiting if one.owners <= done]:
            outcome = pending.outcome
            if outcome is not None and not outcome.ok:
                waiting.remove(pending)
                yield self._verdict(pending, None, outcome.reason)
                continue
            node_nll = self._assembled(pending)
            if node_nll is not None:
                waiting.remove(pending)
                yield self._verdict(pending, node_nll, None)

    def _assembled(self, pending: _Pending) -> FloatArray | None:
        """All nodes of a tree; None where the tree that was to train some of them has failed."""
        if self._memo is None:
            return pending.node_nll
        known = self._memo.look_up(pending.keys)
        if pending.node_nll is not None:  # a memo that overflowed has forgotten what it was given
            known = np.where(np.isnan(known), pending.node_nll, known)
        return None if np.isnan(known).any() else known

    def _verdict(self, pending: _Pending, node_nll: FloatArray | None, reason: str | None) -> Verdict:
        outcome = pending.outcome
        if outcome is None:
            return Verdict(pending.position, node_nll, reason, pending.num_trained)
        return Verdict(
            pending.position,
            node_nll,
            reason,
            pending.num_trained,
            outcome.attempts,
            outcome.seconds,
            outcome.worker,
        )


def _batched(pending: Mapping[_Pending, object], size: int) -> Iterator[list[_Pending]]:
    left = iter(pending)
    while group := list(islice(left, size)):
        yield group
