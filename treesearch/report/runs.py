"""Run folders and tree files as rows: what `treesearch compare`, `show` and `export` read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table
from rich.text import Text

from treesearch.cost import tree_cost
from treesearch.data.counts import load_counts
from treesearch.errors import RunError
from treesearch.report.cells import mean_cell, number
from treesearch.search.evaluation_row import FROZEN
from treesearch.search.ledger_entries import COMPLETE
from treesearch.search.promotion import BASELINE, FOUND
from treesearch.search.run_folder import RunFolder
from treesearch.tree import Tree
from treesearch.visible import visible


def load_tree(source: Path) -> Tree:
    """The best tree of a run folder, or the tree in a file.

    Raises:
        RunError: There is nothing, or the run has not finished.
        TreeError: The file is no tree.
    """
    if source.is_dir():
        return RunFolder(source).best_tree()
    if not source.exists():
        raise RunError(f"no run folder or tree file at {source}")
    return Tree.load(source)


def run_counts(source: Path) -> list[float] | None:
    """The training counts of a run folder; None for a tree file."""
    if not source.is_dir():
        return None
    with RunFolder(source).read() as ledger:
        return ledger.classes()[0]


def run_features(source: Path) -> int | None:
    """D of the layer that a run searches for; None for a tree file."""
    return RunFolder(source).config().encoder.features if source.is_dir() else None


def run_vectors(source: Path) -> NDArray[np.float32] | None:
    """The class vectors [C, D] of a run folder; None for a tree file, and where the ledger has none."""
    if not source.is_dir():
        return None
    with RunFolder(source).read() as ledger:
        return ledger.class_vectors()


def file_row(path: Path, counts: Path | None) -> dict[str, Any]:
    """The sizes of a tree as a row of a comparison; without counts every class weighs the same."""
    tree = load_tree(path)
    weights = np.ones(tree.num_classes) if counts is None else load_counts(counts)[0]
    cost = tree_cost(tree, weights, in_features=int(tree.projection_dim.max(initial=1)))
    return {
        "name": path.name,
        "kind": BASELINE,
        "test_nll": None,
        "valid_nll": None,
        "cost": cost.cost,
        "expected_depth": cost.expected_depth,
        "dot_products": cost.dot_products,
        "max_depth": cost.max_depth,
    }


# What runs must share for their results to be comparable: key of `run_row`, and how a difference is told.
SHARED = {
    "evaluations": "budgets (evaluations)",
    "corpus": "corpora",
    "cost_model": "cost models",
    "cost_table": "cost tables",
    "training": "encoder, joint training or number of seeds",
}


def run_row(path: Path) -> dict[str, Any]:
    """A finished run in one JSON-able row, with its best found tree by validation reward; None where it has none.

    Raises:
        RunError: No run, or an unfinished one.
    """
    folder = RunFolder(path)
    comparison = folder.comparison()
    return {"name": str(path), "agent": comparison["agent"], **shared_settings(folder), **run_results(comparison)}


def run_results(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """What a finished run came to: its evaluations, and its best found tree with None where it has none."""
    best = best_of_kind(comparison, FOUND)
    return {
        "evaluations": comparison["evaluations"],
        "best": None if best is None else best["name"],
        "test_nll": None if best is None else best["test_nll"],
        "reward": None if best is None else best["reward"],
        "cost": None if best is None else best["cost"],
    }


def run_outdated(folder: RunFolder, comparison: Mapping[str, Any]) -> str | None:
    """`outdated_line` of a run; what is wrong with its ledger where that cannot be read, None where there is none."""
    if not folder.ledger_file.is_file():
        return None
    running = folder.locked()
    try:
        with folder.read() as ledger:
            complete = ledger.meta(COMPLETE)
            now = comparison["evaluations"] if complete and not running else len(ledger.rows(FROZEN))
    except RunError as error:
        return str(error)
    return outdated_line(folder.path, comparison["evaluations"], now, running=running, complete=complete)


def outdated_line(path: Path, then: int, now: int, *, running: bool, complete: bool | None) -> str | None:
    """That a run was resumed after what its comparison says, and has not come to its end again; None where it has.

    Args:
        path: Of the run.
        then: Evaluations when the comparison was written.
        now: Evaluations in the ledger.
        running: Whether a process works on the run.
        complete: Whether the comparison is of the latest session; None where the ledger, of an earlier version, does
            not tell.
    """
    if running:
        return f"A process works on this run, which has {now} evaluations; this was confirmed after {then}."
    if complete or (complete is None and then == now):
        return None
    if then == now:
        return (
            "This was confirmed before the run was resumed; it was stopped before it had confirmed again; go on with:"
            f" treesearch resume {path}"
        )
    return (
        f"This was confirmed after {then} evaluations; the run went on and was stopped at {now}; go on with:"
        f" treesearch resume {path}"
    )


def shared_settings(folder: RunFolder) -> dict[str, Any]:
    """What `SHARED` names of a run that may be unfinished: its budget is then the configured one.

    ``corpus`` and ``cost_table`` are None where they are not known yet, or there is none.
    """
    config = folder.config()
    with folder.read() as ledger:
        corpus = (ledger.meta("corpus") or {}).get("hash")
    table = folder.cost_table_file.read_bytes() if folder.cost_table_file.is_file() else b""
    return {
        "evaluations": config.search.evaluations,
        "corpus": corpus,
        "cost_model": config.cost.model_dump(mode="json", include={"kind", "weight", "phase"}),
        "cost_table": blake2b(table, digest_size=8).hexdigest() if table else None,
        "training": {
            "encoder": config.encoder.model_dump(mode="json"),
            "joint": config.joint.model_dump(mode="json"),
            "seeds": config.confirm.seeds,
        },
    }


def best_of_kind(comparison: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    """The row of this kind with the best reward on validation data: the test split must not choose it."""

    def valid_reward(row: Mapping[str, Any]) -> float:
        return float(row["reward"] + row["test_nll"]["mean"] - row["valid_nll"])

    return max((row for row in comparison["rows"] if row["kind"] == kind), key=valid_reward, default=None)


def differences(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each thing that runs must share to be comparable and do not; what is None is not known.

    Args:
        rows: Of `run_row` or `shared_settings`.
    """
    lines = []
    for key, what in SHARED.items():
        values = [row[key] for row in rows if row[key] is not None]
        if any(value != values[0] for value in values):
            shown = f": {', '.join(map(str, values))}" if key in ("evaluations", "corpus") else ""
            lines.append(f"not comparable: the runs' {what} differ{shown}")
    return lines


