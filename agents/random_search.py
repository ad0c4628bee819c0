"""Random search: the baseline that a learning agent has to beat on the same budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from agents.base import Agent, Evaluated, Proposal


class RandomSearch(Agent):
    """Draws every action uniformly from the legal ones and learns nothing. Arguments as in `Agent`."""

    name: ClassVar[str] = "random_search"

    def propose(self, cost_weight: float) -> Proposal:
        """One tree; λ plays no part."""
        return self.roll_out(self.random_action, cost_weight)

    def remember(self, evaluated: Sequence[Evaluated]) -> None:
        """Nothing."""
