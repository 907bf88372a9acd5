"""The gradient of all methods: completions and their advantages in, optimiser steps out.

The learner knows nothing of prompts or rewards. What a method trains on is decided by masks, advantages and the extra
loss of its strategy.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from baselines.language.grpo import GRPOConfig, TokenBatch, grpo_loss, token_log_probs
from baselines.language.rollout import Rollout, RolloutGroup
from baselines.language.strategy import TokenStrategy, mean
from experts.language.gpt import log_policy, padded
from experts.language.model import LanguageModel

PART = 48
"""Completions per backward pass: bounds memory; the gradient of a step is the sum over its parts."""

WeightedRollouts = list[tuple[Rollout, float]]
"""Rollouts and their advantages."""


class TokenLearner:
    """A language model, its optimiser, and the model that it is kept near to (`beta` > 0).

    Args:
        model: Trained in place.
        strategy: Adds its loss.
        config: GRPO's settings.
        allowed: bool (V,), words that an answer may contain; None: all.
    """

    def __init__(
        self, model: LanguageModel, strategy: TokenStrategy, config: GRPOConfig, allowed: Tensor | None
    ) -> None:
        self.model = model.requires_grad_(True)
        self.strategy = strategy
        self.config = config
        self.allowed = allowed
        self.reference: LanguageModel | None = None
        self.optimiser = torch.optim.AdamW(
            model.parameters(),
            config.learning_rate,
            (config.adam_beta1, config.adam_beta2),
            weight_decay=config.weight_decay,
        )

    def begin(self) -> None:
        """Start from the model as it is now: with `beta` > 0 it becomes the reference of the KL term."""
        if self.config.beta > 0:
            self.reference = self.model.copy()

    def learn(self, groups: Sequence[RolloutGroup], advantages: Sequence[np.ndarray]) -> dict[str, Any]:
        """Passes and optimiser steps over what was generated. A step without any advantage is not taken.

        Args:
            groups: The groups of an update.
            advantages: float64 (n,) per group of n completions.
        Returns:
            Means over the steps of loss, grad_norm, clip_share and, with a reference, kl; how many steps were taken.
        """
        config = self.config
        steps = []
        for share in np.array_split(np.arange(len(groups)), config.steps_per_generation):
            steps.append([pair for g in share for pair in zip(groups[g].rollouts, advantages[g], strict=True)])
        moves = config.num_iterations * config.steps_per_generation > 1
        prepared = [self._prepare(step, moves) for step in steps]
        logged = [self._optimise(parts) for _ in range(config.num_iterations) for parts in prepared if parts]
        columns = ("loss", "grad_norm", "clip_share", *(["kl"] if self.reference is not None else []))
        return {name: mean([values[name] for values in logged]) for name in columns} | {"steps": len(logged)}

    def _prepare(self, step: WeightedRollouts, moves: bool) -> list[_Part]:
        """The parts of one optimiser step; old log-probabilities where the policy will have moved by then."""
        ties_matter = self.config.beta > 0 or self.strategy.learns_from_ties
        kept = [(rollout, a) for rollout, a in step if a != 0 or ties_matter]
        totals = len(step), sum(_learned_tokens(rollout) for rollout, _ in step)
        parts = []
        for start in range(0, len(kept), PART):
            pairs = kept[start : start + PART]
            batch = pack(pairs, *totals)
            part = _Part([rollout for rollout, _ in pairs], batch)
            with torch.no_grad():
                if moves:
                    part.old = token_log_probs(self._policies(self.model, batch), batch)
                if self.reference is not None:
                    part.reference = token_log_probs(self._policies(self.reference, batch), batch)
            parts.append(part)
        return parts

    def _optimise(self, parts: Sequence[_Part]) -> dict[str, float]:
        sums: dict[str, float] = {"loss": 0.0}
        for part in parts:
            policies = self._policies(self.model, part.batch)
            log_probs = token_log_probs(policies, part.batch)
            loss, logged = grpo_loss(log_probs, part.batch, self.config, part.old, part.reference)
            extra = self.strategy.extra_loss(part.rollouts, part.batch, policies)
            if extra is not None:
                loss = loss + extra
            loss.backward()
            logged["loss"] = float(loss.detach())
            for name, value in logged.items():
                sums[name] = sums.get(name, 0.0) + value
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
        self.optimiser.step()
        self.optimiser.zero_grad()
        return {**sums, "grad_norm": float(norm)}

    def _policies(self, model: LanguageModel, batch: TokenBatch) -> Tensor:
        """Log-probabilities (R, T - 1, V) of the policy that is trained."""
        return log_policy(model(batch.tokens[:, :-1]), self.config.temperature, self.allowed)

    def state_dict(self) -> dict[str, Any]:
        """Weights of model and reference, and the optimiser, as copies."""
        return {
            "model": _copied(self.model),
            "reference": None if self.reference is None else _copied(self.reference),
            "optimiser": copy.deepcopy(self.optimiser.state_dict()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`, for a learner with the same config."""
        self.model.load_state_dict(state["model"])
        self.begin()
        if self.reference is not None:
            self.reference.load_state_dict(state["reference"])
        self.optimiser.load_state_dict(copy.deepcopy(state["optimiser"]))


class _Part:
    """What goes through the model at once."""

    def __init__(self, rollouts: list[Rollout], batch: TokenBatch) -> None:
        self.rollouts, self.batch = rollouts, batch
        self.old: Tensor | None = None
        self.reference: Tensor | None = None


def pack(pairs: WeightedRollouts, completions: int, total_tokens: int) -> TokenBatch:
    """Rollouts and their advantages as one batch of an optimiser step.

    Args:
        pairs: The rollouts with their advantages.
        completions: Of the whole step.
        total_tokens: Learned tokens of the whole step.
    """
    tokens, _ = padded([[*rollout.context, *rollout.tokens] for rollout, _ in pairs])
    learned = np.zeros((len(pairs), tokens.shape[1] - 1), bool)
    for row, (rollout, _) in zip(learned, pairs, strict=True):
        begin = len(rollout.context)
        row[begin - 1 : begin + len(rollout.tokens) - 1] = True
        if rollout.learned_opening is not None:
            row[begin - len(rollout.opening) - 1 : begin - 1] = rollout.learned_opening
    return TokenBatch(
        tokens,
        torch.from_numpy(learned),
        torch.tensor([a for _, a in pairs], dtype=torch.float32),
        torch.tensor([rollout.shaping for rollout, _ in pairs], dtype=torch.float32),
        completions,
        total_tokens,
    )


def _learned_tokens(rollout: Rollout) -> int:
    opening = 0 if rollout.learned_opening is None else int(rollout.learned_opening.sum())
    return len(rollout.tokens) + opening


def _copied(model: LanguageModel) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
