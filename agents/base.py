"""Ask/tell: what an agent proposes, what it is told, and how an evaluation is credited to decisions.

Shapes: **n** decisions of a proposal, **A** actions, **F** observation features, **N** internal nodes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from envs import (
    DEFAULT_ACTIONS,
    Action,
    Construction,
    ConstructionTask,
    Evaluation,
    SplitCache,
    parse_actions,
    parse_closer,
)
from treesearch.errors import RunError
from treesearch.tree import IntArray, Tree

# (observation [F], mask [A]) -> (action, its log-probability)
Chooser = Callable[[NDArray[np.float32], NDArray[np.int8]], tuple[int, float]]


@dataclass(frozen=True, eq=False)
class Proposal:
    """A tree and how the agent came to it; `Agent.tell` needs nothing else."""

    tree: Tree
    actions: tuple[int, ...]  # n indices into the action list; replaying them gives the tree
    decision_nodes: IntArray  # [n] the node that each action decided
    observations: NDArray[np.float32]  # [n, F] what the agent saw there
    masks: NDArray[np.int8]  # [n, A] what was legal there
    log_probs: NDArray[np.float32]  # [n] of each action when it was drawn


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A proposal and its verdict; None where the evaluation failed."""

    proposal: Proposal
    evaluation: Evaluation | None

    @property
    def usable(self) -> bool:
        """Whether there is a finite verdict to learn from."""
        verdict = self.evaluation
        return verdict is not None and bool(np.isfinite(verdict.reward) and np.isfinite(verdict.node_loss).all())


class Agent(ABC):
    """Proposes trees and learns from their evaluations.

    An agent is deterministic: its state and what it is told decide all it proposes, whatever the process.

    Args:
        task: What the trees are for.
        actions: Names or actions, the agent's move at every open node.
        max_decisions: Decisions in a tree at most.
        closer: Name of the closer; None takes the task's default.
    """

    name: ClassVar[str]

    def __init__(
        self,
        task: ConstructionTask,
        *,
        actions: Sequence[str | Action] = DEFAULT_ACTIONS,
        max_decisions: int = 32,
        closer: str | Action | None = None,
    ) -> None:
        self.task = task
        self.actions = parse_actions(actions)
        self.max_decisions = max_decisions
        self.closer = parse_closer(closer, task)
        self._splits = SplitCache(task)

    @abstractmethod
    def ask(self, num: int) -> list[Proposal]:
        """Propose ``num`` trees."""

    @abstractmethod
    def tell(self, evaluated: Sequence[Evaluated]) -> dict[str, float]:
        """Learn from finished evaluations, in the order given; returns metrics."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to go on as if nothing had happened; `pack_state` makes it bytes."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state; RunError where it is another agent's or has other actions."""

    def roll_out(self, choose: Chooser) -> Proposal:
        """Build one tree, asking ``choose`` at every decision."""
        construction = Construction(
            self.task, self.actions, max_decisions=self.max_decisions, closer=self.closer, splits=self._splits
        )
        observations, masks, actions, log_probs = [], [], [], []
        while not construction.done:
            observations.append(construction.observation())
            masks.append(construction.action_mask())
            action, log_prob = choose(observations[-1], masks[-1])
            construction.step(action)
            actions.append(action)
            log_probs.append(log_prob)
        built = construction.finish()
        return Proposal(
            built.tree,
            tuple(actions),
            built.decision_nodes,
            np.stack(observations),
            np.stack(masks),
            np.array(log_probs, np.float32),
        )

    def identity(self) -> dict[str, Any]:
        """What a state must agree on to fit this agent."""
        return {"agent": self.name, "actions": [action.name for action in self.actions]}

    def check_identity(self, state: Mapping[str, Any]) -> None:
        """Raise RunError unless ``state`` was made by an agent like this one."""
        for key, own in self.identity().items():
            if state.get(key) != own:
                raise RunError(
                    f"an agent's state must have been saved with the same {key}, but it has {state.get(key)!r:.200}"
                    f" and this agent {own!r:.200}; start a new run or restore the config"
                )


def decision_returns(proposal: Proposal, evaluation: Evaluation) -> NDArray[np.float64]:
    """What each decision earned, float64 [n]: minus the loss of the subtree below it, per example that passes.

    Both NLL and expected cost are sums over nodes, so no decision is charged for what happens beside or above it.
    A node that no example passes earns 0.
    """
    below = proposal.tree.subtree_sums(evaluation.node_loss)[proposal.decision_nodes]
    passing = evaluation.node_mass[proposal.decision_nodes]
    return -np.divide(below, passing, out=np.zeros_like(below), where=passing > 0)
