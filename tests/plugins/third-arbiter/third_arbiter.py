"""An arbiter: the expert takes over where the learner's policy is undecided.

A policy is undecided where its likeliest action has a probability below a threshold. Such an arbiter needs neither
scenes nor critics, and asks for a label only where it executes it.

    lgdrl train strategy_options.arbiter.kind=third-arbiter strategy_options.arbiter.options.below=0.4
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lgdrl.guidance.arbiters import ArbiterPlugin, Replacing
from lgdrl.guidance.records import Labels, Reason, StepContext


@dataclass(frozen=True)
class UndecidedConfig:
    """Settings under `strategy_options.arbiter.options`."""

    below: float = 0.5  # probability of the likeliest action under which the expert takes over

    def __post_init__(self) -> None:
        if not 0 <= self.below <= 1:
            raise ValueError(f"below = {self.below}: choose 0 to 1")


class Undecided(Replacing):
    """Replaces the learner's action, where the expert's differs, in undecided steps of guided episodes."""

    reason = Reason.OTHER

    def __init__(self, config: UndecidedConfig) -> None:
        self.config = config
        self._undecided = np.zeros(0, bool)

    def requires(self, context: StepContext, wanted: np.ndarray, allowed: np.ndarray) -> np.ndarray:
        assert context.policy.probs is not None  # `Replacing` refuses continuous actions
        self._undecided = allowed & (context.policy.probs.max(axis=1) < self.config.below)
        return self._undecided

    def fires(self, context: StepContext, labels: Labels) -> np.ndarray:
        return self._undecided


ARBITER = ArbiterPlugin("third-arbiter", "where the policy is undecided", UndecidedConfig(), Undecided)
