"""What a running search says of itself, for the rows of a panel and for a line of a log file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from rich.text import Text

from treesearch.stages import cut

BLOCKS = "▁▂▃▄▅▆▇█"
_NARROW = 76  # columns; in fewer the short words
_MAX_SPARKLINE = 40  # columns


class Workers(Protocol):
    """An executor, as far as it is shown."""

    @property
    def num_workers(self) -> int:
        """How many tasks run at once."""

    @property
    def num_busy(self) -> int:
        """How many tasks are under way."""


@dataclass(frozen=True)
class SearchStatus:
    """A search as of its last evaluation. Rewards are under the λ that the run reports, since the last encoder."""

    done: int  # evaluations, failed and stopped ones too
    budget: int
    best_reward: float | None = None
    huffman_reward: float | None = None
    batch_means: tuple[float, ...] = ()  # mean reward of each batch, in order; of the last so far
    num_failed: int = 0
    num_stopped: int = 0  # early, as not worth finishing
    rate: float | None = None  # evaluations per second of this process, over the last ones; None while unknown
    rate_window: int = 0  # how many those are

    @property
    def gain(self) -> float | None:
        """Best reward less Huffman's."""
        if self.best_reward is None or self.huffman_reward is None:
            return None
        return self.best_reward - self.huffman_reward

    def line(self, workers: Workers | None) -> str:
        """The facts in brief, for a log file."""
        gain = "" if self.gain is None else f" ({self.gain:+.4f} over Huffman)"
        says = [] if self.best_reward is None else [f"best reward {self.best_reward:.4f}{gain}"]
        says.append(f"{_rate(self.rate)} evaluations/s")
        if workers is not None:
            says.append(f"{workers.num_busy}/{workers.num_workers} workers busy")
        return ", ".join([*says, f"{self.num_failed} failed", f"{self.num_stopped} stopped early"])


def search_rows(status: SearchStatus, width: int, workers: Workers | None, *, ascii_only: bool) -> list[Text]:
    """The facts in rows of at most ``width`` columns: best reward, rewards of batches, speed, workers and losses.

    Args:
        status: Of the search.
        width: Columns.
        workers: What the run's tasks are running on now; None: nothing.
        ascii_only: Whether the screen has ASCII only; then the sparkline is left out.
    """
    wide = width >= _NARROW
    rows = [_best(status, wide)]
    if len(status.batch_means) > 1 and not ascii_only:
        rows.append(_batches(status.batch_means, width, wide))
    facts = []
    if status.done < status.budget:
        over = f" (last {status.rate_window})" if status.rate is not None and wide else ""
        facts.append(Text(f"{_rate(status.rate)}{' evaluations' if wide else ''}/s{over}"))
    if workers is not None:
        facts.append(Text(f"{workers.num_busy}/{workers.num_workers} {'workers ' if wide else ''}busy"))
    facts.append(Text(f"{status.num_failed} failed", style="bold red" if status.num_failed else ""))
    facts.append(Text(f"{status.num_stopped} stopped{' early' if wide else ''}"))
    rows += _packed(facts, width, " · " if wide and not ascii_only else ", ")
    return [cut(row, width, ascii_only=ascii_only) for row in rows]


def sparkline(values: Sequence[float], width: int) -> str:
    """Blocks as high as the values lie between the lowest and the highest; more than ``width`` are averaged."""
    num = min(len(values), width)
    edges = [index * len(values) // num for index in range(num + 1)] if num else []
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means, default=0.0), max(means, default=0.0)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((mean - low) * scale)] for mean in means)


def _best(status: SearchStatus, wide: bool) -> Text:
    row = Text("best reward " if wide else "best ")
    if status.best_reward is None:
        return row.append("-")
    row.append(f"{status.best_reward:.4f}", style="bold")
    if status.gain is not None:
        row.append(", ").append(f"{status.gain:+.4f}", style="green" if status.gain > 0 else "")
        row.append(" over Huffman")
    return row


def _batches(means: Sequence[float], width: int, wide: bool) -> Text:
    label = "mean reward of each batch " if wide else "batch means "
    ends = f" {means[0]:.4f} to {means[-1]:.4f}" if wide else ""
    room = min(width - len(label) - len(ends), _MAX_SPARKLINE)
    return Text(label).append(sparkline(means, room), style="cyan").append(ends)


def _packed(facts: Sequence[Text], width: int, separator: str) -> list[Text]:
    rows: list[Text] = []
    for fact in facts:
        if rows and rows[-1].cell_len + len(separator) + fact.cell_len <= width:
            rows[-1].append(separator, style="dim").append_text(fact)
        else:
            rows.append(Text().append_text(fact))
    return rows


def _rate(rate: float | None) -> str:
    if rate is None:
        return "-"
    return f"{rate:.2g}" if rate < 1 else f"{rate:.1f}" if rate < 100 else f"{rate:.0f}"
