"""An agent behind Ray Tune's interface of search algorithms: each trial gets a tree and trains what its user likes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.tune.search import Searcher
from ray.tune.search.variant_generator import parse_spec_vars

from agents import Agent, Evaluated, Hybrid, LocalSearch, PolicyGradient, Proposal
from treesearch.cost import CostModel
from treesearch.errors import ConfigError, RunError
from treesearch.evaluation.scores import score_tree
from treesearch.launch.proposer import make_evaluation
from treesearch.state import pack_state, unpack_state
from treesearch.tree import Tree

TREE, COST_WEIGHT = "tree", "cost_weight"  # keys of a trial's config: the tree's file, and the λ that it is for
NODE_NLL = (
    "node_nll"  # key of a result, where the trial can tell: [N] nats per example of each node, their sum the metric
)


def load_tree(config: Mapping[str, Any]) -> Tree:
    """The tree of a trial, from its config."""
    return Tree.load(config[TREE])


@dataclass
class _Trial:
    """What was suggested and what is known of it."""

    proposal: Proposal
    losses: dict[int, float] = field(default_factory=dict)  # nats per example, by length of training
    node_nll: NDArray[np.float64] | None = None  # [N] the last that it told


class TreeSearcher(Searcher):  # type: ignore[misc]
    """Proposes trees to the trials of a ``ray.tune.Tuner``.

    A trial's config holds the file of its tree (`load_tree`), not the tree, and ``cost_weight``, the λ that it is for.
    What a trial reports under ``metric`` is its loss in nats per example (``mode="min"``), or minus that
    (``mode="max"``); the cost of the tree is taken off here. The first trials are the agent's demonstrations; trees of
    builders that its actions can reach.

    Agents that learn from single nodes (hybrid, local search, policy gradient with ``credit="node"``) need them: trials
    then report `NODE_NLL` as well.

    Trials that a scheduler stops early, as ASHA does, are told as estimates: their loss times what further training was
    worth to the trials that went on. The policy gradient learns from estimates; other agents remember whole trainings
    alone.

    Works in a ``ConcurrencyLimiter`` and under ``Tuner.restore``: its state holds the agent with what is under way.
    Leave ``resume_unfinished`` there on: the first verdicts are waited for. What a trial tells that runs again after
    its error is left out.

    Args:
        agent: Asked and told; give it to one searcher only.
        folder: Where files of trees go; on a cluster, storage that all nodes see.
        metric: Key of the loss in the trials' results. None takes that of ``TuneConfig``, which Tune tells only where
            ``Tuner`` has a ``param_space`` that is not empty.
        mode: ``min`` or ``max``; None likewise.
        cost_model: What compute takes from the reward; None takes the analytic one.
        batch_size: Results that are told together.
        time_attr: Key of the length of training in the results.
        max_t: Length of a whole training, as told to the scheduler; None: every trial that ends was whole.

    Raises:
        ConfigError: A number is out of range.
        RunError: The folder cannot be made.
    """

    def __init__(
        self,
        agent: Agent,
        folder: str | Path,
        *,
        metric: str | None = None,
        mode: str | None = None,
        cost_model: CostModel | None = None,
        batch_size: int = 10,
        time_attr: str = "training_iteration",
        max_t: int | None = None,
    ) -> None:
        super().__init__(metric=metric, mode=mode)
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, but got {batch_size}")
        self._agent = agent
        self._folder = Path(folder).resolve()
        self._cost_model = cost_model or CostModel(agent.task.in_features, agent.task.cost_weight)
        self._batch_size, self._time_attr, self._max_t = batch_size, time_attr, max_t
        self._under_way: dict[str, _Trial] = {}  # by trial
        self._finished: list[_Trial] = []  # and not told of yet; one that failed has no losses
        self._whole: list[dict[int, float]] = []  # losses of trials that were trained to the end
        self._demonstrations: list[Proposal] | None = None  # that no trial has yet; None: they are not made
        self._warm = False  # the agent has seen what it demonstrated
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{self._folder} cannot be made ({error.strerror}); choose another folder") from None

    # -- called by Tune ------------------------------------------------------------------------------------------------

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: Mapping[str, Any], **spec: Any
    ) -> bool:
        """Take the metric of ``TuneConfig``; constants of ``param_space`` go to every trial."""
        _, domains, grids = parse_spec_vars(dict(config))
        if domains or grids:
            path = ".".join(map(str, (domains or grids)[0][0]))
            raise ConfigError(f"param_space must hold constants beside a TreeSearcher, but {path!r} is to be drawn")
        if metric is not None:
            self._metric = metric
        if mode is not None:
            self._mode = mode
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next tree; None while the first verdicts are waited for."""
        if self._metric is None or self._mode not in ("min", "max"):
            raise ConfigError(
                "metric and mode must be given here, or to TuneConfig where Tuner has a param_space, but got"
                f" {self._metric!r}, {self._mode!r}"
            )
        proposal = self._next()
        if proposal is None:
            return None
        self._under_way[trial_id] = _Trial(proposal)
        return {TREE: str(self._store(proposal.tree)), COST_WEIGHT: proposal.cost_weight}

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Note how far a trial is."""
        if trial_id in self._under_way:
            self._note(self._under_way[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Take the verdict; the agent is told of ``batch_size`` of them at once."""
        trial = self._under_way.pop(trial_id, None)
        if trial is None:  # of an experiment that this one does not know of
            return
        if error or (result is not None and not self._note(trial, result)):  # without one the last result stands
            trial.losses.clear()
        elif trial.losses and self._is_whole(trial):
            self._whole.append(trial.losses)
        self._finished.append(trial)
        if not self._warm:
            if not self._under_way and not self._demonstrations:
                self._agent.warm_start(self._take_finished())
                self._warm = True
        elif len(self._finished) >= self._batch_size:
            self._agent.tell(self._take_finished())

    def save(self, checkpoint_path: str) -> None:
        """Write the state of agent and trials."""
        state = {
            "agent": self._agent.state_dict(),
            "warm": self._warm,
            "demonstrations": None if self._demonstrations is None else len(self._demonstrations),
            "whole": [_pairs(losses) for losses in self._whole],
            "under_way": [[trial_id, *_packed(trial)] for trial_id, trial in self._under_way.items()],
            "finished": [_packed(trial) for trial in self._finished],
        }
        Path(checkpoint_path).write_bytes(pack_state(state))

    def restore(self, checkpoint_path: str) -> None:
        """Go back to a saved state; trials under way then, Tune runs again."""
        state = unpack_state(Path(checkpoint_path).read_bytes())
        self._agent.load_state_dict(state["agent"])
        self._warm = state["warm"]
        left = state["demonstrations"]
        self._demonstrations = None if left is None else (self._agent.demonstrate()[-left:] if left else [])
        self._whole = [dict(map(tuple, pairs)) for pairs in state["whole"]]
        self._under_way = {trial_id: self._unpacked(*packed) for trial_id, *packed in state["under_way"]}
        self._finished = [self._unpacked(*packed) for packed in state["finished"]]

    # -- inside --------------------------------------------------------------------------------------------------------

    def _next(self) -> Proposal | None:
        if self._demonstrations is None:
            self._demonstrations = list(self._agent.demonstrate())
            self._warm = not self._demonstrations
        if self._demonstrations:
            return self._demonstrations.pop(0)
        return self._agent.ask(1)[0] if self._warm else None

    def _store(self, tree: Tree) -> Path:
        """The file of a tree; it stays, for whoever wants the best one."""
        path = self._folder / f"{tree.hash}.npz"
        if not path.exists():
            tree.save(path)
        return path

    def _note(self, trial: _Trial, result: Mapping[str, Any]) -> bool:
        """Keep what a result says; False where it has no loss."""
        loss = self._loss(result)
        if loss is None:
            return False
        trial.losses[int(result.get(self._time_attr, 1))] = loss
        trial.node_nll = self._node_nll(trial.proposal.tree, result)
        return True

    def _loss(self, result: Mapping[str, Any]) -> float | None:
        """Of a result, None where it has none or it is not finite."""
        value = result.get(str(self._metric))
        if value is None or not np.isfinite(value):
            return None
        return float(value) if self._mode == "min" else -float(value)

    def _is_whole(self, trial: _Trial) -> bool:
        return self._max_t is None or max(trial.losses) >= self._max_t

    def _take_finished(self) -> list[Evaluated]:
        finished, self._finished = self._finished, []
        return [self._judged(trial) for trial in finished]

    def _judged(self, trial: _Trial) -> Evaluated:
        proposal = trial.proposal
        if not trial.losses:
            return Evaluated(proposal, None)
        whole, counts = self._is_whole(trial), self._agent.task.counts
        node_nll = trial.node_nll
        if node_nll is None:  # its sum alone is known: shared like the bits that nodes decide
            bits = proposal.tree.pass_shares(counts) * np.log2(proposal.tree.arities)
            node_nll = trial.losses[max(trial.losses)] * bits / bits.sum()
        node_nll = node_nll * (1.0 if whole else self._outlook(trial))
        score = score_tree(proposal.tree, node_nll, counts=counts, cost_model=self._cost_model)
        return Evaluated(proposal, make_evaluation(score, proposal.cost_weight), whole)

    def _node_nll(self, tree: Tree, result: Mapping[str, Any]) -> NDArray[np.float64] | None:
        """Of each node, None where the result has the sum alone. It is checked here, where Tune lets errors through."""
        reported = result.get(NODE_NLL)
        if reported is not None:
            node_nll = np.asarray(reported, np.float64)
            if node_nll.shape != (tree.num_internal,):
                raise ConfigError(
                    f"{NODE_NLL} must have the {tree.num_internal} nodes of the tree, but got {node_nll.shape}"
                )
            return node_nll
        if learns_from_nodes(self._agent):
            raise ConfigError(
                f"agent {self._agent.name!r} learns from single nodes, so trials must report {NODE_NLL!r}; do that, or"
                " take evolution, random_search or policy_gradient with credit='terminal'"
            )
        return None

    def _outlook(self, trial: _Trial) -> float:
        """Loss after a whole training over that of now, the mean of trials that were trained to the end."""
        now = max(trial.losses)
        ratios = [losses[max(losses)] / losses[now] for losses in self._whole if losses.get(now)]
        return float(np.mean(ratios)) if ratios else 1.0

    def _unpacked(
        self,
        actions: Sequence[int],
        cost_weight: float,
        log_probs: NDArray[np.float32],
        losses: Sequence[Sequence[Any]],
        node_nll: NDArray[np.float64] | None,
    ) -> _Trial:
        proposal = replace(self._agent.replay(actions, cost_weight), log_probs=log_probs)
        return _Trial(proposal, dict(map(tuple, losses)), node_nll)


def learns_from_nodes(agent: Agent) -> bool:
    """Whether an agent needs the loss of every node, not their sum alone."""
    by_policy = isinstance(agent, PolicyGradient) and agent.settings.credit == "node"
    return by_policy or isinstance(agent, Hybrid | LocalSearch)


def _packed(trial: _Trial) -> list[Any]:
    one = trial.proposal
    return [list(one.actions), one.cost_weight, one.log_probs, _pairs(trial.losses), trial.node_nll]


def _pairs(losses: Mapping[int, float]) -> list[list[float]]:
    return [[length, loss] for length, loss in losses.items()]
