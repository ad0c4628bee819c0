"""The Gymnasium environment around `Construction`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary
from numpy.typing import NDArray

from envs.actions import DEFAULT_ACTIONS, Action, parse_actions, parse_closer
from envs.cache import SplitCache
from envs.construction import Built, Construction
from envs.observation import HIGH, LOW, NUM_FEATURES
from envs.rewards import Evaluation, Reward, StructuralReward
from envs.task import ConstructionTask, zipf_task
from treesearch.tree import Tree

ENVIRONMENT_ID = "treesearch/TreeConstruction-v0"
Observation = dict[str, Any]


class TreeConstructionEnv(gymnasium.Env[Observation, np.int64]):
    """Build a tree for hierarchical softmax from the top, one split at a time.

    Observation:
        A dictionary about the heaviest open node:

        - ``features``: float32 [F] inside [-1, 1]; `envs.OBSERVATION_FEATURES` names them. None depends on the size of
          the vocabulary, so that a policy can move to another one.
        - ``action_mask``: int8 [A], 1 for each legal action.

        After the last step there is no node: all features are 0 and all of the mask is 1.

    Action:
        int64, an index into ``actions`` (see `envs.actions` for what the names mean): split the node or close it. An
        illegal action does not raise: the closer takes the node.

    Reward:
        float, 0 until the last step, which gives ``reward(tree).reward``.

    Termination:
        When nothing is open, or after ``max_decisions`` steps; the closer takes what is then left, so that every
        episode ends in a complete tree. Never truncated. Nothing is random but the agent.

    Info:
        - ``action_mask``: int8 [A], the same as in the observation; `action_masks` gives it once more as bool.
        - ``invalid_action`` (after a step): bool, whether the action was illegal.
        - ``tree`` (after the last step): the `Tree`. ``env.unwrapped.built`` and ``env.unwrapped.evaluation`` hold the
          node of each decision and what each node cost.

    Args:
        task: The instance; None takes `zipf_task`.
        reward: What a tree is worth; None takes `StructuralReward` with the analytic cost.
        actions: Names or actions.
        max_decisions: Decisions in an episode at most.
        closer: Name of the closer; None takes ``close-clustered-16`` with vectors, ``close-balanced-2`` without.

    Raises:
        ConfigError: Unknown or repeated action, unfit closer, or no action that is legal at the root.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}  # type: ignore[misc]

    def __init__(
        self,
        task: ConstructionTask | None = None,
        *,
        reward: Reward | None = None,
        actions: Sequence[str | Action] = DEFAULT_ACTIONS,
        max_decisions: int = 32,
        closer: str | Action | None = None,
    ) -> None:
        self.task = zipf_task() if task is None else task
        self.reward: Reward = StructuralReward(self.task) if reward is None else reward
        self.actions = parse_actions(actions)
        self.max_decisions = max_decisions
        self.closer = parse_closer(closer, self.task)
        self.built: Built | None = None
        self.evaluation: Evaluation | None = None
        self._splits = SplitCache(self.task)
        self._construction = self._start()
        self.action_space = Discrete(len(self.actions))
        self.observation_space = Dict(
            features=Box(LOW, HIGH, (NUM_FEATURES,), np.float32), action_mask=MultiBinary(len(self.actions))
        )

    @property
    def tree(self) -> Tree | None:
        """The tree of the episode; None before its last step."""
        return None if self.built is None else self.built.tree

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start with all classes in one open node, or what a refined taxonomy leaves open. There are no options."""
        super().reset(seed=seed)
        self._construction = self._start()
        self.built = self.evaluation = None
        return self._observation(), {"action_mask": self._action_mask()}

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Decide the heaviest open node.

        Raises:
            ResetNeeded: The episode is over.
            ConfigError: The action is no index into ``actions``.
        """
        if self.built is not None:
            raise ResetNeeded("the episode is over and its tree complete; call reset() first")
        legal = self._construction.step(int(action))
        info = {"action_mask": self._action_mask(), "invalid_action": not legal}
        if not self._construction.done:
            return self._observation(), 0.0, False, False, info
        self.built = self._construction.finish()
        self.evaluation = self.reward(self.built.tree)
        return self._observation(), self.evaluation.reward, True, False, {**info, "tree": self.built.tree}

    def action_masks(self) -> NDArray[np.bool_]:
        """Legal actions, bool [A] (the method that sb3-contrib's MaskablePPO looks for)."""
        return self._action_mask().astype(np.bool_)

    def _start(self) -> Construction:
        return Construction(
            self.task, self.actions, max_decisions=self.max_decisions, closer=self.closer, splits=self._splits
        )

    def _action_mask(self) -> NDArray[np.int8]:
        return np.ones(len(self.actions), np.int8) if self._construction.done else self._construction.action_mask()

    def _observation(self) -> Observation:
        done = self._construction.done
        features = np.zeros(NUM_FEATURES, np.float32) if done else self._construction.observation()
        return {"features": features, "action_mask": self._action_mask()}
