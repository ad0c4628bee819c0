"""How much more reward a found tree has than the best builder of at most its cost, under each λ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from treesearch.cost import CostModel
from treesearch.evaluation.comparison import paired_difference
from treesearch.report.cells import gain_cell
from treesearch.search.promotion import BASELINE, FOUND
from treesearch.search.rivals import best_of_at_most

if TYPE_CHECKING:  # it imports torch
    from treesearch.search.confirm import Confirmed


def gain_over_builders(entry: Confirmed, confirmed: Sequence[Confirmed], cost_model: CostModel) -> dict[str, Any]:
    """``best_builder`` and ``reward_gain`` of a found tree; empty for builders, and where none is cheap enough.

    The builder of at most the tree's cost with the best mean validation reward. The gain is on the test split, nats,
    paired by seed, with Student's 95 % interval.
    """
    if entry.finalist.promoted.kind == BASELINE:
        return {}
    builders = (other for other in confirmed if other.finalist.promoted.kind == BASELINE)
    rival = best_of_at_most(entry.units(cost_model), builders, cost_model)
    if rival is None:
        return {}
    saved = cost_model.loss(rival.finalist.promoted.cost) - cost_model.loss(entry.finalist.promoted.cost)
    losses = paired_difference(rival.test_nll, entry.test_nll).as_dict()
    return {
        "best_builder": rival.finalist.promoted.name,
        "reward_gain": {key: value if key == "n" else value + saved for key, value in losses.items()},
    }


def gains_by_weight(
    confirmed: Sequence[Confirmed], *, cost_model: CostModel, cost_weights: Sequence[float]
) -> list[dict[str, Any]]:
    """For each λ the found tree with the best mean validation reward under it, and what it gains; JSON-able rows."""
    found = [entry for entry in confirmed if entry.finalist.promoted.kind == FOUND]
    rows = []
    for weight in cost_weights if found else ():
        model = replace(cost_model, weight=weight)
        best = max(found, key=lambda entry: entry.validation_reward(model))
        name = best.finalist.promoted.name
        rows.append({"cost_weight": weight, "name": name} | gain_over_builders(best, confirmed, model))
    return rows


def side_of_zero(interval: Mapping[str, float]) -> int | None:
    """1 or -1 where an interval lies above or below zero, 0 where zero is in it; None for one seed, without one."""
    if interval["n"] < 2:
        return None
    return int(interval["low"] > 0) - int(interval["high"] < 0)


VERDICTS = {None: "one seed, no interval, against", 1: "better than", -1: "worse than", 0: "not significant against"}


def gain_note(row: dict[str, Any]) -> str:
    """One line on a row with a ``name``, perhaps a ``cost_weight``, and what `gain_over_builders` gives."""
    gain = row.get("reward_gain")
    tree = row["name"] if "cost_weight" not in row else f"{row['name']} at λ = {row['cost_weight']:g}"
    if gain is None:
        return f"{tree}: no builder of at most its cost was confirmed"
    return f"{tree}: {VERDICTS[side_of_zero(gain)]} {row['best_builder']}: {gain_cell(gain, 4)} nats"
