"""Top-down construction of one tree, one decision at a time. No gymnasium here: agents roll this out directly."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from envs.actions import Action, Closer, Split, SplitAction
from envs.cache import SplitCache
from envs.nodes import OpenNode
from envs.observation import observe, set_features
from envs.task import ConstructionTask
from envs.units import DECIDABLE
from treesearch.builders.assembly import ClassIds, TreeAssembly
from treesearch.errors import ConfigError
from treesearch.paths import input_dims
from treesearch.tree import IntArray, Tree


@dataclass(frozen=True, eq=False)
class Built:
    """What a construction ends in."""

    tree: Tree
    decision_nodes: IntArray  # [num decisions] canonical id of the node that each step decided
    # Digests of the class sets that were still open after the last decision, and of the units opened as these closed.
    left_sets: tuple[bytes, ...]
    left_nodes: IntArray  # canonical ids of the nodes that the closer made of them


class Construction:
    """One tree under construction: a heap of open nodes, heaviest first.

    Ties go to the node opened earlier. Sets of one or two classes are never open (there is nothing to decide), and an
    open node at which no action is legal is closed by ``closer`` when its turn comes, which is not a decision.

    Where the task refines a taxonomy, open nodes hold units (`envs.units`). A unit that is no class and comes to stand
    alone, after a split or in what a closer made, is opened in turn with the units below it. So each node of the
    taxonomy is decided for itself, and is in the tree whatever is decided.

    Args:
        task: What the tree is for.
        actions: What an agent can do; step and mask index this list.
        max_decisions: Decisions before the rest is closed, >= 1.
        closer: Closes what is left, and every node of an illegal action.
        splits: A memo to share among constructions of the same task; None makes an own one.
        cost_weight: The λ that the tree is for, which observations show; None takes the task's.

    Raises:
        ConfigError: No decision can be made, or the memo is another task's.
    """

    def __init__(
        self,
        task: ConstructionTask,
        actions: Sequence[Action],
        *,
        max_decisions: int,
        closer: Closer,
        splits: SplitCache | None = None,
        cost_weight: float | None = None,
    ) -> None:
        if max_decisions < 1:
            raise ConfigError(f"max_decisions must be >= 1, but got {max_decisions}")
        self.task = task
        self.actions = tuple(actions)
        self.max_decisions = max_decisions
        self.closer = closer
        self.cost_weight = task.cost_weight if cost_weight is None else cost_weight
        self._seen = task.over_units  # what actions and observations are told
        self._splits = SplitCache(task) if splits is None else splits
        if self._splits.task is not task:
            raise ConfigError("a SplitCache serves one task, but this one was made for another; make SplitCache(task)")
        self._action_names = tuple(action.name for action in self.actions)
        self._by_classes = [index for index, action in enumerate(self.actions) if not action.by_size]
        self._assembly = TreeAssembly()
        self._heap: list[tuple[float, int, OpenNode]] = []  # (-mass, number of nodes opened before, node)
        self._num_opened = 0
        self._decided: list[int] = []  # provisional id of the node of each decision
        self._mask: NDArray[np.int8] | None = None  # of the current node
        self._built: Built | None = None
        self._waiting = deque([OpenNode(task.root, 1.0, 0, task.in_features, projected=False)])  # made or opened next
        self._settle()
        self._skip_hopeless()
        if self.done:
            where = "the root" if task.units is None else "a node of the taxonomy"
            raise ConfigError(
                f"some action must be legal at {where} ({task.widest.size} classes,"
                f" {'no' if task.vectors is None else 'with'} vectors), but none of"
                f" {[action.name for action in self.actions]} is; add 'frequency-0.5'"
            )

    @property
    def num_decisions(self) -> int:
        """Decisions made so far."""
        return len(self._decided)

    @property
    def done(self) -> bool:
        """Whether no decision is left: the budget is used or nothing is open."""
        return not self._heap or self.num_decisions == self.max_decisions

    @property
    def current(self) -> OpenNode:
        """The node that the next step decides."""
        assert not self.done
        return self._heap[0][2]

    def observation(self) -> NDArray[np.float32]:
        """Features of the current node, float32 [F]."""
        of_set = self._splits.get("features", self.current, partial(set_features, self._seen, self.current))
        return observe(
            self._seen,
            self.current,
            of_set,
            decisions_left=1 - self.num_decisions / self.max_decisions,
            cost_weight=self.cost_weight,
        )

    def action_mask(self) -> NDArray[np.int8]:
        """1 for each action that is legal at the current node, int8 [A]; at least one is."""
        return self._current_mask().copy()

    def _current_mask(self) -> NDArray[np.int8]:
        """The same, not to be changed."""
        if self._mask is None:
            node = self.current
            key = (self._action_names, node.size, node.input_dim, node.projected)
            mask = self._splits.masks.get(key)
            if mask is None:
                mask = np.array([action.by_size and action.legal(self._seen, node) for action in self.actions], np.int8)
                self._splits.masks[key] = mask
            self._mask = mask.copy()
            for index in self._by_classes:
                self._mask[index] = self.actions[index].legal(self._seen, node)
        return self._mask

    def step(self, action: int) -> bool:
        """Decide the current node; False where the action is illegal and the closer took the node instead."""
        assert not self.done
        if not 0 <= action < len(self.actions):
            raise ConfigError(f"an action must be in 0 .. {len(self.actions) - 1}, but got {action}")
        legal = bool(self._current_mask()[action])
        chosen = self.actions[action] if legal else self.closer
        node = heapq.heappop(self._heap)[2]
        self._decided.append(
            self._split(node, chosen) if isinstance(chosen, SplitAction) else self._close(node, chosen)
        )
        self._mask = None
        self._settle()
        self._skip_hopeless()
        return legal

    def finish(self) -> Built:
        """Close everything still open and put the tree together; again, it gives the same."""
        if self._built is None:
            left = []
            while self._heap:  # what a closed node leaves to be opened comes after it: it is no heavier
                node = heapq.heappop(self._heap)[2]
                left.append((node.digest, self._close(node, self.closer)))
                self._settle()
            tree, canonical = self._assembly.finish()
            self._built = Built(
                tree,
                decision_nodes=canonical[np.array(self._decided, np.int64)],
                left_sets=tuple(digest for digest, _ in left),
                left_nodes=canonical[np.array([node for _, node in left], np.int64)],
            )
        return self._built

    # -- how nodes come and go -----------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Open what waits; nodes at which there is nothing to decide are made at once."""
        units = self.task.units
        while self._waiting:
            node = self._waiting.popleft()
            if node.size < DECIDABLE if units is None else units.kept(node.classes):
                self._make(node)
            else:
                heapq.heappush(self._heap, (-node.mass, self._num_opened, node))
                self._num_opened += 1

    def _make(self, node: OpenNode) -> None:
        """Give a node the children that it has; three or more classes beside other units are a part of their own."""
        own = self._own_id(node)
        direct = node.classes[node.classes < self.task.num_classes]
        if direct.size < DECIDABLE:
            self._hang(node, own, node.classes)
        else:
            self._hang(node, own, node.classes[direct.size :])
            self._waiting.append(self._child(node, own, direct, float(self._seen.probability[direct].sum()), 0))

    def _own_id(self, node: OpenNode) -> int:
        return self._assembly.open_node(node.parent, projection_dim=node.projection_dim)

    def _hang(self, node: OpenNode, own: int, units: ClassIds) -> None:
        """Hang classes under the node itself; other units wait there to be opened."""
        if self.task.units is not None:
            for unit in units[units >= self.task.num_classes].tolist():
                below, mass = self.task.units.children(unit), float(self._seen.probability[unit])
                self._waiting.append(self._child(node, own, below, mass, 0))
            units = units[units < self.task.num_classes]
        self._assembly.add_leaves(own, units)

    def _skip_hopeless(self) -> None:
        """Close nodes from the top of the heap until one has a legal action."""
        while not self.done and not self._current_mask().any():
            self._close(heapq.heappop(self._heap)[2], self.closer)
            self._mask = None
            self._settle()

    def _split(self, node: OpenNode, action: SplitAction) -> int:
        split: Split = self._splits.get(action.name, node, lambda: action.parts(self._seen, node.classes))
        masses = self._splits.get(f"masses of {action.name}", node, lambda: self._masses(split))
        own = self._own_id(node)
        self._hang(node, own, split.leaves)
        for part, mass in zip(split.parts, masses, strict=True):
            self._waiting.append(self._child(node, own, part, mass, split.projection_dim))
        return own

    def _masses(self, split: Split) -> list[float]:
        return [float(self._seen.probability[part].sum()) for part in split.parts]

    def _child(self, node: OpenNode, parent: int, classes: ClassIds, mass: float, projection_dim: int) -> OpenNode:
        return OpenNode(
            classes,
            mass=mass,
            depth=node.depth + 1,
            input_dim=projection_dim or node.input_dim,
            projected=node.projected or projection_dim > 0,
            parent=parent,
            projection_dim=projection_dim,
        )

    def _close(self, node: OpenNode, closer: Action) -> int:
        assert isinstance(closer, Closer)
        if node.size <= closer.flat_size:  # most of what is left at the end: no builder, no memo
            own = self._own_id(node)
            self._hang(node, own, node.classes)
            return own
        subtree: Tree = self._splits.get(closer.name, node, lambda: closer.close(self._seen, node.classes))
        own = self._assembly.next_id
        above = self._assembly.graft_top(node.parent, subtree, projection_dim=node.projection_dim)
        is_class = node.classes < self.task.num_classes
        self._assembly.add_leaves(above[is_class], node.classes[is_class])
        if not is_class.all():
            self._open_below(node, subtree, above)
        return own

    def _open_below(self, node: OpenNode, subtree: Tree, above: IntArray) -> None:
        """Let the units that are no classes wait where a closer has put them."""
        assert self.task.units is not None
        last = subtree.parent[subtree.class_leaf]  # of the subtree's nodes, above each unit
        dim_n = input_dims(subtree, node.input_dim)[last]
        projected_n = subtree.path_sums(subtree.projection_dim) > 0
        for place in np.flatnonzero(node.classes >= self.task.num_classes).tolist():
            unit = int(node.classes[place])
            self._waiting.append(
                OpenNode(
                    self.task.units.children(unit),
                    mass=float(self._seen.probability[unit]),
                    depth=node.depth + int(subtree.depths[place]),
                    input_dim=int(dim_n[place]),
                    projected=node.projected or bool(projected_n[place]),
                    parent=int(above[place]),
                )
            )
