"""What a finished run says: comparison, front, best tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from treesearch.config import Config
from treesearch.cost import CostModel
from treesearch.data import Dataset
from treesearch.evaluation.comparison import pooled_deviation, rank_correlation
from treesearch.evaluation.front import Point, hypervolume, nadir, pareto_front
from treesearch.evaluation.timing import StepTime
from treesearch.launch.proposer import listed_weights
from treesearch.report.gains import gains_by_weight
from treesearch.report.tables import comparison_rows
from treesearch.search.confirm import Confirmed, Finalist
from treesearch.search.correction import CORRECTION
from treesearch.search.evaluation_row import FAILED, FROZEN, JOINT, STOPPED, WARM
from treesearch.search.ledger import Ledger
from treesearch.search.promotion import BASELINE, FOUND, Promoted, builder_labels
from treesearch.search.trained_scores import TrainedScore, trained_scores
from treesearch.taxonomy import Taxonomy
from treesearch.trackers.base import Table
from treesearch.tree import Tree


def summarise(
    config: Config,
    ledger: Ledger,
    *,
    trained: Mapping[str, Finalist],
    confirmed: Sequence[Confirmed],
    times: Mapping[str, StepTime],
    cost_model: CostModel,
    encoder: str,
) -> dict[str, Any]:
    """The content of ``comparison.json``; ``correction`` is `Correction`'s fields, None where there was no screen."""
    rows, listed = ledger.rows(FROZEN), listed_weights(config)
    weights = sorted({cost_model.weight, *listed}) if listed else []
    joint = trained_scores(ledger.rows(JOINT))
    return {
        "rows": comparison_rows(confirmed, cost_model=cost_model, cost_weights=weights, times=times),
        "gains": gains_by_weight(confirmed, cost_model=cost_model, cost_weights=weights),
        "evaluations": len(rows),
        "failures": sum(row.status == FAILED for row in rows),
        "stopped": sum(row.status == STOPPED for row in rows),
        "agent": config.search.agent,
        "seeds": config.confirm.seeds,
        "cost_kind": config.cost.kind,
        "cost_weight": cost_model.weight,
        "noise": {"test_nll_deviation": pooled_deviation([entry.test_nll for entry in confirmed])},
        "rank_correlation": rungs_agreement(ledger, encoder, joint),
        "screen_correlation": rungs_agreement(ledger, encoder, joint, lower=WARM),
        "correction": ledger.meta(CORRECTION),
        "fronts": {
            "frozen": front(_frozen_points(ledger, encoder, cost_model), cost_model),
            "joint": front(_joint_points(trained, joint, cost_model), cost_model),
        },
    }


def rungs_agreement(
    ledger: Ledger, encoder: str, joint: Mapping[str, TrainedScore], *, lower: str = FROZEN
) -> dict[str, Any]:
    """Kendall's τ of NLL on a lower rung and joint NLL, on all trees that were on both rungs.

    Args:
        ledger: Of the run.
        encoder: Hash of the features; frozen rows of other encoders are left out.
        joint: Scores of the joint rung by tree hash.
        lower: ``frozen`` or ``warm``.
    """
    below = {
        row.tree_hash: row.valid_nll
        for row in ledger.rows(lower)
        if row.valid_nll is not None and (lower != FROZEN or row.encoder == encoder)
    }
    both = [tree_hash for tree_hash in joint if tree_hash in below]
    tau = rank_correlation([below[tree_hash] for tree_hash in both], [joint[one].valid_nll for one in both])
    return {"rungs": [lower, JOINT], "kendall_tau": tau, "trees": len(both)}


Entry = tuple[str, str, str, Point]  # tree hash, name, kind, place


def front(entries: Sequence[Entry], cost_model: CostModel) -> dict[str, Any]:
    """The trees that no other one beats in NLL and cost, and what found trees and builders dominate.

    ``cost`` is in the units that the reward charges; ``cost_kind`` says whether they are analytic or measured.
    ``hypervolume`` is up to the largest cost and NLL on either front, in nats times e-folds of cost.
    """
    points = [entry[3] for entry in entries]
    listed = [
        {"tree": tree_hash, "name": name, "kind": kind, "valid_nll": point.nll, "cost": point.cost}
        for tree_hash, name, kind, point in (entries[position] for position in pareto_front(points))
    ]
    groups = {kind: [entry[3] for entry in entries if entry[2] == kind] for kind in (FOUND, BASELINE)}
    present = [group for group in groups.values() if group]
    volumes = {}
    if present:
        reference = nadir(*present)
        volumes = {kind: hypervolume(group, reference) for kind, group in groups.items()}
        volumes |= {"reference_cost": reference.cost, "reference_nll": reference.nll}
    return {"points": listed, "hypervolume": volumes, "cost_kind": "measured" if cost_model.table else "analytic"}


