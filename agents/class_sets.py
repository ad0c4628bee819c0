"""What is learned at single class sets, which come up again and again once the splits above them are settled.

Shapes: **n** decisions of a batch of trees, **A** actions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

WINDOW = 40  # latest visits to a class set that a new one is compared with: older ones are of a worse policy


@dataclass(frozen=True, eq=False)
class Visits:
    """The decisions of some told trees."""

    class_sets: Sequence[bytes]  # n
    cost_weights: NDArray[np.float64]  # [n] the λ of each tree
    actions: NDArray[np.int64]  # [n]
    returns: NDArray[np.float64]  # [n] without cost, nats
    costs: NDArray[np.float64]  # [n] units


@dataclass
class _Arms:
    """One class set under one λ."""

    logits: NDArray[np.float32]  # [A]
    returns: list[float] = field(default_factory=list)  # of the latest visits, oldest first
    costs: list[float] = field(default_factory=list)


class ClassSetPreferences:
    """A gradient bandit (Sutton & Barto 2018, section 2.8) at every class set and λ, beside what a network says of it.

    The utility of a visit is the share of the latest other visits that earned less, minus the share that earned more:
    ranks, so that neither the scale of returns nor one very bad action matters (Wierstra et al. 2014, fitness shaping).

    Args:
        num_actions: A.
        cost_weights: The λs; another one counts as the nearest by ratio.
        step_size: Nats of logit for a visit of utility 1.
    """

    def __init__(self, num_actions: int, cost_weights: Sequence[float], *, step_size: float) -> None:
        self._num_actions, self._step_size = num_actions, step_size
        self._scale = np.log(np.maximum(cost_weights, 1e-12))
        self._arms: dict[tuple[bytes, int], _Arms] = {}

    def logits(self, class_set: bytes, cost_weight: float) -> NDArray[np.float32]:
        """What to add to the network's logits, float32 [A]; zeros where nothing is known."""
        arms = self._arms.get((class_set, self._nearest(cost_weight)))
        return np.zeros(self._num_actions, np.float32) if arms is None else arms.logits

    def learn(self, visits: Visits, probabilities: NDArray[np.float32]) -> None:
        """Move the logits of every class set along the gradient of its utility; the first visit to one moves nothing.

        Args:
            visits: What was decided, and what came of it.
            probabilities: [n, A] of the policy at each visit.
        """
        places: dict[tuple[bytes, int], list[int]] = {}
        for i, (class_set, cost_weight) in enumerate(zip(visits.class_sets, visits.cost_weights.tolist(), strict=True)):
            places.setdefault((class_set, self._nearest(cost_weight)), []).append(i)
        for key, own in places.items():
            arms = self._arms.setdefault(key, _Arms(np.zeros(self._num_actions, np.float32)))
            returns = np.array([*arms.returns, *visits.returns[own]])
            costs = np.array([*arms.costs, *visits.costs[own]])
            known = len(arms.returns)
            if returns.size > 1:
                step = np.zeros(self._num_actions, np.float32)
                for number, i in enumerate(own, start=known):
                    earned = returns - visits.cost_weights[i] * costs
                    utility = np.sign(earned[number] - earned).sum() / (earned.size - 1)
                    step -= utility * probabilities[i]
                    step[visits.actions[i]] += utility
                arms.logits = arms.logits + self._step_size * step
            arms.returns, arms.costs = returns[-WINDOW:].tolist(), costs[-WINDOW:].tolist()

    def clear(self) -> None:
        """Forget all: other class vectors make other class sets."""
        self._arms.clear()

    def state(self) -> dict[str, Any]:
        """For `treesearch.state.pack_state`; logits that never moved are left out, which is most of them."""
        arms = list(self._arms.values())
        return {
            "class_sets": [key.hex() for key, _ in self._arms],
            "weights": [weight for _, weight in self._arms],
            "moved": [bool(one.logits.any()) for one in arms],
            "logits": np.array([one.logits for one in arms if one.logits.any()], np.float32),
            "num_visits": [len(one.returns) for one in arms],
            "returns": np.array([value for one in arms for value in one.returns]),
            "costs": np.array([value for one in arms for value in one.costs]),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        self._arms = {}
        logits, returns, costs = (iter(state[key]) for key in ("logits", "returns", "costs"))
        columns = (state[key] for key in ("class_sets", "weights", "moved", "num_visits"))
        for class_set, weight, moved, num_visits in zip(*columns, strict=True):
            own = next(logits).copy() if moved else np.zeros(self._num_actions, np.float32)
            latest = ([float(value) for value in islice(column, num_visits)] for column in (returns, costs))
            self._arms[bytes.fromhex(class_set), weight] = _Arms(own, *latest)

    def _nearest(self, cost_weight: float) -> int:
        return int(np.abs(self._scale - np.log(max(cost_weight, 1e-12))).argmin())
