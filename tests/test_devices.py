"""Everything around the layers on another device: losses, metrics, evaluators, training, files, swaps, exports."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.devices import DEVICES, ready
from tests.evaluation.oracle import class_vectors, planted
from tests.softmax.oracle import TREES, D, random_batch, random_layer
from treesearch import HierarchicalSoftmax, build_tree
from treesearch.config import EncoderConfig
from treesearch.data import InputSpec, Split
from treesearch.decisions.node_probs import NodeProbs
from treesearch.evaluation import calibration
from treesearch.evaluation.encoders import encode
from treesearch.evaluation.frozen_torch import evaluate_forest
from treesearch.evaluation.joint import token_nll, train_joint
from treesearch.evaluation.predictions import accuracy
from treesearch.evaluation.softmax_mean import SoftmaxMean
from treesearch.evaluation.timing import time_trees
from treesearch.integrations.torch import collect_features, load_output_layer, replace_output_layer
from treesearch.metrics import HierarchicalMetrics
from treesearch.metrics.accuracy import class_levels, marginal_levels
from treesearch.metrics.consistency import consistency_violations, level_log_probs, mass_violations
from treesearch.objectives.contrastive import info_nce
from treesearch.objectives.distillation import (
    SparseTeacher,
    cut_teacher,
    distillation_loss,
    node_divergences,
    subtree_masses,
)
from treesearch.objectives.gradients import Handling, combine_gradients
from treesearch.objectives.leaf_pairs import LeafPairs, SiblingPairs
from treesearch.objectives.multi_level import MultiLevelLoss
from treesearch.objectives.separate_heads import SeparateHeads
from treesearch.objectives.smoothing import HierarchicalSmoothing
from treesearch.serving import beam_module, export_program, scoring_module
from treesearch.softmax.leaf_vectors import tied_leaf_vectors
from treesearch.taxonomy import taxonomy_from_edges

TREE = TREES["huffman 5-ary"]
COUNTS = np.arange(40, 0, -1)
ZOO = taxonomy_from_edges(
    [("animal", "ROOT"), ("dog", "animal"), ("poodle", "dog"), ("beagle", "dog"), ("cat", "animal"), ("tool", "ROOT"),
     ("hammer", "tool"), ("saw", "tool")],
    classes=["poodle", "beagle", "cat", "hammer", "saw", "dog"],
)  # fmt: skip


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    return ready(request.param)


def moved(model: nn.Module, device: torch.device) -> Any:
    return copy.deepcopy(model).to(device)


@pytest.fixture
def layers(device: torch.device) -> tuple[HierarchicalSoftmax, HierarchicalSoftmax]:
    here = random_layer(TREE)
    return here, moved(here, device)


def same(found: Any, expected: Any, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(found.detach().cpu(), expected.detach(), rtol=tolerance, atol=tolerance)


def same_gradients(found: Tensor, expected: Tensor, there: nn.Module, here: nn.Module) -> None:
    same(found, expected)
    expected.backward()
    found.backward()
    for own, other in zip(there.parameters(), here.parameters(), strict=True):
        if other.grad is not None and own.grad is not None:
            same(own.grad.to_dense(), other.grad.to_dense())


def teacher_of(num: int, num_classes: int) -> Tensor:
    return (
        torch.randn(num, num_classes, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
        .mul(3)
        .softmax(-1)
    )


# -- objectives --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exact", [False, True])
def test_smoothing(layers: Any, exact: bool, device: torch.device) -> None:
    here, there = layers
    smoothing = HierarchicalSmoothing(TREE, smoothing=0.2, beta=0.5)
    x, y = random_batch(here, 7)
    found = smoothing.loss(there, x.to(device), y.to(device), exact=exact)
    same_gradients(found, smoothing.loss(here, x, y, exact=exact), there, here)
    logits = torch.randn(7, 40, dtype=torch.float64)
    same(smoothing.flat_loss(logits.to(device), y.to(device)), smoothing.flat_loss(logits, y), 1e-6)


def test_distillation(layers: Any, device: torch.device) -> None:
    here, there = layers
    x, y = random_batch(here, 7)
    x_there, y_there = x.to(device), y.to(device)
    teacher = teacher_of(7, 40)
    settings: dict[str, Any] = {"temperature": 2.0, "hard_weight": 0.3}
    expected = distillation_loss(here, x, teacher, target=y, **settings)
    found = distillation_loss(there, x_there, teacher.to(device), target=y_there, **settings)
    same_gradients(found, expected, there, here)
    same(subtree_masses(TREE, teacher.to(device)), subtree_masses(TREE, teacher))
    same(node_divergences(there, x_there, teacher.to(device)), node_divergences(here, x, teacher))
    cuts = [
        cut_teacher(own, num_kept=3, num_sampled=4, generator=torch.Generator().manual_seed(1))
        for own in (teacher, teacher.to(device))
    ]
    for own, other in zip(cuts[1], cuts[0], strict=True):
        same(own, other)
    sparse = SparseTeacher(TREE, counts=COUNTS)
    same(
        sparse.loss(there, x_there, *cuts[1], target=y_there, hard_weight=0.2),
        sparse.loss(here, x, *cuts[0], target=y, hard_weight=0.2),
        1e-6,
    )


def test_several_levels(device: torch.device) -> None:
    loss = MultiLevelLoss(ZOO, level_weights={1: 0.5}, node_weights={"dog": (0.0, 2.0)})
    here = random_layer(ZOO.tree)
    there = moved(here, device)
    label = loss.label_ids(["poodle", "cat", "animal", None, "saw", "tool"])
    x = torch.randn(6, D, dtype=torch.float64)
    same_gradients(
        loss(there, x.to(device), label.to(device), progress=0.5), loss(here, x, label, progress=0.5), there, here
    )


def test_separate_heads(device: torch.device) -> None:
    here = SeparateHeads(D, ZOO, dtype=torch.float64)
    there = SeparateHeads(D, ZOO, device=device, dtype=torch.float64)
    there.load_state_dict(here.state_dict())
    x, y = torch.randn(9, D, dtype=torch.float64), torch.arange(9) % 6
    x_there, y_there = x.to(device), y.to(device)
    same_gradients(there(x_there, y_there).loss, here(x, y).loss, there, here)
    node = torch.arange(9) % ZOO.num_nodes
    same(there.node_loss(x_there, node.to(device)), here.node_loss(x, node))
    same(there.class_log_prob(x_there), here.class_log_prob(x))
    assert torch.equal(there.predict(x_there).cpu(), here.predict(x))
    assert torch.equal(there.predict_class(x_there).cpu(), here.predict_class(x))
    for own, other in zip(there.log_prob(x_there), here.log_prob(x), strict=True):
        same(own, other)
    same(
        torch.tensor(mass_violations(there.log_prob(x_there), ZOO)),
        torch.tensor(mass_violations(here.log_prob(x), ZOO)),
    )
    violations = consistency_violations(there.predict(x_there), ZOO)
    assert violations == consistency_violations(here.predict(x), ZOO)


def test_contrastive(layers: Any, device: torch.device) -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 5))
    for pairs in (LeafPairs.from_vectors(vectors, num_neighbours=3), SiblingPairs.from_groups(np.arange(40) // 4)):
        anchors, positives = pairs.sample(8, np.random.default_rng(0))
        values = []
        for layer, where in zip(layers, ("cpu", device), strict=True):
            named = anchors.to(where), positives.to(where)
            values.append(info_nce(tied_leaf_vectors(layer), *named, pairs=pairs))
        same(values[1], values[0])
        same(info_nce(tied_leaf_vectors(layers[1]), anchors, positives, pairs=pairs), values[0])  # as they were drawn


@pytest.mark.parametrize("handling", ["sum", "normalised", "pcgrad"])
def test_gradients_of_several_losses(layers: Any, handling: Handling, device: torch.device) -> None:
    found = []
    for layer, where in zip(layers, ("cpu", device), strict=True):
        x, y = (tensor.to(where) for tensor in random_batch(layers[0], 8))
        losses = [layer(x, y).loss, layer(x.flip(0), y).loss]
        report = combine_gradients(losses, layer.parameters(), handling=handling)
        found.append((report.cosines[0][1], *(own.grad for own in layer.parameters())))
    assert found[1][0] == pytest.approx(found[0][0])
    for own, other in zip(found[1][1:], found[0][1:], strict=True):
        same(own, other)


# -- metrics and decisions ---------------------------------------------------------------------------------------------


def test_metrics(layers: Any, device: torch.device) -> None:
    x, y = random_batch(layers[0], 30)
    log_prob = layers[0].log_prob(x).detach()
    collections = []
    for where in ("cpu", device):
        own = HierarchicalMetrics(TREE, counts=COUNTS)
        own.update(log_prob.to(where)[:10], y.to(where)[:10])
        own.update(log_prob.to(where)[10:], y.to(where)[10:])
        collections.append(own)
    np.testing.assert_equal(collections[1].compute(), collections[0].compute())
    collections[1].merge(collections[0])
    assert torch.equal(class_levels(y.to(device), TREE).cpu(), class_levels(y, TREE))
    assert torch.equal(marginal_levels(log_prob.to(device), TREE).cpu(), marginal_levels(log_prob, TREE))
    for own, other in zip(level_log_probs(log_prob.to(device), TREE), level_log_probs(log_prob, TREE), strict=True):
        same(own, other)


def test_probabilities_of_nodes(layers: Any, device: torch.device) -> None:
    here, there = layers
    x, _ = random_batch(here, 6)
    expected, found = NodeProbs.of_layer(here, x), NodeProbs.of_layer(there, x.to(device))
    assert found.prob.device.type == "cpu"
    same(found.log_prob, expected.log_prob)
    conditional = expected.log_conditional.to(device)
    same(NodeProbs.of_conditional(TREE, conditional).class_log_prob, expected.class_log_prob)


# -- evaluators --------------------------------------------------------------------------------------------------------


def test_the_frozen_rung(device: torch.device) -> None:
    train, valid, counts = planted(40, 300)
    trees = [TREES[name] for name in ("huffman", "flat", "adaptive", "huffman 5-ary")]
    settings: dict[str, Any] = {"train": train, "valid": valid, "counts": counts, "vectors": class_vectors(40, 6)}
    expected = evaluate_forest(trees, device="cpu", **settings)
    for own, other in zip(evaluate_forest(trees, device=device, **settings), expected, strict=True):
        np.testing.assert_allclose(own.nll, other.nll, rtol=1e-3, atol=0.05)
        assert own.tokens.tolist() == other.tokens.tolist()


def joint_problem(num_tokens: int = 400) -> Split:
    rng = np.random.default_rng(0)
    windows = rng.integers(12, size=(num_tokens, 2)).astype(np.int32)
    return Split(windows, ((windows[:, -1] * 5 + 3) % 12).astype(np.int32))


@pytest.mark.parametrize("mean", [False, True])
def test_joint_training(mean: bool, device: torch.device) -> None:
    from tests.evaluation.test_joint import model

    train, scores = joint_problem(), []
    for where in ("cpu", device):
        encoder, layer = model()
        head: Any = SoftmaxMean([layer, model(seed=1)[1]]) if mean else layer
        encoder.to(where)
        head.to(where)
        fit = train_joint(encoder, head, train, valid=train, learning_rate=0.02, epochs=2, batch_size=64, seed=0)
        scores.append(token_nll(encoder, head, train).mean())
        assert fit.valid_nll == pytest.approx(scores[-1], rel=1e-4)
        if not mean:
            best = layer.predict(torch.from_numpy(encode(encoder, train.inputs)).to(where)).cpu().numpy()
            assert accuracy(encoder, layer, train)["accuracy"] == (best == train.labels).mean()
    assert scores[1] == pytest.approx(scores[0], abs=0.1)


# -- files, swaps, exports ---------------------------------------------------------------------------------------------


def test_an_output_layer_is_replaced(device: torch.device, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tree = build_tree("huffman", counts=COUNTS)
    here = nn.Sequential(nn.Linear(4, D), nn.Tanh(), nn.Linear(D, 40)).double()
    there = moved(here, device)
    x, y = torch.randn(9, 4, dtype=torch.float64), torch.arange(9)
    loader = [(x, y)]
    for name, model in (("here", here), ("there", there)):
        collect_features(model, "2", loader, out=tmp_path / name, progress=False)
    np.testing.assert_array_equal(np.load(tmp_path / "here/x.npy"), np.load(tmp_path / "there/x.npy"))
    heads = [replace_output_layer(model, "2", tree, counts=COUNTS) for model in (here, there)]
    assert heads[1].weights[0].device == device
    same(there(x.to(device)), here(x))
    heads[1].save_pretrained(tmp_path / "head")
    other = nn.Sequential(nn.Linear(4, D), nn.Tanh(), nn.Linear(D, 40)).double().to(device)
    other[0].load_state_dict(there[0].state_dict())
    load_output_layer(other, "2", tmp_path / "head")
    same(other(x.to(device)), here(x))


@pytest.mark.parametrize("name", ["huffman", "huffman 5-ary", "adaptive", "random"])
def test_serving_modules(name: str, device: torch.device) -> None:
    here = random_layer(TREES[name])
    there = moved(here, device)
    x, _ = random_batch(here, 7)
    same(scoring_module(there)(x.to(device)), here.log_prob(x))
    for beam in (1, 3, None):
        for own, other in zip(
            beam_module(there, 3, beam=beam)(x.to(device)), beam_module(here, 3, beam=beam)(x), strict=True
        ):
            same(own, other)
    if device.type == "cuda":
        same(export_program(scoring_module(there)).module()(x.to(device)), here.log_prob(x))


def test_steps_are_timed_and_a_cost_table_is_measured(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "SECONDS", 0.0)
    monkeypatch.setattr(calibration, "REPEATS", 1)
    table = calibration.calibrate(8, batch_size=4, device=device, max_arity=4)
    assert table.training_us_per_example(TREE, COUNTS) > 0
    encoder, spec = EncoderConfig(context=2, embedding=4, features=6), InputSpec(size=2, num_ids=12)
    tree = build_tree("huffman", counts=np.ones(12))
    (time,) = time_trees(
        [tree], joint_problem(), encoder=encoder, spec=spec, device=str(device), rounds=1, batch_size=32
    )
    assert min(time.head_us, time.step_us) > 0
