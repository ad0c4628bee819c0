"""All metrics against brute force on ragged taxonomies; parts, merge and reset; the real torchmetrics and sklearn."""

import copy
import json
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.nested import nested_trees
from tests.ragged import BIRD, EAGLE, FISH, OWL, ROCK, ZOO, height, path, scores, taxonomies
from treesearch import Tree
from treesearch.errors import DataError
from treesearch.metrics import (
    CountBuckets,
    HierarchicalF1,
    HierarchicalMetrics,
    LevelAccuracy,
    LevelCalibration,
    MarginalAccuracy,
    MeanNLL,
    MistakeSeverity,
    class_levels,
    tree_levels,
)
from treesearch.taxonomy import Taxonomy, taxonomy_from_paths

K, BINS = 2, 4


def mean(values: list[Any]) -> float:
    return sum(values) / len(values) if values else math.nan


def brute(taxonomy: Taxonomy, log_prob: np.ndarray, target: np.ndarray, counts: np.ndarray) -> dict[str, Any]:
    """Every value of the collection, example by example and node by node."""
    C, L = taxonomy.num_classes, taxonomy.num_levels
    ways = [path(taxonomy, cls) for cls in range(C)]
    prob = np.exp(log_prob)
    order = [sorted(range(C), key=lambda c, row=row: (-row[c], c)) for row in log_prob]
    best = [row[0] for row in order]
    k = min(K, C)

    def at(cls: int, level: int) -> Any:
        return ways[cls][level] if level < len(ways[cls]) else ("end", cls)

    def lca_height(a: int, b: int) -> int:
        common = [x for x, y in zip(ways[a], ways[b], strict=False) if x == y]
        return 0 if a == b else height(taxonomy, common[-1])

    found: dict[str, Any] = {"level_accuracy": [], "marginal_accuracy": [], "calibration_error": [], "top": []}
    for level in range(1, L + 1):
        known = [row for row, cls in enumerate(target) if level < len(ways[cls])]
        found["level_accuracy"].append(mean([at(best[row], level) == at(target[row], level) for row in known]))
        found["top"].append(
            mean([any(at(c, level) == at(target[row], level) for c in order[row][:k]) for row in known])
        )
        marginal = [{at(c, level): 0.0 for c in range(C)} for _ in target]
        for row in range(len(target)):
            for c in range(C):
                marginal[row][at(c, level)] += prob[row, c]
        most = [max(each, key=each.__getitem__) for each in marginal]
        found["marginal_accuracy"].append(mean([most[row] == at(target[row], level) for row in known]))
        bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
        for row, cls in enumerate(target):
            confidence = marginal[row][at(best[row], level)]
            bins[min(int(confidence * BINS), BINS - 1)].append((confidence, at(best[row], level) == at(cls, level)))
        gaps = [len(each) * abs(mean([c for c, _ in each]) - mean([h for _, h in each])) for each in bins if each]
        found["calibration_error"].append(sum(gaps) / len(target))
    common = sum(len(set(ways[p][1:]) & set(ways[t][1:])) for p, t in zip(best, target, strict=True))
    sizes = sum(len(ways[p]) - 1 for p in best), sum(len(ways[t]) - 1 for t in target)
    found["hierarchical_precision"] = common / sizes[0] if sizes[0] else math.nan
    found["hierarchical_recall"] = common / sizes[1] if sizes[1] else math.nan
    found["hierarchical_f1"] = 2 * common / sum(sizes) if sum(sizes) else math.nan
    distances = [lca_height(p, t) for p, t in zip(best, target, strict=True)]
    found["mistake_severity"] = mean([d for d, p, t in zip(distances, best, target, strict=True) if p != t])
    found["mean_distance"] = mean(distances)
    found["distance"] = mean([lca_height(c, t) for row, t in zip(order, target, strict=True) for c in row[:k]])
    found["accuracy"] = mean([p == t for p, t in zip(best, target, strict=True)])
    nll = -log_prob[np.arange(len(target)), target]
    found["nll"] = mean(nll.tolist())
    limits = [(0, 0), (1, 5), (6, 20), (21, 100), (101, 10**9)]
    inside = [[row for row, t in enumerate(target) if low <= counts[t] <= high] for low, high in limits]
    found["bucket_num"] = [float(len(rows)) for rows in inside]
    found["bucket_accuracy"] = [mean([best[row] == target[row] for row in rows]) for rows in inside]
    found["bucket_nll"] = [mean([nll[row] for row in rows]) for rows in inside]
    found["rare_accuracy"] = mean([best[row] == target[row] for row in inside[0] + inside[1]])
    found["rare_nll"] = mean([nll[row] for row in inside[0] + inside[1]])
    top = found.pop("top"), found.pop("distance")
    if k > 1:
        found["top2_level_accuracy"], found["top2_distance"] = top
    return found


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], rtol=1e-9, atol=1e-12, err_msg=name)


