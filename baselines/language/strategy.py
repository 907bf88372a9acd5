"""How a language model learns with an expert: the hooks in which arms differ. Everything else is one trainer.

`collect` decides what is generated in an update, `advantages` what each completion is worth, `extra_loss` what is
added to the loss. `Strategy` itself is GRPO; an arm overrides only the hooks that it needs. Its counterpart for worlds
without text is `lgdrl.guidance.strategy`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from baselines.language.grpo import Batch, GRPOConfig, group_advantages
from baselines.language.rollout import Desk, Group, Request, Rollout
from baselines.language.task import Prompt
from experts.language.teacher import TokenProvider


class Strategy:
    """GRPO from bare prompts."""

    name = "grpo"
    config: Any = None
    """Its dataclass, if it has any settings; a checkpoint belongs to one config."""
    learns_from_ties = False
    """Whether completions with an advantage of 0 matter to `extra_loss`; otherwise they are not computed."""

    def collect(self, prompts: Sequence[Prompt], desk: Desk) -> list[Group]:
        """The groups to learn from. Default: one per prompt, from the bare prompt."""
        return desk.groups([Request.bare(prompt) for prompt in prompts])

    def advantages(self, groups: Sequence[Group], config: GRPOConfig) -> list[np.ndarray]:
        """float64 (n,) per group of n completions. Default: rewards against their group's mean and spread."""
        rewards = [np.array([rollout.reward.total for rollout in group.rollouts]) for group in groups]
        return group_advantages(rewards, config.scale_rewards)

    def extra_loss(self, rollouts: Sequence[Rollout], batch: Batch, policies: Tensor) -> Tensor | None:
        """What to add to the loss, summed over the tokens of `batch` and normalised by its totals.

        Args: R rollouts; the same as tensors; log-probabilities (R, T - 1, V) of the student.
        """
        return None

    def metrics(self) -> dict[str, float | None]:
        """Columns of the last update's row; None where there is nothing to average."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """JSON-ready values that a resumed run needs to continue identically."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""


@dataclass(frozen=True)
class Setting:
    """What a strategy may know of the run that it takes part in."""

    seed: np.random.SeedSequence
    """For its own random draws."""
    teacher: TokenProvider | None = None


@dataclass(frozen=True)
class Arm:
    """A named way of training. `defaults` is an instance of its frozen config dataclass."""

    name: str
    summary: str
    defaults: Any
    build: Callable[[Any, Setting], Strategy]
    """(resolved config, setting) -> strategy. UsageError where the setting lacks what it needs."""
    sft: bool = True
    """Starts from a model that has imitated the traces."""
    rl: bool = True
    """Goes on with reinforcement learning."""
    needs_teacher: bool = False


def mean(values: Sequence[float] | np.ndarray) -> float | None:
    """Their mean, None of nothing."""
    return float(np.mean(values)) if len(values) else None
