"""How long evaluations took and why some gave no score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from treesearch.report.page.places import is_number
from treesearch.report.page.run_view import RunView
from treesearch.search.evaluation_row import CACHED, CONFIRM, FAILED, FROZEN, JOINT, STOPPED, WARM, EvaluationRow

# What a worker had to do, by how much of the tree the memo knew.
NEW, PART, KNOWN = "frozen, all nodes new", "frozen, some nodes known", "frozen, all nodes known"
ABOVE = {WARM: "warm training", JOINT: "joint training", CONFIRM: "confirmation"}
LOADS = (NEW, PART, KNOWN, *ABOVE.values())


@dataclass(frozen=True)
class Reason:
    """Why evaluations gave no score."""

    text: str
    status: str  # failed or stopped
    rung: str
    times: int
    first: int  # id of the first evaluation


def load_of(row: EvaluationRow) -> str | None:
    """What an evaluation that gave a score had to do; None for a repeated tree and for one without a score."""
    if row.status in (CACHED, FAILED, STOPPED):
        return None
    if row.rung != FROZEN:
        return ABOVE.get(row.rung)
    if row.nodes_trained is None or row.num_nodes is None or row.nodes_trained >= row.num_nodes:
        return NEW
    return PART if row.nodes_trained else KNOWN


def seconds_by_load(rows: Sequence[EvaluationRow]) -> dict[str, list[float]]:
    """Wall time in the worker, by load in the order of `LOADS`; nothing for those without an evaluation."""
    found: dict[str, list[float]] = {}
    for row in rows:
        load = load_of(row)
        if load is not None and is_number(row.seconds):
            found.setdefault(load, []).append(row.seconds)
    return {load: found[load] for load in LOADS if load in found}


def reasons(view: RunView) -> list[Reason]:
    """Why evaluations of any rung failed or were stopped, the most frequent first."""
    known: dict[tuple[str, str, str], list[int]] = {}
    for row in view.rows:
        if row.status in (FAILED, STOPPED):
            known.setdefault((row.reason or "no reason was kept", row.status, row.rung), []).append(row.id)
    found = [Reason(text, status, rung, len(ids), min(ids)) for (text, status, rung), ids in known.items()]
    return sorted(found, key=lambda reason: (-reason.times, reason.first))
