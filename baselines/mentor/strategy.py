"""MENTOR-style training: beside its own answers, the student learns from some that a teacher helped to write.

MENTOR (arXiv 2510.04140; paper and released code read): N1 on-policy and N2 mixed answers per prompt (`mixing`), one
clipped loss over all of them. On-policy answers have GRPO's advantages, within the on-policy group alone; mixed ones
alpha(t) max(0, R - mean on-policy), never negative. The ratio of a mixed word is the student's own, new over old: no
correction towards the mixture. The threshold comes from the on-policy entropies of the update before; in the first one
it is infinite, so that update is the student's alone (the code has 999 there, nearly the same). When alpha has fallen
to 0, or with N2 = 0, nothing is mixed any more and this is GRPO to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import torch

from baselines.language.grpo import GRPOConfig, group_advantages
from baselines.language.method import token_method
from baselines.language.options import TokenOptions
from baselines.language.rollout import Author, Request, Rollout, RolloutGroup, Sampler
from baselines.language.strategy import TokenSettings, TokenStrategy, mean
from baselines.language.task import TaskPrompt
from baselines.mentor import mixing
from baselines.mentor.mixing import Mixed, WeightRule
from sim.bounds import Bounds, Count, NonNegative, config_dataclass


@config_dataclass
class MENTORConfig:
    """How much teacher, and for how long."""

    num_mixed: Annotated[int, Bounds(0, 10_000)] = 4  # mixed answers per prompt, beside num_generations on-policy ones
    # of on-policy entropies, from which on the teacher decides alone
    quantile: Annotated[float, Bounds(0, 1, open_low=True, open_high=True)] = 0.95
    floor: NonNegative = 0.3  # nats below which the threshold never falls; the released code has 1.5, which on a choice
    # among five actions (at most 1.61 nats) would mute the teacher
    horizon: Count = 80  # updates in which the teacher fades out; the paper has 120
    fade: bool = True  # False, for comparison: alpha is 1 throughout
    expert_cap: NonNegative | None = None  # most that the advantages of a prompt's mixed answers may add up to
    draft: Count = 4  # words that the student writes before the teacher reads them
    weights: Literal["entropy", "random", "constant"] = "entropy"
    # for comparison, of equal mean (that of the rule on the last update's on-policy words): the same weights at random
    # positions, or their mean at every position


class MENTOR(TokenStrategy):
    """Mixed answers beside the student's own.

    Args:
        config: The settings.
        settings: Of the run; with a live teacher.
    Raises:
        UsageError: There is no teacher.
    """

    def __init__(self, config: MENTORConfig, settings: TokenSettings) -> None:
        self.config: MENTORConfig = config
        self.teacher = settings.required_teacher()
        self.threshold = math.inf
        self._pool = np.zeros(1)  # weights that the rule would have given the last update's on-policy words
        self._stream = np.random.default_rng(settings.seed)
        self._alpha = 0.0
        self._last: dict[str, float | None] = {}

    def collect(self, prompts: Sequence[TaskPrompt], sampler: Sampler) -> list[RolloutGroup]:
        """Groups whose first num_generations answers are the student's, the others mixed."""
        groups = super().collect(prompts, sampler)
        self._alpha = mixing.alpha(sampler.update, self.config.horizon) if self.config.fade else 1.0
        self._last = {"alpha": self._alpha, "threshold": self.threshold if math.isfinite(self.threshold) else None}
        if self._alpha > 0 and self.config.num_mixed:
            self._last |= self._mix(groups, sampler)
        self._adapt(np.concatenate([rollout.entropies for group in groups for rollout in _own(group)]))
        return groups

    def _mix(self, groups: Sequence[RolloutGroup], sampler: Sampler) -> dict[str, float | None]:
        """Add mixed answers to the groups; what to log of them."""
        count, config = self.config.num_mixed, sampler.config
        requests = [Request.bare(group.prompt) for group in groups]
        shape = (len(requests) * count, config.max_completion_length, mixing.USES)
        written = mixing.write_mixed(
            sampler.model,
            self.teacher,
            [request.context for request in requests],
            [config.max_completion_length] * len(requests),
            sampler.task.vocabulary.eos,
            self._stream.random(shape),
            self._rule(),
            self.config.draft,
            count,
            config.temperature,
            sampler.allowed,
        )
        owners = [request for request in requests for _ in range(count)]
        rollouts = sampler.scored(owners, written.completions, Author.MIXED, written.taught)
        for i, group in enumerate(groups):
            group.rollouts += rollouts[i * count : (i + 1) * count]
        sampler.ledger.student += written.drafted
        sampler.ledger.teacher += written.read
        return _columns(written, rollouts)

    def _rule(self) -> WeightRule:
        if self.config.weights == "random":
            return mixing.anywhere(self._pool)
        if self.config.weights == "constant":
            return mixing.everywhere(float(self._pool.mean()))
        return mixing.by_entropy(self.threshold)

    def _adapt(self, entropies: np.ndarray) -> None:
        """Threshold and weights of the next update, from the on-policy words of this one."""
        self.threshold = mixing.threshold_of(entropies, self.config.quantile, self.config.floor)
        self._pool = mixing.entropy_weights(torch.from_numpy(entropies), self.threshold).numpy()

    def advantages(self, groups: Sequence[RolloutGroup], config: GRPOConfig) -> list[np.ndarray]:
        own = [np.array([rollout.reward.total for rollout in _own(group)]) for group in groups]
        mixed = [np.array([r.reward.total for r in group.rollouts if r.author is Author.MIXED]) for group in groups]
        return [
            np.concatenate([a, mixing.mixed_advantages(m, r, self._alpha, cap=self.config.expert_cap)])
            for a, m, r in zip(group_advantages(own, config.scale_rewards), mixed, own, strict=True)
        ]

    def metrics(self) -> dict[str, float | None]:
        return self._last

    def state_dict(self) -> dict[str, Any]:
        return {
            "stream": self._stream.bit_generator.state,
            "threshold": self.threshold,
            "pool": self._pool.astype(float).tolist(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._stream.bit_generator.state = state["stream"]
        self.threshold = state["threshold"]
        self._pool = np.array(state["pool"], np.float32)


def _own(group: RolloutGroup) -> list[Rollout]:
    return [rollout for rollout in group.rollouts if rollout.author is Author.STUDENT]


def _columns(written: Mixed, rollouts: Sequence[Rollout]) -> dict[str, float | None]:
    inside = torch.arange(written.weights.shape[1]) < written.completions.lengths[:, None]
    return {
        "weight": float(written.weights[inside].mean()),  # of the teacher, mean over the words of mixed answers
        "taught_share": float(written.taught[inside].float().mean()),  # of them drawn in place of a rejected draft
        "acceptance": written.acceptance,  # of drafted words that the teacher was asked about
        "mixed_success": mean([rollout.reward.success for rollout in rollouts]),
    }


@dataclass(frozen=True)
class MENTOROptions(TokenOptions):
    method: MENTORConfig = field(default_factory=MENTORConfig)


def _build(options: MENTOROptions, settings: TokenSettings) -> MENTOR:
    return MENTOR(options.method, settings)


METHOD = token_method(
    "mentor",
    "language model: GRPO with a teacher's words where the student is uncertain (MENTOR-style)",
    MENTOROptions(),
    _build,
    needs_teacher=True,
)
