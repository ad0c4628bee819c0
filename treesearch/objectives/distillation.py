"""Distillation: the probabilities of a flat teacher become targets at the nodes of a tree.

Shapes: **B** batch, **C** classes, **D** features, **N** internal nodes, **M** all nodes, **m** of a cut teacher.

With t(n) the teacher's mass below node n and p the student's decisions,
``KL(t | p) over the classes = sum_n t(n) * KL(t(child) / t(n) | p(child | n))``: the classes' divergence falls apart
into one at each node, weighted by the teacher's mass there (chain rule of relative entropy, Cover & Thomas 2006, 2.5).
Temperatures are those of Hinton, Vinyals & Dean (2015), the loss multiplied by their square.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from treesearch.errors import DataError
from treesearch.objectives import kernels
from treesearch.softmax import HierarchicalSoftmax
from treesearch.softmax.node_targets import NodeTargets
from treesearch.tree import Tree, check_counts

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
TOLERANCE = 1e-2  # by which a row of the teacher may miss 1: 100,000 numbers of float16 do by a tenth of it


def subtree_masses(tree: Tree, probability: Tensor) -> Tensor:
    """The sum of the probabilities below each node, [B, M], float64; one pass over the classes.

    Args:
        tree: Over C classes.
        probability: [B, C].

    Raises:
        DataError: Its shape is another.
    """
    if probability.dim() != 2 or probability.shape[1] != tree.num_classes:
        raise DataError(f"probabilities must be [B, {tree.num_classes}], but got {tuple(probability.shape)}")
    first, count = tree.leaf_intervals
    begin_M = torch.from_numpy(first.astype(np.int64)).to(probability.device)
    end_M = begin_M + torch.from_numpy(count.astype(np.int64)).to(probability.device)
    order = torch.from_numpy(tree.class_order.astype(np.int64)).to(probability.device)
    in_order_BC = probability.double().index_select(1, order)
    sums_BC = torch.nn.functional.pad(in_order_BC.cumsum(1), (1, 0))
    return (sums_BC.index_select(1, end_M) - sums_BC.index_select(1, begin_M)).clamp_(min=0)


def node_divergences(layer: HierarchicalSoftmax, input: Tensor, teacher: Tensor) -> Tensor:
    """KL of the teacher from the layer at each node in nats, weighted by the teacher's mass there, [B, N].

    A row's sum is the divergence over all classes. For reports; to train, `distillation_loss` is cheaper.

    Args:
        layer: The student.
        input: [B, D].
        teacher: Probabilities [B, C].

    Raises:
        DataError: The teacher's rows are no probabilities over the classes.
    """
    tree = layer.tree
    teacher = check_teacher(teacher, tree.num_classes, input)
    mass_BM = subtree_masses(tree, teacher)
    log_prob_BM = layer.subtree_log_probs(input).double()
    child = torch.from_numpy(tree.child_idx.astype(np.int64)).to(input.device)
    above = torch.from_numpy(tree.parent[tree.child_idx].astype(np.int64)).to(input.device)
    taken_BE = log_prob_BM[:, child] - log_prob_BM[:, above]
    own_BE = mass_BM[:, child]
    wanted_BE = (own_BE / mass_BM[:, above]).log()
    term_BE = torch.where(own_BE > 0, own_BE * (wanted_BE - taken_BE), 0.0)
    return mass_BM.new_zeros(mass_BM.shape[0], tree.num_internal).index_add(1, above, term_BE)


def distillation_loss(
    layer: HierarchicalSoftmax,
    input: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 1.0,
    target: Tensor | None = None,
    hard_weight: float = 0.0,
) -> Tensor:
    """Mean KL of a dense teacher from the student over all classes in nats, mixed with the loss of hard labels.

    ``(1 - hard_weight) * temperature ** 2 * KL + hard_weight * NLL(target)``, where both distributions are raised to
    1 / temperature and normalised.

    Args:
        layer: The student.
        input: [B, D].
        teacher: Probabilities [B, C] at temperature 1.
        temperature: > 0.
        target: int64 [B], where ``hard_weight`` is not zero.
        hard_weight: In [0, 1].

    Raises:
        DataError: The teacher's rows are no probabilities, a setting is out of range, or there are no targets.
    """
    wanted_BC = check_teacher(teacher, layer.num_classes, input)
    if not (math.isfinite(temperature) and temperature > 0):
        raise DataError(f"temperature must be > 0, but got {temperature}")
    log_prob_BC = layer.log_prob(input)
    wanted_BC = wanted_BC.to(log_prob_BC.dtype)
    if temperature != 1:
        log_prob_BC = (log_prob_BC / temperature).log_softmax(-1)
        wanted_BC = (wanted_BC.log() / temperature).softmax(-1)
    term_BC = torch.where(wanted_BC > 0, wanted_BC * (wanted_BC.log() - log_prob_BC), 0)
    return _mixed(layer, input, temperature**2 * term_BC.sum(-1).mean(), target, hard_weight)


def cut_teacher(
    probability: Tensor, *, num_kept: int, num_sampled: int = 0, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """A dense teacher cut to few classes for `SparseTeacher`, without bias where some are drawn.

    The most probable classes keep their probabilities. What is left is given in equal shares to classes drawn from the
    others in proportion to theirs, at evenly spaced points of their cumulative sum from one random start (systematic
    resampling, Kitagawa 1996): every class has its own probability in expectation. With none drawn it stays left over.

    Args:
        probability: [B, C].
        num_kept: Most probable classes, from 0.
        num_sampled: Classes drawn, from 0.
        generator: Of the start, on the CPU.

    Returns:
        ``indices`` int64 and probabilities [B, num_kept + num_sampled]; a class may be drawn twice.

    Raises:
        DataError: The rows are no probabilities, or the numbers do not fit the classes.
    """
    batch, num_classes = probability.shape[0], probability.shape[-1]
    probability = check_teacher(probability, num_classes).to(probability.dtype)
    if not (0 <= num_kept <= num_classes and num_sampled >= 0 and num_kept + num_sampled > 0):
        raise DataError(
            f"num_kept must lie in [0, {num_classes}] and num_sampled be >= 0, one of them > 0, but got {num_kept} and"
            f" {num_sampled}"
        )
    top = probability.topk(num_kept, 1)
    if not num_sampled:
        return top.indices, top.values
    cumulative_BC = probability.double().scatter(1, top.indices, 0.0).cumsum(1)
    left_B1 = cumulative_BC[:, -1:]
    start_B1 = torch.rand(batch, 1, generator=generator, dtype=torch.float64).to(probability.device)
    point_Br = (torch.arange(num_sampled, device=probability.device) + start_B1) / num_sampled * left_B1
    drawn_Br = torch.searchsorted(cumulative_BC, point_Br, right=True).clamp_(max=num_classes - 1)
    share_Br = (left_B1 / num_sampled).expand_as(drawn_Br).to(probability.dtype)
    return torch.cat([top.indices, drawn_Br], 1), torch.cat([top.values, share_Br], 1)


@dataclass(frozen=True, eq=False)
class SparseTeacher:
    """A few classes of a teacher, see `cut_teacher`; what they lack of 1 is spread over the other classes by a prior.

    At the nodes on the paths of these m classes the student's targets are the teacher's masses summed over subtrees,
    the rest included; at other nodes it says nothing, and they are left out: O(m * depth) instead of O(C). A teacher is
    softened before it is cut. A prior knows nothing of the example: where much is left over, better draw classes.

    Args:
        tree: Of the student's layer.
        counts: [C] prior of the classes; None: all alike.

    Raises:
        DataError: The counts do not fit the tree.
    """

    tree: Tree
    counts: ArrayLike | None = None

    def __post_init__(self) -> None:
        """Check the counts."""
        _ = self._prior

    @cached_property
    def _prior(self) -> tuple[FloatArray, FloatArray]:
        """Of each class [C], and summed below each node [M]."""
        num_classes = self.tree.num_classes
        weight_C = np.ones(num_classes) if self.counts is None else check_counts(self.counts, num_classes)
        return weight_C, self.tree.node_mass(weight_C)

    def node_targets(self, indices: Tensor, probability: Tensor) -> tuple[NodeTargets, Tensor]:
        """Targets at the nodes on the classes' paths, and the sum of their entropies in nats, float32 [B].

        Args:
            indices: int64 [B, m]; a class that stands twice in a row has both masses.
            probability: [B, m], >= 0, with sums up to 1.

        Raises:
            DataError: Shapes differ, a class is out of range, a row sums to more than 1, or to less where no other
                class can have what it lacks.
        """
        if indices.dim() != 2 or indices.shape != probability.shape or indices.is_floating_point():
            raise DataError(
                "indices must be integers [B, m] and probabilities of the same shape, but got"
                f" {indices.dtype} {tuple(indices.shape)} and {tuple(probability.shape)}"
            )
        class_Bm = indices.detach().cpu().long().contiguous().numpy()
        mass_Bm = np.ascontiguousarray(probability.detach().cpu().double().numpy())
        num_classes = self.tree.num_classes
        if class_Bm.size and (class_Bm.min() < 0 or class_Bm.max() >= num_classes):
            raise DataError(
                f"indices must lie in [0, {num_classes}), but range from {class_Bm.min()} to {class_Bm.max()}"
            )
        total_B = mass_Bm.sum(1)
        if not (mass_Bm >= 0).all() or (total_B > 1 + TOLERANCE).any():
            raise DataError(
                "a sparse teacher's rows must be >= 0 and sum to at most 1, but one has the smallest entry"
                f" {mass_Bm.min():.4g} and one sums to {total_B.max():.4g}; give probabilities, not logits"
            )
        weight_C, weight_M = self._prior
        if (total_B < 1 - TOLERANCE).any():
            _check_rest(class_Bm, total_B, weight_C)
        tree = self.tree
        row_E, node_E, ptr, mass_Q, entropy_B = kernels.sparse_masses(
            class_Bm, mass_Bm, tree.parent, tree.child_ptr, tree.child_idx, tree.class_leaf,
            weight_M, weight_C,
        )  # fmt: skip
        row, node, starts, mass = map(torch.from_numpy, (row_E, node_E, ptr, mass_Q))
        targets = NodeTargets(row, node, starts, mass, class_Bm.shape[0])
        return targets.to(indices.device), torch.from_numpy(entropy_B).to(indices.device)

    def loss(
        self,
        layer: HierarchicalSoftmax,
        input: Tensor,
        indices: Tensor,
        probability: Tensor,
        *,
        target: Tensor | None = None,
        hard_weight: float = 0.0,
    ) -> Tensor:
        """Mean KL at the nodes on the classes' paths in nats, weighted by the teacher's mass; see `distillation_loss`.

        The student is at temperature 1; where the teacher was softened, it learns the softened probabilities.

        Raises:
            DataError: As in `node_targets` and `distillation_loss`, or the layer is over another tree.
        """
        if layer.tree != self.tree:
            raise DataError("the layer must be over the tree of the teacher's targets, but is over another one")
        targets, entropy_B = self.node_targets(indices, probability)
        divergence_B = layer.node_cross_entropy(input, targets) - entropy_B
        return _mixed(layer, input, divergence_B.mean(), target, hard_weight)


def _check_rest(class_Bm: IntArray, total_B: FloatArray, weight_C: FloatArray) -> None:
    """Check that there are classes that can have what each row lacks of 1."""
    listed_B = np.zeros(class_Bm.shape[0])
    for column in range(class_Bm.shape[1]):  # a class that stands twice has its prior once
        first_B = (class_Bm[:, :column] != class_Bm[:, column, None]).all(1)
        listed_B += np.where(first_B, weight_C[class_Bm[:, column]], 0.0)
    nowhere_B = (total_B < 1 - TOLERANCE) & (weight_C.sum() - listed_B <= 1e-9 * weight_C.sum())
    if class_Bm.shape[1] == 0 or nowhere_B.any():
        row = int(nowhere_B.argmax())
        raise DataError(
            f"what a sparse teacher's row lacks of 1 needs other classes with a prior > 0, but row {row} sums to"
            f" {total_B[row]:.4g} and leaves none; give rows that sum to 1, or counts for all classes"
        )


def check_teacher(teacher: Tensor, num_classes: int, input: Tensor | None = None) -> Tensor:
    """A teacher's rows, float64 [B, C], without what rounding has made them miss 1 by; nothing is learned by it.

    Raises:
        DataError: Its rows are no probabilities over the classes, or not as many as those of ``input``.
    """
    if not isinstance(teacher, Tensor) or teacher.dim() != 2 or teacher.shape[1] != num_classes:
        raise DataError(f"a teacher must be a tensor [B, {num_classes}], but got {_shape(teacher)}")
    if input is not None and input.shape[:-1] != teacher.shape[:1]:
        raise DataError(
            f"a teacher must have one row per input, but got {teacher.shape[0]} for inputs {tuple(input.shape)}"
        )
    rows_BC = teacher.detach().double()
    total_B = rows_BC.sum(1)
    wrong_B = ~((total_B - 1).abs() <= TOLERANCE) | (rows_BC < 0).any(1)
    if bool(wrong_B.any()):
        row = int(wrong_B.nonzero()[0])
        raise DataError(
            f"a teacher's rows must be probabilities that sum to 1, but row {row} sums to {float(total_B[row]):.4g},"
            f" smallest entry {float(rows_BC[row].min()):.4g}; give softmax(logits)"
        )
    return rows_BC / total_B[:, None]


def _shape(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def _mixed(
    layer: HierarchicalSoftmax, input: Tensor, soft: Tensor, target: Tensor | None, hard_weight: float
) -> Tensor:
    if not 0 <= hard_weight <= 1:
        raise DataError(f"hard_weight must lie in [0, 1], but got {hard_weight}")
    if hard_weight == 0:
        return soft
    if target is None:
        raise DataError(f"hard labels must be given for hard_weight = {hard_weight}; pass target, or hard_weight=0")
    return (1 - hard_weight) * soft + hard_weight * layer(input, target).loss
