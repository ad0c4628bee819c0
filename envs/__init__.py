"""The construction of a tree as a reinforcement-learning environment, ``treesearch/TreeConstruction-v0``."""

import gymnasium

from envs.actions import DEFAULT_ACTIONS, Action, Closer, SplitAction, make_action, parse_actions, parse_closer
from envs.cache import SplitCache
from envs.construction import Built, Construction
from envs.environment import ENVIRONMENT_ID, TreeConstructionEnv
from envs.nodes import OpenNode
from envs.observation import NUM_FEATURES, OBSERVATION_FEATURES, seen_under
from envs.rewards import EvaluatedReward, Evaluation, Reward, StructuralReward
from envs.task import ConstructionTask, zipf_task

__all__ = [
    "DEFAULT_ACTIONS",
    "ENVIRONMENT_ID",
    "NUM_FEATURES",
    "OBSERVATION_FEATURES",
    "Action",
    "Built",
    "Closer",
    "Construction",
    "ConstructionTask",
    "EvaluatedReward",
    "Evaluation",
    "OpenNode",
    "Reward",
    "SplitAction",
    "SplitCache",
    "StructuralReward",
    "TreeConstructionEnv",
    "make_action",
    "parse_actions",
    "parse_closer",
    "seen_under",
    "zipf_task",
]

gymnasium.register(ENVIRONMENT_ID, entry_point="envs.environment:TreeConstructionEnv")
