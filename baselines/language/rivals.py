"""Rivals of BREAD and MENTOR that use traces or a teacher more simply. The docstring of each names its source; none
claims to reproduce a paper's figures.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from baselines.language.grpo import GRPOConfig, TokenBatch, group_advantages
from baselines.language.method import token_method
from baselines.language.options import TokenOptions
from baselines.language.rollout import Author, Ledger, Request, Rollout, RolloutGroup, Sampler
from baselines.language.strategy import TokenSettings, TokenStrategy
from baselines.language.task import TaskPrompt, Trace
from experts.language.gpt import entropy, log_policy
from experts.language.model import LanguageModel
from experts.language.teacher import TokenProvider
from sim.bounds import Bounds, Count, NonNegative, Number, Share, config_dataclass

# --- a whole trace in the group --------------------------------------------------------------------------------------


@config_dataclass
class WholeTraceConfig:
    shaping: NonNegative = 0.1  # p / (p + shaping) in place of the ratio on the trace's words; 0: the clipped ratio


class WholeTrace(TokenStrategy):
    """One member of each group is the expert's trace. From LUFFY (its published repository): seven own answers and one
    trace, advantages over all eight, the trace's ratio shaped as p / (p + 0.1) and not clipped."""

    def __init__(self, config: WholeTraceConfig, settings: TokenSettings) -> None:
        self.config: WholeTraceConfig = config

    def collect(self, prompts: Sequence[TaskPrompt], sampler: Sampler) -> list[RolloutGroup]:
        taught = [prompt for prompt in prompts if prompt.trace]
        groups = sampler.groups([Request.bare(prompt) for prompt in taught], sampler.config.num_generations - 1)
        rewards = sampler.task.rewards(taught, [prompt.trace.tokens for prompt in taught if prompt.trace])
        nothing = np.zeros(0, np.float32)
        for group, reward in zip(groups, rewards, strict=True):
            prompt, trace = group.prompt, _trace(group.prompt)
            group.rollouts.append(
                Rollout(
                    prompt,
                    prompt.tokens,
                    (),
                    trace.tokens,
                    nothing,
                    nothing,
                    reward,
                    Author.EXPERT,
                    shaping=self.config.shaping,
                )
            )
            sampler.ledger.trace += len(trace.tokens)
        return groups + sampler.groups([Request.bare(prompt) for prompt in prompts if not prompt.trace])


@dataclass(frozen=True)
class WholeTraceOptions(TokenOptions):
    method: WholeTraceConfig = field(default_factory=WholeTraceConfig)


def _whole_trace(options: WholeTraceOptions, settings: TokenSettings) -> WholeTrace:
    return WholeTrace(options.method, settings)


WHOLE_TRACE = token_method(
    "whole-trace",
    "language model: the whole trace as a member of the group (LUFFY-like)",
    WholeTraceOptions(),
    _whole_trace,
)


# --- a fixed opening -------------------------------------------------------------------------------------------------


@config_dataclass
class FixedPrefixConfig:
    share: Annotated[float, Bounds(0, 1, open_high=True)] = 0.5  # of a trace's episodes that are given away
    anchor_mode: Literal["prefix", "hint"] = "prefix"  # begins the answer, or is shown in the prompt (as in QuestA)


class FixedPrefix(TokenStrategy):
    """The same share of every trace is given away, however hard the prompt is for the student. The idea is QuestA's,
    half of a solution beside the prompt. The worth of BREAD's search shows against this."""

    def __init__(self, config: FixedPrefixConfig, settings: TokenSettings) -> None:
        self.config: FixedPrefixConfig = config

    def collect(self, prompts: Sequence[TaskPrompt], sampler: Sampler) -> list[RolloutGroup]:
        return sampler.groups([self._request(prompt, sampler) for prompt in prompts])

    def _request(self, prompt: TaskPrompt, sampler: Sampler) -> Request:
        anchor = _anchor(prompt, self.config.share)
        if not anchor:
            return Request.bare(prompt)
        opening = _trace(prompt).opening(anchor)
        return Request.anchored(sampler.task, prompt, opening, anchor, self.config.anchor_mode)