def _frozen_points(ledger: Ledger, encoder: str, cost_model: CostModel) -> list[Entry]:
    rows = ledger.rows(FROZEN)
    labels = builder_labels(rows, encoder)
    entries: dict[str, Entry] = {}
    for row in rows:
        if row.encoder == encoder and row.valid_nll is not None:
            kind = BASELINE if row.tree_hash in labels else FOUND
            name = labels.get(row.tree_hash, f"{FOUND} #{row.id}")
            place = Point(row.units(cost_model), row.valid_nll)
            entries.setdefault(row.tree_hash, (row.tree_hash, name, kind, place))
    return list(entries.values())


def _joint_points(
    trained: Mapping[str, Finalist], joint: Mapping[str, TrainedScore], cost_model: CostModel
) -> list[Entry]:
    return [
        (
            tree_hash,
            finalist.promoted.name,
            FOUND if finalist.promoted.name.startswith(f"{FOUND} #") else BASELINE,
            Point(finalist.units(cost_model), joint[tree_hash].valid_nll),
        )
        for tree_hash, finalist in trained.items()
    ]


def best_tree(promoted: Sequence[Promoted], confirmed: Sequence[Confirmed], cost_model: CostModel) -> Promoted:
    """The tree to export: best joint reward on validation data, or best frozen reward where nothing was confirmed."""
    if not confirmed:
        return max(promoted, key=lambda one: one.frozen_reward(cost_model))
    return max(confirmed, key=lambda entry: entry.validation_reward(cost_model)).finalist.promoted


def export_best(best: Promoted, dataset: Dataset, cost_model: CostModel, taxonomy: Taxonomy | None = None) -> Tree:
    """The best tree with names, provenance and the taxonomy of the run; no time and no path."""
    row = best.row
    provenance = {
        "found_by": row.agent,
        "label": row.label,
        "evaluation": row.id,
        "frozen_reward": best.frozen_reward(cost_model),
        "frozen_valid_nll": row.valid_nll,
        "corpus": dataset.hash,
    }
    tree = best.tree.annotate(class_names=dataset.class_names, metadata=provenance)
    return tree if taxonomy is None else taxonomy.annotate(tree)


def pick_from_front(
    comparison: Mapping[str, Any],
    *,
    cost_weight: float | None = None,
    max_cost: float | None = None,
    rung: str | None = None,
) -> dict[str, Any] | None:
    """The point of a run's front with the best reward under λ, or the lowest NLL, at no more than ``max_cost`` units.

    Of equal ones the cheapest.

    Of this rung, None the joint front where the run has one, else the frozen one. None where no point is cheap enough.
    """
    cheap = [
        point
        for point in _front_points(comparison, (JOINT, FROZEN) if rung is None else (rung,))
        if max_cost is None or point["cost"] <= max_cost
    ]
    weight = 0.0 if cost_weight is None else cost_weight
    return min(cheap, key=lambda point: point["valid_nll"] + weight * point["cost"], default=None)


def _front_points(comparison: Mapping[str, Any], rungs: Sequence[str] = (JOINT, FROZEN)) -> list[dict[str, Any]]:
    """Of the first of these rungs that has any."""
    fronts = comparison.get("fronts") or {}
    points: list[dict[str, Any]] = []
    for rung in rungs:
        points = points or (fronts.get(rung) or {}).get("points") or []
    return points


def tables(comparison: Mapping[str, Any]) -> dict[str, Table]:
    """What trackers show of a comparison: its rows, and the front that `pick_from_front` picks from."""
    columns = ("name", "kind", "valid_nll", "cost", "expected_depth", "perplexity")
    found: dict[str, Table] = {
        "comparison": (columns, [[row[column] for column in columns] for row in comparison["rows"]])
    }
    if points := _front_points(comparison):
        places = ("name", "kind", "cost", "valid_nll")
        found["pareto_front"] = (places, [[point[place] for place in places] for point in points])
    return found
