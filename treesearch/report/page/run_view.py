"""What the report knows of a run: read once from its folder, whether the run has finished, goes on or was stopped.

Shapes: **C** classes, **D** dimensions of class vectors.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treesearch.config import Config, load_config, make_config
from treesearch.errors import RunError
from treesearch.report.runs import outdated_line
from treesearch.search import study_ledgers
from treesearch.search.evaluation_row import BUILDER, FROZEN, EvaluationRow
from treesearch.search.ledger import Ledger
from treesearch.search.ledger_entries import COMPLETE, CONFIG, STOPPED_BY
from treesearch.search.locks import CONFIG_FILE, is_held
from treesearch.search.promotion import FOUND, HUFFMAN, builder_labels
from treesearch.search.run_folder import RunFolder
from treesearch.tree import Tree

MAX_DEPTH = 4  # of folders that are searched for runs, studies and sweeps


@dataclass(frozen=True)
class Batch:
    """The end of a batch of proposals."""

    number: int
    finished_at: float  # Unix time
    metrics: dict[str, float]  # what the agent said of its update


@dataclass(frozen=True, eq=False)
class RunView:
    """One search, as its ledger and the files beside it tell it."""

    name: str  # how the report calls it
    group: str  # runs of one group differ in their seed alone; a run of its own is its own group
    path: Path  # the run folder, or the ledger that a search of a study has once it has finished
    config: Config
    rows: tuple[EvaluationRow, ...]  # of all rungs, by id
    batches: tuple[Batch, ...]
    sessions: tuple[float, ...]  # Unix times when a process began to work on it; empty where that was not kept
    counts: NDArray[np.float64] | None  # [C] training counts; None where they were not kept
    class_names: tuple[str, ...] | None  # [C]
    class_vectors: NDArray[np.float32] | None = field(repr=False)  # [C, D] of the latest encoder, where they are kept
    encoder: str | None  # hash of the latest features
    environment: dict[str, Any] | None  # the content of environment.json
    comparison: dict[str, Any] | None  # of comparison.json; None before the run has finished, and in a study
    best_tree: Tree | None  # likewise
    running: bool  # whether a process works on it
    complete: bool | None  # whether the latest session came to its end; None where the ledger does not tell

    @cached_property
    def frozen(self) -> tuple[EvaluationRow, ...]:
        """The evaluations of the search itself, which its budget counts."""
        return tuple(row for row in self.rows if row.rung == FROZEN)

    @cached_property
    def scored(self) -> tuple[EvaluationRow, ...]:
        """Those under the latest encoder that gave a score: no others are comparable."""
        return tuple(row for row in self.frozen if row.encoder == self.encoder and row.valid_nll is not None)

    @cached_property
    def huffman(self) -> EvaluationRow | None:
        """The frozen evaluation of the Huffman tree under the latest encoder."""
        return next((row for row in self.scored if row.label == HUFFMAN), None)

    @cached_property
    def builders(self) -> dict[str, str]:
        """What the builders' own trees are called, by tree hash."""
        return builder_labels(self.frozen, self.encoder)

    def tree_name(self, row: EvaluationRow) -> str:
        """What the tree of a row is called: by its builder, else ``found #id``."""
        return self.builders.get(row.tree_hash, f"{FOUND} #{row.id}")

    @property
    def agent(self) -> str:
        """Who proposed: of a study of an earlier version the rows alone say it."""
        own = (row.agent for row in self.frozen if row.agent != BUILDER)
        return next(own, self.config.search.agent)

    @cached_property
    def outdated(self) -> str | None:
        """`treesearch.report.runs.outdated_line`; None before the run has finished, too."""
        if self.comparison is None:
            return None
        then, now = self.comparison["evaluations"], len(self.frozen)
        return outdated_line(self.path, then, now, running=self.running, complete=self.complete)

    @property
    def in_study(self) -> bool:
        """Whether the search is one of a study: it has no folder of its own, and nothing of it is confirmed."""
        return not self.path.is_dir()

    @property
    def finished(self) -> bool:
        """Whether the search has come to its end."""
        if self.running:
            return False
        return self.complete is not False if self.in_study else self.comparison is not None and not self.outdated

    @property
    def measured(self) -> bool:
        """Whether the reward charges measured time."""
        return self.config.cost.kind == "measured"

    def tree(self, tree_hash: str) -> Tree:
        """A tree of the ledger.

        Raises:
            RunError: There is none with this hash.
        """
        with _ledger(self.path) as ledger:
            return ledger.tree(tree_hash)

    def units(self, row: EvaluationRow) -> float | None:
        """What a row's tree is charged: analytic, or measured and scaled so that Huffman costs its expected depth.

        None where that cannot be told: no cost, or measured without Huffman's.
        """
        if not self.measured:
            return row.cost
        return None if row.cost_measured_us is None or self._unit_us is None else row.cost_measured_us / self._unit_us

    @cached_property
    def _unit_us(self) -> float | None:
        """Microseconds of a unit of measured cost; None without a row of Huffman's."""
        huffman = next((one for one in self.frozen if one.label == HUFFMAN), None)
        if huffman is None or not huffman.cost_measured_us or not huffman.expected_depth:
            return None
        return huffman.cost_measured_us / huffman.expected_depth

    def reward(self, row: EvaluationRow) -> float | None:
        """Validation reward under the λ that the run reports, nats; None without a score or a cost."""
        units = self.units(row)
        if row.valid_nll is None or units is None:
            return None
        return -row.valid_nll - self.config.cost.weight * units

    def finished_at(self, row: EvaluationRow) -> float | None:
        """Unix time when a row was recorded; where that was not kept, the end of its batch, None for other rungs."""
        if row.finished_at is not None or row.rung != FROZEN:
            return row.finished_at
        return self._batch_ends.get(row.batch)

    @cached_property
    def _batch_ends(self) -> dict[int, float]:
        return {batch.number: batch.finished_at for batch in self.batches}

    def elapsed(self, at: float) -> float:
        """Seconds that the search had been running at this Unix time: pauses between two processes do not count."""
        before = 0.0
        for begin, end in self._stretches:
            if at <= end:
                return before + max(0.0, at - begin)
            before += end - begin
        return before

    @cached_property
    def _stretches(self) -> list[tuple[float, float]]:
        """When each process began, and when it had its last result."""
        finished = [row.finished_at for row in self.rows if row.finished_at is not None]
        times = np.sort(np.array([*finished, *(batch.finished_at for batch in self.batches)], np.float64))
        begins = [*self.sessions]
        if times.size and (not begins or times[0] < begins[0]):  # an earlier version, which did not keep it, began
            begins.insert(0, float(times[0]))
        last = np.maximum(np.searchsorted(times, np.array([*begins[1:], np.inf])) - 1, 0)
        ends = times[last].tolist() if times.size else begins
        return [(begin, max(begin, end)) for begin, end in zip(begins, ends, strict=True)]


