"""Evaluations that take a given time and learn nothing, so that what stands around them can be measured.

What a node costs is made up, but depends on its content alone, as it does with real training.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treesearch.evaluation.frozen import NodeScores
from treesearch.evaluation.memo import memo_keys
from treesearch.search.executors import Arrays, Executor, Outcome, Task
from treesearch.search.worker import FrozenTask
from treesearch.tree import Tree

NUM_TOKENS = 1000


@dataclass(frozen=True)
class Timing:
    """How long evaluations take, log-uniform between two bounds; of the processor, or of the clock alone."""

    low: float  # seconds
    high: float
    spin: bool = False  # keep the processor busy

    def seconds(self, tree: Tree) -> float:
        """Of this tree."""
        share = int(tree.hash[:8], 16) / 16**8
        return float(self.low * (self.high / self.low) ** share)

    def spend(self, tree: Tree) -> None:
        """Let the time pass."""
        if not self.spin:
            time.sleep(self.seconds(tree))
            return
        end = time.process_time() + self.seconds(tree)
        while time.process_time() < end:
            pass


def made_up_scores(tree: Tree, wanted: NDArray[np.bool_] | None, counts: NDArray[np.float64]) -> NodeScores:
    """Between a half and all of the entropy of equal children, by chance."""
    luck = 0.5 + 0.5 * (memo_keys(tree)[:, 0] % 1000) / 1000
    nll = NUM_TOKENS * tree.pass_shares(counts) * np.log(tree.arities) * luck
    tokens = np.zeros(tree.num_internal, np.int64)
    return NodeScores(nll if wanted is None else np.where(wanted, nll, np.nan), tokens, NUM_TOKENS)


INSTANT = Timing(1e-6, 1e-6)


class SimulatedWorker:
    """A worker for real executors.

    Args:
        arrays: ``counts``: float64 [C].
        settings: How long evaluations take: a `Timing`, else no time.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], settings: Any) -> None:
        self._counts = arrays["counts"]
        self._timing = settings if isinstance(settings, Timing) else INSTANT

    def __call__(self, payload: FrozenTask) -> NodeScores:
        """Evaluate one tree."""
        self._timing.spend(payload.tree)
        return made_up_scores(payload.tree, payload.wanted, self._counts)


class SimulatedExecutor(Executor):
    """Workers in this process that only wait for the clock.

    Args:
        num_workers: Tasks at a time.
        counts: [C] of the classes.
        timing: How long evaluations take.
    """

    def __init__(self, num_workers: int, *, counts: NDArray[np.float64], timing: Timing = INSTANT) -> None:
        super().__init__()
        self._num_workers, self._counts, self._timing = num_workers, counts, timing
        self._under_way: list[tuple[float, int, float, Task]] = []  # a heap by the time of their end

    @property
    def num_workers(self) -> int:
        """As given."""
        return self._num_workers

    @property
    def num_busy(self) -> int:
        """Those that wait for the clock."""
        return len(self._under_way)

    def _outcomes(self, tasks: Iterable[Task]) -> Generator[Outcome, None, None]:
        left, exhausted = iter(tasks), False
        under_way = self._under_way = []  # an earlier run's are abandoned
        numbers = itertools.count()
        while not self._stopped:
            while len(under_way) < self._num_workers and not exhausted:
                task = next(left, None)
                if task is None:
                    exhausted = True
                else:
                    seconds = self._timing.seconds(task.payload.tree)
                    heapq.heappush(under_way, (time.monotonic() + seconds, next(numbers), seconds, task))
            if not under_way:
                return
            end, _, seconds, task = heapq.heappop(under_way)
            time.sleep(max(0.0, end - time.monotonic()))
            scores = made_up_scores(task.payload.tree, task.payload.wanted, self._counts)
            yield Outcome(task, scores, None, 1, seconds, "simulated")

    def _replace(self, arrays: Arrays) -> None:
        pass

    def _release(self) -> None:
        pass


class WatchedExecutor(Executor):
    """Tells how busy the workers of another executor were.

    Args:
        executor: Closed with this one.
    """

    def __init__(self, executor: Executor) -> None:
        super().__init__()
        self._executor = executor
        self._answers: list[tuple[float, float]] = []  # of the last run: when it came, and the seconds that it took
        self._exhausted = 0.0  # when there were no more tasks

    @property
    def num_workers(self) -> int:
        """Of the other."""
        return self._executor.num_workers

    @property
    def num_busy(self) -> int:
        """Of the other."""
        return self._executor.num_busy

    @property
    def busy_share(self) -> float:
        """Of the workers' time in the last run, from the first answer until there were no more tasks for them."""
        begin = self._answers[0][0]
        spans = ((max(came - seconds, begin), min(came, self._exhausted)) for came, seconds in self._answers)
        return sum(max(0.0, end - start) for start, end in spans) / (self.num_workers * (self._exhausted - begin))

    def _outcomes(self, tasks: Iterable[Task]) -> Generator[Outcome, None, None]:
        self._answers = []

        def watched() -> Iterator[Task]:
            yield from tasks
            self._exhausted = time.monotonic()

        for outcome in self._executor.run(watched()):
            self._answers.append((time.monotonic(), outcome.seconds))
            yield outcome

    def _replace(self, arrays: Arrays) -> None:
        self._executor.replace_arrays(arrays)

    def _release(self) -> None:
        self._executor.close()
