"""Kernels of continuous actor-critics: squashed Gaussians, critics of (observation, action), their gradients.

Formulas are those of `lgdrl.learners.sac` and `td3`, which are the specification.

Shapes: B rows of a batch, D action dimensions, C critics. Actions are scaled to [-1, 1].
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lgdrl.learners.fused.perceptron import TARGET, run_forward
from sim.compiled import kernel

LOWEST, HIGHEST = np.float32(-20.0), np.float32(2.0)
"""Bounds of ln std, as in Stable-Baselines3."""
_HALF_LN_2PI, _EPSILON = np.float32(0.5 * np.log(2 * np.pi)), np.float32(1e-6)


@kernel
def load_pairs(net: Any, first: int, features: Any, actions: Any) -> None:
    """Put observations (B, F) and actions (B, D) beside each other into the rows from `first`."""
    inner = features.shape[1]
    for i in range(features.shape[0]):
        for j in range(inner):
            net.units[first + i, j] = features[i, j]
        for j in range(actions.shape[1]):
            net.units[first + i, inner + j] = actions[i, j]


@kernel
def draw(net: Any, first: int, noise: Any, actions: Any, log_probs: Any) -> None:
    """Actions tanh(mean + std noise) of the policy in the rows from `first`, and their log-probabilities (B,)."""
    at, dimensions = net.plan[0, -1, TARGET], noise.shape[1]
    for i in range(noise.shape[0]):
        total = np.float32(0.0)
        for d in range(dimensions):
            log_std = min(max(net.units[first + i, at + dimensions + d], LOWEST), HIGHEST)
            n = noise[i, d]
            action = np.tanh(net.units[first + i, at + d] + np.exp(log_std) * n)
            actions[i, d] = action
            total -= np.float32(0.5) * n * n + log_std + _HALF_LN_2PI
            total -= np.log(np.float32(1.0) - action * action + _EPSILON)
        log_probs[i] = total


@kernel
def value_errors(critic: Any, targets: Any, weights: Any, factor: float) -> float:
    """sum_c mean(weights x (Q_c - target)^2) of the first B rows, and the gradient of `factor` times that.

    Args:
        critic: All critics.
        targets: float64 (B,).
        weights: float32 (B,), or (0,) where all are 1.
        factor: Of the gradient.
    """
    rows, total = len(targets), 0.0
    for c in range(critic.plan.shape[0]):
        at = critic.plan[c, -1, TARGET]
        for i in range(rows):
            error = critic.units[i, at] - targets[i]
            weight = weights[i] if len(weights) else 1.0
            total += weight * error * error
            critic.delta[i, at] = factor * weight * 2.0 * error / rows
    return total / rows


@kernel
def least_values(critic: Any, first: int, values: Any) -> None:
    """values (B,) = the smallest critic of the rows from `first`."""
    for i in range(len(values)):
        least = critic.units[first + i, critic.plan[0, -1, TARGET]]
        for c in range(1, critic.plan.shape[0]):
            least = min(least, critic.units[first + i, critic.plan[c, -1, TARGET]])
        values[i] = least


@kernel
def targets_of(next_values: Any, rewards: Any, terminated: Any, discounts: Any, targets: Any) -> None:
    """targets (B,) = rewards + discounts x next values where the episode went on."""
    for i in range(len(targets)):
        targets[i] = rewards[i] + (0.0 if terminated[i] else discounts[i] * next_values[i])


@kernel
def point_at_least(critic: Any, values: Any) -> None:
    """dL/dQ = 1 for the smallest critic of each of the first B rows, 0 for the others; `values` are the smallest."""
    for i in range(len(values)):
        found = False
        for c in range(critic.plan.shape[0]):
            at = critic.plan[c, -1, TARGET]
            chosen = not found and critic.units[i, at] == values[i]
            critic.delta[i, at] = 1.0 if chosen else 0.0
            found = found or chosen


@kernel
def policy_gradient(
    actor: Any, noise: Any, actions: Any, slopes: Any, weights: Any, alpha: float, factor: float
) -> None:
    """The gradient of `factor` x mean(weights x (alpha ln pi - Q)) in the first B rows of a Gaussian policy.

    Args:
        actor: The policy.
        noise, actions: What `draw` took and gave, (B, D).
        slopes: dQ/d actions, (B, D).
        weights: float32 (B,), or (0,) where all are 1.
        alpha: Temperature.
        factor: Of the gradient.
    """
    at, rows, dimensions = actor.plan[0, -1, TARGET], noise.shape[0], noise.shape[1]
    for i in range(rows):
        scale = factor * (weights[i] if len(weights) else 1.0) / rows
        for d in range(dimensions):
            raw = actor.units[i, at + dimensions + d]
            log_std = min(max(raw, LOWEST), HIGHEST)
            action = actions[i, d]
            slope = 1.0 - action * action
            before = scale * slope * (alpha * 2.0 * action / (slope + _EPSILON) - slopes[i, d])
            actor.delta[i, at + d] = before
            inside = LOWEST <= raw <= HIGHEST
            spread = before * np.exp(log_std) * noise[i, d] - scale * alpha
            actor.delta[i, at + dimensions + d] = spread if inside else 0.0


@kernel
def forward_pairs(net: Any, features: Any, actions: Any) -> None:
    """Run observations and actions in the first rows."""
    load_pairs(net, 0, features, actions)
    run_forward(net, 0, features.shape[0])
