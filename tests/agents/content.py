"""Trees by what they hold: class sets of nodes, and losses that depend on content alone, as on frozen features."""

from hashlib import blake2b

import numpy as np

from agents import Agent, Proposal
from envs import Construction, ConstructionTask, Evaluation, StructuralReward
from treesearch import Tree

Classes = frozenset[int]


def classes_below(tree: Tree) -> list[Classes]:
    """The classes below each node, leaves included."""
    below: list[Classes] = [frozenset()] * tree.num_nodes
    for leaf, cls in zip(range(tree.num_internal, tree.num_nodes), tree.leaf_class.tolist(), strict=True):
        below[leaf] = frozenset([cls])
    for node in reversed(range(tree.num_internal)):
        below[node] = frozenset().union(*(below[child] for child in tree.children(node)))
    return below


def decided(proposal: Proposal) -> dict[Classes, int]:
    """The action for each class set, in order."""
    below = classes_below(proposal.tree)
    nodes = proposal.decision_nodes.tolist()
    return {below[node]: action for node, action in zip(nodes, proposal.actions, strict=True)}


class ContentReward:
    """Random losses beside the analytic cost. A node's depends on its partition, a block's on all that is inside it.

    They grow with the number of decided bits, so that no shape of tree is best as such.
    """

    def __init__(self, task: ConstructionTask, seed: int, *, scale: float = 1.0) -> None:
        self.structural = StructuralReward(task)
        self.seed = seed
        self.scale = scale

    def __call__(self, tree: Tree) -> Evaluation:
        structural, below = self.structural(tree), classes_below(tree)
        partitions = [
            sorted(sorted(below[child]) for child in tree.children(node)) for node in range(tree.num_internal)
        ]
        blocks: list[int | None] = []  # the topmost projection over each node
        for node in range(tree.num_internal):
            over = blocks[tree.parent[node]] if node else None
            blocks.append(node if over is None and tree.projection_dim[node] else over)
        loss = []
        for node, block in enumerate(blocks):
            inside = [i for i, other in enumerate(blocks) if block is not None and other == block]
            content = [(partitions[i], int(tree.projection_dim[i])) for i in inside]
            loss.append(self._uniform(repr((partitions[node], content))))
        assert structural.node_cost is not None
        return Evaluation.of_nodes(
            np.array(loss) * np.log2(tree.arities) * structural.node_mass * self.scale + structural.node_loss,
            structural.node_mass,
            node_cost=structural.node_cost,
            cost_weight=structural.cost_weight,
        )

    def _uniform(self, content: str) -> float:
        digest = blake2b(f"{self.seed} {content}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64


def follow(agent: Agent, plan: dict[Classes, int], *, num_decisions: int = 1000) -> tuple[Tree, dict[Classes, int]]:
    """The tree of a plan by class sets; what it does not know is left to the closer. Also: the decisions made."""
    construction = Construction(agent.task, agent.actions, max_decisions=num_decisions, closer=agent.closer)
    made = {}
    while not construction.done and (classes := frozenset(construction.current.classes.tolist())) in plan:
        assert construction.action_mask()[plan[classes]]
        made[classes] = plan[classes]
        construction.step(plan[classes])
    return construction.finish().tree, made
