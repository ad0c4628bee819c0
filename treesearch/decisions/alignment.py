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

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from treesearch.decisions.audit import Audit
from treesearch.decisions.expert import FactorGroups, RuleBook
from treesearch.errors import ConfigError, DataError, did_you_mean

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
Chance = Literal["uniform", "in play", "shuffled"]
MEASURES = ("driver", "direction")


@dataclass(frozen=True)
class AlignmentRate:
    """How often decisions or paths agree: a share with its 95 % interval over examples, and what chance gives."""

    value: float  # NaN where nothing counts
    low: float
    high: float
    num: int  # decisions or paths that count
    chance: Mapping[Chance, float]

    def as_dict(self) -> dict[str, Any]:
        """For JSON; None where nothing counts."""
        if not self.num:
            return {"value": None, "low": None, "high": None, "num": 0, "chance": dict.fromkeys(self.chance)}
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


def audit_attribution(audit: Audit, *, num_features: int) -> FloatArray:
    """The attributions of an audit, [B, L, F], for `align`; beside them, ``audit.taken`` are the branches.

    Args:
        audit: Of `treesearch.decisions.audit.explain` with ``num_features=F``.
        num_features: F.

    Raises:
        DataError: The audit lists fewer features: those that are missing could be the driver.
    """
    listed = 0 if audit.features is None else audit.features.feature.shape[-1]
    if audit.features is None or listed != num_features:
        raise DataError(
            f"an audit must list all {num_features} features to be compared with an expert, but lists {listed}; call"
            f" explain with num_features={num_features}"
        )
    attribution_BLF = np.zeros(audit.features.feature.shape)
    np.put_along_axis(attribution_BLF, audit.features.feature, audit.features.contribution, -1)
    return attribution_BLF


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
