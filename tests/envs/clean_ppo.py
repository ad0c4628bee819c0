"""PPO with action masks in one file, in the manner of CleanRL: an example to copy.

Proximal policy optimisation (Schulman et al. 2017) with generalised advantages (Schulman et al. 2016); names as there.
An illegal action gets the logit -inf, so that it is never drawn and has no gradient (Huang and Ontañón 2022).

Observations are dictionaries of ``features`` and ``action_mask``. Under ``AutoresetMode.SAME_STEP`` every observation
is one to act on, the mask that comes with it included, and every step one to learn from.
"""

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor, nn
from torch.distributions import Categorical


@dataclass(frozen=True)
class Args:
    total_timesteps: int = 16_384
    num_steps: int = 128  # of each environment between two updates
    num_minibatches: int = 4
    update_epochs: int = 8
    learning_rate: float = 1e-3
    gamma: float = 1.0  # the only reward comes at the end
    gae_lambda: float = 1.0
    clip_coef: float = 0.2
    ent_coef: float = 0.001
    vf_coef: float = 0.5
    max_grad_norm: float = 0.5
    seed: int = 0


class Agent(nn.Module):
    """A policy and a value, each with its own network."""

    def __init__(self, num_features: int, num_actions: int) -> None:
        super().__init__()

        def network(num_outputs: int, std: float) -> nn.Sequential:
            layers = [nn.Linear(num_features, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, num_outputs)]
            for layer, gain in zip(layers[::2], (2**0.5, 2**0.5, std), strict=True):
                nn.init.orthogonal_(layer.weight, gain)  # type: ignore[arg-type]
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            return nn.Sequential(*layers)

        self.actor, self.critic = network(num_actions, 0.01), network(1, 1.0)

    def policy(self, features: Tensor, mask: Tensor) -> Categorical:
        return Categorical(logits=self.actor(features).masked_fill(~mask, -torch.inf), validate_args=False)

    def value(self, features: Tensor) -> Tensor:
        value: Tensor = self.critic(features).squeeze(-1)
        return value

    @torch.no_grad()
    def act(self, observation: dict[str, Any], *, generator: torch.Generator) -> int:
        """A drawn action for one observation."""
        probs = self.policy(*tensors(observation)).probs
        return int(torch.multinomial(probs, 1, generator=generator))


def tensors(observation: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Features and mask."""
    return torch.as_tensor(observation["features"]), torch.as_tensor(observation["action_mask"], dtype=torch.bool)


def train(envs: gymnasium.vector.VectorEnv, args: Args) -> Agent:
    """Train on vectorised environments."""
    assert envs.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert isinstance(envs.single_action_space, gymnasium.spaces.Discrete)
    assert isinstance(envs.single_observation_space, gymnasium.spaces.Dict)
    torch.manual_seed(args.seed)
    num_features = envs.single_observation_space["features"].shape[0]  # type: ignore[index]
    num_actions, shape = int(envs.single_action_space.n), (args.num_steps, envs.num_envs)
    agent = Agent(num_features, num_actions)
    optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)

    features, masks = torch.zeros(*shape, num_features), torch.zeros(*shape, num_actions, dtype=torch.bool)
    actions, logprobs, rewards, dones, values = (torch.zeros(shape) for _ in range(5))
    next_features, next_mask = tensors(envs.reset(seed=args.seed)[0])

    for _ in range(args.total_timesteps // (args.num_steps * envs.num_envs)):
        # Rollout.
        for step in range(args.num_steps):
            features[step], masks[step] = next_features, next_mask
            with torch.no_grad():
                policy = agent.policy(next_features, next_mask)
                actions[step] = policy.sample()
                logprobs[step], values[step] = policy.log_prob(actions[step]), agent.value(next_features)
            observation, reward, terminated, truncated, _ = envs.step(actions[step].long().numpy())
            rewards[step], dones[step] = torch.as_tensor(reward), torch.as_tensor(np.logical_or(terminated, truncated))
            next_features, next_mask = tensors(observation)

        # Generalised advantages; what follows an end belongs to another episode.
        with torch.no_grad():
            next_value, lastgaelam, advantages = agent.value(next_features), torch.zeros(envs.num_envs), rewards * 0
            for step in reversed(range(args.num_steps)):
                going_on = 1 - dones[step]
                delta = rewards[step] + args.gamma * next_value * going_on - values[step]
                lastgaelam = delta + args.gamma * args.gae_lambda * going_on * lastgaelam
                advantages[step], next_value = lastgaelam, values[step]
            returns = advantages + values

        # Updates.
        b_features, b_masks = features.flatten(0, 1), masks.flatten(0, 1)
        b_actions, b_logprobs, b_advantages, b_returns = (
            part.flatten() for part in (actions, logprobs, advantages, returns)
        )
        for _ in range(args.update_epochs):
            for index in torch.randperm(b_actions.numel()).chunk(args.num_minibatches):
                policy = agent.policy(b_features[index], b_masks[index])
                ratio = (policy.log_prob(b_actions[index]) - b_logprobs[index]).exp()
                advantage = b_advantages[index]
                advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
                clipped = ratio.clamp(1 - args.clip_coef, 1 + args.clip_coef)
                pg_loss = -torch.minimum(advantage * ratio, advantage * clipped).mean()
                v_loss = 0.5 * (agent.value(b_features[index]) - b_returns[index]).square().mean()
                loss = pg_loss - args.ent_coef * policy.entropy().mean() + args.vf_coef * v_loss
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), args.max_grad_norm)
                optimizer.step()
    return agent
