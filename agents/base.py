"""Ask/tell: what an agent proposes, what it is told, and how an evaluation is credited to decisions.

Shapes: **n** decisions of a proposal, **A** actions, **F** observation features, **N** internal nodes.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, repeat
from typing import Any, ClassVar, Protocol

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
from treesearch.cost import CostWeights
from treesearch.errors import RunError
from treesearch.tree import IntArray, Tree


@dataclass(frozen=True, eq=False)
class Situation:
    """What an agent knows when it decides."""

    observation: NDArray[np.float32]  # [F] features of the open node
    mask: NDArray[np.int8]  # [A] what is legal there, one at least
    class_set: bytes  # which classes are below the node
    mass: float  # share of all examples that pass the node
    cost_weight: float  # the λ that the tree is for


UNDRAWN = float("nan")  # in place of the log-probability of an action that was not drawn: `ask` fills it in
Chooser = Callable[[Situation], tuple[int, float]]  # -> (action, its log-probability or UNDRAWN)


@dataclass(frozen=True, eq=False)
class Proposal:
    """A tree and how the agent came to it; `Agent.tell` needs nothing else.

    The tree is put together when it is first looked at: what repeats earlier decisions need not be.
    """

    construction: Construction  # with all decisions made
    cost_weight: float  # the λ that it was made for, nats per unit
    actions: tuple[int, ...]  # n indices into the action list; replaying them gives the tree
    class_sets: tuple[bytes, ...]  # n, which classes are below the node of each decision
    observations: NDArray[np.float32]  # [n, F] what the agent saw there
    masks: NDArray[np.int8]  # [n, A] what was legal there
    masses: NDArray[np.float64]  # [n] share of all examples that pass there
    log_probs: NDArray[np.float32]  # [n] of each action when it was drawn

    @property
    def tree(self) -> Tree:
        """What the decisions lead to."""
        return self.construction.finish().tree

    @property
    def decision_nodes(self) -> IntArray:
        """The node that each action decided, [n]."""
        return self.construction.finish().decision_nodes

    @property
    def left_sets(self) -> tuple[bytes, ...]:
        """Class sets that the closer took after the last decision."""
        return self.construction.finish().left_sets

    @property
    def left_nodes(self) -> IntArray:
        """Their nodes."""
        return self.construction.finish().left_nodes


class Decided(Protocol):
    """The decisions of a tree, of a `Proposal` or of what is remembered of one."""

    @property
    def actions(self) -> tuple[int, ...]:
        """Indices into the action list, n."""

    @property
    def class_sets(self) -> tuple[bytes, ...]:
        """Which classes are below the node of each decision, n."""

    @property
    def masks(self) -> NDArray[np.int8]:
        """What was legal there, int8 [n, A]."""


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A proposal and its verdict; None where the evaluation failed."""

    proposal: Proposal
    evaluation: Evaluation | None
    exact: bool = True  # False: an estimate, such as of a tree that was stopped early

    @property
    def usable(self) -> bool:
        """Whether there is a finite verdict to learn from."""
        verdict = self.evaluation
        return verdict is not None and bool(np.isfinite(verdict.reward) and np.isfinite(verdict.node_loss).all())

    def exact_verdict(self) -> Evaluation | None:
        """What can be remembered for every λ: the verdict without cost; None for a failure or an estimate."""
        return self.evaluation.at(0.0) if self.usable and self.exact and self.evaluation is not None else None