@settings(deadline=None, max_examples=60)
@given(taxonomies(), st.integers(0, 2**32 - 1))
def test_everything_is_brute_force_whole_in_parts_and_merged(taxonomy: Taxonomy, seed: int) -> None:
    rng = np.random.default_rng(seed)
    log_prob = scores(rng, 9, taxonomy)
    target = np.where(rng.random(9) < 0.4, log_prob.argmax(1), rng.integers(taxonomy.num_classes, size=9))
    counts = rng.choice([0, 1, 5, 6, 20, 21, 100, 101], taxonomy.num_classes)
    counts[0] = 3
    expected = brute(taxonomy, log_prob, target, counts)
    ks = (1, min(K, taxonomy.num_classes))
    whole, part, rest = (HierarchicalMetrics(taxonomy, counts=counts, ks=ks, num_bins=BINS) for _ in range(3))
    log_prob_BC, target_B = torch.from_numpy(log_prob), torch.from_numpy(target)
    whole.update(log_prob_BC.reshape(3, 3, -1), target_B.reshape(3, 3))
    same(whole.compute(), expected)
    for begin, end in ((0, 1), (1, 4)):
        part.update(log_prob_BC[begin:end], target_B[begin:end])
    rest.update(log_prob_BC[4:], target_B[4:])
    part.merge(pickle.loads(pickle.dumps(rest)))
    same(part.compute(), expected)
    whole.reset()
    whole.update(log_prob_BC[4:], target_B[4:])
    same(whole.compute(), rest.compute())


@settings(deadline=None, max_examples=20)
@given(nested_trees(12))
def test_a_tree_is_the_taxonomy_of_its_nodes(nested: Any) -> None:
    tree = Tree.from_nested(nested)
    taxonomy = tree_levels(tree)
    assert taxonomy.tree.hash == tree.hash
    classes = torch.arange(tree.num_classes)
    nodes = class_levels(classes, tree)
    for cls in range(tree.num_classes):
        way = path(taxonomy, cls)[1:]
        assert nodes[cls].tolist() == way + [Taxonomy.NO_NODE] * (tree.max_depth - len(way))
    metrics = HierarchicalMetrics(tree, ks=(1,))
    metrics.update(torch.eye(tree.num_classes, dtype=torch.float64).log(), classes)
    values = metrics.compute()
    assert values["level_accuracy"] == values["marginal_accuracy"] == [1.0] * tree.max_depth
    assert values["calibration_error"] == [0.0] * tree.max_depth
    assert (values["accuracy"], values["nll"], values["mean_distance"]) == (1.0, 0.0, 0.0)
    assert math.isnan(values["mistake_severity"])  # type: ignore[arg-type]


def test_by_hand() -> None:
    """Owl for eagle, bird for eagle, eagle for bird, rock for fish."""
    predicted, target = torch.tensor([OWL, BIRD, EAGLE, ROCK]), torch.tensor([EAGLE, EAGLE, BIRD, FISH])
    accuracy, severity, f1 = LevelAccuracy(ZOO), MistakeSeverity(ZOO), HierarchicalF1(ZOO)
    for metric in (accuracy, severity, f1):
        metric.update(predicted, target)
    assert accuracy.compute() == [3 / 4, 3 / 4, 0.0]
    assert accuracy.at(2) == 3 / 4
    assert severity.compute().over_mistakes == (1 + 1 + 1 + 3) / 4
    assert f1.compute() == pytest.approx((6 / 9, 6 / 10, 12 / 19))


