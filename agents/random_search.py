"""Random search: the baseline that a learning agent has to beat on the same budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from agents.base import Agent, Evaluated, Proposal
from envs import DEFAULT_ACTIONS, Action, ConstructionTask


class RandomSearch(Agent):
    """Draws every action uniformly from the legal ones and learns nothing.

    Args:
        task: See `Agent`.
        actions: See `Agent`.
        max_decisions: See `Agent`.
        closer: See `Agent`.
        seed: Of the draws.
    """

    name: ClassVar[str] = "random_search"

    def __init__(
        self,
        task: ConstructionTask,
        *,
        actions: Sequence[str | Action] = DEFAULT_ACTIONS,
        max_decisions: int = 32,
        closer: str | Action | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(task, actions=actions, max_decisions=max_decisions, closer=closer)
        self._rng = np.random.default_rng(seed)

    def ask(self, num: int) -> list[Proposal]:
        """Propose ``num`` trees."""
        return [self.roll_out(lambda _, mask: self._choose(mask)) for _ in range(num)]

    def tell(self, evaluated: Sequence[Evaluated]) -> dict[str, float]:
        """Nothing to learn, no metrics."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """The generator."""
        return {**self.identity(), "rng": self._rng.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state; RunError where it is another agent's or has other actions."""
        self.check_identity(state)
        self._rng.bit_generator.state = state["rng"]

    def _choose(self, mask: np.ndarray[Any, np.dtype[np.int8]]) -> tuple[int, float]:
        legal = np.flatnonzero(mask)
        return int(self._rng.choice(legal)), -float(np.log(legal.size))
