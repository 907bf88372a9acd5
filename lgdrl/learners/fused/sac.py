"""The update of soft actor-critic in compiled kernels; `lgdrl.learners.sac` is the specification.

Shapes: N observations, B rows of a batch, D action dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from lgdrl.guidance.replay import Samples
from lgdrl.guidance.strategy import RL
from lgdrl.learners.fused import gaussian as on
from lgdrl.learners.fused.adam import BETA1, BETA2, EPSILON
from lgdrl.learners.fused.continuous import (
    ContinuousCore,
    action_slopes,
    actor_backward,
    critic_backward,
    tiny_critics,
    try_out,
)
from lgdrl.learners.fused.core import NO_WEIGHTS, weights_of
from lgdrl.learners.fused.perceptron import Layer, Perceptron, load_inputs, run_forward, sequential_layers
from sim.compiled import compile_once, kernel


class SACCore(ContinuousCore):
    """Networks and update of one `SAC` on flat memory."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, Perceptron(model.actor, _actor_layers, _actor_order))
        compile_once("the learner sac", _try_out)

    def parameters_of(self, obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation before tanh, float32 (N, D) each, for observations (N, ...)."""
        outputs, dimensions = self.outputs(obs), self.model.dimensions
        return outputs[:, :dimensions], np.exp(outputs[:, dimensions:].clip(on.LOWEST, on.HIGHEST))

    def gaussian(self, samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
        leaf, dimensions = self.actor_outputs(samples), self.model.dimensions
        return leaf[:, :dimensions], leaf[:, dimensions:].clamp(float(on.LOWEST), float(on.HIGHEST))

    def update(self, batch_size: int) -> tuple[dict[str, float], dict[str, float]]:
        """See `Core.update`."""
        model, strategy, actor, critic = self.model, self.model.strategy, self.actor, self.critic
        batches = strategy.on_batch(model.replay, batch_size)
        samples = batches[RL]
        rows = len(samples)
        features = self.features(samples.array("observations"))
        next_features = self.features(samples.array("next_observations"))
        noise, next_noise = model.draw_noise(rows), model.draw_noise(rows)
        actions, next_actions = np.empty((2, *noise.shape), np.float32)
        log_probs, next_log_probs = np.empty((2, rows), np.float32)
        self.begin(critic, rows, (critic,))
        actor.used = 0
        actor.append(2 * rows)
        _draw_both(
            actor.memory, features, next_features, noise, next_noise, actions, next_actions, log_probs, next_log_probs
        )
        log_prob = float(log_probs.mean())
        alpha, numbers = self._update_alpha(log_prob)

        terms = strategy.critic_terms(batches, self)
        numbers["critic_loss"] = _critic_forward(
            critic.memory, self.target, features, model.scaled_actions(samples), next_features,
            next_actions, next_log_probs,
            *(samples.array(name) for name in ("rewards", "terminated", "discounts")), weights_of(terms), alpha,
            terms.base_share,
        )  # fmt: skip
        self.differentiate(terms)
        critic_backward(critic.memory, self.target, critic.used, *self.step(model.critic), model.tau)
        metrics = terms.metrics

        self.begin(actor, rows, (critic,))
        actor.used = rows
        terms = strategy.actor_terms(batches, self)
        weights, slopes, least = weights_of(terms), np.empty_like(actions), np.empty(rows, np.float32)
        action_slopes(critic.memory, features, actions, least, slopes)
        scale = model.loss_scale(terms, torch.from_numpy(least))
        losses = alpha * log_probs - least
        numbers["actor_loss"] = float((losses * weights if len(weights) else losses).mean()) / scale
        on.policy_gradient(actor.memory, noise, actions, slopes, weights, alpha, terms.base_share / scale)
        self.differentiate(terms)
        actor_backward(actor.memory, actor.used, *self.step(model.actor))
        metrics = metrics | terms.metrics
        strategy.on_update(metrics)
        return numbers | {"ent_coef": alpha, "entropy": -log_prob}, metrics

    def _update_alpha(self, log_prob: float) -> tuple[float, dict[str, float]]:
        """One step of torch's Adam on L_alpha, in plain numbers. Returns: alpha before it, and the loss."""
        model = self.model
        if model.ent_coef_optimizer is None or model.log_ent_coef is None:
            return float(model.ent_coef_tensor), {}
        state = model.ent_coef_optimizer.state[model.log_ent_coef]
        if not state:
            state |= {"step": torch.zeros(()), "exp_avg": torch.zeros(1), "exp_avg_sq": torch.zeros(1)}
        count, mean, square = (state[name].numpy() for name in ("step", "exp_avg", "exp_avg_sq"))
        value = model.log_ent_coef.detach().numpy()
        log_alpha, slope = float(value[0]), -(log_prob + float(model.target_entropy))
        steps = float(count) + 1
        next_mean = BETA1 * float(mean[0]) + (1 - BETA1) * slope
        next_square = BETA2 * float(square[0]) + (1 - BETA2) * slope * slope
        root = (next_square / (1 - BETA2**steps)) ** 0.5 + EPSILON
        value[0] = log_alpha - model.config.learning_rate * next_mean / (1 - BETA1**steps) / root
        count[...], mean[0], square[0] = steps, next_mean, next_square
        return float(np.exp(log_alpha)), {"ent_coef_loss": log_alpha * slope}


def _actor_layers(actor: Any) -> list[list[Layer]]:
    """The layers of SB3's Gaussian actor, both heads as one."""
    return [[*sequential_layers(actor.latent_pi), Layer(actor.mu.weight, actor.mu.bias, transposed=True, heads=2)]]


def _actor_order(actor: Any) -> list[torch.Tensor]:
    """Its parameters with those of its heads side by side: weights, then biases."""
    heads = (actor.mu, actor.log_std)
    return [*actor.latent_pi.parameters(), *(head.weight for head in heads), *(head.bias for head in heads)]


# ------------------------------------------------------------------------------------------------------ kernels


@kernel
def _draw_both(
    actor: Any, features: Any, next_features: Any, noise: Any, next_noise: Any, actions: Any, next_actions: Any,
    log_probs: Any, next_log_probs: Any,
) -> None:  # fmt: skip
    """Actions in the states of the batch, which stay in the first rows, and in their successors."""
    rows = len(features)
    load_inputs(actor, 0, features)
    load_inputs(actor, rows, next_features)
    run_forward(actor, 0, 2 * rows)
    on.draw(actor, 0, noise, actions, log_probs)
    on.draw(actor, rows, next_noise, next_actions, next_log_probs)


@kernel
def _critic_forward(
    critic: Any, target: Any, features: Any, actions: Any, next_features: Any, next_actions: Any, next_log_probs: Any,
    rewards: Any, terminated: Any, discounts: Any, weights: Any, alpha: float, share: float,
) -> float:  # fmt: skip
    """1/2 (L_1 + L_2), with its gradient in the critics' rows."""
    rows = len(features)
    next_values, targets = np.empty(rows, np.float64), np.empty(rows, np.float64)
    on.forward_pairs(target, next_features, next_actions)
    on.least_values(target, 0, next_values)
    for i in range(rows):
        next_values[i] -= alpha * next_log_probs[i]
    on.targets_of(next_values, rewards, terminated, discounts, targets)
    on.forward_pairs(critic, features, actions)
    return 0.5 * on.value_errors(critic, targets, weights, 0.5 * share)


def _try_out() -> None:
    """Use every kernel once, on networks of one unit and a batch of one row."""
    try_out()
    actor = Perceptron(nn.Sequential(nn.Linear(1, 2)), lambda network: [sequential_layers(network)])
    critic, target = tiny_critics()
    row, numbers, ended = np.zeros((1, 1), np.float32), np.zeros(1, np.float32), np.zeros(1, np.bool_)
    actor.append(2)
    _draw_both(actor.memory, row, row, row, row, row.copy(), row.copy(), numbers.copy(), numbers.copy())
    _critic_forward(
        critic.memory, target, row, row, row, row, numbers, numbers, ended, numbers, NO_WEIGHTS, 1.0, 1.0
    )  # fmt: skip
    on.policy_gradient(actor.memory, row, row, row.copy(), NO_WEIGHTS, 1.0, 1.0)