@dataclass(frozen=True)
class FixedPrefixOptions(TokenOptions):
    method: FixedPrefixConfig = field(default_factory=FixedPrefixConfig)


def _fixed_prefix(options: FixedPrefixOptions, settings: TokenSettings) -> FixedPrefix:
    return FixedPrefix(options.method, settings)


FIXED_PREFIX = token_method(
    "fixed-prefix", "language model: half of every trace given away (QuestA-like)", FixedPrefixOptions(), _fixed_prefix
)


# --- one hybrid per group --------------------------------------------------------------------------------------------


@config_dataclass
class PrefixRFTConfig:
    share: Share = 0.95  # of a trace's episodes that open the hybrid answer at the start ...
    final_share: Share = 0.05  # ... and at the end
    horizon: Count = 80  # updates in between, along half a cosine
    learned: Share = 0.2  # of the opening's words that are learned from, those of highest entropy

    def __post_init__(self) -> None:
        if self.final_share > self.share:
            raise ValueError(f"final_share = {self.final_share}: choose at most share = {self.share}")


class PrefixRFT(TokenStrategy):
    """One answer of each group continues the opening of a trace, and some of the opening is learned from as well. From
    Prefix-RFT, known to us from second sources only: advantages without a standard deviation, words of the opening at
    the top fifth of entropy, an opening that shortens along a cosine."""

    def __init__(self, config: PrefixRFTConfig, settings: TokenSettings) -> None:
        self.config: PrefixRFTConfig = config
        self._stream = np.random.default_rng(settings.seed)
        self._share = config.share

    def collect(self, prompts: Sequence[TaskPrompt], sampler: Sampler) -> list[RolloutGroup]:
        config = self.config
        fade = 0.5 * (1 + math.cos(math.pi * min(sampler.update / config.horizon, 1.0)))
        self._share = config.final_share + (config.share - config.final_share) * fade
        led = [prompt for prompt in prompts if _anchor(prompt, self._share)]
        groups = sampler.groups([Request.bare(prompt) for prompt in led], sampler.config.num_generations - 1)
        hybrids = sampler.groups([self._request(prompt) for prompt in led], 1, self._stream)
        for group, hybrid in zip(groups, hybrids, strict=True):
            (rollout,) = hybrid.rollouts
            mask = uncertain_words(sampler.model, rollout, config.learned, sampler)
            group.rollouts.append(dataclasses.replace(rollout, learned_opening=mask))
        alone = [prompt for prompt in prompts if not _anchor(prompt, self._share)]
        return groups + sampler.groups([Request.bare(prompt) for prompt in alone])

    def _request(self, prompt: TaskPrompt) -> Request:
        anchor = _anchor(prompt, self._share)
        opening = _trace(prompt).opening(anchor)
        return Request(prompt, prompt.tokens + opening, opening, anchor, len(opening))

    def advantages(self, groups: Sequence[RolloutGroup], config: GRPOConfig) -> list[np.ndarray]:
        return group_advantages([np.array([r.reward.total for r in group.rollouts]) for group in groups], "none")

    def metrics(self) -> dict[str, float | None]:
        return {"share": self._share}

    def state_dict(self) -> dict:
        return {"stream": self._stream.bit_generator.state}

    def load_state_dict(self, state: dict) -> None:
        self._stream.bit_generator.state = state["stream"]


@torch.no_grad()
def uncertain_words(model: LanguageModel, rollout: Rollout, share: float, sampler: Sampler) -> np.ndarray:
    """The words of a rollout's opening at which the student is most uncertain.

    Args:
        model: The student.
        rollout: Has an opening.
        share: Of the opening's words.
        sampler: Its temperature and allowed words hold.
    Returns:
        bool (opening,).
    """
    count = len(rollout.opening)
    logits = model(torch.tensor([rollout.context]))[0, -count - 1 : -1]
    policies = log_policy(logits, sampler.config.temperature, sampler.allowed)
    chosen = np.zeros(count, bool)
    chosen[np.argsort(-entropy(policies).numpy(), kind="stable")[: round(share * count)]] = True
    return chosen


