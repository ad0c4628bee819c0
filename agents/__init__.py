"""Agents: ask/tell proposers of trees."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from agents.base import Agent, Evaluated, Proposal, Situation, decision_returns
from agents.evolution import Evolution, EvolutionSettings
from agents.hybrid import Hybrid, HybridSettings
from agents.local_search import LocalSearch, LocalSearchSettings
from agents.policy_gradient import PolicyGradient, PolicyGradientSettings
from agents.random_search import RandomSearch
from envs import Action, ConstructionTask
from treesearch.cost import CostWeights
from treesearch.errors import ConfigError, did_you_mean

__all__ = [
    "AGENTS",
    "Agent",
    "Evaluated",
    "Evolution",
    "EvolutionSettings",
    "Hybrid",
    "HybridSettings",
    "LocalSearch",
    "LocalSearchSettings",
    "PolicyGradient",
    "PolicyGradientSettings",
    "Proposal",
    "RandomSearch",
    "Situation",
    "decision_returns",
    "make_agent",
]

AGENTS: dict[str, tuple[type[Agent], type[Any] | None]] = {  # name -> the agent and its settings
    PolicyGradient.name: (PolicyGradient, PolicyGradientSettings),
    Hybrid.name: (Hybrid, HybridSettings),
    Evolution.name: (Evolution, EvolutionSettings),
    LocalSearch.name: (LocalSearch, LocalSearchSettings),
    RandomSearch.name: (RandomSearch, None),
}


def make_agent(
    name: str,
    *,
    task: ConstructionTask,
    actions: Sequence[str | Action],
    max_decisions: int,
    closer: str | Action | None,
    seed: int,
    cost_weights: CostWeights | None = None,
    **settings: Any,
) -> Agent:
    """An agent by name.

    Args:
        name: A key of `AGENTS`.
        task: What the trees are for.
        actions: Names or actions.
        max_decisions: Decisions in a tree at most.
        closer: Name of the closer; None takes the task's default.
        seed: Decides all its draws.
        cost_weights: The λs that its trees are for; None takes the task's alone.
        **settings: Fields of the agent's settings.

    Raises:
        ConfigError: Unknown agent, setting or action, or a value that one of them refuses.
    """
    if name not in AGENTS:
        raise ConfigError(f"unknown agent {name!r}{did_you_mean(name, AGENTS)}")
    agent, settings_type = AGENTS[name]
    known = [] if settings_type is None else [field.name for field in fields(settings_type)]
    for setting in settings:
        if setting not in known:
            raise ConfigError(f"agent {name!r} has no setting {setting!r}{did_you_mean(setting, known)}")
    own: dict[str, Any] = {} if settings_type is None else {"settings": settings_type(**settings)}
    return agent(
        task,
        actions=actions,
        max_decisions=max_decisions,
        closer=closer,
        cost_weights=cost_weights,
        seed=seed,
        **own,
    )
