"""`Levels`: the levels of a hierarchy as index tensors, and sums of probabilities from level to level.

At level l a path is either at a node of depth l, or it has ended above, at a class. The *outcomes* of a level are all
of these: its nodes of depth l in ascending order, then the classes that end above it, by class id. An end is known by
the node of its class, of lesser depth. So the probabilities of a level's outcomes sum to 1 also where classes stand at
different depths, and the outcomes of the deepest level are the classes.

Shapes: **B** batch, **C** classes, **T** nodes of the taxonomy, **L** levels below the root, **n** nodes of one level,
**O** outcomes of one level. Index 0 of L is level 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from hashlib import blake2b

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from treesearch import tree_kernels
from treesearch.errors import DataError
from treesearch.taxonomy import Taxonomy
from treesearch.tree import Tree


def tree_levels(tree: Tree) -> Taxonomy:
    """The taxonomy whose nodes are those of a tree, with the same numbers; names are the numbers.

    For a tree that was made from a taxonomy, `Taxonomy.of` gives the levels that people drew.
    """
    return Taxonomy(tree.parent, tuple(map(str, range(tree.num_nodes))), tree.class_leaf)


class Levels:
    """Index tensors of a hierarchy on one device, each made when it is first asked for.

    Args:
        hierarchy: A taxonomy; or a tree, which counts as the taxonomy of its own nodes (`tree_levels`).
        device: Of the tensors.

    Raises:
        DataError: ``hierarchy`` is neither.
    """

    def __init__(self, hierarchy: Taxonomy | Tree, device: torch.device | str = "cpu") -> None:
        if isinstance(hierarchy, Tree):
            hierarchy = tree_levels(hierarchy)
        if not isinstance(hierarchy, Taxonomy):
            raise DataError(
                f"a hierarchy must be a Taxonomy or a Tree, but got {type(hierarchy).__name__}; use"
                " treesearch.taxonomy.as_taxonomy"
            )
        self.taxonomy = hierarchy
        self.device = torch.device(device)
        self._elsewhere: dict[torch.device, Levels] = {}

    @classmethod
    def of(cls, hierarchy: Taxonomy | Tree | Levels) -> Levels:
        """The levels of a hierarchy; levels are returned as they are, so that metrics can share them."""
        return hierarchy if isinstance(hierarchy, cls) else cls(hierarchy)  # type: ignore[arg-type]

    def on(self, device: torch.device) -> Levels:
        """The same levels on another device; they are kept."""
        if device == self.device:
            return self
        if device not in self._elsewhere:
            self._elsewhere[device] = Levels(self.taxonomy, device)
        return self._elsewhere[device]

    @property
    def num_levels(self) -> int:
        """L."""
        return self.taxonomy.num_levels

    @property
    def num_classes(self) -> int:
        """C."""
        return self.taxonomy.num_classes

    @cached_property
    def key(self) -> str:
        """Hash of the hierarchy without its names."""
        arrays = (self.taxonomy.parent, self.taxonomy.class_node)
        return blake2b(b"|".join(np.ascontiguousarray(array, "<i4").tobytes() for array in arrays)).hexdigest()

    def _tensor(self, values: ArrayLike) -> Tensor:
        return torch.as_tensor(np.asarray(values, np.int64), device=self.device)

    # -- nodes ---------------------------------------------------------------------------------------------------------

    @cached_property
    def depth(self) -> Tensor:
        """Edges from the root to each node, int64 [T]."""
        return self._tensor(self.taxonomy.depth)

    @cached_property
    def parent(self) -> Tensor:
        """Parent of each node, int64 [T]; `Taxonomy.NO_NODE` at the root."""
        return self._tensor(self.taxonomy.parent)

    @cached_property
    def heights(self) -> Tensor:
        """Edges from each node to the deepest below it, int64 [T]."""
        return self._tensor(self.taxonomy.heights)

    @cached_property
    def class_node(self) -> Tensor:
        """Node of each class, int64 [C]."""
        return self._tensor(self.taxonomy.class_node)

    @cached_property
    def class_below(self) -> Tensor:
        """The smallest class at each node or below it, int64 [T]."""
        low_T = np.full(self.taxonomy.num_nodes, self.num_classes, np.int64)
        low_T[self.taxonomy.class_node] = np.arange(self.num_classes)
        tree_kernels.spread_up(self.taxonomy.parent, low_T, low_T.copy())
        return self._tensor(low_T)

    @cached_property
    def path(self) -> Tensor:
        """The node of each class's path at each level, int64 [L+1, C], root first; `Taxonomy.NO_NODE` below its end."""
        return self._tensor(np.stack([self.taxonomy.ancestors(level) for level in range(self.num_levels + 1)]))

    @cached_property
    def nodes(self) -> tuple[Tensor, ...]:
        """The nodes of each depth 0 to L in ascending order, int64 [n] each."""
        depth_T = self.taxonomy.depth
        order = np.argsort(depth_T, kind="stable")
        ends = np.cumsum(np.bincount(depth_T))
        return tuple(map(self._tensor, np.split(order, ends[:-1])))

    @cached_property
    def place(self) -> Tensor:
        """The place of each node among those of its depth, int64 [T]."""
        place_T = torch.empty_like(self.depth)
        for node_n in self.nodes:
            place_T[node_n] = torch.arange(node_n.numel(), device=self.device)
        return place_T

    @cached_property
    def classes(self) -> tuple[Tensor, ...]:
        """The classes at each depth 0 to L, by class id, int64 each."""
        depth_C = self.depth[self.class_node]
        return tuple((depth_C == level).nonzero().squeeze(1) for level in range(self.num_levels + 1))

    def masses(self, prob_BC: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Sums of class probabilities below the nodes of each level, deepest first: (level, [B, n]); O(B T) in all."""
        below: Tensor | None = None
        for level in range(self.num_levels, 0, -1):
            mass_Bn = prob_BC.new_zeros(len(prob_BC), self.nodes[level].numel())
            own = self.classes[level]
            mass_Bn.index_add_(1, self.place[self.class_node[own]], prob_BC[:, own])
            if below is not None:
                mass_Bn.index_add_(1, self.place[self.parent[self.nodes[level + 1]]], below)
            below = mass_Bn
            yield level, mass_Bn

    # -- outcomes ------------------------------------------------------------------------------------------------------

    @cached_property
    def outcomes(self) -> tuple[Tensor, ...]:
        """The node of each outcome of each level 1 to L, int64 [O] each; see the module."""
        depth_C = self.depth[self.class_node]
        return tuple(
            torch.cat([self.nodes[level], self.class_node[depth_C < level]]) for level in range(1, self.num_levels + 1)
        )

    @cached_property
    def outcome_of_class(self) -> tuple[Tensor, ...]:
        """The outcome of each class at each level 1 to L, int64 [C] each."""
        depth_C = self.depth[self.class_node]
        found = []
        for level in range(1, self.num_levels + 1):
            ended_C = depth_C < level
            end_C = self.nodes[level].numel() + ended_C.cumsum(0) - 1
            found.append(torch.where(ended_C, end_C, self.place[self.path[level].clamp(min=0)]))
        return tuple(found)

    @cached_property
    def outcome_above(self) -> tuple[Tensor, ...]:
        """For each level 2 to L the outcome of the level above that each of its outcomes is part of, int64 [O] each."""
        class_at_T = self._tensor(self.taxonomy.class_at)
        above = []
        for level in range(1, self.num_levels):
            node_O = self.outcomes[level]
            node_O = torch.where(self.depth[node_O] > level, self.parent[node_O], node_O)
            end_O = self.outcome_of_class[level - 1][class_at_T[node_O].clamp(min=0)]
            above.append(torch.where(self.depth[node_O] == level, self.place[node_O], end_O))
        return tuple(above)

    def log_sums(self, log_prob_BO: Tensor, level: int) -> Tensor:
        """Log-probabilities of the outcomes of ``level`` from those of the level below it, nats; differentiable.

        Args:
            log_prob_BO: [B, O] of level ``level + 1``.
            level: 1 to L - 1.
        """
        index = self.outcome_above[level - 1].expand_as(log_prob_BO)
        shape = (len(log_prob_BO), self.outcomes[level - 1].numel())
        values = log_prob_BO.detach()
        # Of a sum of nothing but zeros the greatest is no reference: 0 is as good.
        top = values.new_full(shape, -torch.inf).scatter_reduce_(1, index, values, "amax")
        top = torch.where(top.isinf(), 0.0, top)
        shares = (log_prob_BO - top.gather(1, index)).exp()
        return shares.new_zeros(shape).index_add(1, self.outcome_above[level - 1], shares).log() + top
