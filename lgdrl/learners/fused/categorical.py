"""Kernels on the outputs of discrete soft actor-critic: masked softmax, temporal-difference errors, divergences.

Formulas are those of `lgdrl.learners.discrete_sac` and `lgdrl.guidance.constraint`, which are the specification.
Gradients are taken with respect to logits: for a loss f with h_a = df / d pi_a it is pi_b (h_b - sum_a pi_a h_a).

Shapes: A actions, B rows of a batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lgdrl.guidance.constraint import EXPERT_FLOOR, LN2
from lgdrl.learners.fused.perceptron import TARGET
from lgdrl.learners.softmax_policy import ILLEGAL
from sim.compiled import kernel

_TINY, _HALF, _LN2, _FLOOR = (np.float32(x) for x in (np.finfo(np.float32).tiny, 0.5, LN2, EXPERT_FLOOR))
_NEVER = np.float32(0.5 * ILLEGAL)
"""Below the log-probability of every legal action."""
DIVERGENCE_CODES = {"js": 0, "kl": 1, "reverse_kl": 2, "bc": 3}
"""Divergences that `label_divergence` knows."""


@kernel
def log_softmax(net: Any, first: int, legal: Any, log_probs: Any, probs: Any) -> None:
    """log_probs, probs (B, A) = ln pi, pi of the logits in the rows from `first`; bool `legal` as in the policy."""
    at = net.plan[0, -1, TARGET]
    for i in range(log_probs.shape[0]):
        largest = np.float32(-np.inf)
        for a in range(log_probs.shape[1]):
            log_probs[i, a] = net.units[first + i, at + a] if legal[i, a] else ILLEGAL
            largest = max(largest, log_probs[i, a])
        total = np.float32(0.0)
        for a in range(log_probs.shape[1]):
            probs[i, a] = np.exp(log_probs[i, a] - largest)
            total += probs[i, a]
        shift = largest + np.log(total)
        for a in range(log_probs.shape[1]):
            log_probs[i, a] -= shift
            probs[i, a] /= total


@kernel
def log_softmax_gradient(net: Any, first: int, legal: Any, probs: Any, gradient: Any) -> None:
    """dL/d logits of the rows from `first`, from dL/d log_probs (B, A)."""
    at = net.plan[0, -1, TARGET]
    for i in range(probs.shape[0]):
        total = 0.0
        for a in range(probs.shape[1]):
            total += gradient[i, a]
        for a in range(probs.shape[1]):
            net.delta[first + i, at + a] = gradient[i, a] - probs[i, a] * total if legal[i, a] else 0.0


@kernel
def critic_error(
    critic: Any, values: Any, actions: Any, rewards: Any, terminated: Any, discounts: Any, weights: Any, share: float
) -> float:
    """Temporal-difference errors of the first B rows: L_1 + L_2, and dL/dQ for share x that.

    Args:
        critic: Both critics.
        values: V of the successors, float64 (B,).
        actions, rewards, terminated, discounts: Of the samples, (B,).
        weights: float32 (B,), or (0,) where all are 1.
        share: Factor of the gradient.
    """
    rows, total = len(actions), 0.0
    for c in range(critic.plan.shape[0]):
        at, outputs = critic.plan[c, -1, TARGET], critic.plan[c, -1, 1]
        for i in range(rows):
            goal = rewards[i] + (0.0 if terminated[i] else discounts[i] * values[i])
            error = critic.units[i, at + actions[i]] - goal
            weight = weights[i] if len(weights) else 1.0
            total += weight * error * error
            critic.delta[i, at : at + outputs] = 0.0
            critic.delta[i, at + actions[i]] = share * weight * 2.0 * error / rows
    return total / rows


@kernel
def least_q(critic: Any, i: int, a: int) -> float:
    """The smaller critic of one action."""
    found = critic.units[i, critic.plan[0, -1, TARGET] + a]
    for c in range(1, critic.plan.shape[0]):
        found = min(found, critic.units[i, critic.plan[c, -1, TARGET] + a])
    return found


@kernel
def soft_values(target: Any, log_probs: Any, probs: Any, alpha: float, values: Any) -> None:
    """values (B,) = sum_a pi (min_i Qbar_i - alpha ln pi), with the target critics in the first B rows."""
    for i in range(probs.shape[0]):
        values[i] = 0.0
        for a in range(probs.shape[1]):
            if probs[i, a] > 0.0:
                values[i] += probs[i, a] * (least_q(target, i, a) - alpha * log_probs[i, a])


@kernel
def actor_error(
    actor: Any, critic: Any, log_probs: Any, probs: Any, legal: Any, weights: Any, alpha: float, floor: float,
    share: float,
) -> tuple[float, float]:  # fmt: skip
    """L_0 on the first B rows and the mean entropy; dL/d logits for share x L_0.

    Args:
        actor, critic: The networks, which ran on these rows.
        log_probs, probs: ln pi and pi, float32 (B, A).
        legal: bool (B, A).
        weights: float32 (B,), or (0,) where all are 1.
        alpha: Temperature.
        floor: L_0 is divided by max(floor, mean |min_i Q_i| of legal actions); negative: by 1.
        share: Factor of the gradient.
    """
    rows, actions = probs.shape
    at = actor.plan[0, -1, TARGET]
    scale = 1.0
    if floor >= 0.0:
        size, count = 0.0, 0
        for i in range(rows):
            for a in range(actions):
                if legal[i, a]:
                    size += abs(least_q(critic, i, a))
                    count += 1
        scale = max(size / count, floor)
    total = entropy = 0.0
    for i in range(rows):
        weight = weights[i] if len(weights) else 1.0
        mean = 0.0
        for a in range(actions):
            if probs[i, a] > 0.0:
                mean += probs[i, a] * (alpha * log_probs[i, a] - least_q(critic, i, a))
                entropy -= probs[i, a] * log_probs[i, a]
        for a in range(actions):
            slope = 0.0
            if probs[i, a] > 0.0:
                slope = probs[i, a] * (alpha * log_probs[i, a] - least_q(critic, i, a) - mean)
            actor.delta[i, at + a] = share * weight * slope / (rows * scale)
        total += weight * mean
    return total / (rows * scale), entropy / rows


@kernel
def divergence_of(log_p: Any, p: Any, q: Any, code: int, slope: Any) -> Any:
    """One state's divergence of `DIVERGENCE_CODES`; puts pi_a h_a into `slope` (A,)."""
    value = np.float32(0.0)
    label = 0
    for a in range(1, len(p)):
        label = a if q[a] > q[label] else label
    for a in range(len(p)):
        slope[a] = 0.0
        if code == 0:
            log_m = np.log(max(p[a] + q[a], _TINY)) - _LN2
            if p[a] > 0.0:
                slope[a] = _HALF * p[a] * (log_p[a] - log_m)
                value += slope[a]
            if q[a] > 0.0:
                value += _HALF * q[a] * (np.log(q[a]) - log_m)
        elif code == 1:
            if q[a] > 0.0:
                value += q[a] * (np.log(q[a]) - log_p[a])
                slope[a] = -q[a]
        elif code == 2:
            if p[a] > 0.0:
                slope[a] = p[a] * (log_p[a] - np.log(max(q[a], _FLOOR)))
                value += slope[a]
        elif a == label:
            value = -log_p[a]
            slope[a] = -1.0
    return value


