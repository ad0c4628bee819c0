"""What an expert knows of a tree: named factors, and rules of which drives the way to a branch; see `alignment`.

Shapes: **F** features, **G** factors, **M** nodes of a tree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from treesearch.errors import DataError, did_you_mean
from treesearch.taxonomy import ROOT
from treesearch.tree import Tree


@dataclass(frozen=True)
class ExpertRule:
    """Going from a node to a branch is driven mainly by a factor whose rise speaks for the branch, or against it."""

    node: str  # name of an internal node of the tree, ROOT for the root
    branch: str  # name of one of its children, a node or a class
    factor: str
    direction: int  # +1 or -1
    source: str  # who says so, and why


@dataclass(frozen=True, eq=False)
class FactorGroups:
    """Factors, each a named group of features; a feature belongs to one factor or to none. `of` checks."""

    names: tuple[str, ...]  # [G]
    factor: NDArray[np.int64]  # [F] the factor of each feature, NO_FACTOR where it has none

    NO_FACTOR: ClassVar[int] = -1

    @classmethod
    def of(cls, members: Mapping[str, Sequence[int]], *, num_features: int) -> FactorGroups:
        """Factors by name, each with the places of its features.

        Raises:
            DataError: There is no factor, one is empty, or a feature is none of F or belongs to two.
        """
        factor_F = np.full(num_features, cls.NO_FACTOR, np.int64)
        if not members:
            raise DataError("there must be at least one factor, but none was given")
        for place, (name, features) in enumerate(members.items()):
            own = np.asarray(list(features), np.int64)
            if own.size == 0 or own.min() < 0 or own.max() >= num_features:
                raise DataError(f"features of factor {name!r:.40} must be one or more of 0 .. {num_features - 1}")
            if np.unique(own).size < own.size or (factor_F[own] != cls.NO_FACTOR).any():
                raise DataError(f"a feature must belong to one factor, but one of {name!r:.40} is listed twice")
            factor_F[own] = place
        return cls(tuple(members), factor_F)

    @property
    def num_features(self) -> int:
        """F."""
        return int(self.factor.size)

    def sums(self, values: ArrayLike) -> NDArray[np.float64]:
        """Sums by factor over the last dimension, [..., F] to [..., G].

        Raises:
            DataError: The last dimension is not F.
        """
        array = np.asarray(values, np.float64)
        if array.ndim < 1 or array.shape[-1] != self.num_features:
            raise DataError(f"the last dimension must be the {self.num_features} features, but got {array.shape}")
        member_FG = (self.factor[:, None] == np.arange(len(self.names))).astype(np.float64)
        return array @ member_FG

    def permuted(self, rng: np.random.Generator) -> FactorGroups:
        """The same factors with their features drawn anew: what agreement is left is chance."""
        return FactorGroups(self.names, rng.permutation(self.factor))


@dataclass(frozen=True, eq=False)
class RuleBook:
    """Expert rules on a tree; the rules of one branch are alternatives. `of` checks."""

    tree: Tree
    groups: FactorGroups
    rules: tuple[ExpertRule, ...]
    direction: NDArray[np.int8]  # [M, G] of a rise of the factor for going to the node; 0 without a rule

    @classmethod
    def of(cls, tree: Tree, groups: FactorGroups, rules: Sequence[ExpertRule]) -> RuleBook:
        """Rules by name.

        Args:
            tree: With names of nodes and classes.
            groups: The factors.
            rules: Each of a node, one of its children and a factor.

        Raises:
            DataError: A name is unknown, a branch is no child of its node, a direction is neither +1 nor -1, or two
                rules say different things of one factor.
        """
        nodes = _named_nodes(tree)
        places = {name: place for place, name in enumerate(groups.names)}
        direction_MG = np.zeros((tree.num_nodes, len(groups.names)), np.int8)
        for rule in rules:
            for name in (rule.node, rule.branch):
                if name not in nodes:
                    raise DataError(f"the tree of a rule has no node {name!r:.60}{did_you_mean(name, nodes)}")
            if rule.factor not in places:
                raise DataError(
                    f"a rule of {rule.branch!r:.60} names the unknown factor {rule.factor!r:.60}"
                    f"{did_you_mean(rule.factor, places)}"
                )
            node, branch, factor = nodes[rule.node], nodes[rule.branch], places[rule.factor]
            if tree.parent[branch] != node or branch == 0:
                raise DataError(
                    f"a rule's branch must be a child of its node, but {rule.branch!r:.60} is none of {rule.node!r:.60}"
                )
            if rule.direction not in (1, -1):
                raise DataError(
                    f"the direction of a rule must be +1 or -1, but is {rule.direction!r:.20} for {rule.branch!r:.60}"
                )
            if direction_MG[branch, factor] == -rule.direction:
                raise DataError(
                    f"rules must not contradict each other, but {rule.factor!r:.40} speaks both for and"
                    f" against {rule.branch!r:.60}; leave one out"
                )
            direction_MG[branch, factor] = rule.direction
        return cls(tree, groups, tuple(rules), direction_MG)

    def with_groups(self, groups: FactorGroups) -> RuleBook:
        """The same rules on factors of the same names with other features, such as `FactorGroups.permuted`.

        Raises:
            DataError: The names differ.
        """
        if groups.names != self.groups.names:
            raise DataError("other groups must have the names of the factors that the rules know, but have others")
        return replace(self, groups=groups)


def _named_nodes(tree: Tree) -> dict[str, int]:
    if tree.node_names is None or tree.class_names is None:
        raise DataError("a tree with expert rules must have names of nodes and classes; use Tree.annotate")
    inner = {name: node for node, name in enumerate(tree.node_names) if name}
    return {ROOT: 0} | inner | dict(zip(tree.class_names, tree.class_leaf.tolist(), strict=True))
