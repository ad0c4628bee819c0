"""An executor that repeats nothing: what a task gave before the driver died is read from the ledger."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator

from treesearch.search.executors import Arrays, Executor, Outcome, Task
from treesearch.search.ledger import Ledger
from treesearch.search.outcomes import pack_outcome, task_key, unpack_outcome
from treesearch.search.worker import JointTask


class DurableExecutor(Executor):
    """Writes every result down before it is handed on; closing it closes the executor behind it.

    A search decides alike whenever it is told alike. So it goes on after the death of its driver by doing again what it
    did since its last finished batch, with the same tasks, whose outcomes are there already. Only failures are tried
    again: their cause may have been mended.

    Args:
        executor: Runs what is not known.
        ledger: Keeps the outcomes, and in ``encoder`` the hash of the features that the workers hold.
    """

    def __init__(self, executor: Executor, ledger: Ledger) -> None:
        super().__init__()
        self._executor = executor
        self._ledger = ledger
        self.busy = False  # whether tasks may be under way

    @property
    def num_workers(self) -> int:
        """As of the executor behind it."""
        return self._executor.num_workers

    @property
    def num_busy(self) -> int:
        """As of the executor behind it."""
        return self._executor.num_busy

    def stop(self) -> None:
        """As of every executor; a run that it leaves incomplete raises KeyboardInterrupt once nothing is under way."""
        super().stop()
        self._executor.stop()

    def _outcomes(self, tasks: Iterable[Task]) -> Generator[Outcome, None, None]:
        encoder = str(self._ledger.meta("encoder"))
        keys: dict[int, str | None] = {}  # of the tasks that are under way
        known: deque[Outcome] = deque()

        def find_unknown() -> Iterator[Task]:
            for task in tasks:
                key = task_key(task.payload, encoder) if task.durable else None
                packed = None if key is None else self._ledger.outcome(key)
                if packed is None:
                    keys[task.key] = key
                    yield task
                else:
                    known.append(unpack_outcome(task, packed))

        unknown = find_unknown()
        self.busy = True
        try:
            for outcome in self._executor.run(unknown):
                key = keys.pop(outcome.task.key)
                if outcome.ok and key is not None:
                    lasting = isinstance(outcome.task.payload, JointTask)
                    self._ledger.record_outcome(key, pack_outcome(outcome), lasting=lasting)
                yield from _drained(known)
                yield outcome
        finally:
            self.busy = False
        complete = next(unknown, None) is None and not keys
        yield from _drained(known)
        if not complete:
            raise KeyboardInterrupt("the run was stopped before everything was begun")

    def _replace(self, arrays: Arrays) -> None:
        self._executor.replace_arrays(arrays)

    def _release(self) -> None:
        self._executor.close()


def _drained(outcomes: deque[Outcome]) -> Iterator[Outcome]:
    while outcomes:
        yield outcomes.popleft()
