"""The hybrid: a policy proposes, the best known subtrees are put together and changed where it matters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from agents.base import Evaluated, Proposal, Situation
from agents.policy_gradient import PolicyGradient, PolicyGradientSettings, one_torch_thread
from agents.settings import check_settings
from agents.subtrees import SubtreeTable
from envs import ConstructionTask, OpenNode


@dataclass(frozen=True)
class HybridSettings(PolicyGradientSettings):
    """Those of the policy, and how its proposals mix with the best known tree."""

    policy_share: float = 0.25  # of proposals that are the policy's alone
    change_root: float = 0.15  # chance that a proposal from the best known tree decides the root anew
    change_other: float = 0.35  # the same for every other node
    policy_temperature: float = 2.0  # of the policy where it chooses what to try at such a node

    def __post_init__(self) -> None:
        super().__post_init__()
        shares = ("policy_share", "change_root", "change_other")
        check_settings(
            self,
            at_least=dict.fromkeys(shares, 0),
            at_most=dict.fromkeys(shares, 1),
            above={"policy_temperature": 0},
        )


class Hybrid(PolicyGradient):
    """Starts each proposal from the best tree over everything seen, and tries something new at several of its nodes.

    Nodes do not influence each other on frozen features, so one evaluation judges every change by itself; the changes
    that pay are in the next best tree (`SubtreeTable`). What to try is the policy's choice among the actions that no
    told tree took with that class set.

    Args:
        settings: Hyperparameters; the other arguments as in `PolicyGradient`.
    """

    name: ClassVar[str] = "hybrid"
    settings: HybridSettings

    def __init__(self, *args: Any, settings: HybridSettings | None = None, **options: Any) -> None:
        super().__init__(*args, settings=HybridSettings() if settings is None else settings, **options)

    def use_task(self, task: ConstructionTask) -> None:
        """Go on with another task; what is known of class sets is forgotten, since it holds for the old one."""
        super().use_task(task)
        self._table = SubtreeTable(self.actions)
        self._root = OpenNode(np.arange(task.num_classes), 1.0, 0, task.in_features, projected=False).digest

    def propose(self, cost_weight: float) -> Proposal:
        """The policy's tree, or the best known one under this λ with changes."""
        plan = self._table.best_plan(self._root, cost_weight)
        if not plan or self.rng.random() < self.settings.policy_share:
            return super().propose(cost_weight)

        def choose(situation: Situation) -> tuple[int, float]:
            known = plan.get(situation.class_set)
            if known is None:
                return self._choose(situation)
            root = situation.class_set == self._root
            change = self.rng.random() < (self.settings.change_root if root else self.settings.change_other)
            untried = situation.mask.astype(np.bool_)
            untried[list(self._table.tried(situation.class_set))] = False
            if (change and untried.any()) or not situation.mask[known]:
                return self._try(situation, untried if untried.any() else situation.mask.astype(np.bool_))
            return known, self.log_prob(situation, known)

        with one_torch_thread(), torch.no_grad():
            return self.roll_out(choose, cost_weight)

    def _try(self, situation: Situation, allowed: NDArray[np.bool_]) -> tuple[int, float]:
        """An action that the policy draws, at a higher temperature, from the allowed ones."""
        log_prob_A = self._log_probs(torch.from_numpy(situation.observation), torch.from_numpy(allowed))
        drawn_A = (log_prob_A / self.settings.policy_temperature).softmax(-1)
        action = int(torch.multinomial(drawn_A, 1, generator=self._generator))
        return action, self.log_prob(situation, action)

    def remember(self, evaluated: Sequence[Evaluated]) -> None:
        """Keep the best trees, and what every tree says of its splits."""
        super().remember(evaluated)
        for item in evaluated:
            self._table.add(item)

    def state_dict(self) -> dict[str, Any]:
        """That of the policy, and all that is known of class sets."""
        return {**super().state_dict(), "table": self._table.state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state; RunError where it is another agent's or has other actions or settings."""
        super().load_state_dict(state)
        self._table.load(state["table"])
