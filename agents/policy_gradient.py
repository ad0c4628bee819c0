"""Policy gradient with node-wise returns: PPO (Schulman et al. 2017) that credits each split with its own subtree.

Read from top to bottom. Names follow the paper and cleanrl. Three things make it learn from few trees: it starts from
imitating the best builders (`PolicyGradient.warm_start`), it keeps learning from the best trees so far (self-imitation,
Oh et al. 2018), and an advantage is taken against the other trees of the batch that decided the same class set
(leave-one-out, Kool et al. 2019), where there are any, instead of the learned value.

Shapes: **n** decisions of a batch, **A** actions, **F** observation features.

Metrics that `PolicyGradient.tell` returns:

    entropy             mean entropy of the policy at the told decisions, nats
    policy_loss         clipped surrogate, last epoch
    value_loss          half the mean squared error of the value, in units of the returns' variance, last epoch
    approx_kl           mean KL divergence of the policy that proposed from the updated one, nats, last epoch
    clip_fraction       share of decisions whose probability ratio was clipped, last epoch
    explained_variance  1 - variance of what the value missed / variance of the returns, before the update
    replay_loss         self-imitation loss on the best trees so far, last epoch; only with replay
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.base import Agent, Evaluated, Proposal, Situation, decision_costs, decision_returns
from agents.class_sets import ClassSetPreferences, Visits
from agents.elites import Archive, Elite, told_elites
from agents.settings import check_settings
from envs import NUM_FEATURES, seen_under
from treesearch.errors import ConfigError, RunError

# Of the logarithm of new over old probability. Others than the policy propose too: what it thought next to impossible,
# and turned out badly, would have an infinite gradient as soon as it thinks it possible.
MAX_LOG_RATIO = 10.0


@dataclass(frozen=True)
class PolicyGradientSettings:
    """Hyperparameters; the defaults are for budgets of 100 to 400 trees in batches of 8 to 16."""

    credit: Literal["node", "terminal"] = "node"  # return of a decision: its own subtree's, or the whole tree's reward
    baseline: Literal["leave_one_out", "value"] = "leave_one_out"
    mass_power: float = 0.5  # node credit: a decision weighs (share of examples that pass it) ** mass_power
    learning_rate: float = 5e-3  # Adam
    update_epochs: int = 6  # passes over each told batch
    clip_coef: float = 0.2
    ent_coef: float = 0.01  # entropy bonus at the start ...
    ent_decay_trees: int = 300  # ... which falls linearly to 0 over this many told trees
    vf_coef: float = 0.5
    max_grad_norm: float = 0.5
    hidden_size: int = 64  # of both layers, tanh
    imitation_trees: int = 3  # builders' trees imitated at the start, the best under each λ; 0: none
    imitation_epochs: int = 5  # more of them leave too little to chance
    replay_trees: int = 4  # best trees so far, under each λ, from which every update learns again; 0: none
    replay_coef: float = 0.1  # of their self-imitation loss
    class_set_step: float = 1.0  # of what is learned at single class sets, nats of logit a visit; 0: nothing

    def __post_init__(self) -> None:
        if self.credit not in ("node", "terminal"):
            raise ConfigError(f"credit must be 'node' or 'terminal', but got {self.credit!r}")
        if self.baseline not in ("leave_one_out", "value"):
            raise ConfigError(f"baseline must be 'leave_one_out' or 'value', but got {self.baseline!r}")
        zero = (
            "mass_power",
            "ent_coef",
            "vf_coef",
            "imitation_trees",
            "imitation_epochs",
            "replay_trees",
            "replay_coef",
            "class_set_step",
        )
        positive = ("learning_rate", "update_epochs", "clip_coef", "ent_decay_trees", "max_grad_norm", "hidden_size")
        check_settings(self, at_least=dict.fromkeys(zero, 0), above=dict.fromkeys(positive, 0))


@dataclass
class RunningMoments:
    """Mean and variance of all returns so far, so that a learning rate suits every reward scale."""

    count: float = 0.0
    mean: float = 0.0
    variance: float = 1.0

    def update(self, values: NDArray[np.float64], weights: NDArray[np.float64]) -> None:
        """Take in a batch (Chan et al. 1979)."""
        count, total = weights.sum(), weights.sum() + self.count
        mean = weights @ values / count
        variance = weights @ (values - mean) ** 2 / count
        gap = mean - self.mean
        squares = variance * count + self.variance * self.count + gap**2 * self.count * count / total
        self.mean += float(gap * count / total)
        self.variance = float(squares / total)
        self.count = float(total)

    def normalise(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values in standard deviations from the mean."""
        return (values - self.mean) / np.sqrt(self.variance + 1e-8)


