"""Compile all kernels into numba's cache: ``python -m treesearch.warmup``, a minute once per machine.

`make install` does it, so that the first search does not pay.
"""

from __future__ import annotations

import numpy as np
import torch

from treesearch.applications.autocomplete import CompletionIndex, Completions, ContextIndex, ContextModel
from treesearch.builders import BUILDERS, build_tree
from treesearch.decisions.calibration import NodeTemperatures
from treesearch.decisions.cascade import cascade
from treesearch.decisions.costs import NodeCosts
from treesearch.decisions.node_probs import NodeProbs
from treesearch.decisions.selective import SelectivePolicy
from treesearch.evaluation.directions import TrainedDirections
from treesearch.evaluation.encoders import BagEncoder
from treesearch.evaluation.features import Features
from treesearch.evaluation.frozen import evaluate_frozen
from treesearch.evaluation.memo import NodeMemo, memo_keys
from treesearch.objectives.distillation import SparseTeacher
from treesearch.objectives.multi_level import MultiLevelLoss
from treesearch.objectives.smoothing import HierarchicalSmoothing
from treesearch.softmax import HierarchicalSoftmax, NodeTargets, RowwiseAdagrad, RowwiseAdam
from treesearch.taxonomy import as_taxonomy
from treesearch.tree import Tree


def compile_kernels() -> None:
    """Run every kernel once on a small input."""
    rng = np.random.default_rng(0)
    num_classes, features = 40, 32
    counts = np.arange(1.0, num_classes + 1)
    vectors = rng.standard_normal((num_classes, features)).astype(np.float32)
    labels = rng.integers(num_classes, size=64).astype(np.int32)
    data = Features(vectors[labels], labels)
    directions = TrainedDirections(data, counts, learning_rate=0.01)
    memo = NodeMemo()
    for name in BUILDERS:
        tree = build_tree(
            name,
            counts=counts,
            vectors=vectors,
            directions=directions,
            categories=np.arange(num_classes) % 2,
            taxonomy=[f"{cls % 2}/{cls}" for cls in range(num_classes)],
        )
        memo.store(memo_keys(tree), memo.look_up(memo_keys(tree)))
        tree.depths, tree.hash, tree.expected_depth(counts)
        evaluate_frozen(tree, train=data, valid=data, counts=counts, vectors=vectors)
        layer = HierarchicalSoftmax(features, tree, kernel="cpu", sparse=True)
        inputs = torch.from_numpy(data.x).requires_grad_()
        layer(inputs, torch.from_numpy(labels.astype(np.int64))).loss.backward()
        for optimizer in (RowwiseAdagrad, RowwiseAdam):
            optimizer(layer.parameters()).step()
        listed = np.arange(tree.num_internal)
        mass = np.ones(tree.arities.sum(), np.float32)
        targets = NodeTargets.of(tree, row=0 * listed, node=listed, mass=mass, num_rows=len(inputs))
        layer.node_cross_entropy(inputs, targets).sum().backward()  # type: ignore[no-untyped-call]
        layer.log_prob(inputs).sum().backward()  # type: ignore[no-untyped-call]
        layer.topk(inputs, 1), layer.double().topk(inputs.double(), 1)
    _compile_objectives()
    _compile_applications()


def _compile_objectives() -> None:
    taxonomy = as_taxonomy(["a/b/c", "a/b", "a/d", "e"])
    tree, target = taxonomy.tree, torch.arange(4)
    for distance in ("edges", "height"):
        smoothing = HierarchicalSmoothing(tree, smoothing=0.1, distance=distance)
        smoothing.distribution(target), smoothing.node_targets(target)
    MultiLevelLoss(taxonomy, level_weights={1: 1.0}).node_targets(target)
    SparseTeacher(tree).node_targets(target[None, :2], torch.full((1, 2), 0.5))
    taxonomy.lowest_common_ancestors(target, target), taxonomy.heights, taxonomy.num_classes_below
    _compile_decisions(tree)


def _compile_decisions(tree: Tree) -> None:
    probs = NodeProbs.of_log_prob(tree, torch.zeros(1, tree.num_classes).log_softmax(1))
    costs = NodeCosts.uniform(tree, false_positive=1, false_negative=1)
    truth = torch.from_numpy(tree.class_leaf.astype(np.int64)[:1])
    costs.cost(cascade(probs, costs, probability="marginal"), truth)
    NodeTemperatures.fit(probs, truth, min_examples=1).apply(probs)
    SelectivePolicy.fit(probs[torch.zeros(20, dtype=torch.int64)], truth.repeat(20), target_accuracy=0.5, delta=0.5)


def _compile_applications() -> None:
    completions = Completions.of({"a": 1.0, "ab": 2.0, "b": 3.0})
    index = CompletionIndex(completions, build_tree("huffman", counts=completions.counts))
    index.complete("a", 1)
    encoder = BagEncoder(1, embedding=2, features=2, padding=0)
    for layer in (HierarchicalSoftmax(2, index.tree), HierarchicalSoftmax(2, index.tree, dtype=torch.float64)):
        ContextIndex(index, ContextModel(encoder, layer, {})).complete("a", 1)


if __name__ == "__main__":
    compile_kernels()
