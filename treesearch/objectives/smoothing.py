"""Hierarchical label smoothing: of a target's mass a share goes to other classes, the less the farther they are.

Shapes: **B** batch, **C** classes, **D** features, **M** all nodes.

The share of class c != y is ``smoothing * exp(-beta * d(y, c)) / Z(y)`` with a distance on the tree (Bertinetto et al.
2020 make whole targets of such an exponential; beta = 0 is the uniform smoothing of Szegedy et al. 2016 over the other
classes). Nothing here is of size C x C: sums over subtrees do not depend on the target.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from treesearch.errors import DataError
from treesearch.objectives import kernels
from treesearch.objectives.distances import Kind, TreeDistance
from treesearch.paths import Paths, class_paths
from treesearch.softmax import HierarchicalSoftmax
from treesearch.softmax.checks import check_range, flat_target
from treesearch.softmax.node_targets import NodeTargets
from treesearch.tree import Tree


class HierarchicalSmoothing:
    """Smoothed targets over the classes of a tree, for a flat softmax and for hierarchical ones.

    Args:
        tree: Gives the distances; for `node_targets`, that of the layer.
        smoothing: Share of the mass that goes to other classes, in [0, 1).
        beta: How fast it falls, >= 0, per unit of distance.
        distance: ``edges``, ``height``, or a `TreeDistance` on ``tree``, for edges of different lengths.

    Raises:
        DataError: ``smoothing`` is not in [0, 1), ``beta`` is negative, or the distance is unknown or of another tree.
    """

    def __init__(
        self, tree: Tree, *, smoothing: float, beta: float = 1.0, distance: Kind | TreeDistance = "edges"
    ) -> None:
        if not 0 <= smoothing < 1:
            raise DataError(f"smoothing must lie in [0, 1), but got {smoothing}; 0.1 is usual")
        own = distance if isinstance(distance, TreeDistance) else TreeDistance(tree, distance)
        if own.tree != tree:
            raise DataError("the distance must be on the tree that is smoothed over, but is on another one")
        self.tree = tree
        self.smoothing = float(smoothing) if tree.num_classes > 1 else 0.0
        self.distance = own
        self._decay = own.decay(float(beta))
        reach = kernels.running_maximum(tree.parent, self._decay.others)[tree.class_leaf]
        if self.smoothing and not reach.all():
            raise DataError(
                f"beta must leave every class another one that is worth more than nothing, but with beta = {beta} the"
                f" nearest of class {int(reach.argmin())} is not; lower it"
            )
        self._paths: Paths = class_paths(tree)

    def distribution(self, target: Tensor) -> Tensor:
        """The smoothed targets over all classes, float32 [B, C]; O(C) for each.

        Raises:
            DataError: Targets are no classes [B].
        """
        target_B = self._checked(target)
        target_BC = np.zeros((target_B.size, self.tree.num_classes), np.float32)
        if not self.smoothing:
            target_BC[np.arange(target_B.size), target_B] = 1.0
            return torch.from_numpy(target_BC).to(target.device)
        kernels.distributions(
            target_B, self.tree.class_leaf, self.tree.parent, *self.tree.leaf_intervals, self.tree.class_order,
            self._decay.from_root, self._decay.at_node, self._decay.others, self._decay.beta, self.smoothing,
            target_BC,
        )  # fmt: skip
        return torch.from_numpy(target_BC).to(target.device)

    def node_targets(self, target: Tensor) -> NodeTargets:
        """The path-local form: masses of the children of the nodes on each target's path; O(depth and their children).

        At these nodes the masses are those of `distribution`, summed over the subtrees. Left out is how the mass that
        has left the path spreads further down, which is at most ``smoothing`` of the whole.

        Raises:
            DataError: As in `distribution`.
        """
        target_B = self._checked(target)
        paths, tree = self._paths, self.tree
        row_E, node_E, ptr, mass_Q = kernels.path_masses(
            target_B, paths.ptr, paths.node, paths.branch, tree.class_leaf, tree.parent, tree.child_ptr, tree.child_idx,
            self._decay.from_root, self._decay.at_node, self._decay.below, self._decay.others, self._decay.beta,
            self.smoothing,
        )  # fmt: skip
        row, node, starts, mass = map(torch.from_numpy, (row_E, node_E, ptr, mass_Q))
        return NodeTargets(row, node, starts, mass, target_B.size).to(target.device)

    def flat_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy of a flat softmax in nats.

        Args:
            logits: [B, C].
            target: int64 [B].

        Raises:
            DataError: Shapes do not fit.
        """
        return self._cross_entropy(logits.log_softmax(-1), target)

    def loss(self, layer: HierarchicalSoftmax, input: Tensor, target: Tensor, *, exact: bool = False) -> Tensor:
        """Mean cross-entropy of a hierarchical softmax in nats.

        Args:
            layer: Over the tree; any tree over the same classes for the exact form.
            input: [B, D].
            target: int64 [B].
            exact: Over all classes, O(C) an example, or at the nodes of the path alone, see `node_targets`.

        Raises:
            DataError: Shapes do not fit, or the path-local form for a layer over another tree.
        """
        if exact:
            return self._cross_entropy(layer.log_prob(input), target)
        if layer.tree != self.tree:
            raise DataError(
                "path-local smoothing needs the tree of the layer, but was made for another; use exact=True"
            )
        return layer.node_cross_entropy(input, self.node_targets(target)).mean()

    def _cross_entropy(self, log_prob_BC: Tensor, target: Tensor) -> Tensor:
        if log_prob_BC.dim() != 2 or log_prob_BC.shape[1] != self.tree.num_classes:
            raise DataError(f"scores must be [B, {self.tree.num_classes}], but got {tuple(log_prob_BC.shape)}")
        flat_target(target, log_prob_BC)
        target_BC = self.distribution(target).to(log_prob_BC.dtype)
        # A product of a zero and minus infinity is none.
        return -torch.where(target_BC > 0, target_BC * log_prob_BC, 0).sum(-1).mean()

    def _checked(self, target: Tensor) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        if target.dim() != 1 or target.is_floating_point() or target.dtype == torch.bool:
            raise DataError(f"target must be integer class ids [B], but got {target.dtype} {tuple(target.shape)}")
        targets = target.detach().cpu().long()
        check_range(targets, self.tree.num_classes)
        found: np.ndarray[tuple[int], np.dtype[np.int64]] = targets.numpy()
        return found
