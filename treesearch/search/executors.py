"""Executors: where the evaluations of a search run.

The driver hands over tasks and gets every outcome back exactly once. A worker that raises is an outcome, not an
exception of the driver, and says the same in every executor; which one runs is invisible in the results.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

from numpy.typing import NDArray

from treesearch.errors import ExecutionError
from treesearch.interrupts import plain_interrupts

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Task:
    """One unit of work for a worker."""

    key: int  # the caller's name for it, unique within one run() call
    payload: Any  # picklable; what the worker is called with
    time_limit: float | None = None  # seconds, for executors that can end a worker; None: as long as it takes
    durable: bool = True  # what it gives has to be kept until the caller has stored what follows from it


@dataclass(frozen=True)
class Outcome:
    """What became of a task."""

    task: Task
    result: Any | None  # what the worker returned; None when it failed
    reason: str | None  # None when it succeeded, else "ValueError: ..." or "worker lost: ..."
    attempts: int  # >= 1
    seconds: float  # wall seconds of the last attempt, measured in the worker; 0.0 if that one was lost
    worker: str  # who had it last: "local-0", "ray-1"

    @property
    def ok(self) -> bool:
        """Whether the worker returned a result."""
        return self.reason is None


class Worker(Protocol):
    """Evaluates payloads; built once inside the process that calls it."""

    def __call__(self, payload: Any) -> Any:
        """Evaluate one payload. Must depend on nothing but the payload, the shared arrays and the settings."""


WorkerFactory = Callable[[Arrays, Any], Worker]  # (shared read-only arrays, settings) -> worker; at module level


class Reply(NamedTuple):
    """What one call of a worker gave, in a form that travels between processes."""

    result: Any | None
    reason: str | None
    seconds: float


def describe(error: BaseException) -> str:
    """The exception on one line, as it stands in outcomes: ``"ValueError: what it said"``."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def read_only(arrays: Arrays) -> dict[str, NDArray[Any]]:
    """Views of ``arrays`` that refuse writes, so that no evaluation can change the data of another.

    A strided array becomes a contiguous copy, as it does on its way to another process: the order of summation, and
    with it the last digits of a result, depends on the layout.
    """
    views = {name: array.view() if array.flags.forc else array.copy(order="C") for name, array in arrays.items()}
    for view in views.values():
        view.flags.writeable = False
    return views


def invoke(worker: Worker, payload: Any) -> Reply:
    """Call ``worker``; an exception becomes the reply's reason (KeyboardInterrupt and SystemExit pass)."""
    start = time.perf_counter()
    try:
        with plain_interrupts():
            result, reason = worker(payload), None
    except Exception as error:
        result, reason = None, describe(error)
    return Reply(result, reason, time.perf_counter() - start)


def construction_error(reason: str) -> ExecutionError:
    """The error of a worker whose factory raised; every further attempt would raise the same."""
    return ExecutionError(f"every worker must be built before it can evaluate, but got {reason}; mend that and resume")


class Executor(ABC):
    """Runs tasks on workers. A context manager; one `run` at a time."""

    def __init__(self) -> None:
        self._closed = False
        self._stopped = False
        self._current: Generator[Outcome, None, None] | None = None

    @property
    @abstractmethod
    def num_workers(self) -> int:
        """How many tasks run at once."""

    @property
    @abstractmethod
    def num_busy(self) -> int:
        """How many tasks are under way now; may be read from another thread."""

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Yield the outcome of each task exactly once, as they finish, in any order; of fewer after `stop`.

        Tasks are taken one at a time, each when a worker is free for it: what an iterator decides late, it decides
        knowing all outcomes that were yielded before.

        A new `run` ends an earlier one that was abandoned half way: its iterator stops and nothing of it reaches the
        new one.

        Raises:
            ExecutionError: The executor is closed, a worker cannot be built, or workers keep dying (the latter two
                while iterating).
        """
        if self._closed:
            raise ExecutionError("tasks need an open executor, but this one was closed; make a new one")
        if isinstance(tasks, Sequence):
            assert len({task.key for task in tasks}) == len(tasks), "task keys must be unique within a run"
        self._abandon()
        self._current = self._outcomes(tasks)
        return self._current

    def stop(self) -> None:
        """Begin no further task, in this run or a later one; those under way are finished, and then the run ends."""
        self._stopped = True

    def replace_arrays(self, arrays: Arrays) -> None:
        """Build all workers anew on other shared data, at their next tasks; a run that is under way is abandoned.

        Raises:
            ExecutionError: The executor is closed.
        """
        if self._closed:
            raise ExecutionError("new data need an open executor, but this one was closed; make a new one")
        self._abandon()
        self._replace(arrays)

    def close(self) -> None:
        """Stop the workers and whatever else the executor has started; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self._abandon()
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _abandon(self) -> None:
        if self._current is not None:
            self._current.close()
            self._current = None

    @abstractmethod
    def _outcomes(self, tasks: Iterable[Task]) -> Generator[Outcome, None, None]:
        """The generator behind `run`; closed early when the run is abandoned."""

    @abstractmethod
    def _replace(self, arrays: Arrays) -> None:
        """What is behind `replace_arrays`; no run is under way."""

    @abstractmethod
    def _release(self) -> None:
        """Give back processes and memory; called once."""


class LocalExecutor(Executor):
    """One worker in this process, built at the first task; tasks run in order.

    Args:
        factory: Builds the worker.
        arrays: Shared data; the worker sees read-only views.
        settings: Handed to the factory as it is.
    """

    def __init__(self, factory: WorkerFactory, *, arrays: Arrays, settings: Any) -> None:
        super().__init__()
        self._factory = factory
        self._settings = settings
        self._num_busy = 0
        self._replace(arrays)

    @property
    def num_workers(self) -> int:
        """One."""
        return 1

    @property
    def num_busy(self) -> int:
        """One from when a task is taken until its outcome is dealt with: the worker and the caller are one process."""
        return self._num_busy

    def _replace(self, arrays: Arrays) -> None:
        self._arrays = read_only(arrays)
        self._worker: Worker | None = None

    def _outcomes(self, tasks: Iterable[Task]) -> Generator[Outcome, None, None]:
        left = iter(tasks)
        try:
            while not self._stopped and (task := next(left, None)) is not None:
                self._num_busy = 1
                if self._worker is None:
                    try:
                        with plain_interrupts():
                            self._worker = self._factory(self._arrays, self._settings)
                    except Exception as error:
                        raise construction_error(describe(error)) from error
                reply = invoke(self._worker, task.payload)
                yield Outcome(task, reply.result, reply.reason, 1, reply.seconds, "local-0")
        finally:
            self._num_busy = 0

    def _release(self) -> None:
        self._worker = None
        self._arrays = {}
