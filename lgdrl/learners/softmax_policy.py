"""Networks of discrete soft actor-critic: a masked softmax policy and twin critics, as a Stable-Baselines3 policy.

Shapes: N environments, A actions, B samples, F flattened observation numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import FlattenExtractor, create_mlp
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import nn

ILLEGAL = -1e8
"""Log-probability of an illegal action: finite, so that 0 x ln 0 is 0, and far below where exp() reaches 0."""
HIDDEN = (128, 128)
"""Units per hidden layer. 64 are half the time, and a little worse on the lane change (docs/performance.md)."""


def masked_log_softmax(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """ln pi(.|s) over legal actions: float (B, A), about `ILLEGAL` where bool (B, A) `masks` is False."""
    return torch.log_softmax(logits.masked_fill(~masks, ILLEGAL), dim=-1)


def sample_categorical(probs: np.ndarray, stream: np.random.Generator) -> np.ndarray:
    """One action per row of (N, A) probabilities, by inversion; never one of probability 0. Returns: int64 (N,)."""
    cumulative = np.cumsum(probs, axis=1, dtype=np.float64)
    thresholds = stream.random(len(probs)) * cumulative[:, -1]
    return (cumulative <= thresholds[:, None]).sum(axis=1)


class TwinMLP(nn.Module):
    """Two equal multilayer perceptrons with weights of their own, computed together by batched products.

    One batched layer per pair of layers takes 40 % off a critic step at 128-128 units and batch 128 on a CPU.
    Initialised as SB3's `create_mlp` initialises each of them.
    """

    def __init__(self, inputs: int, outputs: int, hidden: Sequence[int]) -> None:
        super().__init__()
        twins = [nn.Sequential(*create_mlp(inputs, outputs, list(hidden))) for _ in range(2)]
        pairs = list(zip(*([m for m in twin if isinstance(m, nn.Linear)] for twin in twins), strict=True))
        self.weights = nn.ParameterList([_stacked([layer.weight.T for layer in pair]) for pair in pairs])
        self.biases = nn.ParameterList([_stacked([layer.bias[None] for layer in pair]) for pair in pairs])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, F) -> (2, B, outputs)."""
        hidden = features.expand(2, *features.shape)
        last = len(self.weights) - 1
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            if index < last:
                hidden = torch.relu(hidden)
        return hidden


def _stacked(tensors: list[torch.Tensor]) -> nn.Parameter:
    return nn.Parameter(torch.stack([tensor.detach() for tensor in tensors]))


class Trainable(nn.Module):
    """A network beside its optimizer, as SB3 keeps them."""

    def __init__(self, network: nn.Module, learning_rate: float) -> None:
        super().__init__()
        self.network = network
        self.learning_rate = learning_rate
        self.optimizer = adam(list(network.parameters()), learning_rate)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, F) -> the network's output."""
        return self.network(features)

    def minimise(self, loss: torch.Tensor) -> None:
        """One gradient step."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()


def adam(parameters: list[torch.Tensor], learning_rate: float) -> torch.optim.Adam:
    """Adam in one fused kernel per step, where all parameters live on one device."""
    return torch.optim.Adam(parameters, lr=learning_rate, fused=True)


class DiscreteSACPolicy(BasePolicy):
    """Softmax actor, twin critics and their slowly following targets, on a flattened Box observation.

    Args: spaces and learning-rate schedule as SB3 passes them; hidden units per layer.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        hidden: Sequence[int] = HIDDEN,
    ) -> None:
        if not isinstance(observation_space, spaces.Box):
            raise ValueError(f"observation_space = {observation_space}: expected a Box")
        if not isinstance(action_space, spaces.Discrete) or action_space.start != 0:
            raise ValueError(f"action_space = {action_space}: expected Discrete actions that count from 0")
        super().__init__(observation_space, action_space, features_extractor_class=FlattenExtractor)
        self.hidden = tuple(hidden)
        self.num_actions = int(action_space.n)
        self.features_extractor = self.make_features_extractor()
        inputs, learning_rate = self.features_extractor.features_dim, lr_schedule(1)
        self.actor = Trainable(nn.Sequential(*create_mlp(inputs, self.num_actions, list(hidden))), learning_rate)
        self.critic = Trainable(TwinMLP(inputs, self.num_actions, hidden), learning_rate)
        self.critic_target = copy.deepcopy(self.critic.network).requires_grad_(False)
        self.stream = np.random.default_rng()

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,
            "hidden": self.hidden,
        }

    def set_training_mode(self, mode: bool) -> None:
        """SB3's. Nothing here computes otherwise in training, so modules are not walked through at every prediction."""
        self.training = mode

    def features(self, obs: PyTorchObs) -> torch.Tensor:
        """(B, ...) observations as float32 (B, F)."""
        return self.extract_features(obs, self.features_extractor)

    def log_probs(self, obs: PyTorchObs, masks: torch.Tensor) -> torch.Tensor:
        """ln pi(.|s), float (B, A); bool (B, A) `masks` names the legal actions."""
        return masked_log_softmax(self.actor(self.features(obs)), masks)

    def q_values(self, obs: PyTorchObs) -> torch.Tensor:
        """Both critics: float (2, B, A)."""
        return self.critic(self.features(obs))

    def target_q_values(self, obs: PyTorchObs) -> torch.Tensor:
        """Both target critics: float (2, B, A)."""
        return self.critic_target(self.features(obs))

    def update_targets(self, tau: float) -> None:
        """Qbar <- (1 - tau) Qbar + tau Q."""
        with torch.no_grad():
            online: list[torch.Tensor] = list(self.critic.network.parameters())
            targets: list[torch.Tensor] = list(self.critic_target.parameters())
            torch._foreach_lerp_(targets, online, tau)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> torch.Tensor:
        batch = self.features(observation).shape[0]
        return torch.as_tensor(self._choose(observation, np.ones((batch, self.num_actions), bool), deterministic))

    def _choose(self, obs: PyTorchObs, masks: np.ndarray, deterministic: bool) -> np.ndarray:
        with torch.no_grad():
            log_probs = self.log_probs(obs, torch.as_tensor(masks, device=self.device)).cpu()
        if deterministic:
            return log_probs.argmax(dim=1).numpy()
        return sample_categorical(log_probs.exp().numpy(), self.stream)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """SB3's `predict` with sb3-contrib's `action_masks`: bool (A,) or (N, A), None where all actions are legal.

        Draws come from a stream of their own, so predicting while training changes nothing in the training.
        """
        if action_masks is None:
            return super().predict(observation, state, episode_start, deterministic)
        self.set_training_mode(False)
        obs, vectorized = self.obs_to_tensor(observation)
        masks = np.asarray(action_masks, bool).reshape(-1, self.num_actions)
        actions = self._choose(obs, masks, deterministic)
        return (actions if vectorized else actions.squeeze(axis=0)), state
