"""How a language model learns with an expert: the hooks in which methods differ. Everything else is one loop.

`collect` decides what is generated in an update, `advantages` what each completion is worth, `extra_loss` what is
added to the loss. `TokenStrategy` itself is GRPO; a method overrides only the hooks that it needs. The counterpart for
policies that choose actions is `lgdrl.guidance.strategy`: its hooks are per step of an environment, these per group of
completions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from baselines.language.grpo import GRPOConfig, TokenBatch, group_advantages
from baselines.language.rollout import Request, Rollout, RolloutGroup, Sampler
from baselines.language.task import TaskPrompt
from experts.language.teacher import TokenProvider
from sim.errors import UsageError


class TokenStrategy:
    """GRPO from bare prompts."""

    learns_from_ties = False
    """Whether completions with an advantage of 0 matter to `extra_loss`; otherwise they are not computed."""

    def collect(self, prompts: Sequence[TaskPrompt], sampler: Sampler) -> list[RolloutGroup]:
        """The groups to learn from. Default: one per prompt, from the bare prompt.

        Args:
            prompts: The prompts of this update.
            sampler: Writes and scores completions of the present student.
        """
        return sampler.groups([Request.bare(prompt) for prompt in prompts])

    def advantages(self, groups: Sequence[RolloutGroup], config: GRPOConfig) -> list[np.ndarray]:
        """What each completion is worth. Default: rewards against their group's mean and spread.

        Args:
            groups: What `collect` returned.
            config: GRPO's settings.
        Returns:
            float64 (n,) per group of n completions.
        """
        rewards = [np.array([rollout.reward.total for rollout in group.rollouts]) for group in groups]
        return group_advantages(rewards, config.scale_rewards)

    def extra_loss(self, rollouts: Sequence[Rollout], batch: TokenBatch, policies: Tensor) -> Tensor | None:
        """What to add to the loss; None: nothing.

        Args:
            rollouts: R rollouts.
            batch: The same as tensors.
            policies: The student's log-probabilities, (R, T - 1, V).
        Returns:
            A sum over the tokens of `batch`, normalised by its totals.
        """
        return None

    def metrics(self) -> dict[str, float | None]:
        """What to log of the last update, without a group; None where there is nothing to average."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Plain values that a resumed run needs to continue identically."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""


@dataclass(frozen=True)
class TokenSettings:
    """What a strategy may know of the run that it takes part in."""

    seed: np.random.SeedSequence
    """For its own random draws."""
    teacher: TokenProvider | None = None

    def required_teacher(self) -> TokenProvider:
        """The teacher.

        Raises:
            UsageError: The run has none.
        """
        if self.teacher is None:
            raise UsageError("this strategy needs a live teacher of the task's vocabulary: give it one")
        return self.teacher


def mean(values: Sequence[float] | np.ndarray) -> float | None:
    """Their mean, None of nothing."""
    return float(np.mean(values)) if len(values) else None
