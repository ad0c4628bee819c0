"""Answers with a guarantee: `SelectivePolicy` (accuracy of what is answered) and `ConformalTree` (coverage).

Shapes: **B** batch, **M** nodes in all.

Both are fitted to calibration examples that the model, and its calibration, have not seen, and hold for new examples
of the same distribution, whatever the model is worth. An answer is right where it is the truth or above it; a truth
may be any node, and against one out of scope (0, the root) every answer but the root is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from typing import Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binom
from torch import Tensor

from treesearch import tree_kernels
from treesearch.decisions import cascade_kernels
from treesearch.decisions.calibration import check_truth
from treesearch.decisions.cascade import check_tree, descend, flag_shallow
from treesearch.decisions.node_probs import NodeProbs
from treesearch.errors import DataError
from treesearch.tree import Tree

Nodes = Literal["all", "leaves"]

# Thresholds that are tried, most cautious first: fixed, logits from 15 to -8 by quarters, and last to answer always.
GRID = np.append(1 / (1 + np.exp(-np.arange(15, -8.25, -0.25))), 0.0)
SHARE_OF_START = 5  # one of so many calibration examples is for finding where to start


@dataclass(frozen=True, eq=False, repr=False)
class SelectivePolicy:
    """Answer at the deepest node that is probable enough, else abstain, so that answers have a target accuracy.

    From the root, go to the most probable child while its probability P(node) is at least ``threshold``. With
    ``nodes="leaves"``: the most probable class if its probability is, else nothing.

    With probability 1 - delta over the calibration examples, P(right | answered) >= target on new ones. Each threshold
    τ of a fixed grid is a hypothesis "accuracy below the target", with the exact binomial p-value (that of
    Clopper-Pearson's bound): given how many are answered at τ, the right ones are binomial. They are tested in a fixed
    sequence, each at the whole of delta, until one is not rejected (Learn-then-Test, Angelopoulos et al. 2021): to
    reject a true one, the first true one of the sequence must be. At the most cautious thresholds too few are answered
    to show anything, so a fifth of the examples, drawn at random, is set apart to find where the sequence starts: where
    it exceeds the target by most standard errors. From there it goes down, to answer more; the other four fifths
    test. It holds whether or not accuracy rises with τ. (A search over all thresholds at delta divided by their number,
    as in Geifman and El-Yaniv 2017, or a delta split over several starts, needs no examples apart but answered fewer.)

    Where nothing is rejected the policy abstains always, which keeps the guarantee; its ``threshold`` is then infinite.

    Made by `fit`; one made by hand is no guarantee, and `decide` refuses it.
    """

    tree: Tree
    threshold: float
    target_accuracy: float
    delta: float
    min_level: int = 1
    nodes: Nodes = "all"
    num_examples: int = 0  # that tested
    num_answered: int = 0  # of them
    num_right: int = 0  # of those

    @classmethod
    def fit(
        cls,
        probs: NodeProbs,
        truth: Tensor,
        *,
        target_accuracy: float,
        delta: float,
        min_level: int = 1,
        nodes: Nodes = "all",
        seed: int = 0,
    ) -> Self:
        """The policy that answers most among those that are shown to reach the target.

        Args:
            probs: Of B calibration examples.
            truth: Nodes, integers [B].
            target_accuracy: In (0, 1).
            delta: In (0, 1), the probability that the accuracy is lower nevertheless.
            min_level: Inner nodes above this depth are no answers; a class always is one.
            nodes: ``all`` or ``leaves``.
            seed: Of the draw of the fifth that is set apart.

        Raises:
            DataError: Settings are out of range, truths are no nodes [B], or there are too few examples: those that
                test must be log(delta) / log(target) at least, all of them right, to show anything.
        """
        check_share("target_accuracy", target_accuracy)
        check_share("delta", delta)
        if nodes not in get_args(Nodes):
            raise DataError(f"nodes must be 'all' or 'leaves', but got {nodes!r:.40}")
        truth_B = check_truth(probs, truth)
        testing = int(np.ceil(np.log(delta) / np.log(target_accuracy)))
        needed = next(num for num in count(testing) if num - num // SHARE_OF_START >= testing)
        if len(probs) < needed:
            raise DataError(
                f"an accuracy of {target_accuracy:g} with confidence 1 - {delta:g} needs at least {needed} calibration"
                f" examples, but got {len(probs)}; give more, or lower the target"
            )
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(probs)))
        apart, rest = order[: len(probs) // SHARE_OF_START], order[len(probs) // SHARE_OF_START :]
        found = cls(probs.tree, np.inf, target_accuracy, delta, min_level, nodes, len(rest))
        answered_G, right_G = found._counts(probs[apart], truth_B[apart])
        start = int(((right_G - answered_G * target_accuracy) / np.sqrt(np.maximum(answered_G, 1))).argmax())
        answered_G, right_G = found._counts(probs[rest], truth_B[rest])
        # P(at least so many right) if the accuracy were the target; 1 where nothing is answered.
        p_value_G = np.asarray(binom.sf(right_G - 1, answered_G, target_accuracy))
        num_rejected = int((p_value_G[start:] <= delta).cumprod().sum())
        if num_rejected == 0:
            return found
        last = start + num_rejected - 1
        num_answered, num_right = int(answered_G[last]), int(right_G[last])
        return replace(found, threshold=float(GRID[last]), num_answered=num_answered, num_right=num_right)

    def decide(self, probs: NodeProbs) -> Tensor:
        """The answers, nodes int64 [B]; 0, the root, where it abstains.

        Raises:
            DataError: The policy was not fitted, or the probabilities are of another tree.
        """
        if not self.num_examples:
            raise DataError(
                "a guarantee needs calibration, but this policy has seen no examples; use SelectivePolicy.fit, or a"
                " cascade for a threshold of your own"
            )
        check_tree(probs, self.tree, "policy")
        return self._answers(probs, self.threshold)

    def _answers(self, probs: NodeProbs, threshold: float) -> Tensor:
        if self.nodes == "leaves":
            leaf_B = probs.best_leaf
            return torch.where(probs.prob.gather(1, leaf_B[:, None])[:, 0] >= threshold, leaf_B, 0)
        below = np.nextafter(threshold, -np.inf) if np.isfinite(threshold) else threshold  # a walk goes strictly above
        limit_M = torch.full((self.tree.num_nodes,), below, dtype=torch.float64)
        return flag_shallow(self.tree, descend(self.tree, probs.prob, limit_M), self.min_level, name="min_level")

    def _counts(self, probs: NodeProbs, truth_B: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How many would be answered and right at each threshold of the grid."""
        tree = self.tree
        if self.nodes == "leaves":
            leaf_B = probs.best_leaf
            place_B = np.searchsorted(-GRID, -probs.prob.gather(1, leaf_B[:, None])[:, 0].numpy())
            right_B = (leaf_B == truth_B).numpy() & (leaf_B > 0).numpy()
            answered, right = (np.bincount(place, minlength=GRID.size) for place in (place_B, place_B[right_B]))
            return answered.cumsum(), right.cumsum()
        is_answer_M = (flag_shallow(tree, torch.arange(tree.num_nodes), self.min_level, name="min_level") > 0).numpy()
        wanted, score_BM = (*tree.leaf_intervals, truth_B.numpy()), probs.prob.contiguous().numpy()
        return cascade_kernels.count_answers(score_BM, GRID, wanted, is_answer_M, tree.child_ptr, tree.child_idx)

    def __repr__(self) -> str:
        return (
            f"SelectivePolicy(threshold={self.threshold:.4g}, target_accuracy={self.target_accuracy:g},"
            f" delta={self.delta:g}, nodes={self.nodes!r}, answered {self.num_answered} of {self.num_examples},"
            f" {self.num_right} right)"
        )


@dataclass(frozen=True, eq=False)
class ConformalTree:
    """Answer at the deepest node of the likeliest class's path that contains the truth with probability 1 - alpha.

    Split conformal prediction (Vovk et al. 2005) with subtrees for sets: answered is the deepest node of the path whose
    probability exceeds ``quantile``. It contains the truth unless a node of the path that does not is that probable,
    so the score of an example is the highest probability of such a node, 0 where there is none. The quantile is the
    ⌈(n + 1) (1 - alpha)⌉-th smallest score of n calibration examples. Coverage is on average over calibration and new
    examples; the whole tree, node 0, is a possible answer and always right.
    """

    tree: Tree
    quantile: float
    alpha: float
    num_examples: int

    @classmethod
    def fit(cls, probs: NodeProbs, truth: Tensor, *, alpha: float) -> Self:
        """Calibrate.

        Args:
            probs: Of n calibration examples.
            truth: Nodes, integers [n].
            alpha: In (0, 1), the share of answers that need not contain the truth.

        Raises:
            DataError: Alpha is out of range, truths are no nodes [n], or there are fewer than 1 / alpha - 1 examples.
        """
        check_share("alpha", alpha)
        truth_B = check_truth(probs, truth).numpy().astype(np.int32)
        rank = int(np.ceil((len(probs) + 1) * (1 - alpha) - 1e-9))  # a product such as 10 · 0.9 may round up
        if rank > len(probs):
            raise DataError(
                f"coverage of 1 - {alpha:g} needs at least {int(np.ceil(1 / alpha - 1 - 1e-9))} calibration examples,"
                f" but got {len(probs)}; give more, or raise alpha"
            )
        tree, leaf_B = probs.tree, probs.best_leaf.numpy().astype(np.int32)
        depth_M = tree.node_depths
        common = tree_kernels.lowest_common_ancestors(tree.parent, depth_M, leaf_B, truth_B)
        wrong = tree_kernels.ancestors_at(tree.parent, depth_M, leaf_B, depth_M[common] + 1)
        score = np.where(wrong == common, 0.0, probs.prob.numpy()[np.arange(len(probs)), wrong])
        return cls(tree, float(np.sort(score)[rank - 1]), alpha, len(probs))

    def decide(self, probs: NodeProbs) -> Tensor:
        """The answers, nodes int64 [B]; the classes below one are its set.

        Raises:
            DataError: The probabilities are of another tree.
        """
        check_tree(probs, self.tree, "conformal prediction")
        parent_M = torch.from_numpy(self.tree.parent.astype(np.int64))
        node_B, row_B = probs.best_leaf, torch.arange(len(probs))
        while bool((small_B := (node_B > 0) & (probs.prob[row_B, node_B] <= self.quantile)).any()):
            node_B = torch.where(small_B, parent_M[node_B], node_B)
        return node_B


def contains(tree: Tree, node: Tensor, other: Tensor) -> Tensor:
    """Whether each node is the other or above it, bool [B]."""
    first_M, count_M = (torch.from_numpy(values.astype(np.int64)) for values in tree.leaf_intervals)
    start, end = first_M[node], first_M[node] + count_M[node]
    return (start <= first_M[other]) & (first_M[other] + count_M[other] <= end)


def check_share(name: str, value: float) -> None:
    """Check that a number lies in (0, 1).

    Raises:
        DataError: It does not.
    """
    if not isinstance(value, int | float) or not 0 < value < 1:
        raise DataError(f"{name} must lie in (0, 1), but got {value!r:.40}")
