"""What the fused cores of continuous actor-critics share: critics of (observation, action), and steps of both networks.

Shapes: N observations, B rows of a batch, C critics, D action dimensions. Actions are scaled to [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from lgdrl.guidance.replay import Samples
from lgdrl.guidance.terms import GaussianNetworks
from lgdrl.learners.fused import gaussian as on
from lgdrl.learners.fused.adam import adam, follow
from lgdrl.learners.fused.core import NO_WEIGHTS, Core
from lgdrl.learners.fused.perceptron import (
    Layer,
    Memory,
    Perceptron,
    run_back_to_inputs,
    run_backward,
    sequential_layers,
)
from sim.compiled import kernel


class ContinuousCore(GaussianNetworks, Core):
    """Base of the cores of SB3's continuous actor-critics.

    Args:
        model: The learner, with its policy on a CPU; the policy's parameters become views, its optimizers `FlatAdam`.
        actor: The actor on flat memory.
    """

    def __init__(self, model: Any, actor: Perceptron) -> None:
        super().__init__(model.observation_space)
        self.model, self.scale, self.actor = model, model.scale, actor
        self.critic = Perceptron(model.critic, _critic_layers)
        self._target = self.critic.shadow(model.critic_target)
        for part, network in ((model.actor, self.actor), (model.critic, self.critic)):
            self.train_with(part, network, list(part.parameters()), model.config.learning_rate)

    def outputs(self, obs: np.ndarray) -> np.ndarray:
        """What the actor gives for observations (N, ...), float32 (N, outputs)."""
        features = self.features(obs)
        self.actor.reserve(len(features))
        self.actor.memory.fresh[0] = False
        return self.actor.forward(0, features)[0].copy()

    def least_values(self, obs: np.ndarray, scaled: np.ndarray) -> np.ndarray:
        """The smaller critic of scaled actions, float32 (N,)."""
        features = self.features(obs)
        self.critic.reserve(len(features))
        self.critic.memory.fresh[0] = False
        return self.critic.forward(0, np.concatenate([features, scaled], axis=1))[:, :, 0].min(axis=0)

    # ----------------------------------------------------------------------------- what terms may compute with

    def actor_outputs(self, samples: Samples) -> torch.Tensor:
        """A leaf: what the actor gives for samples, float (B, outputs)."""
        rows, first = len(samples), self.actor.append(len(samples))
        outputs = self.actor.forward(first, self.features(samples.array("observations")))[0].copy()

        def take(gradient: np.ndarray | None) -> None:
            self.actor.output(self.actor.memory.delta, first, rows)[0] = 0.0 if gradient is None else gradient

        return self.leaf(self.actor, outputs, take)

    def action_values(self, samples: Samples, column: str = "actions") -> torch.Tensor:
        rows, first = len(samples), self.critic.append(len(samples))
        actions = self.scale.scaled(samples.array(column))
        inputs = np.concatenate([self.features(samples.array("observations")), actions], axis=1)
        values = self.critic.forward(first, inputs)[:, :, 0].copy()

        def take(gradient: np.ndarray | None) -> None:
            self.critic.output(self.critic.memory.delta, first, rows)[:, :, 0] = 0.0 if gradient is None else gradient

        return self.leaf(self.critic, values, take)

    # ------------------------------------------------------------------------------------------------- update

    def shadows(self) -> Sequence[Memory]:
        return (self._target,)

    @property
    def target(self) -> Memory:
        """The target critics, in the workspace of the critics."""
        return self.critic.beside(self._target)


def _critic_layers(critic: Any) -> list[list[Layer]]:
    """The layers of all critics of SB3's `ContinuousCritic`."""
    return [sequential_layers(network) for network in critic.q_networks]


# ------------------------------------------------------------------------------------------------------ kernels


@kernel
def critic_backward(
    critic: Any, target: Any, rows: int, mean: Any, square: Any, step: int, learning_rate: float, tau: float
) -> None:
    """One step of the critics, after which their targets follow by a share of tau (0: they stay)."""
    run_backward(critic, rows)
    adam(critic.theta, critic.gradient, mean, square, step, learning_rate)
    follow(target.theta, critic.theta, len(mean), tau)
    critic.fresh[0] = target.fresh[0] = False


@kernel
def action_slopes(critic: Any, features: Any, actions: Any, least: Any, slopes: Any) -> None:
    """least (B,) = min_i Q_i, slopes (B, D) = its gradient with respect to the actions."""
    on.forward_pairs(critic, features, actions)
    on.least_values(critic, 0, least)
    on.point_at_least(critic, least)
    run_back_to_inputs(critic, len(features), features.shape[1], slopes)


@kernel
def actor_backward(actor: Any, rows: int, mean: Any, square: Any, step: int, learning_rate: float) -> None:
    """One step of the actor."""
    run_backward(actor, rows)
    adam(actor.theta, actor.gradient, mean, square, step, learning_rate)
    actor.fresh[0] = False


def tiny_critics() -> tuple[Perceptron, Memory]:
    """Critics of one unit for an observation and an action of one number, and their targets, to compile with."""

    def networks() -> nn.ModuleList:
        return nn.ModuleList([nn.Sequential(nn.Linear(2, 1)) for _ in range(2)])

    critic = Perceptron(networks(), lambda critics: [sequential_layers(network) for network in critics])
    critic.append(1)
    return critic, critic.shadow(networks())


def try_out() -> None:
    """Use every kernel once, on a batch of one row."""
    critic, target = tiny_critics()
    row, numbers = np.zeros((1, 1), np.float32), np.zeros(1, np.float32)
    moments = np.zeros((2, critic.size), np.float32)
    on.forward_pairs(target, row, row)
    on.value_errors(critic.memory, np.zeros(1), NO_WEIGHTS, 1.0)
    critic_backward(critic.memory, target, 1, moments[0], moments[1], 1, 1.0, 1.0)
    action_slopes(critic.memory, row, row, numbers, row.copy())
    actor_backward(critic.memory, 1, moments[0], moments[1], 1, 1.0)
    critic.forward(0, np.zeros((1, 2), np.float32))