def load_run(path: Path, *, name: str | None = None) -> RunView:
    """Read a run folder.

    Args:
        path: The folder.
        name: How the report calls the run; None takes the folder's name.

    Raises:
        RunError: There is no ledger, or it cannot be read.
        ConfigError: Its configuration cannot be read.
    """
    folder = RunFolder(path)
    running = folder.locked()  # asked first: a search that ends while it is read is not one that was stopped
    comparison = folder.comparison() if folder.comparison_file.is_file() else None
    best = folder.best_tree() if comparison is not None and folder.best_tree_file.is_file() else None
    name = path.resolve().name if name is None else name
    return _view(
        path,
        name,
        name,
        config=folder.config(),
        environment=_environment(folder),
        comparison=comparison,
        best_tree=best,
        running=running,
    )


def find_runs(paths: Sequence[Path]) -> list[RunView]:
    """The runs in these folders: run folders, folders of them, such as a sweep's, and studies.

    Raises:
        RunError: A folder holds none, or one of them cannot be read.
        ConfigError: A configuration cannot be read.
    """
    views: list[RunView] = []
    for path, label in zip(paths, _path_labels(paths), strict=True):
        if not path.is_dir():
            later = "" if path.exists() else "; one that has just begun makes it once it has read its data"
            raise RunError(f"{path} is no folder; give the folder of a search, a study or a sweep{later}")
        prefix = f"{label}/" if len(paths) > 1 else ""
        ledgers = [path] if (path / "search.db").is_file() else _run_folders(path)
        study = study_ledgers.ledger_files(path) if not ledgers else []
        for folder in ledgers:
            own = label if folder == path else prefix + folder.relative_to(path).as_posix()
            views.append(load_run(folder, name=own))
        for file in study:
            views.append(_study_run(path, file, prefix))
        if not ledgers and not study and at_work(path):
            raise RunError(
                f"{path} holds nothing to show yet, but a process works on it: wait until its first search has begun"
            )
        if not ledgers and not study:
            raise RunError(f"{path} holds no search.db and no study; give the folder of a search, a study or a sweep")
    return _distinct(views, paths)


