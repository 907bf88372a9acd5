"""Dueling networks (Wang et al., arXiv 1511.06581): a stream for the state's value, one for the actions' advantages.

    Q(s, a) = V(s) + A(s, a) - mean_a' A(s, a')

The two streams share the last hidden layer, half of its units each. Since what follows is linear, there is a plain
network of the same hidden layers that computes the same (`folded`): that is what other programs load.
"""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, create_mlp
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork
from torch import nn


class DuelingQNetwork(QNetwork):
    """SB3's network with two streams. Arguments as there; `net_arch` has at least one layer, the last of 2 units."""

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        net_arch: list[int],
        **options: Any,
    ) -> None:
        super().__init__(observation_space, action_space, features_extractor, features_dim, net_arch, **options)
        before, last = net_arch[:-1], net_arch[-1]
        self.q_net = nn.Sequential(*create_mlp(features_dim, -1, before))
        width = before[-1] if before else features_dim
        self.value = nn.Sequential(*create_mlp(width, 1, [last // 2]))
        self.advantage = nn.Sequential(*create_mlp(width, int(action_space.n), [last - last // 2]))

    def forward(self, obs: PyTorchObs) -> torch.Tensor:
        hidden = self.q_net(self.extract_features(obs, self.features_extractor))
        advantage = self.advantage(hidden)
        return self.value(hidden) + advantage - advantage.mean(dim=1, keepdim=True)

    def folded(self) -> dict[str, torch.Tensor]:
        """The state of the plain `QNetwork` that computes the same."""
        value, value_out = _linear(self.value)
        advantage, advantage_out = _linear(self.advantage)
        pairs: list[tuple[torch.Tensor, torch.Tensor]] = [(layer.weight, layer.bias) for layer in _linear(self.q_net)]
        pairs.append((torch.cat([value.weight, advantage.weight]), torch.cat([value.bias, advantage.bias])))
        weight = advantage_out.weight - advantage_out.weight.mean(dim=0, keepdim=True)
        bias = advantage_out.bias - advantage_out.bias.mean() + value_out.bias
        pairs.append((torch.cat([value_out.weight.expand(len(weight), -1), weight], dim=1), bias))
        state: dict[str, torch.Tensor] = {}
        for k, (weights, biases) in enumerate(pairs):
            state[f"q_net.{2 * k}.weight"] = weights.detach().clone()
            state[f"q_net.{2 * k}.bias"] = biases.detach().clone()
        return state


def _linear(layers: nn.Sequential) -> list[nn.Linear]:
    return [layer for layer in layers if isinstance(layer, nn.Linear)]


class DuelingDQNPolicy(DQNPolicy):
    """SB3's policy of DQN with `DuelingQNetwork`s."""

    def make_q_net(self) -> DuelingQNetwork:
        options = self._update_features_extractor(self.net_args, features_extractor=None)
        return DuelingQNetwork(**options).to(self.device)

    def folded(self) -> dict[str, torch.Tensor]:
        """See `DuelingQNetwork.folded`."""
        assert isinstance(self.q_net, DuelingQNetwork)
        return self.q_net.folded()
