"""The best subtree known for every class set, put together from all told trees.

On frozen features NLL and cost are sums over nodes that do not influence each other. So the verdict on one tree is a
verdict on each of its splits, and the best tree over everything seen is a dynamic programme over class sets: the value
of a set is the best, over what was ever done with it, of what that costs there plus the values of the parts.

Below a projection this does not hold (such a block is trained together): its plan is kept whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agents.base import Evaluated
from envs import Action, SplitAction

LEFT = -1  # in place of an action: the closer took what was left open


@dataclass(frozen=True)
class Option:
    """One thing that was done with a class set. Losses are per example of the corpus and hold no cost."""

    loss: float  # nats, of all below the set but its open parts
    cost: float  # units
    parts: tuple[bytes, ...]  # class sets that were open after it
    plan: tuple[tuple[bytes, int], ...] = ()  # decisions below that belong to it: those of a block

    def total(self, cost_weight: float) -> float:
        """Loss under this λ without the parts."""
        return self.loss + cost_weight * self.cost


class SubtreeTable:
    """All that is known of class sets.

    Args:
        actions: The agent's; the splits with a projection make blocks.
    """

    def __init__(self, actions: Sequence[Action]) -> None:
        self._projects = [isinstance(action, SplitAction) and action.shrink is not None for action in actions]
        self._options: dict[bytes, dict[int, Option]] = {}

    def tried(self, class_set: bytes) -> frozenset[int]:
        """The actions that some told tree took with this class set."""
        return frozenset(self._options.get(class_set, {})) - {LEFT}

    def add(self, item: Evaluated) -> None:
        """Take in the verdict on a tree, if there is one."""
        if not item.usable or item.evaluation is None:
            return
        proposal, verdict = item.proposal, item.evaluation.at(0.0)
        tree = proposal.tree
        cost_N = np.zeros(tree.num_internal) if verdict.node_cost is None else verdict.node_cost
        loss_below, cost_below = tree.subtree_sums(verdict.node_loss), tree.subtree_sums(cost_N)
        nodes = [*proposal.decision_nodes.tolist(), *proposal.left_nodes.tolist()]
        sets = [*proposal.class_sets, *proposal.left_sets]
        actions = [*proposal.actions, *[LEFT] * len(proposal.left_nodes)]
        above = _decided_above(tree.parent, nodes)
        inside = self._inside_blocks(actions, above)
        for i, node in enumerate(nodes):
            if inside[i]:
                continue
            block = actions[i] != LEFT and self._projects[actions[i]]
            below = [j for j in range(len(nodes)) if above[j] == i]
            loss, cost = loss_below[node], cost_below[node]
            parts: tuple[bytes, ...] = ()
            plan: tuple[tuple[bytes, int], ...] = ()
            if block:
                plan = tuple((sets[j], actions[j]) for j in _descendants(above, i) if actions[j] != LEFT)
            else:
                loss -= sum(loss_below[nodes[j]] for j in below)
                cost -= sum(cost_below[nodes[j]] for j in below)
                parts = tuple(sets[j] for j in below)
            self._offer(sets[i], actions[i], Option(float(loss), float(cost), parts, plan))

    def values(self, root: bytes, cost_weight: float) -> dict[bytes, tuple[float, int]]:
        """The least loss of each class set that can be met below ``root``, and the action that leads to it.

        Empty where nothing is known of the root. Ties go to the smaller action.
        """
        values: dict[bytes, tuple[float, int]] = {}
        stack = [root] if root in self._options else []
        while stack:  # parts before wholes; sets shrink on the way down, so that this ends
            class_set = stack[-1]
            options = self._options[class_set]
            waiting = [part for option in options.values() for part in option.parts if part not in values]
            if waiting:
                stack.extend(dict.fromkeys(waiting))
                continue
            stack.pop()
            values[class_set] = min(
                (option.total(cost_weight) + sum(values[part][0] for part in option.parts), action)
                for action, option in options.items()
            )
        return values

    def losses(
        self, class_set: bytes, values: Mapping[bytes, tuple[float, int]], cost_weight: float
    ) -> dict[int, float]:
        """The least loss after each action that was tried with a class set, the closer's turn (LEFT) included."""
        return {
            action: option.total(cost_weight) + sum(values[part][0] for part in option.parts)
            for action, option in self._options[class_set].items()
        }

    def block_plan(self, class_set: bytes, action: int) -> dict[bytes, int]:
        """The decisions that belong to an action: all below a projection, else none."""
        return dict(self._options[class_set][action].plan)

    def best_plan(self, root: bytes, cost_weight: float) -> dict[bytes, int]:
        """The action for each class set of the best tree over everything seen; empty where none is known."""
        values = self.values(root, cost_weight)
        plan: dict[bytes, int] = {}
        stack = [root] if root in values else []
        while stack:
            class_set = stack.pop()
            action = values[class_set][1]
            if action != LEFT:
                plan[class_set] = action
            plan.update(self.block_plan(class_set, action))
            stack.extend(self._options[class_set][action].parts)
        return plan

    def state(self) -> list[Any]:
        """For `agents.state.pack_state`."""
        return [
            [class_set.hex(), action, option.loss, option.cost, [part.hex() for part in option.parts],
             [[below.hex(), taken] for below, taken in option.plan]]
            for class_set, options in self._options.items()
            for action, option in options.items()
        ]  # fmt: skip

    def load(self, state: Sequence[Any]) -> None:
        """Take over what `state` gave."""
        self._options = {}
        for class_set, action, loss, cost, parts, plan in state:
            self._options.setdefault(bytes.fromhex(class_set), {})[action] = Option(
                loss,
                cost,
                tuple(bytes.fromhex(part) for part in parts),
                tuple((bytes.fromhex(below), taken) for below, taken in plan),
            )

    def _offer(self, class_set: bytes, action: int, option: Option) -> None:
        """An action with a set always gives the same, but for blocks, of which the one with the lowest loss is kept."""
        options = self._options.setdefault(class_set, {})
        known = options.get(action)
        if known is None or (option.plan and option.loss < known.loss):
            options[action] = option

    def _inside_blocks(self, actions: Sequence[int], above: Mapping[int, int]) -> list[bool]:
        inside: list[bool] = []
        for i in range(len(actions)):
            over = above[i]
            inside.append(over >= 0 and (inside[over] or (actions[over] != LEFT and self._projects[actions[over]])))
        return inside


def _decided_above(parent: Any, nodes: Sequence[int]) -> dict[int, int]:
    """For each place in ``nodes`` (parents first) the place of its nearest ancestor that is among them, -1 for none."""
    place = {node: i for i, node in enumerate(nodes)}
    above = {}
    for i, node in enumerate(nodes):
        over = int(parent[node])
        while over >= 0 and over not in place:
            over = int(parent[over])
        above[i] = place[over] if over >= 0 else -1
    return above


def _descendants(above: Mapping[int, int], top: int) -> list[int]:
    found = []
    for i in above:
        over = above[i]
        while over >= 0 and over != top:
            over = above[over]
        if over == top:
            found.append(i)
    return found
