"""Group-relative policy optimisation: config, advantages and loss, as plain functions on tensors.

GRPO (arXiv 2402.03300) with the usual later switches: token-mean loss and clip-higher (DAPO, 2503.14476), constant
normaliser (Dr. GRPO, 2503.20783), dual clip. Config names are those of TRL's GRPOConfig where it has them. Every method
of this package goes through `grpo_loss`; what a method trains on is decided by masks and advantages alone.

Shapes: R completions, T tokens, V words. Entry [r, t] of a (R, T - 1) table is about predicting token t + 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from sim.bounds import Bounds, Count, LearningRate, NonNegative, Positive, config_dataclass

STD_FLOOR = 1e-6


@config_dataclass
class GRPOConfig:
    """Names are TRL's where it has them; defaults are for models of a million parameters, not for TRL's models."""

    num_generations: Annotated[int, Bounds(1, 10_000)] = 8  # completions per group
    # groups per update (TRL: generation_batch_size / num_generations)
    prompts_per_update: Annotated[int, Bounds(1, 1_000_000)] = 12
    # tokens of an answer, an opening that was given away included
    max_completion_length: Annotated[int, Bounds(1, 1_000_000)] = 48
    # of sampling, and of the policy whose likelihood is trained
    temperature: Annotated[float, Bounds(0, 100, open_low=True)] = 1.0
    learning_rate: LearningRate = 3e-4  # AdamW, constant
    adam_beta1: Annotated[float, Bounds(0, 1, open_high=True)] = 0.9
    adam_beta2: Annotated[float, Bounds(0, 1, open_high=True)] = 0.95
    weight_decay: NonNegative = 0.0
    max_grad_norm: Positive = 1.0
    num_iterations: Count = 1  # passes over what an update generated
    steps_per_generation: Count = 1  # optimiser steps per pass, each on its share of the groups
    # of the KL divergence from the model that training started from (k3 estimator); 0: no such model
    beta: NonNegative = 0.0
    # the ratio is clipped to [1 - epsilon, 1 + epsilon_high]
    epsilon: Annotated[float, Bounds(0, 1, open_high=True)] = 0.2
    epsilon_high: NonNegative | None = None  # None: epsilon
    # largest ratio for negative advantages ("dual clip", two-sided clipping); None: no limit
    delta: Positive | None = None
    loss_type: Literal["grpo", "bnpo", "dapo", "dr_grpo"] = "dapo"
    # grpo: mean over each completion's tokens, then over completions; dapo and (without gradient accumulation the same)
    # bnpo: mean over all tokens; dr_grpo: sum over tokens / (completions x max_completion_length)
    scale_rewards: Literal["group", "batch", "none"] = "group"  # whose standard deviation advantages are divided by

    def __post_init__(self) -> None:
        if self.num_generations < 2 and self.scale_rewards == "group":
            raise ValueError("num_generations = 1: a group of one has no spread; choose at least 2")
        if self.delta is not None and self.delta <= 1 + self.clip_high:
            raise ValueError(f"delta = {self.delta}: choose more than 1 + epsilon_high = {1 + self.clip_high}, or null")

    @property
    def clip_high(self) -> float:
        return self.epsilon if self.epsilon_high is None else self.epsilon_high


def spread(rewards: np.ndarray) -> float:
    """Standard deviation of a sample (n - 1), as in TRL; 0 for a single reward."""
    return float(np.std(rewards, ddof=1)) if len(rewards) > 1 else 0.0


def group_advantages(groups: Sequence[np.ndarray], scale: str = "group") -> list[np.ndarray]:
    """Rewards minus their group's mean, over the standard deviation of the group or of the batch, plus 1e-6.

    Args:
        groups: Rewards, float64 (n,) per group.
        scale: See `GRPOConfig.scale_rewards`.
    Returns:
        float64 (n,) per group. A group of equal rewards has advantages of exactly 0, whatever rounding makes of its
        mean.
    """
    centred = [np.zeros(len(r)) if np.all(r == r[0]) else r - r.mean() for r in groups]
    if scale == "none":
        return centred
    if scale == "batch":
        over = spread(np.concatenate(groups)) + STD_FLOOR
        return [c / over for c in centred]
    return [c / (spread(r) + STD_FLOOR) for c, r in zip(centred, groups, strict=True)]


@dataclass(slots=True)
class TokenBatch:
    """Completions as they are trained on, padded on the right."""

    tokens: Tensor
    """int64 (R, T): context and completion."""
    learned: Tensor
    """bool (R, T - 1): predictions with a gradient. False on prompts, hints, openings and padding."""
    advantages: Tensor
    """float32 (R,)"""
    shaping: Tensor
    """float32 (R,): 0 for the clipped ratio, else p / (p + shaping) takes its place."""
    completions: int
    """R, and below the learned tokens, of the whole optimiser step: completions without a gradient (an advantage of 0)
    are not computed, but they count."""
    total_tokens: int


def token_log_probs(policies: Tensor, batch: TokenBatch) -> Tensor:
    """Log-probabilities (R, T - 1) of the tokens that came, 0 where nothing is learned.

    Args:
        policies: Log-probabilities (R, T or T - 1, V) as `experts.language.gpt.log_policy` gives them.
        batch: The completions.
    """
    following = batch.tokens[:, 1:]
    picked = policies[:, : following.shape[1]].gather(2, following[:, :, None])[:, :, 0]
    return picked.masked_fill(~batch.learned, 0.0)


def objective(log_probs: Tensor, old_log_probs: Tensor, batch: TokenBatch, config: GRPOConfig) -> Tensor:
    """What is maximised, per token (R, T - 1): min(ratio A, clip(ratio) A), or for shaped rows p / (p + shaping) A.

    Args:
        log_probs: (R, T - 1) of the policy that is trained.
        old_log_probs: (R, T - 1) of the policy that sampled.
        batch: The completions.
        config: Clipping.
    """
    ratio = (log_probs - old_log_probs).exp()
    clipped = ratio.clamp(1 - config.epsilon, 1 + config.clip_high)
    if config.delta is not None:
        ratio = ratio.clamp(max=config.delta)
    advantages, shaping = batch.advantages[:, None], batch.shaping[:, None]
    plain = torch.minimum(ratio * advantages, clipped * advantages)
    if not batch.shaping.any():
        return plain
    p = log_probs.exp()
    return torch.where(shaping > 0, p / (p + shaping) * advantages, plain)


def k3(log_probs: Tensor, reference_log_probs: Tensor) -> Tensor:
    """Estimate per token of KL(policy, reference) from tokens that the policy drew: u - ln u - 1, u = p_ref / p.

    Args:
        log_probs: Of the policy.
        reference_log_probs: Of the reference, same shape.
    """
    log_u = reference_log_probs - log_probs
    return log_u.exp() - log_u - 1


def per_step(values: Tensor, batch: TokenBatch, config: GRPOConfig) -> Tensor:
    """Tokens' values as one number, by `loss_type`. Sums over parts of a step add up to the whole.

    Args:
        values: (R, T - 1).
        batch: The completions, with the totals of the step.
        config: The loss type.
    """
    masked = values * batch.learned
    if config.loss_type == "grpo":
        lengths = batch.learned.sum(dim=1).clamp(min=1)
        return (masked.sum(dim=1) / lengths).sum() / batch.completions
    if config.loss_type == "dr_grpo":
        return masked.sum() / (batch.completions * config.max_completion_length)
    return masked.sum() / max(batch.total_tokens, 1)


def grpo_loss(
    log_probs: Tensor,
    batch: TokenBatch,
    config: GRPOConfig,
    old_log_probs: Tensor | None = None,
    reference_log_probs: Tensor | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """The loss and what to log of it. All log-probabilities are (R, T - 1), from `token_log_probs`.

    Args:
        log_probs: Of the policy that is trained.
        batch: The completions.
        config: The settings.
        old_log_probs: Of the policy that sampled; None: it is the one that is trained (ratio 1).
        reference_log_probs: Of the model that training started from; None: no KL term.
    """
    old = log_probs.detach() if old_log_probs is None else old_log_probs
    loss = -per_step(objective(log_probs, old, batch, config), batch, config)
    logged = {}
    with torch.no_grad():
        ratio = (log_probs - old).exp()
        up, down = batch.advantages[:, None] > 0, batch.advantages[:, None] < 0
        outside = (up & (ratio > 1 + config.clip_high)) | (down & (ratio < 1 - config.epsilon))
        outside &= batch.learned & (batch.shaping[:, None] == 0)
        logged["clip_share"] = int(outside.sum()) / max(batch.total_tokens, 1)
    if reference_log_probs is not None:
        divergence = per_step(k3(log_probs, reference_log_probs), batch, config)
        loss = loss + config.beta * divergence
        logged["kl"] = float(divergence.detach())
    return loss, logged