@dataclass(frozen=True)
class Batch:
    """All decisions of the told trees."""

    observations: Tensor  # float32 [n, F]
    masks: Tensor  # bool [n, A]
    actions: Tensor  # int64 [n]
    log_probs: Tensor  # float32 [n]
    returns: Tensor  # float32 [n]
    weights: Tensor  # float32 [n], mean 1
    rivals: Tensor  # int64 [n] equal where trees for the same λ decided the same class set
    preferences: Tensor  # float32 [n, A] what is known of the class sets, added to the network's logits


class PolicyGradient(Agent):
    """Learns which action suits which node.

    Args:
        seed: Of the initial weights and the draws.
        settings: Hyperparameters; the other arguments as in `Agent`.
    """

    name: ClassVar[str] = "policy_gradient"

    def __init__(
        self, *args: Any, seed: int = 0, settings: PolicyGradientSettings | None = None, **options: Any
    ) -> None:
        super().__init__(*args, seed=seed, **options)
        self.settings = PolicyGradientSettings() if settings is None else settings
        self._generator = torch.Generator().manual_seed(seed)
        hidden = self.settings.hidden_size
        with one_torch_thread():
            self._policy = _mlp(NUM_FEATURES, hidden, len(self.actions), 0.01, self._generator)
            self._value = _mlp(NUM_FEATURES, hidden, 1, 1.0, self._generator)
        self._parameters = [*self._policy.parameters(), *self._value.parameters()]
        self._optimizer = torch.optim.Adam(self._parameters, lr=self.settings.learning_rate, eps=1e-5)
        self._preferences = ClassSetPreferences(
            len(self.actions), self.cost_weights.grid(), step_size=self.settings.class_set_step
        )
        self._moments = RunningMoments()
        self._archive = Archive(max(1, self.settings.replay_trees), self.cost_weights.grid())
        self._num_told = 0
        self._worst_reward: float | None = None  # what a failure counts as under terminal credit

    # -- before the first tree -----------------------------------------------------------------------------------------

    def warm_start(self, demonstrations: Sequence[Evaluated]) -> None:
        """Imitate the best of the builders' trees under each λ: the log-likelihood of their decisions is maximised.

        Better trees weigh more: by the rank of their reward, 1, 1/2, 1/3 ...
        """
        super().warm_start(demonstrations)
        settings = self.settings
        elites = list({elite.tree_hash: elite for elite in told_elites(demonstrations)}.values())
        if not (settings.imitation_trees and elites):
            return
        chosen = [
            (elite, weight, 1 / (rank + 1))
            for weight in self.cost_weights.grid()
            for rank, elite in enumerate(sorted(elites, key=lambda e: -e.reward(weight))[: settings.imitation_trees])
        ]
        batch = self._recalled(chosen)
        with one_torch_thread():
            for _ in range(settings.imitation_epochs):
                taken = self._batch_log_probs(batch).gather(1, batch.actions[:, None]).squeeze(1)
                self._descend(-(batch.weights * taken).mean())

    def load_policy(self, state: Mapping[str, Any]) -> None:
        """Start from the policy and value of another search's state, on whatever corpus; the rest stays fresh.

        Raises:
            RunError: It is another agent's, or has other actions or hidden layers.
        """
        mine = {"agent": self.name, "actions": [action.name for action in self.actions]}
        self.check_identity({**self.identity(), **{key: state.get(key) for key in mine}})
        own = _copy({"policy": self._policy.state_dict(), "value": self._value.state_dict()})
        try:
            self._policy.load_state_dict(_copy(state["policy"]))
            self._value.load_state_dict(_copy(state["value"]))
        except (KeyError, RuntimeError) as error:
            self._policy.load_state_dict(own["policy"])  # both or none
            self._value.load_state_dict(own["value"])
            raise RunError(
                f"a policy must have the layers of this agent's (hidden_size {self.settings.hidden_size}), but:"
                f" {' '.join(str(error).split()):.160}"
            ) from None

    # -- ask -----------------------------------------------------------------------------------------------------------

    def propose(self, cost_weight: float) -> Proposal:
        """One tree, each action drawn from the policy."""
        with one_torch_thread(), torch.no_grad():
            return self.roll_out(self._choose, cost_weight)

    def _choose(self, situation: Situation) -> tuple[int, float]:
        log_prob_A = self._situation_log_probs(situation, situation.mask)
        action = int(torch.multinomial(log_prob_A.exp(), 1, generator=self._generator))
        return action, float(log_prob_A[action])

    def log_probs(self, proposal: Proposal) -> NDArray[np.float32]:
        """The policy's, so that an update starts from ratios of 1."""
        with one_torch_thread(), torch.no_grad():
            log_prob_nA = self._log_probs(
                torch.from_numpy(proposal.observations),
                torch.from_numpy(proposal.masks).bool(),
                self._known((class_set, proposal.cost_weight) for class_set in proposal.class_sets),
            )
            taken: NDArray[np.float32] = log_prob_nA[
                torch.arange(len(proposal.actions)), list(proposal.actions)
            ].numpy()
            return taken

    def _situation_log_probs(self, situation: Situation, allowed: NDArray[Any]) -> Tensor:
        preferences = self._preferences.logits(situation.class_set, situation.cost_weight)
        return self._log_probs(
            torch.from_numpy(situation.observation),
            torch.from_numpy(allowed).bool(),
            torch.from_numpy(preferences),
        )

    def _batch_log_probs(self, batch: Batch) -> Tensor:
        return self._log_probs(batch.observations, batch.masks, batch.preferences)

    def _log_probs(self, observations: Tensor, masks: Tensor, preferences: Tensor) -> Tensor:
        # The lowest finite number, not -inf: its probability is 0 as well, and p * log p stays a number.
        logits: Tensor = self._policy(observations) + preferences
        return logits.masked_fill(~masks, torch.finfo(logits.dtype).min).log_softmax(-1)

    # -- tell ----------------------------------------------------------------------------------------------------------

    def tell(self, evaluated: Sequence[Evaluated]) -> dict[str, float]:
        """One PPO update from a batch of trees; no metrics where there is nothing to learn from.

        Failures that come without an estimate are left out under node credit; under terminal credit they count as the
        worst reward so far.
        """
        self._num_told += len(evaluated)
        self.remember(evaluated)
        collected = self._collect(evaluated)
        if collected is None:
            return {}
        batch, visits = collected
        with one_torch_thread():
            with torch.no_grad():
                probabilities = self._batch_log_probs(batch).exp().numpy()
            metrics = self._update(batch)
        if self.settings.class_set_step:
            self._preferences.learn(visits, probabilities)
        return metrics

    def remember(self, evaluated: Sequence[Evaluated]) -> None:
        """Keep the best for replay."""
        self._archive.add(told_elites(evaluated))

    def _collect(self, evaluated: Sequence[Evaluated]) -> tuple[Batch, Visits] | None:
        proposals, returns, free, costs, weights = [], [], [], [], []
        for item in evaluated:
            if item.usable and item.evaluation is not None:
                reward = item.evaluation.reward
                self._worst_reward = reward if self._worst_reward is None else min(reward, self._worst_reward)
        for item in evaluated:
            proposal, verdict = item.proposal, item.evaluation if item.usable else None
            num = len(proposal.actions)
            if self.settings.credit == "terminal":
                reward_or_worst = verdict.reward if verdict is not None else self._worst_reward
                if reward_or_worst is None:
                    continue
                returns.append(np.full(num, reward_or_worst))
                units = 0.0 if verdict is None or verdict.node_cost is None else float(verdict.node_cost.sum())
                free.append(np.full(num, reward_or_worst if verdict is None else verdict.at(0.0).reward))
                costs.append(np.full(num, units))
                weights.append(np.ones(num))
            elif verdict is not None:
                returns.append(decision_returns(proposal, verdict))
                free.append(decision_returns(proposal, verdict.at(0.0)))
                costs.append(decision_costs(proposal, verdict))
                weights.append(verdict.node_mass[proposal.decision_nodes] ** self.settings.mass_power)
            else:
                continue
            proposals.append(proposal)
        if not proposals:
            return None
        return_n, weight_n = np.concatenate(returns), np.concatenate(weights)
        weight_n = weight_n / weight_n.mean()
        self._moments.update(return_n, weight_n)
        rival_of: dict[tuple[float, bytes], int] = {}
        keys = [(proposal.cost_weight, class_set) for proposal in proposals for class_set in proposal.class_sets]
        visits = Visits(
            class_sets=[class_set for _, class_set in keys],
            cost_weights=np.array([weight for weight, _ in keys]),
            actions=np.array([action for proposal in proposals for action in proposal.actions]),
            returns=np.concatenate(free),
            costs=np.concatenate(costs),
        )
        batch = Batch(
            observations=torch.from_numpy(np.concatenate([proposal.observations for proposal in proposals])),
            masks=torch.from_numpy(np.concatenate([proposal.masks for proposal in proposals])).bool(),
            actions=torch.from_numpy(visits.actions),
            log_probs=torch.from_numpy(np.concatenate([proposal.log_probs for proposal in proposals])),
            returns=torch.from_numpy(self._moments.normalise(return_n)).float(),
            weights=torch.from_numpy(weight_n).float(),
            rivals=torch.tensor([rival_of.setdefault(key, len(rival_of)) for key in keys]),
            preferences=self._known((class_set, cost_weight) for cost_weight, class_set in keys),
        )
        return batch, visits

    def _recalled(self, chosen: Sequence[tuple[Elite, float, float]]) -> Batch:
        """The decisions of (tree, λ to see it under, weight)."""
        own = [weight * elite.mass**self.settings.mass_power for elite, _, weight in chosen]
        weight_n = np.concatenate(own)
        num = weight_n.size
        returns = np.concatenate([elite.returns(cost_weight) for elite, cost_weight, _ in chosen])
        observations = [seen_under(elite.observations, cost_weight) for elite, cost_weight, _ in chosen]
        return Batch(
            observations=torch.from_numpy(np.concatenate(observations)),
            masks=torch.from_numpy(np.concatenate([elite.masks for elite, _, _ in chosen])).bool(),
            actions=torch.tensor([action for elite, _, _ in chosen for action in elite.actions]),
            log_probs=torch.zeros(num),
            returns=torch.from_numpy(self._moments.normalise(returns)).float(),
            weights=torch.from_numpy(weight_n / max(weight_n.mean(), 1e-30)).float(),
            rivals=torch.arange(num),
            preferences=self._known((one, weight) for elite, weight, _ in chosen for one in elite.class_sets),
        )

    def _known(self, places: Iterable[tuple[bytes, float]]) -> Tensor:
        return torch.from_numpy(np.stack([self._preferences.logits(*place) for place in places]))

    def _update(self, batch: Batch) -> dict[str, float]:
        settings, weights = self.settings, batch.weights
        ent_coef = settings.ent_coef * max(0.0, 1 - self._num_told / settings.ent_decay_trees)

        # Advantages against the value before the update or against rivals, to mean 0 and variance 1.
        with torch.no_grad():
            missed = batch.returns - self._value(batch.observations).squeeze(-1)
        explained = 1 - _variance(missed, weights) / (_variance(batch.returns, weights) + 1e-8)
        if settings.baseline == "leave_one_out":
            missed = leave_one_out(batch.returns, batch.rivals, missed)
        advantages = (missed - (weights * missed).mean()) / (_variance(missed, weights).sqrt() + 1e-8)
        recalled = self._replay_batch()

        for _ in range(settings.update_epochs):
            log_prob_nA = self._batch_log_probs(batch)
            log_ratio = log_prob_nA.gather(1, batch.actions[:, None]).squeeze(1) - batch.log_probs
            log_ratio = log_ratio.clamp(max=MAX_LOG_RATIO)
            ratio = log_ratio.exp()

            # Policy loss.
            clipped = ratio.clamp(1 - settings.clip_coef, 1 + settings.clip_coef)
            policy_loss = -(weights * torch.minimum(advantages * ratio, advantages * clipped)).mean()

            # Value loss.
            value_loss = 0.5 * (weights * (self._value(batch.observations).squeeze(-1) - batch.returns) ** 2).mean()

            # Entropy bonus.
            entropy = -(log_prob_nA.exp() * log_prob_nA).sum(-1).mean()

            # Self-imitation: only what turned out better than expected.
            replay_loss = torch.zeros(())
            if recalled is not None:
                taken = self._batch_log_probs(recalled).gather(1, recalled.actions[:, None])
                gain = (recalled.returns - self._value(recalled.observations).squeeze(-1).detach()).clamp(min=0)
                replay_loss = -(recalled.weights * gain * taken.squeeze(1)).mean()

            self._descend(
                policy_loss - ent_coef * entropy + settings.vf_coef * value_loss + settings.replay_coef * replay_loss
            )

        metrics = {
            "entropy": entropy,
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "approx_kl": (ratio - 1 - log_ratio).mean(),  # http://joschu.net/blog/kl-approx.html
            "clip_fraction": ((ratio - 1).abs() > settings.clip_coef).float().mean(),
            "explained_variance": explained,
        }
        if recalled is not None:
            metrics["replay_loss"] = replay_loss
        return {name: value.item() for name, value in metrics.items()}

    def _replay_batch(self) -> Batch | None:
        if not (self.settings.replay_trees and len(self._archive)):
            return None
        weights = self.cost_weights.grid()
        return self._recalled([(elite, weight, 1.0) for weight in weights for elite in self._archive.best(weight)])

    def _descend(self, loss: Tensor) -> None:
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._parameters, self.settings.max_grad_norm)
        self._optimizer.step()

    def forget(self) -> None:
        """Drop elites, and the scale of returns; policy and value stay."""
        super().forget()
        self._archive.load([])
        self._preferences.clear()
        self._moments = RunningMoments()
        self._worst_reward = None

    # -- state ---------------------------------------------------------------------------------------------------------

    def identity(self) -> dict[str, Any]:
        """What a state must agree on to fit this agent: its settings as well."""
        return {**super().identity(), "settings": asdict(self.settings)}

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimiser, generator and running statistics; a copy, which later updates leave alone."""
        trained = {
            "policy": self._policy.state_dict(),
            "value": self._value.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }
        return {
            **super().state_dict(),
            **_copy(trained),  # the rest is never changed in place
            "generator": self._generator.get_state(),
            "moments": asdict(self._moments),
            "archive": self._archive.state(),
            "preferences": self._preferences.state(),
            "num_told": self._num_told,
            "worst_reward": self._worst_reward,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state; RunError where it is another agent's or has other actions or settings."""
        super().load_state_dict(state)
        state = _copy(state)
        self._policy.load_state_dict(state["policy"])
        self._value.load_state_dict(state["value"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"])
        self._moments = RunningMoments(**state["moments"])
        self._archive.load(state["archive"])
        self._preferences.load(state["preferences"])
        self._num_told = state["num_told"]
        self._worst_reward = state["worst_reward"]


def leave_one_out(returns: Tensor, rivals: Tensor, otherwise: Tensor) -> Tensor:
    """Each return less the mean of its rivals' [n]; ``otherwise`` where there is no rival.

    Args:
        returns: float [n].
        rivals: int64 [n] in 0 .. n - 1, equal for those that compete.
        otherwise: float [n].
    """
    num = torch.zeros_like(returns).index_add(0, rivals, torch.ones_like(returns))[rivals]
    total = torch.zeros_like(returns).index_add(0, rivals, returns)[rivals]
    return torch.where(num > 1, returns - (total - returns) / (num - 1).clamp(min=1), otherwise)


def _mlp(num_in: int, hidden: int, num_out: int, last_gain: float, generator: torch.Generator) -> nn.Sequential:
    """Two tanh layers, orthogonal weights and zero biases, all from ``generator``."""
    layers: list[nn.Module] = []
    for size_in, size_out, gain in ((num_in, hidden, 2**0.5), (hidden, hidden, 2**0.5), (hidden, num_out, last_gain)):
        # The constructor would draw from the global generator.
        layer: nn.Linear = nn.utils.skip_init(nn.Linear, size_in, size_out)  # type: ignore[no-untyped-call]
        nn.init.orthogonal_(layer.weight, gain, generator=generator)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def _variance(values: Tensor, weights: Tensor) -> Tensor:
    mean = (weights * values).mean()
    return (weights * (values - mean) ** 2).mean()


def _copy(value: Any) -> Any:
    """A deep copy of nested containers and tensors."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Sums must not depend on the machine's number of cores; restores the caller's setting."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
