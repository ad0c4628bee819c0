"""Policies: from what a classifier says of documents to nodes, fitted on the validation split.

Shapes: **B** documents, **C** classes, **M** nodes in all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from treesearch.applications.cascade.out_of_scope import OutOfScopeModel
from treesearch.applications.cascade.scores import Known, Scores
from treesearch.applications.cascade.task import ROOT_NODE
from treesearch.decisions.calibration import NodeIsotonic, NodeTemperatures
from treesearch.decisions.cascade import Probability, cascade, descend, flat_threshold
from treesearch.decisions.costs import NodeCosts
from treesearch.decisions.expected_cost import minimise_expected_cost
from treesearch.decisions.selective import ConformalTree, SelectivePolicy

Policy = Callable[[Known, NodeCosts, Scores], Tensor]
"""(validation split, costs, scores to decide on) -> nodes [B], the root for a flag."""

THRESHOLD, GUARANTEE = "threshold", "guarantee"
TUNED = torch.linspace(0.04, 0.96, 24, dtype=torch.float64).tolist()  # thresholds
ALPHAS = (0.02, 0.05, 0.1, 0.2, 0.3)  # shares of conformal answers that may miss the truth


def threshold_of_costs(known: Known, costs: NodeCosts, scores: Scores) -> Tensor:
    """The most probable class above c_fp / (c_fp + c_fn); where costs differ by node, the mean of these."""
    return scores.flagged(flat_threshold(scores.probs, float(costs.thresholds[1:].mean())))


def tuned_threshold(known: Known, costs: NodeCosts, scores: Scores) -> Tensor:
    """The most probable class above the threshold that costs least on the validation split."""
    answer_B = known.scores.flagged(flat_threshold(known.scores.probs, 0.0))
    threshold = best_threshold(
        known.scores.probs.class_log_prob.max(1).values.exp(),
        known.weight * costs.cost(answer_B, known.truth),
        known.weight * costs.cost(torch.full_like(answer_B, ROOT_NODE), known.truth),
    )
    return scores.flagged(flat_threshold(scores.probs, threshold))


def best_threshold(confidence_B: Tensor, answer_cost_B: Tensor, flag_cost_B: Tensor) -> float:
    """The threshold in [0, 1] that costs least in sum, where what lies above is answered and the rest flagged.

    Of thresholds between two neighbouring confidences it is the middle; of equally good ones the lowest.
    """
    order_B = confidence_B.argsort()
    rising_B = confidence_B[order_B].clamp(0, 1)
    zero = rising_B.new_zeros(1)
    saved_B = (answer_cost_B - flag_cost_B)[order_B]
    cost_B1 = torch.cat([zero, -saved_B.cumsum(0)])  # of flagging the least confident ones, up to a constant
    edges_B2 = torch.cat([zero, rising_B, zero + 1])
    tied_B1 = edges_B2[1:] == edges_B2[:-1]
    tied_B1[0] = tied_B1[-1] = False  # all can be answered, or flagged
    best = int(torch.where(tied_B1, torch.inf, cost_B1).argmin())
    if best in (0, len(rising_B)):
        return float(best > 0)
    return float((edges_B2[best] + edges_B2[best + 1]) / 2)


def cascade_by(probability: Probability) -> Policy:
    """The cascade at the thresholds of the costs."""

    def decide(known: Known, costs: NodeCosts, scores: Scores) -> Tensor:
        return scores.flagged(cascade(scores.probs, costs, probability=probability))

    return decide


def tuned_cascade(known: Known, costs: NodeCosts, scores: Scores) -> Tensor:
    """The cascade with one threshold for all nodes, the one that costs least on the validation split."""
    tree, score_BM = known.scores.probs.tree, known.scores.probs.conditional

    def spent(threshold: float) -> float:
        node_B = descend(tree, score_BM, torch.full((tree.num_nodes,), threshold, dtype=torch.float64))
        return known.mean(costs.cost(known.scores.flagged(node_B), known.truth))

    return scores.flagged(cascade(scores.probs, min(TUNED, key=spent)))


def least_expected_cost(known: Known, costs: NodeCosts, scores: Scores) -> Tensor:
    """The node of least expected cost."""
    return minimise_expected_cost(scores.in_scope, costs, root_probability=scores.root_probability)[0]


def guarantee(target_accuracy: float, delta: float) -> Policy:
    """The deepest node that is probable enough for a guaranteed accuracy of the answers."""

    def decide(known: Known, costs: NodeCosts, scores: Scores) -> Tensor:
        # Documents that are likelier out of scope than below any other child of the root are flagged whatever the
        # threshold is: the guarantee is one for the rest, and is calibrated on the rest.
        top_n = known.scores.top_nodes
        rest = top_n[known.scores.probs.prob[:, top_n].argmax(1)] != (known.scores.out_of_scope_leaf or ROOT_NODE)
        policy = SelectivePolicy.fit(
            known.scores.probs[rest], known.truth[rest], target_accuracy=target_accuracy, delta=delta
        )
        return scores.flagged(policy.decide(scores.probs))

    return decide


def conformal(alpha: float) -> Policy:
    """The deepest node on the likeliest class's path that contains the truth with probability 1 - alpha."""

    def decide(known: Known, costs: NodeCosts, scores: Scores) -> Tensor:
        tree = ConformalTree.fit(known.scores.probs, known.learned, alpha=alpha)
        return scores.flagged(tree.decide(scores.probs))

    return decide


