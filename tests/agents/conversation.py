"""A conversation with an agent; also run as a script, so that another process can hold the same one."""

import json
import sys

import numpy as np

from agents import AGENTS, Agent, Evaluated, Proposal, make_agent
from envs import DEFAULT_ACTIONS, ConstructionTask, StructuralReward, zipf_task
from treesearch.cost import CostWeights

TASK = zipf_task(150, in_features=8, seed=1)


def make(name: str, *, task: ConstructionTask = TASK, seed: int = 0, **settings: object) -> Agent:
    return make_agent(name, task=task, actions=DEFAULT_ACTIONS, max_decisions=12, closer=None, seed=seed, **settings)


def converse(agent: Agent, num_batches: int, batch_size: int = 4) -> list[Proposal]:
    """Ask and tell; the second tree of each batch fails. Rewards are for the λ of each proposal."""
    reward = StructuralReward(agent.task)
    proposals = []
    for _ in range(num_batches):
        batch = agent.ask(batch_size)
        agent.tell(
            [
                Evaluated(item, None if i == 1 else reward(item.tree).at(item.cost_weight))
                for i, item in enumerate(batch)
            ]
        )
        proposals += batch
    return proposals


def warmed(agent: Agent) -> Agent:
    """The agent after it has seen what it demonstrates; the second tree fails."""
    reward = StructuralReward(agent.task)
    shown = enumerate(agent.demonstrate())
    agent.warm_start([Evaluated(item, None if i == 1 else reward(item.tree)) for i, item in shown])
    return agent


WEIGHTS = {"task": None, "list": CostWeights((0.0, 0.01, 0.1)), "range": CostWeights(low=1e-3, high=0.1)}


def long_conversation(name: str) -> list[list[object]]:
    """With and without a warm start, for one λ and many."""
    proposals = converse(make(name, seed=5), 3)
    for weights in WEIGHTS.values():
        proposals += converse(warmed(make(name, seed=5, cost_weights=weights)), 3)
    return fingerprint(proposals)


def fingerprint(proposals: list[Proposal]) -> list[list[object]]:
    return [[item.tree.hash, item.cost_weight, list(item.actions), item.log_probs.tolist()] for item in proposals]


if __name__ == "__main__":
    np.random.seed(int(sys.argv[1]))  # global seeds must not matter
    json.dump({name: long_conversation(name) for name in AGENTS}, sys.stdout)
