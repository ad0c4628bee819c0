"""Distillation: the divergence over the classes is that over the nodes, dense and cut to a few classes."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.nested import nested_trees
from treesearch import HierarchicalSoftmax, Tree
from treesearch.errors import DataError
from treesearch.objectives.distillation import (
    SparseTeacher,
    check_teacher,
    cut_teacher,
    distillation_loss,
    node_divergences,
    subtree_masses,
)

TREE = Tree.from_nested([[0, 1, 2], [[3, 4], 5], 6])


def student(tree: Tree = TREE, seed: int = 0) -> HierarchicalSoftmax:
    torch.manual_seed(seed)
    return HierarchicalSoftmax(4, tree, dtype=torch.float64)


def probabilities(num_rows: int, num_classes: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(num_rows, num_classes, dtype=torch.float64, generator=generator)).softmax(1)


@settings(deadline=None, max_examples=30)
@given(nested_trees(max_leaves=15), st.integers(0, 99))
def test_the_sum_over_the_nodes_is_the_divergence_over_the_classes(nested: Any, seed: int) -> None:
    tree = Tree.from_nested(nested)
    layer, input_BD = student(tree, seed), torch.randn(3, 4, dtype=torch.float64)
    teacher_BC = probabilities(3, tree.num_classes, seed)
    if tree.num_classes > 2:
        teacher_BC[0, 0] = 0  # classes without any mass count for nothing
        teacher_BC[0] /= teacher_BC[0].sum()
    log_prob_BC = layer.log_prob(input_BD)
    kl_B = torch.nn.functional.kl_div(log_prob_BC, teacher_BC, reduction="none").sum(1)
    assert torch.allclose(node_divergences(layer, input_BD, teacher_BC).sum(1), kl_B, atol=1e-12)
    assert torch.allclose(distillation_loss(layer, input_BD, teacher_BC), kl_B.mean(), atol=1e-12)
    whole = SparseTeacher(tree)  # of all classes: nothing is left out
    indices = torch.argsort(torch.rand(3, tree.num_classes), 1)
    sparse = whole.loss(layer, input_BD, indices, teacher_BC.gather(1, indices))
    assert torch.allclose(sparse, kl_B.mean(), atol=1e-6)


def test_masses_of_subtrees() -> None:
    mass_BM = subtree_masses(TREE, torch.tensor([[0.1, 0.2, 0.3, 0.05, 0.15, 0.15, 0.05]]))
    assert mass_BM[0].tolist() == pytest.approx([1, 0.6, 0.35, 0.2, 0.05, 0.1, 0.2, 0.3, 0.15, 0.05, 0.15])


@settings(deadline=None, max_examples=30)
@given(nested_trees(max_leaves=15), st.integers(0, 99), st.data())
def test_sparse_targets_are_those_of_the_completed_teacher(nested: Any, seed: int, data: Any) -> None:
    """Spread the rest by the prior: at the nodes on the paths the targets are the sums of that dense teacher."""
    tree = Tree.from_nested(nested)
    num_classes = tree.num_classes
    num = data.draw(st.integers(1, num_classes))
    counts = np.random.default_rng(seed).integers(1, 20, num_classes)
    dense_BC = probabilities(2, num_classes, seed)
    top = dense_BC.topk(num, 1)
    targets, entropy_B = SparseTeacher(tree, counts).node_targets(top.indices, top.values)
    for row in range(2):
        chosen = top.indices[row].tolist()
        full = dense_BC[row].clone()
        others = [cls for cls in range(num_classes) if cls not in chosen]
        if others:
            prior = torch.tensor(counts[others], dtype=torch.float64)
            full[others] = (1 - top.values[row].sum()) * prior / prior.sum()
        mass_M = subtree_masses(tree, full[None])[0]
        entropy, visited = 0.0, set()
        for entry in (targets.row == row).nonzero().flatten().tolist():
            node = int(targets.node[entry])
            visited.add(node)
            masses = targets.mass[targets.ptr[entry] : targets.ptr[entry + 1]]
            wanted = mass_M[tree.children(node).tolist()]
            assert torch.allclose(masses.double(), wanted, atol=1e-6)
            share = wanted / wanted.sum()
            entropy -= float((wanted * share.clamp(min=1e-300).log()).sum())
        above = set()
        for cls in chosen:
            node = int(tree.parent[tree.class_leaf[cls]])
            while node >= 0:
                above.add(node)
                node = int(tree.parent[node])
        assert visited == above
        assert float(entropy_B[row]) == pytest.approx(entropy, abs=1e-5)


def test_a_class_that_stands_twice_has_both_masses() -> None:
    sparse = SparseTeacher(TREE, [1, 2, 3, 4, 5, 6, 7])
    twice, _ = sparse.node_targets(torch.tensor([[3, 0, 3]]), torch.tensor([[0.1, 0.2, 0.3]]))
    once, _ = sparse.node_targets(torch.tensor([[3, 0]]), torch.tensor([[0.4, 0.2]]))
    assert torch.equal(twice.node, once.node)
    assert torch.allclose(twice.mass, once.mass)


def test_a_cut_teacher_is_whole_in_expectation() -> None:
    teacher_BC = probabilities(2, 7)
    generator = torch.Generator().manual_seed(0)
    total_BC = torch.zeros(2, 7, dtype=torch.float64)
    for _ in range(4000):
        indices, values = cut_teacher(teacher_BC, num_kept=2, num_sampled=3, generator=generator)
        assert torch.allclose(values.sum(1), torch.ones(2, dtype=torch.float64))
        assert torch.equal(indices[:, :2], teacher_BC.topk(2, 1).indices)
        total_BC.scatter_add_(1, indices, values)
    assert torch.allclose(total_BC / 4000, teacher_BC, atol=4e-3)
    kept = cut_teacher(teacher_BC, num_kept=3)
    assert torch.allclose(kept[1], teacher_BC.topk(3, 1).values)
    for bad in ({"num_kept": 8}, {"num_kept": 0}, {"num_kept": 1, "num_sampled": -1}):
        with pytest.raises(DataError, match="num_kept must lie in"):
            cut_teacher(teacher_BC, **bad)


def test_temperature_and_hard_labels() -> None:
    layer, input_BD, target = student(), torch.randn(3, 4, dtype=torch.float64), torch.tensor([0, 6, 3])
    teacher_BC = probabilities(3, 7)
    warm = (teacher_BC.log() / 2).softmax(1)
    by_torch = torch.nn.functional.kl_div((layer.log_prob(input_BD) / 2).log_softmax(1), warm, reduction="batchmean")
    assert torch.allclose(distillation_loss(layer, input_BD, teacher_BC, temperature=2.0), 4 * by_torch)
    mixed = distillation_loss(layer, input_BD, teacher_BC, target=target, hard_weight=0.25)
    hard, soft = layer(input_BD, target).loss, distillation_loss(layer, input_BD, teacher_BC)
    assert torch.allclose(mixed, 0.75 * soft + 0.25 * hard)
    top = teacher_BC.topk(2, 1)
    sparse = SparseTeacher(TREE)
    mixed = sparse.loss(layer, input_BD, *reversed(top), target=target, hard_weight=0.25)
    assert torch.allclose(mixed, 0.75 * sparse.loss(layer, input_BD, *reversed(top)) + 0.25 * hard)


def test_nothing_is_learned_by_the_teacher_and_rounding_is_forgiven() -> None:
    logits = torch.randn(3, 7, requires_grad=True)
    distillation_loss(student(), torch.randn(3, 4, dtype=torch.float64), logits.softmax(1)).backward()
    assert logits.grad is None
    rounded = torch.zeros(1, 100_000).softmax(1).half()  # sums to 1.001
    assert torch.allclose(check_teacher(rounded, 100_000).sum(), torch.tensor(1.0, dtype=torch.float64))


def test_a_student_learns_its_teacher() -> None:
    layer, teacher_BC = student(), probabilities(1, 7).float().double()
    input_BD = torch.ones(1, 4, dtype=torch.float64)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        distillation_loss(layer, input_BD, teacher_BC).backward()
        optimizer.step()
    assert torch.allclose(layer.log_prob(input_BD).exp(), teacher_BC, atol=1e-3)


def test_errors() -> None:
    layer, input_BD, teacher_BC = student(), torch.zeros(1, 4, dtype=torch.float64), probabilities(1, 7)
    for bad, message in (
        ({"teacher": 2 * teacher_BC}, r"row 0 sums to 2\b"),
        ({"teacher": teacher_BC * torch.nan}, "row 0 sums to nan"),
        ({"teacher": torch.eye(7)[:1] * 2 - torch.eye(7)[1:2]}, "smallest entry -1"),
        ({"teacher": teacher_BC[:, 1:]}, r"must be a tensor \[B, 7\]"),
        ({"teacher": teacher_BC.repeat(2, 1)}, "one row per input, but got 2"),
        ({"teacher": teacher_BC.numpy()}, "must be a tensor .* but got ndarray"),
        ({"temperature": 0.0}, "temperature must be > 0"),
        ({"hard_weight": 0.5}, "pass target"),
        ({"hard_weight": 1.5}, r"hard_weight must lie in \[0, 1\]"),
    ):
        with pytest.raises(DataError, match=message):
            distillation_loss(layer, input_BD, **{"teacher": teacher_BC} | bad)  # type: ignore[arg-type]
    sparse = SparseTeacher(TREE)
    for indices, values, message in (
        ([[0, 7]], [[0.1, 0.1]], r"must lie in \[0, 7\)"),
        ([[0, 1]], [[0.9, 0.9]], "sums to 1.8"),
        ([[0, 1]], [[-0.9, 0.9]], "smallest entry -0.9"),
        ([[0, 1]], [[0.9]], r"the same shape"),
        ([[0.0, 1.0]], [[0.5, 0.5]], "must be integers"),
    ):
        with pytest.raises(DataError, match=message):
            sparse.node_targets(torch.tensor(indices), torch.tensor(values))
    lopsided = SparseTeacher(TREE, [1, 0, 0, 0, 0, 0, 0])
    for teacher, indices, values in (
        (sparse, [list(range(7))], [[0.05] * 7]),
        (lopsided, [[0, 0]], [[0.5, 0.2]]),
        (sparse, [[]], [[]]),
    ):
        with pytest.raises(DataError, match="lacks of 1 needs other classes"):
            teacher.node_targets(torch.tensor(indices, dtype=torch.int64), torch.tensor(values))
    with pytest.raises(DataError, match="is over another one"):
        SparseTeacher(Tree.from_nested([0, 1])).loss(layer, input_BD, torch.tensor([[0]]), torch.tensor([[1.0]]))
