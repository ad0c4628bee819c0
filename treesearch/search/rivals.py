"""The builder that a found tree must beat."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from treesearch.cost import CostModel


class Scored(Protocol):
    """A tree with a cost and a score on validation data, of whichever rung."""

    def units(self, cost_model: CostModel) -> float:
        """What the reward charges."""
        ...

    def validation_reward(self, cost_model: CostModel, weight: float | None = None) -> float:
        """Reward under this λ or the model's, nats."""
        ...


AnyScored = TypeVar("AnyScored", bound=Scored)


def best_of_at_most(
    limit: float, entries: Iterable[AnyScored], cost_model: CostModel, weight: float | None = None
) -> AnyScored | None:
    """The tree with the best reward among those that are no dearer than ``limit`` units; None where there is none.

    Args:
        limit: What the tree to beat them is charged.
        entries: Builders' trees.
        cost_model: Which costs count as equal, and what compute takes from the reward.
        weight: λ; None for the model's.
    """
    affordable = (entry for entry in entries if cost_model.no_dearer(entry.units(cost_model), limit))
    return max(affordable, key=lambda entry: entry.validation_reward(cost_model, weight), default=None)