def runs_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Runs for people; fits 100 columns."""
    table = Table(title="Best found tree of each run", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("run", overflow="fold", min_width=12)
    table.add_column("agent", overflow="fold", min_width=9)
    for heading in ("evaluations", "test NLL [95 %]", "reward", "cost"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            Text(visible(row["name"])),
            Text(visible(row["agent"])),
            str(row["evaluations"]),
            str(mean_cell(row["test_nll"], 3)),
            number(row["reward"], 4),
            number(row["cost"], 2),
        )
    return table


# -- fronts


def run_front(comparison: Mapping[str, Any], path: Path) -> tuple[str, dict[str, Any]]:
    """The rung that a run's front is of, and the front: the joint one, or the frozen one where nothing was confirmed.

    Raises:
        RunError: The run has none.
    """
    for rung in ("joint", "frozen"):
        front = (comparison.get("fronts") or {}).get(rung) or {}
        if front.get("points"):
            return rung, front
    raise RunError(f"{path} holds no front of trees; it was written before searches had one")


def front_table(rung: str, front: Mapping[str, Any]) -> Table:
    """The trees of a front for people, by rising cost."""
    title = f"Trees that none beats in both cost and validation NLL, {rung} rung"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    unit = "cost" if front["cost_kind"] == "analytic" else "cost (measured)"
    for heading in (unit, "valid NLL"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("tree", overflow="fold", min_width=12)
    table.add_column("kind", no_wrap=True)
    for point in front["points"]:
        style = "bold" if point["kind"] == FOUND else ""
        cells = (number(point["cost"], 2), number(point["valid_nll"], 3))
        table.add_row(*cells, Text(visible(point["name"]), style=style), Text(visible(point["kind"])))
    return table


def hypervolume_line(front: Mapping[str, Any]) -> str:
    """What found trees and builders dominate."""
    volume = front["hypervolume"]
    return (
        f"hypervolume up to cost {volume['reference_cost']:.2f} and {volume['reference_nll']:.3f} nats:"
        f" found {volume[FOUND]:.4f}, builders {volume[BASELINE]:.4f} (nats x e-folds of cost)"
    )