@kernel
def in_range(value: Any, code: int) -> Any:
    """A divergence without what rounding took out of its range."""
    if code < 2 and value < 0.0:
        return np.float32(0.0)
    return _LN2 if code == 0 and value > _LN2 else value


@kernel
def mean_divergence(log_probs: Any, probs: Any, label_probs: Any, code: int) -> Any:
    """Mean divergence from the labels, without gradient; arguments as in `label_divergence`."""
    total: Any = 0.0
    slope = np.zeros(probs.shape[1], np.float32)
    for i in range(len(probs)):
        total += in_range(divergence_of(log_probs[i], probs[i], label_probs[i], code, slope), code)
    return total / len(probs)


@kernel
def label_divergence(
    actor: Any, first: int, log_probs: Any, probs: Any, label_probs: Any, label_actions: Any, code: int, weight: float
) -> tuple[float, float]:
    """Mean divergence from the labels, share of labels that are the likeliest action; d (weight x mean) / d logits.

    Args:
        actor: The network, which ran on the rows from `first`.
        log_probs, probs: ln pi and pi, float32 (B, A).
        label_probs: Distributions of the expert, float32 (B, A).
        label_actions: Actions of the expert, int64 (B,).
        code: Of `DIVERGENCE_CODES`.
        weight: Factor of the gradient.
    """
    rows, actions = probs.shape
    at = actor.plan[0, -1, TARGET]
    slope = np.zeros(actions, np.float32)
    factor = np.float32(weight / rows)
    total: Any = 0.0
    agreement = 0.0
    for i in range(rows):
        best = 0
        for a in range(1, actions):
            best = a if log_probs[i, a] > log_probs[i, best] else best
        agreement += best == label_actions[i]
        found = divergence_of(log_probs[i], probs[i], label_probs[i], code, slope)
        value = in_range(found, code)
        total += value
        sum_of_slopes = np.float32(0.0)
        for a in range(actions):
            sum_of_slopes += slope[a]
        for a in range(actions):
            counts = log_probs[i, a] > _NEVER and value == found
            actor.delta[first + i, at + a] = factor * (slope[a] - probs[i, a] * sum_of_slopes) if counts else 0.0
    return total / rows, agreement / rows


@kernel
def scale_gradient(net: Any, first: int, rows: int, factor: float) -> None:
    """dL/d outputs of the rows from `first`, times a factor."""
    for c in range(net.plan.shape[0]):
        at = net.plan[c, -1, TARGET]
        for i in range(first, first + rows):
            for a in range(net.plan[c, -1, 1]):
                net.delta[i, at + a] *= np.float32(factor)