@dataclass(frozen=True)
class PrefixRFTOptions(TokenOptions):
    method: PrefixRFTConfig = field(default_factory=PrefixRFTConfig)


def _prefix_rft(options: PrefixRFTOptions, settings: TokenSettings) -> PrefixRFT:
    return PrefixRFT(options.method, settings)


PREFIX_RFT = token_method(
    "prefix-rft",
    "language model: one answer per group continues a trace (Prefix-RFT-like)",
    PrefixRFTOptions(),
    _prefix_rft,
)


# --- on-policy distillation ------------------------------------------------------------------------------------------


@config_dataclass
class DistillationConfig:
    coefficient: Number = 1.0  # of the divergence from the teacher
    rl_share: Share = 0.0  # of GRPO's own loss; 0: rewards are not used


class Distillation(TokenStrategy):
    """The student writes, the teacher corrects every word: KL(student, teacher), exact over the vocabulary, on the
    student's own answers (on-policy distillation). A strong rival wherever MENTOR applies, because it uses the same
    teacher more fully."""

    learns_from_ties = True

    def __init__(self, config: DistillationConfig, settings: TokenSettings) -> None:
        self.config: DistillationConfig = config
        self.teacher: TokenProvider = settings.required_teacher()
        self._ledger = Ledger()

    def collect(self, prompts: Sequence[TaskPrompt], sampler: Sampler) -> list[RolloutGroup]:
        self._ledger = sampler.ledger
        return super().collect(prompts, sampler)

    def advantages(self, groups: Sequence[RolloutGroup], config: GRPOConfig) -> list[np.ndarray]:
        return [self.config.rl_share * a for a in super().advantages(groups, config)]

    def extra_loss(self, rollouts: Sequence[Rollout], batch: TokenBatch, policies: Tensor) -> Tensor | None:
        lengths = torch.tensor([len(rollout.tokens) for rollout in rollouts])
        longest = int(lengths.max())
        filled = [[*r.tokens, *[0] * (longest - len(r.tokens))][: longest - 1] for r in rollouts]
        teacher = self.teacher.follow([rollout.context for rollout in rollouts])(filled, longest)
        self._ledger.teacher += int(lengths.sum())
        words = torch.arange(longest)
        first = torch.tensor([len(rollout.context) - 1 for rollout in rollouts])
        at = (first[:, None] + words).clamp(max=policies.shape[1] - 1)
        student = policies.gather(1, at[:, :, None].expand(-1, -1, policies.shape[2]))
        heard = (words < lengths[:, None]) & ~teacher.isnan().any(dim=-1)
        divergence = _divergence(student, teacher.nan_to_num(nan=0.0, neginf=-math.inf))
        return self.config.coefficient * divergence.masked_fill(~heard, 0.0).sum() / max(batch.total_tokens, 1)


def _divergence(student: Tensor, teacher: Tensor, floor: float = -20.0) -> Tensor:
    """KL (...) of log-probabilities (..., V); the teacher's are never taken below `floor`."""
    student = student.clamp(min=-1e4)
    return (student.exp() * (student - teacher.clamp(min=floor))).sum(dim=-1)


@dataclass(frozen=True)
class DistillationOptions(TokenOptions):
    method: DistillationConfig = field(default_factory=DistillationConfig)


def _distillation(options: DistillationOptions, settings: TokenSettings) -> Distillation:
    return Distillation(options.method, settings)


DISTILLATION = token_method(
    "distillation",
    "language model: a teacher corrects every word",
    DistillationOptions(),
    _distillation,
    needs_teacher=True,
)


# --- traces ----------------------------------------------------------------------------------------------------------


def _trace(prompt: TaskPrompt) -> Trace:
    assert prompt.trace is not None
    return prompt.trace


def _anchor(prompt: TaskPrompt, share: float) -> int:
    """Episodes that a share of a prompt's trace amounts to; never the last one, 0 without a trace."""
    episodes = prompt.trace.episodes if prompt.trace else 1
    return min(round(share * episodes), episodes - 1)