def at_work(path: Path) -> bool:
    """Whether a process works on a study or a sweep in this folder; on a run, its view tells."""
    return any(is_held(file) for depth in range(MAX_DEPTH) for file in path.glob("*/" * depth + CONFIG_FILE))


def _path_labels(paths: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as many as keep different folders apart."""
    parts = [path.resolve().parts for path in paths]
    most = max(map(len, parts), default=1)
    for num in range(1, most + 1):
        labels = ["/".join(part[-num:]) for part in parts]
        if len(set(labels)) == len(set(parts)):
            break
    return labels


def _run_folders(path: Path) -> list[Path]:
    patterns = ("*/" * depth + "search.db" for depth in range(1, MAX_DEPTH + 1))
    files = [file for pattern in patterns for file in path.glob(pattern)]
    if at_work(path):  # the ledger of a search that just begins is empty
        files = [file for file in files if _size(file)]
    return sorted(file.parent for file in files)


def _size(file: Path) -> int:
    """In bytes; 0 for what is gone: a sweep makes the folder of a search anew that was stopped before it began."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _study_run(folder: Path, file: Path, prefix: str) -> RunView:
    group = prefix + file.parent.name
    # Asked first, and in this order: a search that finishes meanwhile, or its study, is not one that was stopped.
    held = is_held(folder / CONFIG_FILE)
    complete = file.is_file()
    with study_ledgers.read(file) as ledger:
        own = ledger.meta(CONFIG)  # an earlier version kept what all variants have in common alone
        stopped = ledger.meta(STOPPED_BY) is not None
    return _view(
        file,
        f"{group}, {file.stem.replace('-', ' ')}",
        group,
        config=load_config(folder / CONFIG_FILE) if own is None else make_config(own),
        environment=None,
        comparison=None,
        best_tree=None,
        running=held and not complete and not stopped,
        complete=complete,
    )


def _distinct(views: list[RunView], paths: Sequence[Path]) -> list[RunView]:
    """Raise RunError where a run would be shown twice."""
    seen: dict[Path, RunView] = {}
    for view in views:
        if (twin := seen.setdefault(view.path.resolve(), view)) is not view:
            raise RunError(f"{twin.path} is given twice among {', '.join(map(str, paths))}; give each run once")
    return views


def _view(
    path: Path, name: str, group: str, *, best_tree: Tree | None, complete: bool | None = None, **known: Any
) -> RunView:
    """What the ledger adds to what is known."""
    with _ledger(path) as ledger, ledger.snapshot():
        rows, times = tuple(ledger.rows()), ledger.batch_times()
        batches = tuple(Batch(number, times[number], metrics) for number, metrics in ledger.metrics())
        counts, names = ledger.classes()
        encoder, told = ledger.meta("encoder"), ledger.meta(COMPLETE)
        sessions, vectors = ledger.meta("sessions"), ledger.class_vectors()
    # An earlier version kept names in the best tree alone.
    class_names = best_tree.class_names if names is None and best_tree is not None else names
    return RunView(
        name=name,
        group=group,
        path=path,
        rows=rows,
        batches=batches,
        sessions=tuple(sessions or ()),
        counts=None if counts is None else np.asarray(counts, np.float64),
        class_names=None if class_names is None else tuple(class_names),
        class_vectors=vectors,
        encoder=encoder,
        complete=told if complete is None else complete,
        best_tree=best_tree,
        **known,
    )


def _ledger(path: Path) -> Ledger:
    return RunFolder(path).read() if path.is_dir() else study_ledgers.read(path)


def _environment(folder: RunFolder) -> dict[str, Any] | None:
    try:
        content = json.loads(folder.environment_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
