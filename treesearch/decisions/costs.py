"""`NodeCosts`: what wrong and missing nodes of an answer cost.

Shapes: **A** actions, **C** classes, **M** nodes in all, **T** nodes of a taxonomy, **Y** truths.

Truths and actions are nodes. A truth is the leaf of a class, or an inner node where no more is known; the root, node 0,
stands for "nothing of this", out of scope. An action is to answer at a node; at the root, to flag. Against the truth
the path of an answer may have nodes too many, wrongly entered, and too few, missed:

    cost = Σ false_negative(n) over missed n
         + Σ false_positive(n) over wrongly entered n         (charge "every")
         + false_positive(n) at the topmost of them           (charge "once": a wrong turn is paid once)

Let p be the probability of child n given its parent. To enter n rather than to stay above it costs (1 - p) c_fp and
saves p c_fn under "once": it pays where p > c_fp / (c_fp + c_fn), the `thresholds`. See `treesearch.decisions.cascade`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treesearch import tree_kernels
from treesearch.errors import DataError, did_you_mean
from treesearch.metrics.base import check_classes
from treesearch.softmax.tree_sums import sums_down
from treesearch.taxonomy import Taxonomy
from treesearch.tree import Tree

Charge = Literal["once", "every"]
Pair = tuple[float, float]  # false positive, false negative


@dataclass(frozen=True, eq=False, repr=False)
class NodeCosts:
    """Costs of wrongly entering and of missing each node but the root, in any unit; see the head of the module.

    One of the two may be 0: without a false positive's cost the node is entered wherever it is possible (threshold 0),
    without a false negative's never (threshold 1).

    Args:
        tree: Over M nodes.
        false_positive: [M], >= 0; the root's is not read and becomes 0.
        false_negative: [M], >= 0; as above.
        charge: ``once`` or ``every``.

    Raises:
        DataError: A cost is negative or not finite, both of a node are 0, there is not one per node, or the charge is
            unknown.
    """

    tree: Tree
    false_positive: Tensor  # float64 [M]
    false_negative: Tensor  # float64 [M]
    charge: Charge = "once"

    def __post_init__(self) -> None:
        if self.charge not in get_args(Charge):
            raise DataError(f"charge must be 'once' or 'every', but got {self.charge!r:.40}")
        costs_M = [_node_costs(self.tree, name, getattr(self, name)) for name in ("false_positive", "false_negative")]
        free = (costs_M[0] + costs_M[1] == 0).nonzero()[:, 0]
        free = free[free > 0]
        if free.numel():
            raise DataError(
                "false_positive + false_negative must be > 0 at every node below the root, but both are 0 at"
                f" {_place(self.tree, int(free[0]))}"
            )
        for name, cost_M in zip(("false_positive", "false_negative"), costs_M, strict=True):
            object.__setattr__(self, name, cost_M)

    # -- construction --------------------------------------------------------------------------------------------------

    @classmethod
    def uniform(cls, tree: Tree, *, false_positive: float, false_negative: float, charge: Charge = "once") -> Self:
        """The same costs at all nodes.

        Raises:
            DataError: As for the class.
        """
        pair = _pair("every node", (false_positive, false_negative))
        return cls._of_pairs(tree, {node: pair for node in range(1, tree.num_nodes)}, charge)

    @classmethod
    def by_level(
        cls,
        hierarchy: Taxonomy | Tree,
        costs: Mapping[int, Pair],
        *,
        default: Pair | None = None,
        charge: Charge = "once",
    ) -> Self:
        """Costs that depend on the level alone.

        The levels of a tree are the depths of its nodes. Those of a taxonomy are as drawn, and the costs are for
        ``taxonomy.tree``: a node that stands for a chain of single children costs as much as the chain, missed the
        sum, wrongly entered the sum or, charged once, the first; the leaf of a class at an inner node ("here") costs
        as its siblings do. For the levels that people drew of a tree made from a taxonomy pass `Taxonomy.of`.

        Args:
            hierarchy: A taxonomy or a tree.
            costs: (false positive, false negative) of levels, from 1.
            default: Of levels that are not in ``costs``.
            charge: ``once`` or ``every``.

        Raises:
            DataError: There is no such level, one has no costs, or costs are wrong as for the class.
        """
        tree, num_levels, level_node = _leveled(hierarchy)
        for level in costs:
            if isinstance(level, bool) or not isinstance(level, int | np.integer) or not 1 <= level <= num_levels:
                raise DataError(f"levels must be whole numbers in [1, {num_levels}], but got {level!r:.40}")
        pair_of = {level: _pair(f"level {level}", pair) for level, pair in costs.items()}
        pairs: dict[int, Pair] = {}
        for level, node in level_node:
            pair = pair_of.get(level, default)
            if pair is None:
                raise DataError(f"every level must have costs, but level {level} has none; give them or a default")
            pair = _pair("default", pair)
            if node in pairs:  # further down a chain
                first, missed = pairs[node]
                pair = (first if charge == "once" else first + pair[0], missed + pair[1])
            pairs[node] = pair
        return cls._of_pairs(tree, pairs, charge)

    @classmethod
    def by_node(
        cls, tree: Tree, costs: Mapping[str | int, Pair], *, default: Pair | None = None, charge: Charge = "once"
    ) -> Self:
        """Costs of single nodes.

        Args:
            tree: Over M nodes, with names if any is used.
            costs: (false positive, false negative) of nodes by name or id. A name that an inner node and a class share
                is the inner node's.
            default: Of nodes that are not in ``costs``.
            charge: ``once`` or ``every``.

        Raises:
            DataError: There is no such node or more than one, one has no costs, or costs are wrong as for the class.
        """
        pairs: dict[int, Pair] = {}
        for key, pair in costs.items():
            node = _named(tree, key)
            if node == 0:
                raise DataError(f"the root is on every path and has no costs, but got some for {key!r:.60}")
            if node in pairs:
                raise DataError(f"costs must be given once a node, but {_place(tree, node)} is named twice")
            pairs[node] = _pair(f"{key!r:.60}", pair)
        rest = None if default is None else _pair("default", default)
        for node in range(1, tree.num_nodes):
            if node not in pairs:
                if rest is None:
                    raise DataError(f"every node must have costs, but {_place(tree, node)} has none; give a default")
                pairs[node] = rest
        return cls._of_pairs(tree, pairs, charge)

    @classmethod
    def _of_pairs(cls, tree: Tree, pairs: Mapping[int, Pair], charge: Charge) -> Self:
        both_M2 = torch.zeros(tree.num_nodes, 2, dtype=torch.float64)
        if pairs:
            both_M2[list(pairs)] = torch.tensor(list(pairs.values()), dtype=torch.float64)
        return cls(tree, both_M2[:, 0], both_M2[:, 1], charge)

    # -- use -----------------------------------------------------------------------------------------------------------

    @property
    def thresholds(self) -> Tensor:
        """c_fp / (c_fp + c_fn), float64 [M], in [0, 1]; 0 at the root."""
        # Divided by the larger first: the sum of two large costs may overflow.
        larger_M = torch.maximum(self.false_positive, self.false_negative)
        larger_M[0] = 1
        positive_M, negative_M = self.false_positive / larger_M, self.false_negative / larger_M
        sum_M = positive_M + negative_M
        sum_M[0] = 1
        return positive_M / sum_M

    def cost(self, action: Tensor, truth: Tensor) -> Tensor:
        """The cost of each action under each truth, float64, of the shape that the two make by broadcasting.

        Args:
            action: Nodes, integers of any shape.
            truth: Nodes, integers.

        Raises:
            DataError: They are no nodes, or shapes do not fit.
        """
        tree = self.tree
        first, second = (
            check_classes(nodes, tree.num_nodes, what).cpu().numpy().astype(np.int32)
            for nodes, what in ((action, "action"), (truth, "truth"))
        )
        try:
            first, second = np.broadcast_arrays(first, second)
        except ValueError:
            raise DataError(
                f"actions and truths must be as many, but got {tuple(action.shape)} and {tuple(truth.shape)}"
            ) from None
        a, y = first.flatten(), second.flatten()  # copies: numba refuses views that broadcasting made
        depth_M = tree.node_depths
        common = tree_kernels.lowest_common_ancestors(tree.parent, depth_M, a, y)
        positive_M, negative_M = self._path_sums
        if self.charge == "once":
            turn = tree_kernels.ancestors_at(tree.parent, depth_M, a, depth_M[common] + 1)
            entered = np.where(turn == common, 0.0, self.false_positive.numpy()[turn])
        else:
            entered = positive_M[a] - positive_M[common]
        return torch.from_numpy(entered + (negative_M[y] - negative_M[common])).reshape(first.shape)

    def matrix(self, actions: Tensor | None = None, truths: Tensor | None = None) -> Tensor:
        """The cost of every action under every truth, float64 [A, Y]; None is all nodes, so [M, M].

        Raises:
            DataError: They are no nodes.
        """
        every = torch.arange(self.tree.num_nodes)
        rows, columns = (every if nodes is None else nodes for nodes in (actions, truths))
        return self.cost(rows[:, None], columns[None, :])

    @property
    def _path_sums(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        both_M2 = torch.stack([self.false_positive, self.false_negative], 1)
        sums_M2 = sums_down(self.tree, np.ones(self.tree.num_nodes), both_M2).numpy()
        return sums_M2[:, 0], sums_M2[:, 1]

    def __repr__(self) -> str:
        return f"NodeCosts({self.tree!r}, charge={self.charge!r})"


def _node_costs(tree: Tree, name: str, given: Any) -> Tensor:
    try:
        cost_M = torch.as_tensor(given).detach().to("cpu", torch.float64, copy=True)
    except (TypeError, ValueError, RuntimeError):
        raise DataError(f"{name} must be one number per node, {tree.num_nodes}, but got {given!r:.40}") from None
    if cost_M.shape != (tree.num_nodes,):
        raise DataError(f"{name} must be one number per node, {tree.num_nodes}, but got shape {tuple(cost_M.shape)}")
    cost_M[0] = 0
    bad = (~(cost_M.isfinite() & (cost_M >= 0))).nonzero()
    if bad.numel():
        node = int(bad[0])
        raise DataError(f"{name} must be finite and >= 0, but is {float(cost_M[node]):g} at {_place(tree, node)}")
    return cost_M


def _pair(what: str, pair: Pair) -> Pair:
    """Checked here too: what is wrong is said of the level or the name that was given."""
    try:
        positive, negative = (float(cost) for cost in pair)
    except (TypeError, ValueError):
        raise DataError(f"costs must be pairs (false positive, false negative), but {what} has {pair!r:.60}") from None
    if not (0 <= positive < np.inf and 0 <= negative < np.inf and positive + negative > 0):
        raise DataError(
            "costs must be finite and >= 0, and one of a pair > 0, but"
            f" {what} has false positive {positive:g} and false negative {negative:g}"
        )
    return positive, negative


def _leveled(hierarchy: Taxonomy | Tree) -> tuple[Tree, int, list[tuple[int, int]]]:
    """The tree, the number of levels, and what levels each node but the root stands for, as (level, node), sorted."""
    if isinstance(hierarchy, Tree):
        return hierarchy, hierarchy.max_depth, _sorted_levels(hierarchy.node_depths, np.arange(hierarchy.num_nodes))
    if not isinstance(hierarchy, Taxonomy):
        raise DataError(f"a hierarchy must be a Taxonomy or a Tree, but got {type(hierarchy).__name__}")
    tree, depth_T, node_T = hierarchy.tree, hierarchy.depth, hierarchy.tree_node
    leaf_C = tree.class_leaf
    here = np.flatnonzero(node_T[hierarchy.class_node] != leaf_C)
    levels = np.concatenate([depth_T, depth_T[hierarchy.class_node[here]] + 1])
    return tree, hierarchy.num_levels, _sorted_levels(levels, np.concatenate([node_T, leaf_C[here]]))


def _sorted_levels(level: NDArray[Any], node: NDArray[Any]) -> list[tuple[int, int]]:
    return sorted((int(at), int(which)) for at, which in zip(level, node, strict=True) if which != 0)


def _named(tree: Tree, key: str | int) -> int:
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        if not 0 <= key < tree.num_nodes:
            raise DataError(f"nodes must lie in [0, {tree.num_nodes}), but got {key}")
        return int(key)
    inner, classes = tree.node_names or (), tree.class_names or ()
    found = [node for node, name in enumerate(inner) if name == key]
    found = found or [int(tree.class_leaf[cls]) for cls, name in enumerate(classes) if name == key]
    if len(found) != 1 or not key:
        hint = did_you_mean(str(key), list(_names(tree))) if not found else "; give its id"
        raise DataError(f"a node's name must be that of one node, but {len(found)} have {key!r:.60}{hint}")
    return found[0]


def _names(tree: Tree) -> Iterator[str]:
    yield from (name for name in (*(tree.node_names or ()), *(tree.class_names or ())) if name)


def _place(tree: Tree, node: int) -> str:
    if node < tree.num_internal:
        name = tree.node_names[node] if tree.node_names else ""
    else:
        name = tree.class_names[int(tree.leaf_class[node - tree.num_internal])] if tree.class_names else ""
    return f"node {node} ({name!r:.60})" if name else f"node {node}"