RAW = "raw"
PER_NODE: dict[str, type[NodeTemperatures] | type[NodeIsotonic]] = {
    "temperature": NodeTemperatures,
    "isotonic": NodeIsotonic,
}
FITTED = "root fitted"
CALIBRATIONS = (RAW, *PER_NODE, *(f"{how}, {FITTED}" for how in (RAW, *PER_NODE)))


def calibrate(known: Known, how: str) -> Callable[[Scores], Scores]:
    """Fit one of `CALIBRATIONS`; the function that applies it."""
    per_node, _, root = how.partition(", ")

    def by_node(scores: Scores) -> Scores:
        return scores if per_node == RAW else replace(scores, probs=fitted.apply(scores.probs))

    if per_node != RAW:
        fitted = PER_NODE[per_node].fit(known.scores.probs, known.learned)
    model = OutOfScopeModel.fit(replace(known, scores=by_node(known.scores))) if root else None

    def apply(scores: Scores) -> Scores:
        calibrated = by_node(scores)
        return calibrated if model is None else calibrated.with_root_probability(model.probability(calibrated))

    return apply


@dataclass(frozen=True)
class Variant:
    """One way to follow a policy."""

    name: str
    calibration: str  # of `CALIBRATIONS`
    decide: Policy
    uses_costs: bool = True


def _calibrated(policy: Policy, calibrations: Sequence[str]) -> list[Variant]:
    return [Variant(how, how, policy) for how in calibrations]


def variants(
    *, target_accuracy: float | None, delta: float, calibrations: Sequence[str] = CALIBRATIONS
) -> dict[str, list[Variant]]:
    """The variants of each policy; the one with a guarantee where a target is given."""
    found = {
        THRESHOLD: [Variant("by costs", RAW, threshold_of_costs), Variant("tuned", RAW, tuned_threshold)],
        "cascade": [
            *_calibrated(cascade_by("conditional"), calibrations),
            Variant("tuned threshold", RAW, tuned_cascade),
        ],
        "cascade, marginal": _calibrated(cascade_by("marginal"), calibrations),
        "expected cost": _calibrated(least_expected_cost, calibrations),
        "conformal": [Variant(f"alpha {alpha:g}", RAW, conformal(alpha), uses_costs=False) for alpha in ALPHAS],
    }
    if target_accuracy is not None:
        policy = guarantee(target_accuracy, delta)
        found[GUARANTEE] = [Variant(f"{target_accuracy:g}", RAW, policy, uses_costs=False)]
    return found
