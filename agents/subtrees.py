"""The best subtree known for every class set, put together from all told trees.

On frozen features NLL and cost are sums over nodes that do not influence each other. So the verdict on one tree is a
verdict on each of its splits, and the best tree over everything seen is a dynamic programme over class sets: the value
of a set is the best, over what was ever done with it, of what that costs there plus the values of the parts.

Below a projection this does not hold (such a block is trained together): its plan is kept whole.

Shapes: **S** class sets, **O** options, **P** parts of all options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.base import Evaluated
from envs import Action, SplitAction

LEFT = -1  # in place of an action: the closer took what was left open, and is none of the actions


@dataclass(frozen=True)
class Option:
    """One thing that was done with a class set; sets by number. Losses are per example of the corpus, without cost."""

    class_set: int
    action: int
    loss: float  # nats, of all below the set but its open parts
    cost: float  # units
    parts: tuple[int, ...]  # class sets that were open after it
    plan: tuple[tuple[int, int], ...] = ()  # (class set, action) below that belong to it: those of a block

    def beats(self, other: Option) -> bool:
        """Whether it is at least as good under every λ."""
        return self.loss <= other.loss and self.cost <= other.cost


class SubtreeTable:
    """All that is known of class sets.

    Args:
        actions: The agent's; the splits with a projection make blocks.
        closer: The action that does what the closer does with what is left open, which counts as taking it; None where
            there is none.
    """

    def __init__(self, actions: Sequence[Action], closer: int | None) -> None:
        self._projects = [isinstance(action, SplitAction) and action.shrink is not None for action in actions]
        self._left = LEFT if closer is None else closer
        self._numbers: dict[bytes, int] = {}
        self._options: list[Option] = []  # in the order told
        self._taken: dict[int, dict[int, list[int]]] = {}  # class set -> action -> places in _options
        self._programme: _Programme | None = None  # None: to be made from the options
        self._digests: list[bytes] = []  # by number, as long as there is a programme
        self._solutions: dict[float, _Solution] = {}  # of the programme, by λ

    def tried(self, class_set: bytes) -> frozenset[int]:
        """The actions that some told tree took with this class set."""
        return frozenset(self._taken.get(self._numbers.get(class_set, -1), {})) - {LEFT}

    def add(self, item: Evaluated) -> None:
        """Take in the verdict on a tree, if there is one; an estimate says nothing of its nodes."""
        proposal, verdict = item.proposal, item.exact_verdict()
        if verdict is None:
            return
        tree = proposal.tree
        cost_N = np.zeros(tree.num_internal) if verdict.node_cost is None else verdict.node_cost
        nodes = np.concatenate([proposal.decision_nodes, proposal.left_nodes])
        loss_below = tree.subtree_sums(verdict.node_loss)[nodes].tolist()
        cost_below = tree.subtree_sums(cost_N)[nodes].tolist()
        class_sets = [*proposal.class_sets, *proposal.left_sets]
        sets = [self._numbers.setdefault(one, len(self._numbers)) for one in class_sets]
        actions = [*proposal.actions, *[self._left] * len(proposal.left_nodes)]
        below = _decided_below(tree.parent.tolist(), nodes.tolist())
        inside: set[int] = set()  # of a block
        for i, action in enumerate(actions):  # wholes before parts
            if i in inside:
                continue
            if self._is_block(action):
                block = _descendants(below, i)
                inside.update(block)
                plan = tuple((sets[j], actions[j]) for j in block if actions[j] != LEFT)
                self._offer(Option(sets[i], action, loss_below[i], cost_below[i], (), plan))
            else:
                loss = loss_below[i] - sum(loss_below[j] for j in below[i])
                cost = cost_below[i] - sum(cost_below[j] for j in below[i])
                self._offer(Option(sets[i], action, loss, cost, tuple(sets[j] for j in below[i])))

    def __len__(self) -> int:
        """Class sets of which something is known."""
        return len(self._taken)

    def __contains__(self, class_set: bytes) -> bool:
        """Whether anything is known of these classes."""
        return self._numbers.get(class_set) in self._taken

    def losses(self, class_set: bytes, cost_weight: float) -> dict[int, float]:
        """The least loss under this λ after each action that was tried with these classes, what the closer left too."""
        total_O = self._solve(cost_weight).total
        taken = self._taken[self._numbers[class_set]]
        return {
            action: float(total_O[places[0]] if len(places) == 1 else total_O[places].min())
            for action, places in taken.items()
        }

    def block_plan(self, class_set: bytes, action: int, cost_weight: float) -> dict[bytes, int]:
        """The decisions that belong to an action that was tried: all below a projection, else none."""
        total_O = self._solve(cost_weight).total
        best = min(self._taken[self._numbers[class_set]][action], key=lambda place: (total_O[place], place))
        return {self._digests[one]: taken for one, taken in self._options[best].plan}

    def best_plan(self, root: bytes, cost_weight: float) -> Mapping[bytes, int]:
        """The action for each class set of the best tree over everything seen under this λ; empty where none is known.

        Ties go to the option told first.
        """
        if root not in self:
            return {}
        choice_S = self._solve(cost_weight).choice
        plan = {}
        stack = [self._numbers[root]]
        while stack:
            option = self._options[choice_S[stack.pop()]]
            if option.action != LEFT:
                plan[self._digests[option.class_set]] = option.action
            plan.update((self._digests[one], action) for one, action in option.plan)
            stack.extend(option.parts)
        return plan

    def _solve(self, cost_weight: float) -> _Solution:
        if self._programme is None:
            self._programme = _Programme.of(self._options, len(self._numbers))
            self._digests = list(self._numbers)
        if cost_weight not in self._solutions:
            self._solutions[cost_weight] = self._programme.solve(cost_weight)
        return self._solutions[cost_weight]

    def state(self) -> dict[str, Any]:
        """For `treesearch.state.pack_state`."""
        options = self._options
        return {
            "class_sets": np.frombuffer(b"".join(self._numbers), np.uint8).reshape(len(self._numbers) or 1, -1),
            "num_sets": len(self._numbers),
            "options": np.array([(one.class_set, one.action) for one in options], np.int32).reshape(-1, 2),
            "losses": np.array([(one.loss, one.cost) for one in options], np.float64).reshape(-1, 2),
            "num_parts": np.array([len(one.parts) for one in options], np.int32),
            "parts": np.array([part for one in options for part in one.parts], np.int32),
            "num_planned": np.array([len(one.plan) for one in options], np.int32),
            "plans": np.array([step for one in options for step in one.plan], np.int32).reshape(-1, 2),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        self._numbers = {row.tobytes(): i for i, row in enumerate(state["class_sets"][: state["num_sets"]])}
        self._options, self._taken = [], {}
        parts, plans = iter(state["parts"].tolist()), iter(map(tuple, state["plans"].tolist()))
        each = zip(*(state[key].tolist() for key in ("options", "losses", "num_parts", "num_planned")), strict=True)
        for (class_set, action), (loss, cost), num_parts, num_planned in each:
            own = tuple(next(parts) for _ in range(num_parts))
            plan = tuple(next(plans) for _ in range(num_planned))
            self._append(Option(class_set, action, loss, cost, own, plan))

    def _is_block(self, action: int) -> bool:
        return action != LEFT and self._projects[action]

    def _offer(self, option: Option) -> None:
        """An action with a set always gives the same, but for blocks: of those, the best under each λ are kept."""
        places = self._taken.get(option.class_set, {}).get(option.action, [])
        if places and not self._is_block(option.action):
            return
        if any(self._options[place].beats(option) for place in places):
            return
        worse = next((place for place in places if option.beats(self._options[place])), None)
        if worse is None:
            self._append(option)
        else:
            self._options[worse] = option
            self._forget()

    def _append(self, option: Option) -> None:
        self._taken.setdefault(option.class_set, {}).setdefault(option.action, []).append(len(self._options))
        self._options.append(option)
        self._forget()

    def _forget(self) -> None:
        self._programme = None
        self._solutions = {}


@dataclass(frozen=True)
class _Solution:
    """The programme under one λ."""

    total: NDArray[np.float64]  # [O] least loss of each option with the best of its parts, in the order told
    choice: NDArray[np.int64]  # [S] place of the best option of each set; only those with options mean anything


@dataclass(frozen=True)
class _Programme:
    """The options as arrays, sorted by level, then by set: parts before wholes."""

    num_sets: int
    place: NDArray[np.int64]  # [O] in the order told
    loss: NDArray[np.float64]  # [O]
    cost: NDArray[np.float64]  # [O]
    class_set: NDArray[np.int64]  # [O]
    owner: NDArray[np.int64]  # [P] the option of each part, rising
    part: NDArray[np.int64]  # [P]
    bounds: NDArray[np.int64]  # first option of each level, and the number of all

    @classmethod
    def of(cls, options: Sequence[Option], num_sets: int) -> _Programme:
        set_O = np.array([one.class_set for one in options], np.int64)
        num_parts_O = np.array([len(one.parts) for one in options], np.int64)
        part_P = np.array([part for one in options for part in one.parts], np.int64)
        owner_P = np.repeat(np.arange(len(options)), num_parts_O)
        level_S, before = np.zeros(num_sets, np.int64), None
        while before is None or (level_S != before).any():  # sets shrink on the way down, so that this ends
            before = level_S.copy()
            np.maximum.at(level_S, set_O[owner_P], before[part_P] + 1)
        place_O = np.lexsort((set_O, level_S[set_O]))  # stable: equal ones stay in the order told
        rank_O = np.empty_like(place_O)
        rank_O[place_O] = np.arange(place_O.size)
        by_owner = np.argsort(rank_O[owner_P], kind="stable")
        return cls(
            num_sets,
            place_O,
            loss=np.array([one.loss for one in options])[place_O],
            cost=np.array([one.cost for one in options])[place_O],
            class_set=set_O[place_O],
            owner=rank_O[owner_P][by_owner],
            part=part_P[by_owner],
            bounds=np.searchsorted(level_S[set_O][place_O], np.arange(level_S.max() + 2)),
        )

    def solve(self, cost_weight: float) -> _Solution:
        """The best of everything under this λ."""
        value_S, choice_S = np.zeros(self.num_sets), np.zeros(self.num_sets, np.int64)
        told_O = np.zeros(self.place.size)
        total_O = self.loss + cost_weight * self.cost
        ends_P = np.searchsorted(self.owner, self.bounds)
        for level in range(len(self.bounds) - 1):
            start, stop = self.bounds[level : level + 2]
            of_level = slice(*ends_P[level : level + 2])
            values_P = value_S[self.part[of_level]]
            total = total_O[start:stop] + np.bincount(self.owner[of_level] - start, values_P, stop - start)
            told_O[self.place[start:stop]] = total
            own = self.class_set[start:stop]
            firsts = np.flatnonzero(np.r_[True, own[1:] != own[:-1]])
            value_S[own[firsts]] = np.minimum.reduceat(total, firsts)
            best = np.flatnonzero(total == value_S[own])[::-1]  # of equals the first told is written last
            choice_S[own[best]] = self.place[start + best]
        return _Solution(told_O, choice_S)


def _decided_below(parent: Sequence[int], nodes: Sequence[int]) -> list[list[int]]:
    """For each place in ``nodes`` (parents first) the places whose nearest ancestor among them it is."""
    place = {node: i for i, node in enumerate(nodes)}
    below: list[list[int]] = [[] for _ in nodes]
    for i, node in enumerate(nodes):
        over = parent[node]
        while over >= 0 and over not in place:
            over = parent[over]
        if over >= 0:
            below[place[over]].append(i)
    return below


def _descendants(below: Sequence[Sequence[int]], top: int) -> list[int]:
    """All places below one, wholes before parts."""
    found = list(below[top])
    for place in found:  # grows on the way
        found.extend(below[place])
    return found
