"""Policy gradient with node-wise returns: PPO (Schulman et al. 2017) that credits each split with its own subtree.

Read from top to bottom. Names follow the paper and cleanrl.

Shapes: **n** decisions of a batch, **A** actions, **F** observation features.

Metrics that `PolicyGradient.tell` returns:

    entropy             mean entropy of the policy at the told decisions, nats
    policy_loss         clipped surrogate, last epoch
    value_loss          half the mean squared error of the value, in units of the returns' variance, last epoch
    approx_kl           mean KL divergence of the policy that proposed from the updated one, nats, last epoch
    clip_fraction       share of decisions whose probability ratio was clipped, last epoch
    explained_variance  1 - variance of what the value missed / variance of the returns, before the update
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.base import Agent, Evaluated, Proposal, decision_returns
from envs import DEFAULT_ACTIONS, NUM_FEATURES, Action, ConstructionTask
from treesearch.errors import ConfigError


@dataclass(frozen=True)
class PolicyGradientSettings:
    """Hyperparameters; the defaults are for budgets of 100 to 400 trees in batches of 8 to 16."""

    credit: Literal["node", "terminal"] = "node"  # return of a decision: its own subtree's, or the whole tree's reward
    mass_power: float = 0.5  # node credit: a decision weighs (share of examples that pass it) ** mass_power
    learning_rate: float = 5e-3  # Adam
    update_epochs: int = 6  # passes over each told batch
    clip_coef: float = 0.2
    ent_coef: float = 0.01  # entropy bonus at the start ...
    ent_decay_trees: int = 300  # ... which falls linearly to 0 over this many told trees
    vf_coef: float = 0.5
    max_grad_norm: float = 0.5
    hidden_size: int = 64  # of both layers, tanh

    def __post_init__(self) -> None:
        if self.credit not in ("node", "terminal"):
            raise ConfigError(f"credit must be 'node' or 'terminal', but got {self.credit!r}")
        for field in ("mass_power", "ent_coef", "vf_coef"):
            if not 0 <= getattr(self, field) < np.inf:
                raise ConfigError(f"{field} must be finite and >= 0, but got {getattr(self, field)!r}")
        for field in ("learning_rate", "update_epochs", "clip_coef", "ent_decay_trees", "max_grad_norm", "hidden_size"):
            if not 0 < getattr(self, field) < np.inf:
                raise ConfigError(f"{field} must be finite and > 0, but got {getattr(self, field)!r}")
        for field in ("update_epochs", "hidden_size"):
            if not isinstance(getattr(self, field), int):
                raise ConfigError(f"{field} must be an integer, but got {getattr(self, field)!r}")


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


class PolicyGradient(Agent):
    """Learns which action suits which node.

    Args:
        task: See `Agent`.
        actions: See `Agent`.
        max_decisions: See `Agent`.
        closer: See `Agent`.
        seed: Of the initial weights and the draws.
        settings: Hyperparameters.
    """

    name: ClassVar[str] = "policy_gradient"

    def __init__(
        self,
        task: ConstructionTask,
        *,
        actions: Sequence[str | Action] = DEFAULT_ACTIONS,
        max_decisions: int = 32,
        closer: str | Action | None = None,
        seed: int = 0,
        settings: PolicyGradientSettings | None = None,
    ) -> None:
        super().__init__(task, actions=actions, max_decisions=max_decisions, closer=closer)
        self.settings = PolicyGradientSettings() if settings is None else settings
        self._generator = torch.Generator().manual_seed(seed)
        hidden = self.settings.hidden_size
        self._policy = _mlp(NUM_FEATURES, hidden, len(self.actions), 0.01, self._generator)
        self._value = _mlp(NUM_FEATURES, hidden, 1, 1.0, self._generator)
        self._parameters = [*self._policy.parameters(), *self._value.parameters()]
        self._optimizer = torch.optim.Adam(self._parameters, lr=self.settings.learning_rate, eps=1e-5)
        self._moments = RunningMoments()
        self._num_told = 0
        self._worst_reward: float | None = None  # what a failure counts as under terminal credit

    # -- ask -----------------------------------------------------------------------------------------------------------

    def ask(self, num: int) -> list[Proposal]:
        """Propose ``num`` trees, each action drawn from the policy."""
        with _one_thread(), torch.no_grad():
            return [self.roll_out(self._choose) for _ in range(num)]

    def _choose(self, observation: NDArray[np.float32], mask: NDArray[np.int8]) -> tuple[int, float]:
        log_prob_A = self._log_probs(torch.from_numpy(observation), torch.from_numpy(mask).bool())
        action = int(torch.multinomial(log_prob_A.exp(), 1, generator=self._generator))
        return action, float(log_prob_A[action])

    def _log_probs(self, observations: Tensor, masks: Tensor) -> Tensor:
        # The lowest finite number, not -inf: its probability is 0 as well, and p * log p stays a number.
        logits: Tensor = self._policy(observations)
        return logits.masked_fill(~masks, torch.finfo(logits.dtype).min).log_softmax(-1)

    # -- tell ----------------------------------------------------------------------------------------------------------

    def tell(self, evaluated: Sequence[Evaluated]) -> dict[str, float]:
        """One PPO update from a batch of trees; no metrics where there is nothing to learn from.

        Failures are left out under node credit; under terminal credit they count as the worst reward so far.
        """
        self._num_told += len(evaluated)
        batch = self._collect(evaluated)
        if batch is None:
            return {}
        with _one_thread():
            return self._update(batch)

    def _collect(self, evaluated: Sequence[Evaluated]) -> Batch | None:
        proposals, returns, weights = [], [], []
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
                weights.append(np.ones(num))
            elif verdict is not None:
                returns.append(decision_returns(proposal, verdict))
                weights.append(verdict.node_mass[proposal.decision_nodes] ** self.settings.mass_power)
            else:
                continue
            proposals.append(proposal)
        if not proposals:
            return None
        return_n, weight_n = np.concatenate(returns), np.concatenate(weights)
        weight_n = weight_n / weight_n.mean()
        self._moments.update(return_n, weight_n)
        return Batch(
            observations=torch.from_numpy(np.concatenate([proposal.observations for proposal in proposals])),
            masks=torch.from_numpy(np.concatenate([proposal.masks for proposal in proposals])).bool(),
            actions=torch.tensor([action for proposal in proposals for action in proposal.actions]),
            log_probs=torch.from_numpy(np.concatenate([proposal.log_probs for proposal in proposals])),
            returns=torch.from_numpy(self._moments.normalise(return_n)).float(),
            weights=torch.from_numpy(weight_n).float(),
        )

    def _update(self, batch: Batch) -> dict[str, float]:
        settings, weights = self.settings, batch.weights
        ent_coef = settings.ent_coef * max(0.0, 1 - self._num_told / settings.ent_decay_trees)

        # Advantages against the value before the update, to mean 0 and variance 1.
        with torch.no_grad():
            missed = batch.returns - self._value(batch.observations).squeeze(-1)
        explained = 1 - _variance(missed, weights) / (_variance(batch.returns, weights) + 1e-8)
        advantages = (missed - (weights * missed).mean()) / (_variance(missed, weights).sqrt() + 1e-8)

        for _ in range(settings.update_epochs):
            log_prob_nA = self._log_probs(batch.observations, batch.masks)
            log_ratio = log_prob_nA.gather(1, batch.actions[:, None]).squeeze(1) - batch.log_probs
            ratio = log_ratio.exp()

            # Policy loss.
            clipped = ratio.clamp(1 - settings.clip_coef, 1 + settings.clip_coef)
            policy_loss = -(weights * torch.minimum(advantages * ratio, advantages * clipped)).mean()

            # Value loss.
            value_loss = 0.5 * (weights * (self._value(batch.observations).squeeze(-1) - batch.returns) ** 2).mean()

            # Entropy bonus.
            entropy = -(log_prob_nA.exp() * log_prob_nA).sum(-1).mean()

            loss = policy_loss - ent_coef * entropy + settings.vf_coef * value_loss
            self._optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self._parameters, settings.max_grad_norm)
            self._optimizer.step()

        metrics = {
            "entropy": entropy,
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "approx_kl": (ratio - 1 - log_ratio).mean(),  # http://joschu.net/blog/kl-approx.html
            "clip_fraction": ((ratio - 1).abs() > settings.clip_coef).float().mean(),
            "explained_variance": explained,
        }
        return {name: value.item() for name, value in metrics.items()}

    # -- state ---------------------------------------------------------------------------------------------------------

    def identity(self) -> dict[str, Any]:
        """What a state must agree on to fit this agent: its settings as well."""
        return {**super().identity(), "settings": asdict(self.settings)}

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimiser, generator and running statistics; a copy, which later updates leave alone."""
        state = {
            "policy": self._policy.state_dict(),
            "value": self._value.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.get_state(),
            "moments": asdict(self._moments),
            "num_told": self._num_told,
            "worst_reward": self._worst_reward,
        }
        return {**self.identity(), **_copy(state)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state; RunError where it is another agent's or has other actions or settings."""
        self.check_identity(state)
        state = _copy(state)
        self._policy.load_state_dict(state["policy"])
        self._value.load_state_dict(state["value"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"])
        self._moments = RunningMoments(**state["moments"])
        self._num_told = state["num_told"]
        self._worst_reward = state["worst_reward"]


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
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums must not depend on the machine's number of cores; restores the caller's setting."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
