"""Regularised evolution (Real et al. 2019): tournament, one changed decision, the oldest die."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from agents.base import Agent, Evaluated, Proposal
from agents.elites import Elite, told_elites
from agents.settings import check_settings


@dataclass(frozen=True)
class EvolutionSettings:
    """Hyperparameters of `Evolution`."""

    population_size: int = 32  # the youngest told trees
    tournament_size: int = 8  # of which the best becomes a parent
    closer_share: float = 0.5  # chance that a node without a known decision is left to the closer, if that is an action

    def __post_init__(self) -> None:
        check_settings(
            self, at_least={"population_size": 2, "tournament_size": 1, "closer_share": 0}, at_most={"closer_share": 1}
        )


class Evolution(Agent):
    """Changes one decision of a good tree; what is below it is decided anew, everything else stays.

    Args:
        settings: Hyperparameters; the other arguments as in `Agent`.
    """

    name: ClassVar[str] = "evolution"

    def __init__(self, *args: Any, settings: EvolutionSettings | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.settings = EvolutionSettings() if settings is None else settings
        self._population: deque[Elite] = deque(maxlen=self.settings.population_size)

    def propose(self, cost_weight: float) -> Proposal:
        """A child of the best of a random handful under this λ; a random tree while there is nobody."""
        if not self._population:
            return self.roll_out(self.random_action, cost_weight)
        drawn = self.rng.integers(0, len(self._population), self.settings.tournament_size)
        parent = max((self._population[i] for i in drawn), key=lambda elite: elite.reward(cost_weight))
        decision = int(self.rng.integers(len(parent.actions)))
        return self.change(parent, decision, cost_weight, closer_share=self.settings.closer_share)

    def remember(self, evaluated: Sequence[Evaluated]) -> None:
        """The told trees join the population, and as many of the oldest leave it."""
        self._population.extend(told_elites(evaluated))

    def forget(self) -> None:
        """Nobody is left."""
        super().forget()
        self._population.clear()

    def identity(self) -> dict[str, Any]:
        """What a state must agree on to fit this agent: its settings as well."""
        return {**super().identity(), "settings": asdict(self.settings)}

    def state_dict(self) -> dict[str, Any]:
        """The generator and the population."""
        return {**super().state_dict(), "population": [elite.state() for elite in self._population]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state; RunError where it is another agent's or has other actions or settings."""
        super().load_state_dict(state)
        self._population = deque(map(Elite.from_state, state["population"]), maxlen=self.settings.population_size)
