"""Calibration of the decisions of a tree, node by node: `NodeTemperatures` and `NodeIsotonic`.

Shapes: **B** batch, **E** decisions of examples, **G** groups of decisions, **M** nodes in all, **N** internal nodes.

A threshold of costs is right for calibrated probabilities only. An example is a calibration example of each internal
node strictly above its truth, where the child on the path to the truth is the right one; a truth at the root, out of
scope, says nothing of any decision. A node with fewer than ``min_examples`` of them takes what was fitted to all
decisions of its level (its depth), and where those are too few as well, what was fitted to all decisions there are.

Calibrate on examples that the model was not trained on, and not on those that a guarantee is drawn from
(`treesearch.decisions.selective`). How well it worked: `treesearch.metrics.LevelCalibration` on ``class_log_prob``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from torch import Tensor

from treesearch.decisions import calibration_kernels
from treesearch.decisions.cascade import check_tree
from treesearch.decisions.node_probs import NodeProbs
from treesearch.errors import DataError
from treesearch.metrics.base import check_classes, check_whole
from treesearch.tree import Tree

Source = Literal["node", "level", "all"]
FloatArray = NDArray[np.float64]
Curve = tuple[FloatArray, FloatArray]  # where, rising, and the calibrated values there

LOWEST, HIGHEST = 0.01, 100.0  # temperatures; where the best one has no bound, as for a node without mistakes
LEAST_LOG = -700.0  # of a probability that is 0 and yet came true
HALVINGS = 50  # of the range of temperatures: to a relative 1e-14


@dataclass(frozen=True, eq=False, repr=False)
class NodeTemperatures:
    """A temperature per internal node: P(child | node) becomes proportional to P(child | node) ** (1 / temperature).

    Temperature scaling (Guo et al. 2017) of each decision by itself. Above 1 it makes a node less sure. For a
    hierarchical softmax that is to divide the node's logits.
    """

    tree: Tree
    temperature: Tensor  # float64 [N]
    num_examples: Tensor  # int64 [N]
    source: tuple[Source, ...]  # [N] what the temperature was fitted to

    @classmethod
    def fit(cls, probs: NodeProbs, truth: Tensor, *, min_examples: int = 30) -> Self:
        """The temperatures of least negative log-likelihood.

        It is convex in 1 / temperature, so halving the range of temperatures, 0.01 to 100, finds the minimum.

        Args:
            probs: Of B calibration examples.
            truth: Nodes, integers [B].
            min_examples: A node (a level) with fewer does not get its own.

        Raises:
            DataError: Truths are no nodes [B], or there are fewer than ``min_examples`` decisions in all.
        """
        decisions = _Decisions.of(probs, truth)
        source = decisions.sources(min_examples)
        inverse_N = np.ones(probs.tree.num_internal)
        for name in sorted(set(source)):
            own_N = np.array(source) == name
            inverse_N[own_N] = decisions.inverse_temperatures(decisions.group_of_node(name))[own_N]
        return cls(probs.tree, torch.from_numpy(1 / inverse_N), torch.from_numpy(decisions.num_N), source)

    def apply(self, probs: NodeProbs) -> NodeProbs:
        """The calibrated probabilities of any examples.

        Raises:
            DataError: They are of another tree.
        """
        check_tree(probs, self.tree, "calibration")
        parent_M = torch.from_numpy(np.maximum(self.tree.parent, 0).astype(np.int64))
        if self.tree.num_internal == 0:
            return probs
        return _normalised(self.tree, probs.log_conditional / self.temperature[parent_M])

    def __repr__(self) -> str:
        return f"NodeTemperatures({self.tree!r}, {_counted(self.source)})"


@dataclass(frozen=True, eq=False, repr=False)
class NodeIsotonic:
    """A rising curve per internal node from P(child | node) to how often such a child is right.

    Isotonic regression (Zadrozny and Elkan 2002) on the decisions' probabilities of all children together, linear
    between its steps, after which the children share 1 again. No probability becomes 0: half a case among those that
    the curve was fitted to is the least.
    """

    tree: Tree
    curves: tuple[Curve, ...]
    curve_of_node: Tensor  # int64 [N]
    num_examples: Tensor  # int64 [N]
    source: tuple[Source, ...]  # [N] what the curve was fitted to

    @classmethod
    def fit(cls, probs: NodeProbs, truth: Tensor, *, min_examples: int = 100) -> Self:
        """The curves of least squared error.

        Args:
            probs: Of B calibration examples.
            truth: Nodes, integers [B].
            min_examples: A node (a level) with fewer does not get its own.

        Raises:
            DataError: As in `NodeTemperatures.fit`.
        """
        decisions = _Decisions.of(probs, truth)
        source = decisions.sources(min_examples)
        curves: list[Curve] = []
        curve_N = np.zeros(probs.tree.num_internal, np.int64)
        for name in sorted(set(source)):
            group_N = np.where(np.array(source) == name, decisions.group_of_node(name), -1)
            for group in np.unique(group_N[group_N >= 0]):
                curve_N[group_N == group] = len(curves)
                curves.append(_isotonic(*decisions.children(decisions.group_of_node(name) == group)))
        return cls(probs.tree, tuple(curves), torch.from_numpy(curve_N), torch.from_numpy(decisions.num_N), source)

    def apply(self, probs: NodeProbs) -> NodeProbs:
        """The calibrated probabilities of any examples.

        Raises:
            DataError: They are of another tree.
        """
        check_tree(probs, self.tree, "calibration")
        calibrated_BM = probs.conditional.numpy().copy()
        curve_M = self.curve_of_node.numpy()[self.tree.parent[1:]]
        for number, (where, value) in enumerate(self.curves):
            columns = 1 + np.flatnonzero(curve_M == number)
            calibrated_BM[:, columns] = np.interp(calibrated_BM[:, columns], where, value)
        return _normalised(self.tree, torch.from_numpy(calibrated_BM).log())

    def __repr__(self) -> str:
        return f"NodeIsotonic({self.tree!r}, {_counted(self.source)})"


@dataclass(frozen=True, eq=False)
class _Decisions:
    """The decisions that calibration examples tell of: example and right child."""

    probs: NodeProbs
    row: NDArray[np.int64]  # [E]
    taken: NDArray[np.int64]  # [E]

    @classmethod
    def of(cls, probs: NodeProbs, truth: Tensor) -> Self:
        node_B = check_truth(probs, truth).numpy()
        rows, nodes = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        row_B = np.arange(node_B.size)
        while node_B.size:
            below = node_B > 0
            row_B, node_B = row_B[below], node_B[below]
            rows.append(row_B)
            nodes.append(node_B)
            node_B = probs.tree.parent[node_B].astype(np.int64)
        return cls(probs, np.concatenate(rows), np.concatenate(nodes))

    @cached_property
    def node(self) -> NDArray[np.int64]:
        """The internal node that decides, [E]."""
        return self.probs.tree.parent[self.taken].astype(np.int64)

    @cached_property
    def num_N(self) -> NDArray[np.int64]:
        return np.bincount(self.node, minlength=self.probs.tree.num_internal)

    def group_of_node(self, source: Source) -> NDArray[np.int64]:
        """The group of each internal node, int64 [N]."""
        num_internal = self.probs.tree.num_internal
        if source == "node":
            return np.arange(num_internal)
        levels_N = self.probs.tree.node_depths[:num_internal].astype(np.int64)
        return levels_N if source == "level" else np.zeros_like(levels_N)

    def sources(self, min_examples: int) -> tuple[Source, ...]:
        """The smallest group of each node that has enough examples, [N]."""
        check_whole("min_examples", min_examples, 1)
        if self.probs.tree.num_internal and self.row.size < min_examples:
            raise DataError(
                f"calibration needs at least min_examples = {min_examples} decisions of examples whose truth is below"
                f" the root, but got {self.row.size}; give more examples"
            )
        level_N = self.group_of_node("level")
        enough_N = self.num_N >= min_examples
        level_enough_N = np.bincount(level_N, weights=self.num_N)[level_N] >= min_examples
        pairs = zip(enough_N.tolist(), level_enough_N.tolist(), strict=True)
        return tuple("node" if own else "level" if level else "all" for own, level in pairs)

    def inverse_temperatures(self, group_N: NDArray[np.int64]) -> FloatArray:
        """The best 1 / temperature of each node's group, [N]; 1 where it does not matter."""
        tree, log_conditional = self.probs.tree, self.probs.log_conditional.contiguous().numpy()

        def slope(inverse_G: FloatArray) -> FloatArray:
            return calibration_kernels.slopes(
                log_conditional, self.row, self.taken, group_N[self.node], inverse_G, tree.parent, tree.child_ptr,
                tree.child_idx, LEAST_LOG,
            )  # fmt: skip

        num_groups = int(group_N.max()) + 1
        low_G, high_G = (np.full(num_groups, np.log(1 / bound)) for bound in (HIGHEST, LOWEST))
        for _ in range(HALVINGS):
            middle_G = (low_G + high_G) / 2
            falling = slope(np.exp(middle_G)) < 0
            low_G, high_G = np.where(falling, middle_G, low_G), np.where(falling, high_G, middle_G)
        inverse_G = np.where(slope(np.ones(num_groups)) == 0, 1.0, np.exp((low_G + high_G) / 2))
        return inverse_G[group_N]

    def children(self, wanted_N: NDArray[np.bool_]) -> Curve:
        """Probabilities of all children of the decisions at some nodes, and whether each was right (1 or 0)."""
        chosen = np.flatnonzero(wanted_N[self.node])
        values = list(self._children(chosen))
        return np.concatenate([prob for prob, _ in values]), np.concatenate([right for _, right in values])

    def _children(self, chosen: NDArray[np.int64]) -> Iterator[Curve]:
        tree, log_conditional = self.probs.tree, self.probs.log_conditional.numpy()
        for node in np.unique(self.node[chosen]):
            own, children = chosen[self.node[chosen] == node], tree.children(int(node))
            prob = np.exp(log_conditional[self.row[own][:, None], children])
            yield prob.ravel(), (self.taken[own][:, None] == children).astype(np.float64).ravel()


