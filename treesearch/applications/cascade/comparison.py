"""Realised costs of policies on the test split, each fitted and chosen on the validation split alone.

Shapes: **B** documents, **C** classes, **M** nodes in all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from treesearch.applications.cascade.policies import GUARANTEE, THRESHOLD, Variant, calibrate, variants
from treesearch.applications.cascade.scores import Known, Scores
from treesearch.applications.cascade.task import ROOT_NODE, CascadeTask
from treesearch.applications.taxonomy.classifiers import FLAT
from treesearch.decisions.costs import Charge, NodeCosts
from treesearch.decisions.selective import contains
from treesearch.errors import ConfigError
from treesearch.evaluation.comparison import paired_difference, t_interval

TREE_MODELS, ALL_MODELS, BEST = "tree models", "all models", "best on validation"
NUM_FOLDS = 2  # of the validation split, where variants are chosen
FOLD_SEED = 0
MEASURES = ("cost", "valid_cost", "answered_class", "answered_inner", "flagged", "accuracy")

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Predictions:
    """Of one classifier, trained with one seed: log-probabilities of the classes, nats."""

    valid: Tensor  # [B, C]
    test: Tensor  # [B, C]


@dataclass(frozen=True)
class PolicySettings:
    """What is compared."""

    ratios: tuple[float, ...] = (0.33, 1.0, 3.0, 10.0, 30.0)  # costs of a false positive; a false negative's is 1
    charge: Charge = "once"
    target_accuracy: float | None = None  # of answers: adds the policy with this guarantee
    delta: float = 0.05  # the guarantee may fail with this probability
    out_of_scope_share: float | None = None  # among the queries to come; None: as in the validation split

    def __post_init__(self) -> None:
        if not self.ratios or not all(0 < ratio < np.inf for ratio in self.ratios):
            raise ConfigError(
                "ratios must be finite and > 0, costs of a false positive over those of a false negative, but got"
                f" {', '.join(f'{ratio:g}' for ratio in self.ratios) or 'none'}"
            )
        if len(set(self.ratios)) != len(self.ratios):
            raise ConfigError(f"ratios must be given once each, but got {', '.join(f'{one:g}' for one in self.ratios)}")
        if self.charge not in get_args(Charge):
            raise ConfigError(f"charge must be 'once' or 'every', but got {self.charge!r:.40}")
        for name in ("target_accuracy", "delta", "out_of_scope_share"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise ConfigError(f"{name} must lie in (0, 1), but got {value:g}")


def compare_policies(
    task: CascadeTask,
    predictions: Sequence[Mapping[str, Predictions]],
    *,
    settings: PolicySettings,
    on_step: Callable[[int, int], None] = lambda *_: None,
) -> list[Row]:
    """Compare all policies at several costs of false positives.

    A policy has variants: calibrations, thresholds. At each ratio the one is taken whose cost on the validation split
    is least in the mean over seeds, when fitted on one half of it and decided on the other, in turn; it is then fitted
    on the whole. The rows `BEST` take the best of all policies but the single threshold in the same way: those of the
    tree models, and those of all models. The policy with a guarantee has no variants, no ``valid_cost``, and is never
    the best.

    Args:
        task: Gives the truths.
        predictions: Of each seed, by classifier; `FLAT` is the rival where it is among them.
        settings: Costs, and what else is known.
        on_step: Told (seeds done, seeds in all).

    Returns:
        A row for each ratio, classifier (``model``) and ``policy``: the ``variant`` that is taken and, as means over
        seeds, its ``cost`` per document, ``valid_cost``, shares of documents ``answered_class``, ``answered_inner``
        and ``flagged``, and ``accuracy`` of the answers (None where a seed has none); ``interval`` of the cost (95 %),
        ``against_flat`` (of the difference to the flat softmax with a single threshold, paired by seed; None without
        it), ``variants`` (test cost of each) and ``runs``, the seeds.

    Raises:
        DataError: The guarantee cannot be given, or no calibration be fitted, with so few validation documents.
    """
    costs_of = {ratio: ratio_costs(task, ratio, settings.charge) for ratio in settings.ratios}
    groups = variants(target_accuracy=settings.target_accuracy, delta=settings.delta)
    runs: dict[Key, dict[str, list[Row]]] = {}
    for seed, by_model in enumerate(predictions):
        for key, name, run in _seed_runs(task, by_model, costs_of, groups, settings.out_of_scope_share):
            runs.setdefault(key, {}).setdefault(name, []).append({"seed": seed} | run)
        on_step(seed + 1, len(predictions))
    rows = {key: _row(key, by_variant) for key, by_variant in runs.items()}
    chosen = list(rows.values())
    for ratio in settings.ratios:
        able = [row for key, row in rows.items() if key[0] == ratio and key[2] not in (THRESHOLD, GUARANTEE)]
        for name, pool in ((TREE_MODELS, [row for row in able if row["model"] != FLAT]), (ALL_MODELS, able)):
            if pool:
                best = min(pool, key=lambda row: row["valid_cost"])
                variant = f"{best['model']}: {best['policy']}: {best['variant']}"
                chosen.append(best | {"model": name, "policy": BEST, "variant": variant, "variants": {}})
    for row in chosen:
        rival = rows.get((row["ratio"], FLAT, THRESHOLD))
        pair = [[run["cost"] for run in one["runs"]] for one in (row, rival) if one is not None]
        row["against_flat"] = paired_difference(*pair).as_dict() if len(pair) == 2 else None
    return chosen


def ratio_costs(task: CascadeTask, ratio: float, charge: Charge) -> NodeCosts:
    """False negatives cost 1, false positives ``ratio``, at every node."""
    return NodeCosts.uniform(task.tree, false_positive=ratio, false_negative=1.0, charge=charge)


Key = tuple[float, str, str]  # ratio, model, policy
Groups = Mapping[str, Sequence[Variant]]


def _seed_runs(
    task: CascadeTask,
    by_model: Mapping[str, Predictions],
    costs_of: Mapping[float, NodeCosts],
    groups: Groups,
    out_of_scope_share: float | None,
) -> Iterator[tuple[Key, str, Row]]:
    """Outcomes of each variant on the test split, and its cost on the validation split."""
    test_truth_B = task.truth(task.test)
    for model, said in by_model.items():
        scores = Scores.of(task, said.valid)
        valid = Known.of(scores, task.truth(task.valid), out_of_scope_share=out_of_scope_share)
        valid_costs = _cross_fitted(groups, valid, costs_of)
        for key, node_B in _decided(groups, valid, costs_of, Scores.of(task, said.test)).items():
            ratio, policy, name = key
            found = outcome(costs_of[ratio], node_B, test_truth_B)
            yield (ratio, model, policy), name, found | {"valid_cost": valid_costs.get(key)}


Decided = dict[Key, Tensor]  # of ratio, policy and variant


def _decided(groups: Groups, known: Known, costs_of: Mapping[float, NodeCosts], scores: Scores) -> Decided:
    """The nodes of each ratio, policy and variant; each calibration is fitted once."""
    calibrated: dict[str, tuple[Known, Scores]] = {}
    nodes: Decided = {}
    for policy, members in groups.items():
        for one in members:
            if one.calibration not in calibrated:
                apply = calibrate(known, one.calibration)
                calibrated[one.calibration] = replace(known, scores=apply(known.scores)), apply(scores)
            fitted_on, new = calibrated[one.calibration]
            decided: Tensor | None = None
            for ratio, costs in costs_of.items():
                if decided is None or one.uses_costs:
                    decided = one.decide(fitted_on, costs, new)
                nodes[ratio, policy, one.name] = decided
    return nodes


def _cross_fitted(groups: Groups, valid: Known, costs_of: Mapping[float, NodeCosts]) -> dict[Key, float]:
    """Mean cost of each variant on the validation split, each fold decided by what was fitted on the others."""
    fold_B = torch.from_numpy(np.random.default_rng(FOLD_SEED).permutation(len(valid.scores)) % NUM_FOLDS)
    chosen = {policy: members for policy, members in groups.items() if policy != GUARANTEE}
    total: dict[Key, float] = {}
    for fold in range(NUM_FOLDS):
        inside = valid[fold_B == fold]
        for key, node_B in _decided(chosen, valid[fold_B != fold], costs_of, inside.scores).items():
            share = float(inside.weight.sum() / valid.weight.sum())
            total[key] = total.get(key, 0.0) + share * inside.mean(costs_of[key[0]].cost(node_B, inside.truth))
    return total


def outcome(costs: NodeCosts, node_B: Tensor, truth_B: Tensor) -> Row:
    """Realised cost, what was answered, and how often answers were right: at the true node or above it."""
    answered_B, leaf_B = node_B != ROOT_NODE, node_B >= costs.tree.num_internal
    right_B = contains(costs.tree, node_B, truth_B)
    return {
        "cost": float(costs.cost(node_B, truth_B).mean()),
        "answered_class": float(leaf_B.double().mean()),
        "answered_inner": float((answered_B & ~leaf_B).double().mean()),
        "flagged": float((~answered_B).double().mean()),
        "accuracy": float(right_B[answered_B].double().mean()) if bool(answered_B.any()) else None,
    }


def _row(key: Key, by_variant: Mapping[str, Sequence[Row]]) -> Row:
    """The variant of least cost on the validation split."""

    def mean(name: str, measure: str) -> float | None:
        values = [run[measure] for run in by_variant[name]]
        return None if None in values else float(np.mean(values))

    def valid_cost(name: str) -> float:
        value = mean(name, "valid_cost")
        return np.inf if value is None else value

    chosen = min(by_variant, key=valid_cost)
    ratio, model, policy = key
    return {
        "model": model,
        "policy": policy,
        "ratio": ratio,
        "variant": chosen,
        **{measure: mean(chosen, measure) for measure in MEASURES},
        "interval": t_interval([run["cost"] for run in by_variant[chosen]]).as_dict(),
        "against_flat": None,
        "variants": {name: mean(name, "cost") for name in by_variant},
        "runs": list(by_variant[chosen]),
    }
