"""Stages of known length: how far each is, how long it has taken and will take, and the rows of bars that say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len
from rich.text import Text

SETTLE_SECONDS = 0.5  # steps that come sooner are looked up, or the first of very many: they tell nothing of the pace
LEAST_SECONDS = 1.0  # of which a pace can be told
_MIN_BAR, _MAX_BAR, _MIN_NOTE, _MAX_NOTE = 16, 40, 12, 36  # columns
_NARROW = 60  # columns; in fewer the time that has passed is left out


@dataclass(frozen=True)
class Stage:
    """One stage as of its last step. Times are seconds of the clock that the caller reads."""

    name: str
    total: int
    done: int
    began: float
    updated: float
    settled: float  # from here on the pace is measured
    num_settled: int  # steps that were done then
    note: str = ""
    pace: float | None = None  # seconds per step; None while unknown

    @classmethod
    def begin(cls, name: str, *, at: float) -> Stage:
        """Before its first step."""
        return cls(name, 0, 0, began=at, updated=at, settled=at, num_settled=0)

    def step(self, done: int, total: int, note: str, *, now: float) -> Stage:
        """The stage after so many steps, with the pace that they had."""
        stage = replace(self, done=done, total=total, note=note, updated=now, pace=None)
        if now - self.began < SETTLE_SECONDS:
            return replace(stage, settled=now, num_settled=done)
        span, num = now - self.settled, done - self.num_settled
        return replace(stage, pace=span / num) if num > 0 and span >= LEAST_SECONDS else stage

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.done >= self.total

    def elapsed(self, now: float) -> float:
        """Seconds since it began, up to its end."""
        return (self.updated if self.finished else now) - self.began

    def seconds_left(self, now: float) -> float | None:
        """Counted down from the last step, never to 0 before the end; None while unknown."""
        if self.pace is None or self.finished:
            return None
        left = self.total - self.done
        return max(left * self.pace - (now - self.updated), (left - 0.5) * self.pace)

    def line(self, now: float) -> str:
        """For a log file."""
        left = self.seconds_left(now)
        says = [f"{self.name}: {self.done}/{self.total}", f"{self.elapsed(now):.0f} s"]
        if not self.finished:
            says.append("- left" if left is None else f"{left:.0f} s left")
        return ", ".join([*says, self.note] if self.note else says)


def stage_rows(stages: Sequence[Stage], width: int, now: float, *, colours: bool, ascii_only: bool) -> list[Text]:
    """A row for each stage, at most ``width`` columns wide, with what there is room for.

    Args:
        stages: In the order of the rows.
        width: Columns.
        now: Time on the clock of the stages.
        colours: Whether what is left of a bar can be told by its colour; else it is blank.
        ascii_only: Whether the screen has ASCII only.
    """
    name_width = min(max(cell_len(stage.name) for stage in stages), max(6, width // 4))
    counts = [f"{stage.done}/{stage.total}" for stage in stages]
    times = [clock_time(stage.elapsed(now)) for stage in stages] if width >= _NARROW else [""] * len(stages)
    lefts = ["" if stage.finished else f"{clock_time(stage.seconds_left(now))} left" for stage in stages]
    columns = [[text.rjust(max(map(len, texts))) for text in texts] for texts in (counts, times, lefts) if any(texts)]
    fixed = name_width + 2 + sum(len(texts[0]) + 2 for texts in columns)
    note_width = min(max(cell_len(stage.note) for stage in stages), _MAX_NOTE, width - fixed - _MIN_BAR - 2)
    if note_width < min(_MIN_NOTE, max(cell_len(stage.note) for stage in stages)):
        note_width = 0
    bar_width = min(width - fixed - (note_width + 2 if note_width else 0), _MAX_BAR)
    rows = []
    for index, stage in enumerate(stages):
        row = cut(Text(stage.name), name_width, ascii_only=ascii_only, pad=True)
        if bar_width >= 3:
            row.append("  ").append_text(_bar(stage, bar_width, colours=colours, ascii_only=ascii_only))
        for texts in columns:
            row.append("  ").append(texts[index])
        if note_width and stage.note:
            row.append("  ").append_text(cut(Text(stage.note, style="dim"), note_width, ascii_only=ascii_only))
        rows.append(cut(row, width, ascii_only=ascii_only))
    return rows


def clock_time(seconds: float | None) -> str:
    """``1:05`` or ``2:00:05``; "-" where it is unknown."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def cut(text: Text, width: int, *, ascii_only: bool, pad: bool = False) -> Text:
    """The same text, cut to at most so many columns; with ``pad`` to exactly so many."""
    text.truncate(width, overflow="crop" if ascii_only else "ellipsis", pad=pad)
    return text


def _bar(stage: Stage, width: int, *, colours: bool, ascii_only: bool) -> Text:
    share = 1.0 if not stage.total else min(1.0, max(0.0, stage.done / stage.total))
    halves = int(2 * width * share)
    full, half = ("-", " ") if ascii_only else ("━", "╸")
    text = full * (halves // 2) + half * (halves % 2)
    bar = Text(text, style="bar.finished" if stage.finished else "bar.complete")
    rest = width - len(text)
    return bar.append(full * rest, style="bar.back") if colours and not ascii_only else bar.append(" " * rest)
