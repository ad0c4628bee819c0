"""Progress on stderr: live bars, or a panel, on a terminal; plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from treesearch.search_panel import SearchStatus, Workers, search_rows
from treesearch.stages import Stage, cut, stage_rows
from treesearch.visible import visible

PLAIN_INTERVAL = 10.0  # seconds between two plain lines
REFRESH_PER_SECOND = 4
MAX_WIDTH = 100  # columns of the panel


class ProgressReporter:
    """Reports stages of known length, and how a search is going; a context manager.

    On a terminal that can move its cursor the stages are bars that stand still while messages scroll by above them.
    Elsewhere (a file, a pipe, ``TERM=dumb``) there is a plain line now and then, without control characters.

    Args:
        quiet: Report nothing.
        title: Of a panel around the bars; None: no panel.
        console: Where to; None: standard error.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        title: str | None = None,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = Console(stderr=True, quiet=quiet) if console is None else console
        self._bars = self._console.is_interactive and not quiet
        self._title, self._clock = title, clock
        self._entered = False
        self._live: Live | None = None
        # The thread that draws reads these: what they hold is never changed, only replaced.
        self._stages: tuple[Stage, ...] = ()
        self._status: SearchStatus | None = None
        self._workers: Workers | None = None
        self._last_step = clock()
        self._last_line: float | None = None

    def update(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Say that ``done`` of ``total`` steps of a stage are finished; fewer than before: it began anew."""
        self._take(self._stepped(stage, done, total, note))

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A stage of one step: what is done inside."""
        self.update(name, 0, 1)
        yield
        self.update(name, 1, 1)

    def search(self, status: SearchStatus) -> None:
        """Say how the search is going, after each evaluation."""
        self._status = status
        note = "" if self._bars else status.line(self._workers)
        stage = self._stepped("search", status.done, status.budget, note)
        self._take(replace(stage, pace=1 / status.rate if status.rate else None))

    @contextmanager
    def watching(self, workers: Workers) -> Iterator[None]:
        """Show how many of these workers are busy."""
        self._workers = workers
        try:
            yield
        finally:
            self._workers = None

    def say(self, message: str) -> None:
        """Print one line, above the bars."""
        self._console.print(self._shown(message), highlight=False, markup=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self._entered = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._entered = False
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _stepped(self, name: str, done: int, total: int, note: str) -> Stage:
        """The stage of this name after so many steps."""
        name = self._shown(name)
        before = next((stage for stage in self._stages if stage.name == name), None)
        if before is None or done < before.done:
            before = Stage.begin(name, at=self._last_step)
        return before.step(done, total, self._shown(note), now=self._clock())

    def _take(self, stage: Stage) -> None:
        """Show a stage as it is now."""
        now = self._last_step = stage.updated
        self._stages = tuple(({one.name: one for one in self._stages} | {stage.name: stage}).values())
        if not self._bars:
            if stage.finished or self._last_line is None or now - self._last_line >= PLAIN_INTERVAL:
                self._last_line = now
                self.say(stage.line(now))
        elif self._entered and self._live is None:
            self._live = Live(
                console=self._console,
                get_renderable=self._drawn,
                refresh_per_second=REFRESH_PER_SECOND,
                redirect_stdout=sys.stdout.isatty(),  # else it goes into a file, where the bars are not
            )
            self._live.start(refresh=True)

    def _drawn(self) -> RenderableType:
        """Bars and facts as of now."""
        console, stages, status = self._console, self._stages, self._status
        ascii_only = console.options.ascii_only
        width = console.width if self._title is None else min(console.width, MAX_WIDTH) - 4
        colours = console.color_system is not None and not console.no_color
        rows = stage_rows(stages, width, self._clock(), colours=colours, ascii_only=ascii_only)
        if status is not None:
            rows += [Text(), *search_rows(status, width, self._workers, ascii_only=ascii_only)]
        for row in rows:
            row.no_wrap = True
        if self._title is None:
            return Group(*rows)
        title = cut(Text(self._shown(self._title)), width - 2, ascii_only=ascii_only)  # a longer one widens the panel
        return Panel(Group(*rows), title=title, title_align="left", width=width + 4)

    def _shown(self, text: str) -> str:
        """A name as the screen can show it."""
        text = visible(text)
        return text.encode("ascii", "backslashreplace").decode() if self._console.options.ascii_only else text
