"""The interface of experiment trackers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeGuard

Metrics = Mapping[str, float | Sequence[float]]  # a sequence is a distribution
Table = tuple[Sequence[str], Sequence[Sequence[Any]]]  # columns and rows


def is_number(value: float | Sequence[float]) -> TypeGuard[float]:
    """Whether a metric is one number, of Python or NumPy, and no distribution."""
    return isinstance(value, Real)


class Tracker(ABC):
    """Gets metrics of a running search; a context manager. None of its calls makes the search wait for a network."""

    @abstractmethod
    def log(self, step: int, metrics: Metrics) -> None:
        """Take metrics after so many evaluations."""

    @abstractmethod
    def finish(self, tables: Mapping[str, Table], best_tree: Path) -> None:
        """Take the results: tables by name, and the file of the best tree."""

    @abstractmethod
    def close(self) -> None:
        """End the run; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class Trackers(Tracker):
    """Several trackers as one; also none.

    Args:
        trackers: All are told the same.
    """

    def __init__(self, trackers: Sequence[Tracker] = ()) -> None:
        self._trackers = trackers

    def log(self, step: int, metrics: Metrics) -> None:
        """Tell each."""
        for tracker in self._trackers:
            tracker.log(step, metrics)

    def finish(self, tables: Mapping[str, Table], best_tree: Path) -> None:
        """Tell each."""
        for tracker in self._trackers:
            tracker.finish(tables, best_tree)

    def close(self) -> None:
        """Close each."""
        for tracker in self._trackers:
            tracker.close()
