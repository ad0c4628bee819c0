"""A frozen rung whose results are known beforehand."""

import heapq
import itertools
from collections.abc import Callable, Iterable

import numpy as np

from tests.nested import random_nested
from treesearch import Tree
from treesearch.evaluation.frozen import NodeScores
from treesearch.evaluation.memo import memo_keys
from treesearch.search.executors import Executor, Outcome, Task

NUM_TOKENS = 10
SUBSET_FACTOR = 1.25  # what every node costs after the subset of tokens, over what it costs after all


def node_nll(tree: Tree) -> np.ndarray:
    """Nats of each node, summed over the tokens: some numbers that its content alone decides."""
    return 1 + memo_keys(tree)[:, 0] % 1000 / 250


def mean_nll(tree: Tree) -> float:
    return float((node_nll(tree) / NUM_TOKENS).sum())


class FakeExecutor(Executor):
    """Finishes tasks in the order that ``order`` gives, and fails where ``fails(tree)`` gives a reason.

    ``asked`` holds (tree, wanted nodes, tokens) of every task.
    """

    num_workers = 3
    num_busy = 0

    def __init__(
        self,
        fails: Callable[[Tree], str | None] = lambda tree: None,
        *,
        order: Callable[[list], Iterable] = reversed,
        nll: Callable[[Tree], np.ndarray] = node_nll,
        num_workers: int = 3,
    ) -> None:
        super().__init__()
        self.fails, self.order, self.nll, self.num_workers = fails, order, nll, num_workers
        self.asked: list[tuple[Tree, np.ndarray, int | None]] = []
        self.arrays: list[object] = []

    @property
    def ran(self) -> list[str]:
        """Hashes of the trees of all tasks."""
        return [tree.hash for tree, _, _ in self.asked]

    @property
    def trained(self) -> list[bytes]:
        """Keys of all nodes that were trained."""
        return [key.tobytes() for tree, wanted, _ in self.asked for key in memo_keys(tree)[wanted]]

    def _outcomes(self, tasks):
        for index, task in enumerate(self.order(list(tasks))):
            yield self._answer(task, f"fake-{index % self.num_workers}")

    def _answer(self, task: Task, worker: str, seconds: float = 0.5) -> Outcome:
        tree, tokens, wanted = task.payload.tree, task.payload.max_tokens, task.payload.wanted
        assert wanted is None or wanted.any(), "a task trains something"
        wanted = np.ones(tree.num_internal, bool) if wanted is None else wanted
        self.asked.append((tree, wanted, tokens))
        if reason := self.fails(tree):
            return Outcome(task, None, reason, 1, seconds, worker)
        nll = self.nll(tree) * (1.0 if tokens is None else SUBSET_FACTOR)
        passes = np.zeros(tree.num_internal, np.int64)
        return Outcome(task, NodeScores(np.where(wanted, nll, np.nan), passes, NUM_TOKENS), None, 1, seconds, worker)

    def _replace(self, arrays):
        self.arrays.append(arrays)

    def _release(self):
        pass


class TimedExecutor(FakeExecutor):
    """Workers that take ``seconds(tree)`` each, on a clock of its own; it gives a free worker the next task at once.

    ``busy`` holds the seconds that tasks took, and ``clock`` the time.
    """

    def __init__(self, seconds: Callable[[Tree], float], **options) -> None:
        super().__init__(**options)
        self.seconds, self.clock, self.busy = seconds, 0.0, 0.0

    def _outcomes(self, tasks):
        left, under_way = iter(tasks), []
        for count in itertools.count():
            while not self._stopped and len(under_way) < self.num_workers:
                task = next(left, None)
                if task is None:
                    break
                seconds = self.seconds(task.payload.tree)
                heapq.heappush(under_way, (self.clock + seconds, count, len(under_way), seconds, task))
            if not under_way:
                return
            self.clock, _, slot, seconds, task = heapq.heappop(under_way)
            self.busy += seconds
            yield self._answer(task, f"fake-{slot}", seconds)


def distinct(num: int, *, seed: int = 0, num_classes: int = 5, but: Iterable[Tree] = ()) -> list[Tree]:
    """Different trees, none of ``but``; there are 236 over five classes."""
    rng, known = np.random.default_rng(seed), set(but)
    trees: list[Tree] = []
    while len(trees) < num:
        tree = Tree.from_nested(random_nested(rng, num_classes))
        if tree not in known:
            known.add(tree)
            trees.append(tree)
    return trees
