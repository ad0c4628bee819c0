"""What agents remember of told trees: enough to build them again, to change them, and to judge them under any λ.

Shapes: **n** decisions, **A** actions, **F** observation features.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.base import Evaluated

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Elite:
    """A told tree. Losses are per example of the corpus and hold no cost, which stands apart."""

    tree_hash: str
    actions: tuple[int, ...]  # n
    class_sets: tuple[bytes, ...]  # n
    observations: NDArray[np.float32]  # [n, F] under the λ it was proposed for
    masks: NDArray[np.int8]  # [n, A]
    loss: float  # nats, of the whole tree
    cost: float  # units, of the whole tree
    below_loss: FloatArray  # [n] nats, of the subtree of each decision
    below_cost: FloatArray  # [n] units
    mass: FloatArray  # [n] share of all examples that pass

    @classmethod
    def of(cls, item: Evaluated) -> Elite | None:
        """The memory of a told tree; None where there is no verdict, or only an estimate."""
        proposal, verdict = item.proposal, item.exact_verdict()
        if verdict is None:
            return None
        tree, nodes = proposal.tree, proposal.decision_nodes
        cost_N = np.zeros(tree.num_internal) if verdict.node_cost is None else verdict.node_cost
        return cls(
            tree_hash=tree.hash,
            actions=proposal.actions,
            class_sets=proposal.class_sets,
            observations=proposal.observations,
            masks=proposal.masks,
            loss=-verdict.reward,
            cost=float(cost_N.sum()),
            below_loss=tree.subtree_sums(verdict.node_loss)[nodes],
            below_cost=tree.subtree_sums(cost_N)[nodes],
            mass=verdict.node_mass[nodes],
        )

    def reward(self, cost_weight: float) -> float:
        """Of the whole tree under this λ, nats."""
        return -self.loss - cost_weight * self.cost

    def returns(self, cost_weight: float) -> FloatArray:
        """What each decision earned under this λ, per example that passes, float64 [n]; see `decision_returns`."""
        below = self.below_loss + cost_weight * self.below_cost
        return -np.divide(below, self.mass, out=np.zeros_like(below), where=self.mass > 0)

    def state(self) -> dict[str, Any]:
        """For `treesearch.state.pack_state`."""
        return {**vars(self), "class_sets": [one.hex() for one in self.class_sets]}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Elite:
        """What `state` gave."""
        return cls(**{**state, "class_sets": tuple(bytes.fromhex(one) for one in state["class_sets"])})


class Archive:
    """The best told trees under each of some λs.

    Args:
        size: Trees kept for each λ.
        cost_weights: The λs by which trees are kept; they may be asked for under any other.
    """

    def __init__(self, size: int, cost_weights: Sequence[float]) -> None:
        self.size = size
        self.cost_weights = tuple(cost_weights)
        self._elites: dict[str, Elite] = {}

    def add(self, elites: Iterable[Elite]) -> None:
        """Take in told trees; those that are among the best under no λ are dropped."""
        for elite in elites:
            self._elites.setdefault(elite.tree_hash, elite)
        kept = {elite.tree_hash for weight in self.cost_weights for elite in self.best(weight)}
        self._elites = {key: elite for key, elite in self._elites.items() if key in kept}

    def best(self, cost_weight: float, num: int | None = None) -> list[Elite]:
        """The best under this λ, best first; ties go to the one told earlier."""
        ranked = sorted(self._elites.values(), key=lambda elite: -elite.reward(cost_weight))
        return ranked[: self.size if num is None else num]

    def __len__(self) -> int:
        return len(self._elites)

    def __iter__(self) -> Iterator[Elite]:
        return iter(self._elites.values())

    def state(self) -> list[dict[str, Any]]:
        """For `treesearch.state.pack_state`."""
        return [elite.state() for elite in self]

    def load(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Take over what `state` gave."""
        self._elites = {elite.tree_hash: elite for elite in map(Elite.from_state, state)}


def told_elites(evaluated: Sequence[Evaluated]) -> list[Elite]:
    """The memories of those told trees that have a verdict."""
    return [elite for elite in map(Elite.of, evaluated) if elite is not None]
