"""The update of TD3 in compiled kernels; `lgdrl.learners.td3` is the specification.

Shapes: N observations, B rows of a batch, D action dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from lgdrl.guidance.gaussian import LABEL_STD
from lgdrl.guidance.replay import Samples
from lgdrl.guidance.strategy import RL
from lgdrl.learners.fused import gaussian as on
from lgdrl.learners.fused.adam import follow
from lgdrl.learners.fused.continuous import (
    ContinuousCore,
    actor_backward,
    critic_backward,
    tiny_critics,
    try_out,
)
from lgdrl.learners.fused.core import NO_WEIGHTS, weights_of
from lgdrl.learners.fused.perceptron import (
    TARGET,
    Memory,
    Perceptron,
    load_inputs,
    pack_weights,
    run_back_to_inputs,
    run_forward,
    sequential_layers,
)
from sim.compiled import compile_once, kernel


class TD3Core(ContinuousCore):
    """Networks and update of one `TD3` on flat memory."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, Perceptron(model.actor, lambda actor: [sequential_layers(actor.mu)]))
        self._actor_target = self.actor.shadow(model.actor_target)
        compile_once("the learner td3", _try_out)

    def before_tanh(self, obs: np.ndarray) -> np.ndarray:
        """The policy before tanh, float32 (N, D), for observations (N, ...)."""
        return self.outputs(obs)

    def gaussian(self, samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
        mean = self.actor_outputs(samples)
        return mean, torch.full_like(mean, math.log(LABEL_STD))

    def shadows(self) -> Sequence[Memory]:
        return (self._target, self._actor_target)

    def update(self, batch_size: int) -> tuple[dict[str, float], dict[str, float]]:
        """See `Core.update`."""
        model, strategy, critic = self.model, self.model.strategy, self.critic
        batches = strategy.on_batch(model.replay, batch_size)
        samples = batches[RL]
        rows, updates_policy = len(samples), model.updates_policy
        features = self.features(samples.array("observations"))
        self.begin(critic, rows, (self.actor, critic))
        terms = strategy.critic_terms(batches, self)
        critic_loss = _critic_forward(
            critic.memory, self.target, self.actor.beside(self._actor_target), features, model.scaled_actions(samples),
            self.features(samples.array("next_observations")), model.clipped_noise(rows),
            *(samples.array(name) for name in ("rewards", "terminated", "discounts")), weights_of(terms),
            terms.base_share,
        )  # fmt: skip
        self.differentiate(terms)
        tau = model.tau if updates_policy else 0.0
        critic_backward(critic.memory, self.target, critic.used, *self.step(model.critic), tau)
        numbers, metrics = {"critic_loss": critic_loss}, terms.metrics
        if updates_policy:
            numbers["actor_loss"], measured = self._update_policy(batches, features)
            metrics = metrics | measured
        strategy.on_update(metrics)
        return numbers, metrics

    def _update_policy(self, batches: dict[str, Samples], features: np.ndarray) -> tuple[float, dict[str, float]]:
        """One step of the policy, after which its target follows. Returns: the loss, and what terms measured."""
        model, actor, rows = self.model, self.actor, len(features)
        self.begin(actor, rows, (actor, self.critic))
        terms = model.strategy.actor_terms(batches, self)
        weights, values = weights_of(terms), np.empty(rows, np.float32)
        slopes = np.empty((2, rows, model.dimensions), np.float32)
        pack_weights(self.critic.memory)
        _first_critic(actor.memory, self.critic.first(), features, values, slopes[0], slopes[1])
        scale = model.loss_scale(terms, torch.from_numpy(values))
        _policy_gradient(actor.memory, slopes[0], slopes[1], weights, terms.base_share / scale)
        self.differentiate(terms)
        actor_backward(actor.memory, actor.used, *self.step(model.actor))
        follow(self._actor_target.theta, actor.memory.theta, actor.size, model.tau)
        self._actor_target.fresh[0] = False
        return -float((values * weights if len(weights) else values).mean()) / scale, terms.metrics


# ------------------------------------------------------------------------------------------------------ kernels


@kernel
def _critic_forward(
    critic: Any, target: Any, actor_target: Any, features: Any, actions: Any, next_features: Any, noise: Any,
    rewards: Any, terminated: Any, discounts: Any, weights: Any, share: float,
) -> float:  # fmt: skip
    """L_1 + L_2, with its gradient in the critics' rows."""
    rows, at = len(features), actor_target.plan[0, -1, TARGET]
    next_actions, next_values = np.empty(noise.shape, np.float32), np.empty(rows, np.float64)
    targets = np.empty(rows, np.float64)
    load_inputs(actor_target, 0, next_features)
    run_forward(actor_target, 0, rows)
    for i in range(rows):
        for d in range(noise.shape[1]):
            moved = np.tanh(actor_target.units[i, at + d]) + noise[i, d]
            next_actions[i, d] = min(max(moved, np.float32(-1.0)), np.float32(1.0))
    on.forward_pairs(target, next_features, next_actions)
    on.least_values(target, 0, next_values)
    on.targets_of(next_values, rewards, terminated, discounts, targets)
    on.forward_pairs(critic, features, actions)
    return on.value_errors(critic, targets, weights, share)


@kernel
def _first_critic(actor: Any, critic: Any, features: Any, values: Any, actions: Any, slopes: Any) -> None:
    """actions (B, D) = mu(s); values (B,) = Q_1(s, mu(s)); slopes (B, D) = dQ_1/d actions. `critic` is Q_1 alone."""
    at, out = actor.plan[0, -1, TARGET], critic.plan[0, -1, TARGET]
    load_inputs(actor, 0, features)
    run_forward(actor, 0, len(features))
    for i in range(len(features)):
        for d in range(actions.shape[1]):
            actions[i, d] = np.tanh(actor.units[i, at + d])
    on.forward_pairs(critic, features, actions)
    for i in range(len(features)):
        values[i], critic.delta[i, out] = critic.units[i, out], 1.0
    run_back_to_inputs(critic, len(features), features.shape[1], slopes)


@kernel
def _policy_gradient(actor: Any, actions: Any, slopes: Any, weights: Any, factor: float) -> None:
    """The gradient of `factor` x -mean(weights x Q_1) in the first B rows of the actor."""
    at, rows = actor.plan[0, -1, TARGET], len(actions)
    for i in range(rows):
        scale = factor * (weights[i] if len(weights) else 1.0) / rows
        for d in range(actions.shape[1]):
            actor.delta[i, at + d] = -scale * slopes[i, d] * (1.0 - actions[i, d] * actions[i, d])


def _try_out() -> None:
    """Use every kernel once, on networks of one unit and a batch of one row."""
    try_out()
    actor = Perceptron(nn.Sequential(nn.Linear(1, 1)), lambda network: [sequential_layers(network)])
    critic, target = tiny_critics()
    row, numbers, ended = np.zeros((1, 1), np.float32), np.zeros(1, np.float32), np.zeros(1, np.bool_)
    actor.append(1)
    _critic_forward(
        critic.memory, target, actor.memory, row, row, row, row, numbers, ended, numbers, NO_WEIGHTS, 1.0
    )  # fmt: skip
    pack_weights(critic.memory)
    _first_critic(actor.memory, critic.first(), row, numbers.copy(), row.copy(), row.copy())
    _policy_gradient(actor.memory, row, row, NO_WEIGHTS, 1.0)
    follow(actor.memory.theta, actor.memory.theta, 1, 0.0)