def test_marginals_may_see_what_the_best_class_does_not() -> None:
    """Rock is the best class, animals are more probable together; at level 2 rock has ended and beats bird and fish."""
    log_prob = torch.tensor([[0.15, 0.1, 0.05, 0.3, 0.4]], dtype=torch.float64).log()
    marginal, classes = MarginalAccuracy(ZOO), LevelAccuracy(ZOO)
    marginal.update(log_prob, torch.tensor([FISH]))
    classes.update(log_prob.argmax(1), torch.tensor([FISH]))
    assert marginal.compute() == [1.0, 0.0, pytest.approx(math.nan, nan_ok=True)]
    assert classes.compute()[:2] == [0.0, 0.0]


def test_nodes_of_other_models_are_counted_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    predicted, target = torch.randint(5, (2, 50), generator=generator)
    classes, nodes = LevelAccuracy(ZOO), LevelAccuracy(ZOO)
    classes.update(predicted, target)
    nodes.update_nodes(class_levels(predicted, ZOO), target)
    assert classes.compute() == nodes.compute()


def test_ties_go_to_the_smaller_class() -> None:
    metrics = HierarchicalMetrics(ZOO, ks=(1, 3))
    metrics.update(torch.full((1, 5), 0.2).log(), torch.tensor([EAGLE]))
    values = metrics.compute()
    assert values["accuracy"] == 1.0
    assert values["level_accuracy"] == [1.0, 1.0, 1.0]


def test_nothing_seen_is_nan_and_an_empty_batch_changes_nothing() -> None:
    metrics = HierarchicalMetrics(ZOO, counts=np.ones(5), ks=(1, 5))
    nothing = metrics.compute()
    metrics.update(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64))
    np.testing.assert_equal(metrics.compute(), nothing)
    assert nothing.pop("bucket_num") == [0.0] * 5
    assert all(np.isnan(value).all() for value in nothing.values())
    assert json.loads(json.dumps(nothing)).keys() == nothing.keys()


