"""An executor that repeats nothing: what a task gave before the driver died is read from the ledger."""

from __future__ import annotations

from collections.abc import Generator, Sequence

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

    def stop(self) -> None:
        """As of every executor; a run that it leaves incomplete raises KeyboardInterrupt once nothing is under way."""
        super().stop()
        self._executor.stop()

    def _outcomes(self, tasks: Sequence[Task]) -> Generator[Outcome, None, None]:
        encoder = str(self._ledger.meta("encoder"))
        keys = {task.key: task_key(task.payload, encoder) for task in tasks}
        unknown = []
        for task in tasks:
            packed = self._ledger.outcome(keys[task.key])
            if packed is None:
                unknown.append(task)
            else:
                yield unpack_outcome(task, packed)
        left = {task.key for task in unknown}
        self.busy = True
        try:
            for outcome in self._executor.run(unknown):
                if outcome.ok:
                    lasting = isinstance(outcome.task.payload, JointTask)
                    self._ledger.record_outcome(keys[outcome.task.key], pack_outcome(outcome), lasting=lasting)
                left.remove(outcome.task.key)
                yield outcome
        finally:
            self.busy = False
        if left:
            raise KeyboardInterrupt(f"{len(left)} evaluations were not begun")

    def _replace(self, arrays: Arrays) -> None:
        self._executor.replace_arrays(arrays)

    def _release(self) -> None:
        self._executor.close()