def check_truth(probs: NodeProbs, truth: Tensor) -> Tensor:
    """True nodes, int64 [B] on the CPU.

    Raises:
        DataError: They are no nodes of the tree, or not one per example.
    """
    node_B = check_classes(truth, probs.tree.num_nodes, "truth").cpu()
    if node_B.shape != (len(probs),):
        raise DataError(f"truth must be one node per example, {len(probs)}, but got shape {tuple(node_B.shape)}")
    return node_B


def _isotonic(prob: FloatArray, right: FloatArray) -> Curve:
    where, place, num = np.unique(prob, return_inverse=True, return_counts=True)
    mean = np.bincount(place, weights=right) / num
    value = np.maximum(isotonic_regression(mean, weights=num).x, 0.5 / prob.size)
    # Within a step nothing changes: its ends are enough.
    same = value[1:] == value[:-1]
    inside = np.concatenate([[False], same[1:] & same[:-1], [False]]) if where.size > 1 else np.zeros(1, np.bool_)
    return where[~inside], value[~inside]


def _normalised(tree: Tree, log_BM: Tensor) -> NodeProbs:
    values = log_BM.contiguous().numpy()
    calibration_kernels.normalise_children(values, tree.child_ptr, tree.child_idx)
    return NodeProbs.of_conditional(tree, torch.from_numpy(values))


def _counted(source: tuple[Source, ...]) -> str:
    return ", ".join(f"{name}={source.count(name)}" for name in ("node", "level", "all"))
