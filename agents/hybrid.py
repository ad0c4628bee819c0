"""The hybrid: a policy proposes, the best known subtrees are put together and changed, and so are plans by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from agents.base import UNDRAWN, Evaluated, Proposal, Situation
from agents.layers import UNDECIDED, LayeredPlans, layer_of
from agents.policy_gradient import PolicyGradient, PolicyGradientSettings, one_torch_thread
from agents.settings import check_settings
from agents.subtrees import SubtreeTable
from envs import ConstructionTask, OpenNode
from treesearch.errors import ConfigError


@dataclass(frozen=True)
class HybridSettings(PolicyGradientSettings):
    """Those of the policy, and how its proposals mix with the best known tree."""

    policy_share: float = 0.25  # of proposals that are the policy's alone
    layered_share: float = 0.4  # of proposals that decide all nodes of like mass alike
    layered_parents: int = 6  # best known plans by layer, one of which such a proposal changes in one layer
    change_root: float = 0.15  # chance that a proposal from the best known tree decides the root anew
    change_other: float = 0.35  # the same for every other node
    untried_share: float = 0.6  # of such changes that try an action for the first time with these classes; the others
    near_best: float = 0.002  # take a known action in proportion to exp(-(nats it is behind the best) / this)
    policy_temperature: float = 2.0  # of the policy where it chooses what to try at such a node

    def __post_init__(self) -> None:
        super().__post_init__()
        shares = ("policy_share", "layered_share", "change_root", "change_other", "untried_share")
        check_settings(
            self,
            at_least={**dict.fromkeys(shares, 0), "layered_parents": 1},
            at_most=dict.fromkeys(shares, 1),
            above={"policy_temperature": 0, "near_best": 0},
        )
        if self.policy_share + self.layered_share > 1:
            raise ConfigError(
                "policy_share and layered_share must be 1 together at most, but got"
                f" {self.policy_share} and {self.layered_share}; lower one of them"
            )


class Hybrid(PolicyGradient):
    """Starts from the best tree over everything seen and tries something new at several nodes, or in one layer.

    Nodes do not influence each other on frozen features, so one evaluation judges every change by itself; the changes
    that pay are in the next best tree (`SubtreeTable`). What to try is the policy's choice among the actions that no
    told tree took with that class set, or an action that is nearly the best, so that what is below it gets better.

    Choosing at every node by itself finds the best reward on frozen features, of which joint training keeps less the
    more was chosen. So a part of the proposals takes one of the best plans by layer instead, and decides one layer anew
    (`agents.layers`).

    Args:
        settings: Hyperparameters; the other arguments as in `PolicyGradient`.
    """

    name: ClassVar[str] = "hybrid"
    settings: HybridSettings

    def __init__(self, *args: Any, settings: HybridSettings | None = None, **options: Any) -> None:
        super().__init__(*args, settings=HybridSettings() if settings is None else settings, **options)

    def _set_task(self, task: ConstructionTask) -> None:
        super()._set_task(task)
        self._table = SubtreeTable(self.actions, self.closer_action)
        self._plans = LayeredPlans()
        self._root = OpenNode(task.root, 1.0, 0, task.in_features, projected=False).digest

    def propose(self, cost_weight: float) -> Proposal:
        """The policy's tree, or a plan by layer or the best known tree under this λ with changes."""
        drawn = self.rng.random()
        if not len(self._table) or drawn < self.settings.policy_share:
            return super().propose(cost_weight)
        layered = drawn < self.settings.policy_share + self.settings.layered_share and len(self._plans) > 0
        with one_torch_thread(), torch.no_grad():
            return self._layered(cost_weight) if layered else self._composed(cost_weight)

    def _composed(self, cost_weight: float) -> Proposal:
        """The best subtrees over everything seen, with changes."""
        block: dict[bytes, int] = {}  # what belongs to a projecting split that was chosen

        def choose(situation: Situation) -> tuple[int, float]:
            class_set = situation.class_set
            if class_set in block:
                return block[class_set], UNDRAWN
            if class_set not in self._table:
                return self._choose(situation)
            action = self._decide(situation, cost_weight)
            if action in self._table.tried(class_set):
                block.update(self._table.block_plan(class_set, action, cost_weight))
            return action, UNDRAWN

        return self.roll_out(choose, cost_weight)

    def _layered(self, cost_weight: float) -> Proposal:
        """One of the best plans with another action in one layer; what it does not know is the policy's choice."""
        parents = self._plans.best(cost_weight, self.settings.layered_parents)
        plan = list(parents[int(self.rng.integers(len(parents)))])
        decided = [layer for layer, (action, _) in enumerate(plan) if action != UNDECIDED]
        changed: int | None = int(self.rng.choice(decided))

        def choose(situation: Situation) -> tuple[int, float]:
            nonlocal changed
            layer, legal = layer_of(situation.mass), situation.mask.astype(np.bool_)
            action, fill = plan[layer]
            if action == UNDECIDED:
                plan[layer] = action, fill = self._choose(situation)[0], fill
            elif layer == changed:
                others = legal.copy()
                others[action] = False
                if others.any():
                    plan[layer] = action, fill = self._try(situation, others), fill
                    changed = None
            if not legal[action]:
                if fill == UNDECIDED or not legal[fill]:
                    closer = self.closer_action
                    fill = closer if closer is not None and legal[closer] else self._choose(situation)[0]
                action = fill
            return action, UNDRAWN

        return self.roll_out(choose, cost_weight)

    def _decide(self, situation: Situation, cost_weight: float) -> int:
        """The best known action with a class set, one that was never tried with it, or one that is nearly as good."""
        settings, class_set = self.settings, situation.class_set
        legal = situation.mask.astype(np.bool_)
        known = self._table.losses(class_set, cost_weight)
        losses = {action: loss for action, loss in known.items() if action >= 0 and legal[action]}
        untried = legal.copy()
        untried[list(losses)] = False
        change = self.rng.random() < (settings.change_root if class_set == self._root else settings.change_other)
        if not losses or (change and untried.any() and self.rng.random() < settings.untried_share):
            return self._try(situation, untried)
        tried = sorted(losses, key=lambda action: (losses[action], action))
        if not change:
            return tried[0]
        gap = np.array([losses[action] - losses[tried[0]] for action in tried])
        share = np.exp(-gap / settings.near_best)
        return tried[int(self.rng.choice(len(tried), p=share / share.sum()))]

    def _try(self, situation: Situation, allowed: NDArray[np.bool_]) -> int:
        """An action that the policy draws, at a higher temperature, from the allowed ones."""
        log_prob_A = self._situation_log_probs(situation, allowed)
        drawn_A = (log_prob_A / self.settings.policy_temperature).softmax(-1)
        return int(torch.multinomial(drawn_A, 1, generator=self._generator))

    def remember(self, evaluated: Sequence[Evaluated]) -> None:
        """Keep the best trees, and what every tree says of its splits and of its plan."""
        super().remember(evaluated)
        for item in evaluated:
            self._table.add(item)
            self._plans.add(item)

    def state_dict(self) -> dict[str, Any]:
        """That of the policy, and all that is known of class sets and plans."""
        return {**super().state_dict(), "table": self._table.state(), "plans": self._plans.state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state; RunError where it is another agent's or has other actions or settings."""
        super().load_state_dict(state)
        self._table.load(state["table"])
        self._plans.load(state["plans"])
