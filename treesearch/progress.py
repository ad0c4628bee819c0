"""Progress on stderr: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

PLAIN_INTERVAL = 10.0  # seconds between two plain lines of one stage


class ProgressReporter:
    """Reports stages of known length; a context manager.

    Args:
        quiet: Report nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet)
        self._live = self._console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=not self._live,
        )
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}
        self._last_line = 0.0

    def update(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Say that ``done`` of ``total`` steps of a stage are finished."""
        if self._live:
            if stage not in self._tasks:
                self._tasks[stage] = self._progress.add_task(stage, total=total, note=note)
            self._progress.update(self._tasks[stage], completed=done, note=note)
            return
        now = time.monotonic()
        started = self._started.setdefault(stage, now)
        if done < total and now - self._last_line < PLAIN_INTERVAL:
            return
        self._last_line = now
        left = (now - started) / max(done, 1) * (total - done)
        self.say(f"{stage}: {done}/{total}, {now - started:.0f} s, {left:.0f} s left {note}".rstrip())

    def say(self, message: str) -> None:
        """Print one line."""
        self._console.print(message, highlight=False, markup=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._progress.stop()