class Agent(ABC):
    """Proposes trees and learns from their evaluations.

    An agent is deterministic: its state and what it is told decide all it proposes, whatever the process.

    Args:
        task: What the trees are for.
        actions: Names or actions, the agent's move at every open node.
        max_decisions: Decisions in a tree at most.
        closer: Name of the closer; None takes the task's default.
        cost_weights: The λs that its trees are for; None takes the task's alone.
        seed: Decides all its draws.
    """

    name: ClassVar[str]
    max_tries: ClassVar[int] = 4  # draws of a tree, then twice as many changes to it, before a known one is taken

    def __init__(
        self,
        task: ConstructionTask,
        *,
        actions: Sequence[str | Action] = DEFAULT_ACTIONS,
        max_decisions: int = 32,
        closer: str | Action | None = None,
        cost_weights: CostWeights | None = None,
        seed: int = 0,
    ) -> None:
        self.actions = parse_actions(actions)
        self.max_decisions = max_decisions
        self.cost_weights = CostWeights((task.cost_weight,)) if cost_weights is None else cost_weights
        self.rng = np.random.default_rng(seed)
        self._asked: dict[str, None] = {}  # hashes of all trees proposed so far
        self._closer = closer
        self._set_task(task)

    def use_task(self, task: ConstructionTask) -> None:
        """Go on with another task over the same classes, such as one with the class vectors of another encoder.

        Only what the agent has learned is kept; what it was told holds for the old task and is forgotten.
        """
        self._set_task(task)
        self.forget()

    def forget(self) -> None:
        """Drop all that was told of trees."""
        self._asked.clear()

    def _set_task(self, task: ConstructionTask) -> None:
        self.task = task
        self.closer = parse_closer(self._closer, task)
        self._splits = SplitCache(task)
        self._hashes: dict[tuple[int, ...], str] = {}  # of trees, by the decisions that lead to them

    def ask(self, num: int) -> list[Proposal]:
        """Propose ``num`` trees, each for a λ of its own, and none twice where it can be helped."""
        proposals = []
        for _ in range(num):
            cost_weight = self.cost_weights.draw(self.rng)
            proposal = self._new_tree(cost_weight)
            self._asked[self._hash(proposal)] = None
            undrawn_n = np.isnan(proposal.log_probs)
            if undrawn_n.any():
                log_prob_n = np.where(undrawn_n, self.log_probs(proposal), proposal.log_probs)
                proposal = replace(proposal, log_probs=log_prob_n)
            proposals.append(proposal)
        return proposals

    def _new_tree(self, cost_weight: float) -> Proposal:
        """A tree that was not proposed before: drawn, or a changed draw where the agent repeats itself.

        Where neither is found it is the first draw, since the last one would favour what is drawn often.
        """
        first = proposal = self.propose(cost_weight)
        for _ in range(self.max_tries - 1):
            last = self._hash(proposal)
            if last not in self._asked:
                return proposal
            proposal = self.propose(cost_weight)
            if self._hash(proposal) == last:
                break
        for _ in range(2 * self.max_tries):
            if self._hash(proposal) not in self._asked:
                return proposal
            proposal = self.change(proposal, int(self.rng.integers(len(proposal.actions))), cost_weight)
        return proposal if self._hash(proposal) not in self._asked else first

    def _hash(self, proposal: Proposal) -> str:
        """Of its tree, which is not put together where the same decisions have led to one before."""
        if proposal.actions not in self._hashes:
            self._hashes[proposal.actions] = proposal.tree.hash
        return self._hashes[proposal.actions]

    def change(self, parent: Decided, decision: int, cost_weight: float, *, closer_share: float = 0.0) -> Proposal:
        """A tree with another legal action at one decision; the others stay as far as possible.

        Decisions are made heaviest first and their number is bounded. So more of them below the changed one leave fewer
        for the lightest nodes elsewhere, and fewer leave some to nodes that the closer had.

        Args:
            parent: The tree to change.
            decision: Which of its decisions.
            cost_weight: The λ of the child.
            closer_share: Chance that a node that the parent did not decide goes to the closer, if that is among the
                actions; else any legal action is drawn.
        """
        others = np.flatnonzero(parent.masks[decision])
        others = others[others != parent.actions[decision]]
        plan = dict(zip(parent.class_sets, parent.actions, strict=True))
        if others.size:
            plan[parent.class_sets[decision]] = int(self.rng.choice(others))
        closer = self.closer_action

        def choose(situation: Situation) -> tuple[int, float]:
            known = plan.get(situation.class_set)
            if known is not None and situation.mask[known]:
                return known, UNDRAWN
            if closer is not None and situation.mask[closer] and self.rng.random() < closer_share:
                return closer, UNDRAWN
            return self.random_action(situation)[0], UNDRAWN

        return self.roll_out(choose, cost_weight)

    @property
    def closer_action(self) -> int | None:
        """Index of the default closer, if it is among the actions."""
        return next((i for i, action in enumerate(self.actions) if action.name == self.closer.name), None)

    def log_probs(self, proposal: Proposal) -> NDArray[np.float32]:
        """Of the actions of a tree, [n], for agents that have a policy."""
        return np.zeros(len(proposal.actions), np.float32)

    @abstractmethod
    def propose(self, cost_weight: float) -> Proposal:
        """One tree for this λ."""

    def warm_start(self, demonstrations: Sequence[Evaluated]) -> None:
        """Learn from the verdicts of what `demonstrate` gave, before anything is asked for."""
        self._asked.update((item.proposal.tree.hash, None) for item in demonstrations)
        self.remember(demonstrations)

    @abstractmethod
    def remember(self, evaluated: Sequence[Evaluated]) -> None:
        """Keep what later proposals are made of."""

    def tell(self, evaluated: Sequence[Evaluated]) -> dict[str, float]:
        """Learn from finished evaluations, in the order given; returns metrics."""
        self.remember(evaluated)
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to go on as if nothing had happened; `pack_state` makes it bytes."""
        return {**self.identity(), "rng": self.rng.bit_generator.state, "asked": list(self._asked)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state; RunError where it is another agent's or has other actions."""
        self.check_identity(state)
        self.rng.bit_generator.state = state["rng"]
        self._asked = dict.fromkeys(state["asked"])

    def demonstrate(self) -> list[Proposal]:
        """The builders' trees that this action space can reach, as an agent would have built them, each once.

        Each split without a projection everywhere (``kway-K`` only with ``close-clustered-K`` where it is not legal),
        each closer at the root; splits into K similar parts otherwise at the root alone, with ``close-clustered-K``
        below, ``similar-huffman`` also with its closer; the default closer where none of these is legal. They say where
        to start: their verdicts go to `warm_start`. What is remembered of them serves every λ; they are made for the
        middle one.
        """
        numbers = {action.name: number for number, action in enumerate(self.actions)}
        last = () if self.closer_action is None else (self.closer_action,)
        weights = self.cost_weights.grid()
        proposals: dict[str, Proposal] = {}
        for name, root in numbers.items():
            for below in _demonstrated_below(name):
                if all(one in numbers for one in below):
                    orders = chain([(root, *last)], repeat((*(numbers[one] for one in below), *last)))
                    proposal = self.roll_out(partial(_next_legal, orders=orders), weights[len(weights) // 2])
                    proposals.setdefault(proposal.tree.hash, proposal)
        return list(proposals.values())

    def replay(self, actions: Sequence[int], cost_weight: float) -> Proposal:
        """The tree that these decisions lead to under the present task; where one is not legal, the first that is."""
        orders = chain(((action,) for action in actions), repeat(()))
        return self.roll_out(partial(_next_legal, orders=orders), cost_weight)

    def start(self, cost_weight: float) -> Construction:
        """A tree for this λ of which nothing is decided.

        Raises:
            ConfigError: No decision can be made.
        """
        return Construction(
            self.task,
            self.actions,
            max_decisions=self.max_decisions,
            closer=self.closer,
            splits=self._splits,
            cost_weight=cost_weight,
        )

    def roll_out(self, choose: Chooser, cost_weight: float) -> Proposal:
        """Build one tree for this λ, asking ``choose`` at every decision."""
        construction = self.start(cost_weight)
        situations, actions, log_probs = [], [], []
        while not construction.done:
            node = construction.current
            situation = Situation(
                construction.observation(), construction.action_mask(), node.digest, node.mass, cost_weight
            )
            action, log_prob = choose(situation)
            construction.step(action)
            situations.append(situation)
            actions.append(action)
            log_probs.append(log_prob)
        return Proposal(
            construction=construction,
            cost_weight=cost_weight,
            actions=tuple(actions),
            class_sets=tuple(situation.class_set for situation in situations),
            observations=np.stack([situation.observation for situation in situations]),
            masks=np.stack([situation.mask for situation in situations]),
            masses=np.array([situation.mass for situation in situations]),
            log_probs=np.array(log_probs, np.float32),
        )

    def random_action(self, situation: Situation) -> tuple[int, float]:
        """Any legal action with equal chances."""
        legal = np.flatnonzero(situation.mask)
        return int(self.rng.choice(legal)), -float(np.log(legal.size))

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


def _demonstrated_below(name: str) -> list[tuple[str, ...]]:
    """What demonstrations do, first what is best, below a root where this action was taken."""
    if "-project-" in name:
        return []
    if re.fullmatch(r"similar-huffman(-start-\d+)?", name):
        return [("close-similar-huffman",), (name,)]  # the closer's depth stays Huffman's after the last decision
    similar = re.fullmatch(r"(.*-)?kway-(\d+)(-start-\d+)?", name)
    if similar is None:
        return [(name,)]
    closer = f"close-clustered-{similar[2]}"
    if similar[1] is None and similar[3] is None:
        return [(name, closer)]
    return [(name,), (closer,)]


def _next_legal(situation: Situation, *, orders: Iterator[Sequence[int]]) -> tuple[int, float]:
    return _first_legal(situation, order=next(orders))


def _first_legal(situation: Situation, *, order: Sequence[int]) -> tuple[int, float]:
    legal = [action for action in order if situation.mask[action]]
    return legal[0] if legal else int(np.flatnonzero(situation.mask)[0]), 0.0


def decision_costs(proposal: Proposal, evaluation: Evaluation) -> NDArray[np.float64]:
    """Units of cost of the subtree below each decision, per example that passes, float64 [n]."""
    if evaluation.node_cost is None:
        return np.zeros(len(proposal.actions))
    return -decision_returns(proposal, Evaluation.of_nodes(evaluation.node_cost, evaluation.node_mass))


def decision_returns(proposal: Proposal, evaluation: Evaluation) -> NDArray[np.float64]:
    """What each decision earned, float64 [n]: minus the loss of the subtree below it, per example that passes.

    Both NLL and expected cost are sums over nodes, so no decision is charged for what happens beside or above it.
    A node that no example passes earns 0.
    """
    below = proposal.tree.subtree_sums(evaluation.node_loss)[proposal.decision_nodes]
    passing = evaluation.node_mass[proposal.decision_nodes]
    return -np.divide(below, passing, out=np.zeros_like(below), where=passing > 0)
