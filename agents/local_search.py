"""Local search: hill climbing that re-splits or re-closes one subtree of one of the best trees so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from agents.base import Agent, Evaluated, Proposal
from agents.elites import Archive, told_elites
from agents.settings import check_settings


@dataclass(frozen=True)
class LocalSearchSettings:
    """Hyperparameters of `LocalSearch`."""

    num_elites: int = 4  # trees that are climbed from
    mass_power: float = 0.5  # a decision is re-decided in proportion to (share of examples that pass it) ** mass_power

    def __post_init__(self) -> None:
        check_settings(self, at_least={"num_elites": 1, "mass_power": 0})


class LocalSearch(Agent):
    """Takes one of the best trees and decides one of its nodes anew: split otherwise, or closed.

    Nodes below a changed split go to the closer, so that one step changes one thing. Splits that reassign classes by
    trained node directions are among the moves where the action list has them (``...-reassigned``).

    Args:
        settings: Hyperparameters; the other arguments as in `Agent`.
    """

    name: ClassVar[str] = "local_search"

    def __init__(self, *args: Any, settings: LocalSearchSettings | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.settings = LocalSearchSettings() if settings is None else settings
        self._archive = Archive(self.settings.num_elites, self.cost_weights.grid())

    def propose(self, cost_weight: float) -> Proposal:
        """A neighbour of one of the best trees under this λ; a random tree while there is none."""
        elites = self._archive.best(cost_weight)
        if not elites:
            return self.roll_out(self.random_action, cost_weight)
        elite = elites[int(self.rng.integers(len(elites)))]
        share = elite.mass**self.settings.mass_power
        uniform = np.full(share.size, 1 / share.size)
        decision = int(self.rng.choice(share.size, p=share / share.sum() if share.sum() > 0 else uniform))
        return self.change(elite, decision, cost_weight, closer_share=1.0)

    def remember(self, evaluated: Sequence[Evaluated]) -> None:
        """Keep the best."""
        self._archive.add(told_elites(evaluated))

    def forget(self) -> None:
        """Start from nothing."""
        super().forget()
        self._archive.load([])

    def identity(self) -> dict[str, Any]:
        """What a state must agree on to fit this agent: its settings as well."""
        return {**super().identity(), "settings": asdict(self.settings)}

    def state_dict(self) -> dict[str, Any]:
        """The generator and the elites."""
        return {**super().state_dict(), "archive": self._archive.state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state; RunError where it is another agent's or has other actions or settings."""
        super().load_state_dict(state)
        self._archive.load(state["archive"])
