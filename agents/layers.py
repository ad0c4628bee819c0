"""Trees that decide all nodes of like mass alike: a plan of one action for each layer.

A tree of many decisions, each the best of dozens on the same held-out tokens, owes part of its reward to luck and to
the features of one encoder (results/2026-11-24-kjv-measured). One decision for all nodes of a layer is judged on all
of its tokens, so that a search over plans picks up less of both (results/2026-11-24-kjv-layers).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.base import Evaluated, Proposal

LIGHTEST = (1.0, 0.02, 0.0)  # share of all examples at least, of the root, of heavy nodes, of all others
ROUNDING = 1e-9  # the root's share is a sum
UNDECIDED = -1  # in a plan: no such node was decided

Step = tuple[int, int]  # an action, and what is done where it is not legal
Plan = tuple[Step, ...]  # one for each layer


def layer_of(mass: float) -> int:
    """Which layer a node with this share of all examples belongs to, 0 for the root."""
    return next(layer for layer, lightest in enumerate(LIGHTEST) if mass >= lightest - ROUNDING)


def plan_of(proposal: Proposal) -> Plan | None:
    """The plan that a tree follows; None where it follows none."""
    layer_n = np.array([layer_of(mass) for mass in proposal.masses.tolist()])
    action_n = np.array(proposal.actions)
    plan = []
    for layer in range(len(LIGHTEST)):
        own = layer_n == layer
        steps = _steps(action_n[own], proposal.masks[own]) if own.any() else [(UNDECIDED, UNDECIDED)]
        if not steps:
            return None
        plan.append(steps[0])
    return tuple(plan)


def _steps(taken: NDArray[np.int64], masks: NDArray[np.int8]) -> list[Step]:
    """The steps that explain all decisions of a layer, those with the action that was taken most first."""
    found = []
    for action, _ in Counter(taken.tolist()).most_common():
        otherwise = taken[masks[:, action] == 0]
        fills = set(otherwise.tolist())
        if (taken[masks[:, action] != 0] == action).all() and len(fills) <= 1:
            found.append((action, fills.pop() if fills else UNDECIDED))
    return found


@dataclass(frozen=True)
class _Known:
    loss: float  # nats
    cost: float  # units


class LayeredPlans:
    """What is known of plans; whoever made the trees, those that follow one count."""

    def __init__(self) -> None:
        self._known: dict[Plan, _Known] = {}

    def __len__(self) -> int:
        return len(self._known)

    def add(self, item: Evaluated) -> None:
        """Take in the verdict on a tree that follows a plan."""
        verdict = item.exact_verdict()
        plan = None if verdict is None else plan_of(item.proposal)
        if verdict is not None and plan is not None:
            cost = 0.0 if verdict.node_cost is None else float(verdict.node_cost.sum())
            self._known.setdefault(plan, _Known(-verdict.reward, cost))

    def best(self, cost_weight: float, num: int) -> list[Plan]:
        """The best under this λ, best first; ties go to the one told earlier."""
        ranked = sorted(self._known.items(), key=lambda item: item[1].loss + cost_weight * item[1].cost)
        return [plan for plan, _ in ranked[:num]]

    def state(self) -> dict[str, Any]:
        """For `treesearch.state.pack_state`."""
        return {
            "plans": np.array(list(self._known), np.int32).reshape(-1, len(LIGHTEST), 2),
            "verdicts": np.array([(one.loss, one.cost) for one in self._known.values()], np.float64).reshape(-1, 2),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        verdicts: Sequence[Sequence[float]] = state["verdicts"].tolist()
        plans = (tuple((action, fill) for action, fill in plan) for plan in state["plans"].tolist())
        self._known = {plan: _Known(*verdict) for plan, verdict in zip(plans, verdicts, strict=True)}