def test_against_torchmetrics() -> None:
    torchmetrics = pytest.importorskip("torchmetrics")
    classification = torchmetrics.classification
    flat = taxonomy_from_paths([f"g{c // 3}/c{c}" for c in range(9)])
    generator = torch.Generator().manual_seed(1)
    log_prob = (2 * torch.randn(400, 9, generator=generator, dtype=torch.float64)).log_softmax(1)
    target = torch.randint(9, (400,), generator=generator)
    ours = HierarchicalMetrics(flat, ks=(1, 3), num_bins=15)
    ours.update(log_prob, target)
    values = ours.compute()
    # torchmetrics counts in float32.
    error = classification.MulticlassCalibrationError(9, n_bins=15, norm="l1")(log_prob.exp(), target)
    assert values["calibration_error"][1] == pytest.approx(float(error), abs=1e-6)  # type: ignore[index]
    top3 = classification.MulticlassAccuracy(9, top_k=3, average="micro")(log_prob.exp(), target)
    assert values["top3_level_accuracy"][1] == pytest.approx(float(top3))  # type: ignore[index]
    groups = classification.MulticlassAccuracy(3, average="micro")
    assert values["level_accuracy"][0] == pytest.approx(float(groups(log_prob.argmax(1) // 3, target // 3)))  # type: ignore[index]


def test_against_sklearn() -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(2)
    log_prob, target = scores(rng, 300, ZOO), rng.integers(5, size=300)
    metrics = HierarchicalMetrics(ZOO)
    metrics.update(torch.from_numpy(log_prob), torch.from_numpy(target))
    values = metrics.compute()
    assert values["nll"] == pytest.approx(sklearn_metrics.log_loss(target, np.exp(log_prob), labels=range(5)))
    assert values["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(target, log_prob.argmax(1)))
    # Micro-averaged scores of the multi-label problem "is an ancestor, or itself".
    above = np.zeros((5, ZOO.num_nodes), int)
    for cls in range(5):
        above[cls, path(ZOO, cls)[1:]] = 1
    scored = sklearn_metrics.precision_recall_fscore_support(above[target], above[log_prob.argmax(1)], average="micro")
    names = ("hierarchical_precision", "hierarchical_recall", "hierarchical_f1")
    assert [values[name] for name in names] == pytest.approx(list(scored[:3]))


def test_reliability_bins_give_the_error() -> None:
    calibration = LevelCalibration(ZOO, num_bins=5)
    rng = np.random.default_rng(3)
    calibration.update(torch.from_numpy(scores(rng, 100, ZOO)), torch.from_numpy(rng.integers(5, size=100)))
    bins = calibration.bins(1)
    num, confidence, accuracy = (np.nan_to_num(bins[name]) for name in ("num", "confidence", "accuracy"))
    assert (num * np.abs(confidence - accuracy)).sum() / 100 == pytest.approx(calibration.compute()[0])


LOG_PROB, TARGET = torch.full((2, 5), 0.2).log(), torch.tensor([0, 4])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: HierarchicalMetrics(ZOO, ks=(6,)), r"each of ks must be .* in \[1, 5\], but got 6"),
        (lambda: HierarchicalMetrics(ZOO, counts=np.ones(4)), "one number per class, but got 4 for 5"),
        (lambda: HierarchicalMetrics("zoo"), "must be a Taxonomy or a Tree, but got str"),  # type: ignore[arg-type]
        (lambda: HierarchicalMetrics(ZOO).update(LOG_PROB, TARGET + 1), r"lie in \[0, 5\), but ranges from 1 to 5"),
        (lambda: HierarchicalMetrics(ZOO).update(LOG_PROB, TARGET[:1]), r"target must have shape \(2,\)"),
        (lambda: HierarchicalMetrics(ZOO).update(LOG_PROB[:, 1:], TARGET), "5 classes in a row, but got shape"),
        (lambda: HierarchicalMetrics(ZOO).update(LOG_PROB + 5, TARGET), "must be <= 0, but the highest is 3.39"),
        (lambda: HierarchicalMetrics(ZOO).update(LOG_PROB * torch.nan, TARGET), "but the highest is nan"),
        (lambda: HierarchicalMetrics(ZOO).update(LOG_PROB.long(), TARGET), "but got torch.int64"),
        (lambda: HierarchicalMetrics(ZOO).update(LOG_PROB, TARGET.float()), "integer ids, but got torch.float32"),
        (lambda: HierarchicalMetrics(ZOO).merge(HierarchicalMetrics(ZOO, num_bins=3)), "same kind, settings"),
        (lambda: HierarchicalMetrics(ZOO).merge(HierarchicalMetrics(ZOO, ks=(1,))), "same ks and counts"),
        (lambda: MeanNLL(5).merge(MeanNLL(4)), "merge needs a metric of the same kind"),
        (lambda: LevelAccuracy(ZOO).merge(MarginalAccuracy(ZOO)), "got another MarginalAccuracy"),  # type: ignore[arg-type]
        (lambda: LevelAccuracy(ZOO, k=3).update(LOG_PROB.argsort(1)[:, :2], TARGET), "at least 3 for lists of 3"),
        (lambda: LevelAccuracy(ZOO).update_nodes(TARGET[:, None], TARGET), r"nodes must have shape \(2, 3\)"),
        (lambda: LevelAccuracy(ZOO).at(4), r"level must be a whole number in \[1, 3\], but got 4"),
        (lambda: LevelCalibration(ZOO, num_bins=0), "num_bins must be a whole number >= 1, but got 0"),
        (lambda: CountBuckets(np.ones(5), edges=(5, 5)), "ascending, but got"),
        (lambda: CountBuckets(np.ones(5), edges=()), "at least one, but got"),
    ],
)
def test_errors_name_rule_and_value(call: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_refused_merge_adds_nothing() -> None:
    own, other = HierarchicalMetrics(ZOO, ks=(1,)), HierarchicalMetrics(ZOO, ks=(1,), counts=np.ones(5))
    other.update(LOG_PROB, TARGET)
    before = copy.deepcopy(own.compute())
    with pytest.raises(DataError, match="same ks and counts"):
        own.merge(other)
    np.testing.assert_equal(own.compute(), before)


def test_bucket_labels() -> None:
    assert CountBuckets(np.ones(5)).labels == ("0", "1-5", "6-20", "21-100", ">100")
