"""Third stage: out-of-scope detection, risk-coverage and the guarantee of accuracy, on what train.py has kept."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from evaluate import MODELS, load_regime, rounded
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from treesearch.applications.cascade.comparison import ratio_costs
from treesearch.applications.cascade.out_of_scope import OutOfScopeModel
from treesearch.applications.cascade.policies import calibrate
from treesearch.applications.cascade.scores import Known, Scores
from treesearch.decisions.costs import NodeCosts
from treesearch.decisions.expected_cost import minimise_expected_cost
from treesearch.decisions.risk_coverage import risk_coverage
from treesearch.decisions.selective import SelectivePolicy, contains
from treesearch.evaluation.comparison import paired_difference, t_interval
from treesearch.evaluation.threads import one_thread

RIVAL = ("flat", "maximum probability")
COVERAGES = (0.5, 0.7, 0.8, 0.9, 1.0)
NUM_RESAMPLINGS, DELTA = 200, 0.05


def auroc(score: NDArray[np.float64], outside: NDArray[np.bool_]) -> float:
    """P(a query out of scope has the higher score than one in scope), ties half (Mann-Whitney)."""
    num = int(outside.sum())
    return float((rankdata(score)[outside].sum() - num * (num + 1) / 2) / (num * (outside.size - num)))


def signals(scores: Scores, valid: Known, costs: NodeCosts) -> dict[str, Tensor]:
    """What may tell that a query is out of scope, higher where it is, [B]."""
    inside, outside_B = scores.in_scope, scores.root_probability
    tree = inside.tree
    best_B = inside.class_log_prob.max(1)
    leaf_B = torch.from_numpy(tree.class_leaf.astype(np.int64))[best_B.indices]
    least_B, node_B = torch.ones(len(scores), dtype=torch.float64), leaf_B
    while bool((node_B > 0).any()):  # the root's own conditional probability is 1
        least_B = torch.minimum(least_B, inside.conditional.gather(1, node_B[:, None])[:, 0])
        node_B = torch.from_numpy(np.maximum(tree.parent, 0).astype(np.int64))[node_B]
    prob_BC = inside.class_log_prob.exp()
    top_B = inside.prob[:, scores.top_nodes].max(1).values
    calibrated, known = calibrate(valid, "temperature"), valid.scores
    fitted = OutOfScopeModel.fit(Known(calibrated(known), valid.truth, valid.weight))
    assert fitted is not None
    found = {
        RIVAL[1]: -best_B.values.exp() * (1 - outside_B),  # of a class in scope; of the tree models: the path's product
        "minimum on the path": -least_B * (1 - outside_B),
        "maximum domain probability": -top_B * (1 - outside_B),
        "entropy of the classes": -(prob_BC * inside.class_log_prob.clamp(min=-700)).sum(1),
        "expected cost, c_fp / c_fn = 3": minimise_expected_cost(inside, costs, root_probability=outside_B)[1],
        "fitted on validation": fitted.probability(calibrated(scores)),
    }
    if scores.is_trained:
        found["probability out of scope"] = outside_B
    return found


def detection(folder: Path) -> list[dict]:
    """AUROC and risk-coverage of every regime, model and signal."""
    rows = []
    for regime, models in MODELS.items():
        task, predictions = load_regime(folder, regime)
        truth_B = task.truth(task.test)
        outside_B = (truth_B == 0).numpy()
        found: dict[tuple[str, str], list[tuple[float, ...]]] = {}
        for by_model in predictions:
            for model in models:
                valid = Known.of(Scores.of(task, by_model[model].valid), task.truth(task.valid))
                scores = Scores.of(task, by_model[model].test)
                leaf_C = torch.from_numpy(scores.probs.tree.class_leaf.astype(np.int64))
                wrong_B = (leaf_C[scores.in_scope.class_log_prob.argmax(1)] != truth_B).double().numpy()
                for name, score_B in signals(scores, valid, ratio_costs(task, 3.0, "once")).items():
                    curve = risk_coverage(-score_B.numpy(), wrong_B)
                    risks = (curve.risk_at(coverage) for coverage in COVERAGES)
                    found.setdefault((model, name), []).append((auroc(score_B.numpy(), outside_B), curve.aurc, *risks))
        rival = np.array(found[RIVAL])
        for (model, name), values in found.items():
            array = np.array(values)
            rows.append(
                {
                    "regime": regime,
                    "model": model,
                    "signal": name,
                    "auroc": t_interval(array[:, 0]).as_dict(),
                    "auroc_against_flat": paired_difference(array[:, 0], rival[:, 0]).as_dict(),
                    "aurc": t_interval(array[:, 1]).as_dict(),
                    "aurc_against_flat": paired_difference(array[:, 1], rival[:, 1]).as_dict(),
                    "risk_at": dict(zip(map(str, COVERAGES), array[:, 2:].mean(0).tolist(), strict=True)),
                    "runs": array[:, :2].tolist(),
                }
            )
    return rows


def guarantees(folder: Path) -> list[dict]:
    """How often the accuracy of what is answered reaches the target: all validation and test queries, drawn anew."""
    rows = []
    task, predictions = load_regime(folder, "trained")
    truth_B = torch.cat([task.truth(task.valid), task.truth(task.test)])
    tree, num = task.tree, len(truth_B)
    for model in ("hs", "flat"):
        said = predictions[0][model]
        scores = Scores.of(task, torch.cat([said.valid, said.test]))
        top_n = scores.top_nodes
        # What is likelier out of scope than in any domain is flagged whatever the threshold: the rest is calibrated.
        rest_B = top_n[scores.probs.prob[:, top_n].argmax(1)] != scores.out_of_scope_leaf
        for target in (0.9, 0.95):
            for design, size in (("split", 1000), ("split", num // 2), ("drawn from all", 3100)):
                rng = np.random.default_rng(0)
                held, answered, abstained = [], [], 0
                for _ in range(NUM_RESAMPLINGS):
                    if design == "split":  # the rest is held out
                        order = torch.from_numpy(rng.permutation(num))
                        fit_n, new_n = order[:size], order[size:]
                    else:  # with replacement: all queries together are the population, whose accuracy is known exactly
                        fit_n, new_n = torch.from_numpy(rng.integers(0, num, size)), torch.arange(num)
                    fit_n = fit_n[rest_B[fit_n]]
                    policy = SelectivePolicy.fit(
                        scores.probs[fit_n], truth_B[fit_n], target_accuracy=target, delta=DELTA
                    )
                    node_B = scores.flagged(policy.decide(scores.probs[new_n]))
                    is_answer_B = node_B > 0
                    abstained += not bool(is_answer_B.any())
                    if bool(is_answer_B.any()):
                        held.append(float(contains(tree, node_B, truth_B[new_n])[is_answer_B].double().mean()))
                    answered.append(float(is_answer_B.double().mean()))
                kept = sum(accuracy >= target for accuracy in held) + abstained
                rows.append(
                    {
                        "model": model,
                        "target": target,
                        "design": design,
                        "calibration": size,
                        "kept": kept / NUM_RESAMPLINGS,
                        "abstained_always": abstained / NUM_RESAMPLINGS,
                        "mean_accuracy": float(np.mean(held)) if held else None,
                        "least_accuracy": min(held, default=None),
                        "answered": float(np.mean(answered)),
                    }
                )
                print(rows[-1], file=sys.stderr, flush=True)
    return rows


def main() -> None:
    folder = Path(sys.argv[1])
    for name in sys.argv[2:] or ("guarantee", "detection"):
        rows = {"guarantee": guarantees, "detection": detection}[name](folder)
        Path(__file__).with_name(f"{name}.json").write_text(json.dumps(rounded(rows)))


if __name__ == "__main__":
    with one_thread():
        main()
