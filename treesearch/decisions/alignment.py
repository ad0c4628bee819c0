"""Alignment with an expert: is a decision driven by the factor that an expert names, and in the right direction?

Shapes: **B** examples, **L** decisions on a path, **F** features, **G** factors, **M** nodes of a tree.

Right answers come from wrong reasons too. An *expert rule* says of a branch of a tree: it is taken mainly because of
this *factor* (a named group of features), whose rise speaks for it (+1) or against it (-1). Attributions of a model's
decisions, whatever they were computed with, are summed by factor and compared with the rules at the branches taken:

- *driver agreement*: the factor of the largest absolute contribution among all G is one of the branch's rules;
- *direction agreement*: with c the contribution of the rule's factor to the branch taken, s its *state* (how much its
  features lie above the baseline, summed) and d the rule's direction, ``c * s * d > 0``: a factor that has risen and
  whose rise speaks for the branch contributes to it, one that has fallen, or whose rise speaks against it, takes from
  it. A factor in state 0 is not in play and has no direction: the decision does not count. Where several rules of the
  branch are in play, the one of the largest absolute contribution is looked at.

What chance alone would give stands beside each rate, exactly and for each decision:

- *uniform*: any of all factors is the driver, in any direction;
- *in play*: any of the factors of non-zero contribution is; this is the level to beat, since a decision's contributions
  favour the branch that was taken;
- *shuffled*, of drivers: the driver of any other ruled decision stands in the place of this one's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from treesearch.errors import ConfigError, DataError, did_you_mean
from treesearch.taxonomy import ROOT
from treesearch.tree import Tree

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
Chance = Literal["uniform", "in play", "shuffled"]
MEASURES = ("driver", "direction")


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

    def sums(self, values: ArrayLike) -> FloatArray:
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


@dataclass(frozen=True)
class AlignmentRate:
    """How often decisions or paths agree: a share with its 95 % interval over examples, and what chance gives."""

    value: float  # NaN where nothing counts
    low: float
    high: float
    num: int  # decisions or paths that count
    chance: Mapping[Chance, float]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"value": self.value, "low": self.low, "high": self.high, "num": self.num, "chance": dict(self.chance)}


@dataclass(frozen=True, eq=False)
class Alignment:
    """Decisions on paths beside the rules of the branches that were taken; made by `align`."""

    book: RuleBook
    branch: NDArray[np.int64]  # [B, L] child that was taken; NO_BRANCH beyond the end of a path
    contribution: FloatArray  # [B, L, G] of each factor to the logit of that child
    driver: NDArray[np.int64]  # [B, L] factor of the largest absolute contribution; NO_FACTOR where all are 0
    counts: Mapping[str, BoolArray]  # [B, L] by measure: the decision has a rule (that is in play, for a direction)
    agrees: Mapping[str, BoolArray]  # [B, L] by measure; False where it does not count
    chance: Mapping[str, Mapping[Chance, FloatArray]]  # [B, L] by measure and kind; 0 where it does not count

    NO_BRANCH: ClassVar[int] = -1

    def __len__(self) -> int:
        return int(self.branch.shape[0])

    def at_level(self, level: int) -> Alignment:
        """The decisions of one level alone, 0 at the root; `shuffled` chance stays that of all levels."""
        own = slice(level, level + 1)
        return replace(
            self,
            branch=self.branch[:, own],
            contribution=self.contribution[:, own],
            driver=self.driver[:, own],
            counts={measure: values[:, own] for measure, values in self.counts.items()},
            agrees={measure: values[:, own] for measure, values in self.agrees.items()},
            chance={
                measure: {kind: values[:, own] for kind, values in kinds.items()}
                for measure, kinds in self.chance.items()
            },
        )

    def path_counts(self, measure: str) -> BoolArray:
        """Whether any decision of the path counts, [B]."""
        return np.asarray(self.counts[_check_measure(measure)].any(1))

    def path_agrees(self, measure: str) -> BoolArray:
        """Whether all decisions of the path that count agree, and any does, [B]."""
        agrees_BL, counts_BL = self.agrees[_check_measure(measure)], self.counts[measure]
        return np.asarray((agrees_BL | ~counts_BL).all(1) & counts_BL.any(1))

    def wrong_reason(self, correct: ArrayLike) -> BoolArray:
        """Right for the wrong reason, [B]: correct, with a decision driven by another factor or against its direction.

        Args:
            correct: bool [B], of the model's predictions.

        Raises:
            DataError: There is not one for each example.
        """
        correct_B = np.asarray(correct, np.bool_)
        if correct_B.shape != (len(self),):
            raise DataError(f"correct must hold one value for each of {len(self)} examples, but got {correct_B.shape}")
        wrong_BL = np.zeros(self.branch.shape, np.bool_)
        for measure in MEASURES:
            wrong_BL |= self.counts[measure] & ~self.agrees[measure]
        return np.asarray(correct_B & wrong_BL.any(1))

    def rate(
        self, measure: str, *, per: Literal["decision", "path"] = "decision", seed: int = 0, num_samples: int = 1000
    ) -> AlignmentRate:
        """How often decisions agree, or all ruled decisions of a path do.

        The interval is a percentile bootstrap over examples, whose decisions depend on each other and are drawn
        together (Efron 1979). Chance takes the decisions of a path as independent.

        Args:
            measure: ``driver`` or ``direction``.
            per: What is counted.
            seed: Of the bootstrap.
            num_samples: Of the bootstrap.

        Raises:
            ConfigError: Another measure or unit.
        """
        counts_BL, agrees_BL = self.counts[_check_measure(measure)], self.agrees[measure]
        chances = self.chance[measure]
        if per == "decision":
            hits_B, num_B = agrees_BL.sum(1), counts_BL.sum(1)
            level = {kind: _share(values.sum(), num_B.sum()) for kind, values in chances.items()}
        elif per == "path":
            hits_B, num_B = self.path_agrees(measure), self.path_counts(measure)
            both = {kind: np.where(counts_BL, values, 1.0).prod(1) * num_B for kind, values in chances.items()}
            level = {kind: _share(values.sum(), num_B.sum()) for kind, values in both.items()}
        else:
            raise ConfigError(f"per must be 'decision' or 'path', but got {per!r:.40}")
        some = num_B > 0
        hits, nums = hits_B[some].astype(np.float64), num_B[some].astype(np.float64)
        if not nums.size:
            return AlignmentRate(np.nan, np.nan, np.nan, 0, level)
        drawn = np.random.default_rng(seed).integers(nums.size, size=(num_samples, nums.size))
        low, high = np.quantile(hits[drawn].sum(1) / nums[drawn].sum(1), [0.025, 0.975])
        return AlignmentRate(float(hits.sum() / nums.sum()), float(low), float(high), int(nums.sum()), level)


def align(book: RuleBook, *, branch: ArrayLike, attribution: ArrayLike, state: ArrayLike) -> Alignment:
    """Compare attributions of decisions with an expert's rules.

    Args:
        book: The rules.
        branch: int [B, L], the child taken by each decision, -1 beyond the end of a path.
        attribution: [B, L, F], of each feature to the logit of that child (against its rival, say).
        state: [B, F], each feature above the baseline of the attributions: ``input - baseline``.

    Raises:
        DataError: Shapes do not fit, a branch is no node, or an attribution is not finite.
    """
    branch_BL = np.asarray(branch, np.int64)
    num_nodes = book.tree.num_nodes
    if branch_BL.ndim != 2 or (branch_BL.size and not -1 <= branch_BL.min() <= branch_BL.max() < num_nodes):
        raise DataError(f"branch must be nodes [B, L] in [0, {num_nodes}), or -1 beyond the end, but got others")
    contribution_BLG = book.groups.sums(attribution)
    state_BG = book.groups.sums(state)
    if contribution_BLG.shape[:-1] != branch_BL.shape or state_BG.shape[:-1] != branch_BL.shape[:1]:
        raise DataError(
            f"attributions [B, L, F] and states [B, F] must fit branches {branch_BL.shape}, but are for"
            f" {contribution_BLG.shape[:-1]} and {state_BG.shape[:-1]}"
        )
    if not (np.isfinite(contribution_BLG).all() and np.isfinite(state_BG).all()):
        raise DataError("attributions and states must be finite, but some are not; look at the model's weights")
    rule_BLG = np.where((branch_BL >= 0)[..., None], book.direction[branch_BL], 0).astype(np.float64)
    strength_BLG = np.abs(contribution_BLG)
    in_play_BLG = (strength_BLG > 0) & (branch_BL >= 0)[..., None]
    driver_BL = np.where(in_play_BLG.any(-1), strength_BLG.argmax(-1), FactorGroups.NO_FACTOR)

    ruled_BL = (rule_BLG != 0).any(-1)
    is_driver_BLG = driver_BL[..., None] == np.arange(len(book.groups.names))
    driver_agrees_BL = (is_driver_BLG & (rule_BLG != 0)).any(-1)

    rising_BLG = np.sign(state_BG)[:, None, :] * np.sign(contribution_BLG)  # +1: more of the factor, more of the branch
    can_agree_BLG = (rule_BLG != 0) & (state_BG != 0)[:, None, :]
    directed_BL = can_agree_BLG.any(-1)
    strongest_BL1 = np.where(can_agree_BLG, strength_BLG, -1.0).argmax(-1)[..., None]
    wanted_BL = np.take_along_axis(rule_BLG, strongest_BL1, -1)[..., 0]
    found_BL = np.take_along_axis(rising_BLG, strongest_BL1, -1)[..., 0]
    direction_agrees_BL = directed_BL & (wanted_BL * found_BL > 0)

    return Alignment(
        book=book,
        branch=branch_BL,
        contribution=contribution_BLG,
        driver=driver_BL,
        counts={"driver": ruled_BL, "direction": directed_BL},
        agrees={"driver": driver_agrees_BL, "direction": direction_agrees_BL},
        chance={
            "driver": _driver_chance(rule_BLG, in_play_BLG, is_driver_BLG, ruled_BL),
            "direction": _direction_chance(wanted_BL, rising_BLG, directed_BL),
        },
    )


def _driver_chance(
    rule_BLG: FloatArray, in_play_BLG: BoolArray, is_driver_BLG: BoolArray, ruled_BL: BoolArray
) -> dict[Chance, FloatArray]:
    named_BLG = rule_BLG != 0
    num_in_play_BL = np.maximum(in_play_BLG.sum(-1), 1)
    share_G = is_driver_BLG[ruled_BL].mean(0) if ruled_BL.any() else np.zeros(named_BLG.shape[-1])
    return {
        "uniform": named_BLG.mean(-1),
        "in play": (named_BLG & in_play_BLG).sum(-1) / num_in_play_BL,
        "shuffled": named_BLG @ share_G,
    }


def _direction_chance(
    wanted_BL: FloatArray, rising_BLG: FloatArray, directed_BL: BoolArray
) -> dict[Chance, FloatArray]:
    moving_BL = np.maximum((rising_BLG != 0).sum(-1), 1)
    right_BL = (rising_BLG * wanted_BL[..., None] > 0).sum(-1)
    return {"uniform": np.where(directed_BL, 0.5, 0.0), "in play": np.where(directed_BL, right_BL / moving_BL, 0.0)}


def _check_measure(measure: str) -> str:
    if measure not in MEASURES:
        raise ConfigError(f"unknown measure {measure!r:.40}{did_you_mean(measure, MEASURES)}")
    return measure


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
