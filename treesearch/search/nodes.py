"""Trees scored node by node: what earlier trees trained is looked up, what is new is trained once, by one worker.

Results do not depend on the number of workers, nor on which tree of a batch a shared node is trained for: on frozen
features a node's result is the same, to the bit, whatever tree it stands in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from treesearch.evaluation.memo import Keys, NodeMemo, memo_keys
from treesearch.search.executors import Executor, Outcome, Task
from treesearch.search.worker import FrozenTask
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
class _Pending:
    position: int
    tree: Tree
    keys: Keys
    node_nll: FloatArray  # what is known of its nodes; NaN elsewhere
    missing: NDArray[np.bool_]
    owners: set[int] = field(default_factory=set)  # positions of the trees that train what this one lacks
    num_trained: int = 0
    outcome: Outcome | None = None
    seconds: float = 0.0


class NodeEvaluator:
    """Scores trees on frozen features, each node once.

    Args:
        executor: Runs the training.
        max_tokens: Training tokens read; None for all that the workers have.
        memo: Where nodes are remembered; None: every tree is trained whole.
    """

    def __init__(self, executor: Executor, *, max_tokens: int | None = None, memo: NodeMemo | None = None) -> None:
        self._executor = executor
        self._max_tokens = max_tokens
        self._memo = memo

    def known_nll(self, tree: Tree) -> float:
        """NLL of the nodes that are known already, nats per token of the validation split: a bound from below."""
        return 0.0 if self._memo is None else float(np.nansum(self._memo.look_up(memo_keys(tree))))

    def run(self, trees: Sequence[Tree]) -> Iterator[Verdict]:
        """Score distinct trees; a verdict comes as soon as its last node is trained, in any order."""
        waiting = [self._pending(position, tree) for position, tree in enumerate(trees)]
        trained = list(waiting)
        while waiting:  # again, only where a tree waited for another one that failed
            fresh = NodeMemo()  # what this round trains
            tasks = self._assign(waiting)
            by_position = {pending.position: pending for pending in waiting}
            done = set(by_position) - {task.key for task in tasks}
            yield from self._finished(waiting, done, fresh)
            for outcome in self._executor.run(tasks):
                pending = by_position[outcome.task.key]
                self._take(pending, outcome, fresh)
                done.add(pending.position)
                yield from self._finished(waiting, done, fresh)
        if self._memo is not None:
            for pending in trained:  # in this order, whichever finished first: it decides what a full memo forgets
                self._memo.store(pending.keys, pending.node_nll)

    def _pending(self, position: int, tree: Tree) -> _Pending:
        keys = memo_keys(tree)
        known = np.full(len(keys), np.nan) if self._memo is None else self._memo.look_up(keys)
        return _Pending(position, tree, keys, known, np.isnan(known))

    def _assign(self, waiting: Sequence[_Pending]) -> list[Task]:
        """Give each unknown node to the first tree that has it."""
        tasks = []
        owner = NodeMemo()
        for pending in waiting:
            pending.owners = {pending.position}
            wanted = pending.missing.copy()
            if self._memo is not None:
                owned = owner.look_up(pending.keys)
                others = wanted & ~np.isnan(owned)
                pending.owners.update(np.unique(owned[others]).astype(int).tolist())
                wanted &= ~others
                owner.store(pending.keys[wanted], np.full(int(wanted.sum()), float(pending.position)))
            pending.num_trained += int(wanted.sum())
            if wanted.any():
                tasks.append(
                    Task(
                        pending.position,
                        FrozenTask(pending.tree, None if wanted.all() else wanted, self._max_tokens),
                    )
                )
        return tasks

    def _take(self, pending: _Pending, outcome: Outcome, fresh: NodeMemo) -> None:
        """Keep what a tree's own training gave."""
        pending.outcome = outcome
        pending.seconds += outcome.seconds
        if outcome.result is not None:
            wanted = outcome.task.payload.wanted
            nll = outcome.result.nll / outcome.result.num_tokens
            new = pending.missing if wanted is None else wanted
            assert np.isfinite(nll[new]).all(), "a worker fails where a node has no finite NLL"
            pending.node_nll[new] = nll[new]
            fresh.store(pending.keys[new], nll[new])
            pending.missing = np.isnan(pending.node_nll)

    def _finished(self, waiting: list[_Pending], done: set[int], fresh: NodeMemo) -> Iterator[Verdict]:
        """The verdicts that are complete; they leave ``waiting``."""
        for pending in [one for one in waiting if one.owners <= done]:
            outcome = pending.outcome
            if outcome is not None and not outcome.ok:
                waiting.remove(pending)
                yield _verdict(pending, None, outcome.reason)
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
