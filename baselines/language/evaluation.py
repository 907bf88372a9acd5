"""Evaluation of a language model alone: greedy and sampled answers to held-out prompts, without hints or teachers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from baselines.language.grpo import GRPOConfig
from baselines.language.rollout import ROWS
from baselines.language.task import Reward, TaskPrompt, TextTask, Tokens
from experts.language.gpt import generate
from experts.language.model import LanguageModel


@dataclass(frozen=True)
class GradedAnswers:
    """P prompts, each answered greedily and n times by sampling."""

    prompts: list[str]
    """Keys: results of two models on the same prompts are paired."""
    greedy: list[Reward]
    """(P,)"""
    sampled: list[list[Reward]]
    """(P, n)"""
    distinct: list[int]
    """(P,) different answers among the sampled ones."""
    entropy: float
    """Nats per sampled word."""
    length: float
    """Mean words of the sampled answers."""

    def success(self) -> np.ndarray:
        """bool (P,) of the greedy answers."""
        return np.array([reward.success for reward in self.greedy])

    def pass_at(self, k: int) -> np.ndarray:
        """float (P,): probability that one of k sampled answers succeeds, estimated without bias from n >= k of them
        (1 - C(n - c, k) / C(n, k) with c successes; Chen et al. 2021)."""
        counts = [(len(rewards), sum(reward.success for reward in rewards)) for rewards in self.sampled]
        if any(n < k for n, _ in counts):
            raise ValueError(f"pass@{k} needs at least {k} sampled answers per prompt")
        return np.array([1 - math.comb(n - c, k) / math.comb(n, k) for n, c in counts])

    def to_dict(self, ks: Sequence[int] = (1,)) -> dict[str, Any]:
        """Means over prompts. Parts of the rewards (crash, speed, ...) are those of the greedy answers."""
        parts = {name for reward in self.greedy for name in reward.parts}
        return {
            "prompts": len(self.prompts),
            "success": float(self.success().mean()),
            "format": float(np.mean([reward.format for reward in self.greedy])),
            **{f"pass_at_{k}": float(self.pass_at(k).mean()) for k in ks if self.sampled and self.sampled[0]},
            "distinct": float(np.mean(self.distinct)),
            "entropy": self.entropy,
            "length": self.length,
            **{
                name: float(np.mean([reward.parts[name] for reward in self.greedy if name in reward.parts]))
                for name in sorted(parts)
            },
        }


def evaluate(
    model: LanguageModel,
    task: TextTask,
    prompts: Sequence[TaskPrompt],
    config: GRPOConfig,
    samples: int = 8,
    seed: int = 0,
) -> GradedAnswers:
    """Greedy and sampled answers to every prompt.

    Args:
        model: The model.
        task: Scores the answers.
        prompts: P prompts.
        config: Its temperature and max_completion_length hold.
        samples: Sampled answers per prompt.
        seed: Of the sampled answers.
    """
    torch.set_num_threads(1)
    stream = np.random.default_rng(seed)
    greedy: list[Reward] = []
    sampled: list[list[Reward]] = []
    distinct: list[int] = []
    entropies: list[float] = []
    words = 0
    at_once = max(ROWS // max(samples, 1), 1)
    for start in range(0, len(prompts), at_once):
        part = prompts[start : start + at_once]
        greedy += task.rewards(part, _write(model, task, part, config, None, 1)[0])
        if not samples:
            continue
        uniforms = stream.random((len(part) * samples, config.max_completion_length))
        texts, nats = _write(model, task, part, config, uniforms, samples)
        rewards = list(task.rewards([prompt for prompt in part for _ in range(samples)], texts))
        for i in range(len(part)):
            own = slice(i * samples, (i + 1) * samples)
            sampled.append(rewards[own])
            distinct.append(len(set(texts[own])))
        entropies.append(nats)
        words += sum(len(text) for text in texts)
    count = max(samples * len(prompts), 1)
    return GradedAnswers(
        [prompt.key for prompt in prompts],
        greedy,
        sampled or [[] for _ in prompts],
        distinct or [0] * len(prompts),
        sum(entropies) / words if words else math.nan,
        words / count,
    )


def greedy_episodes(
    model: LanguageModel, task: TextTask, seeds: Sequence[int], config: GRPOConfig
) -> list[dict[str, Any]]:
    """Greedy answers to held-out prompts as the episodes of a `lgdrl.evaluation.Evaluation`.

    Args:
        model: The model.
        task: Gives the prompt of each seed and scores the answers.
        seeds: One per episode.
        config: Its max_completion_length holds.
    Returns:
        Per seed: outcome (success | failure), the total reward as return, words of the answer as steps, and the
        parts of the reward.
    """
    torch.set_num_threads(1)
    prompts = task.held_out(seeds)
    episodes: list[dict[str, Any]] = []
    for start in range(0, len(prompts), ROWS):
        part = prompts[start : start + ROWS]
        answers, _ = _write(model, task, part, config, None, 1)
        for seed, answer, reward in zip(seeds[start:], answers, task.rewards(part, answers), strict=False):
            episodes.append(
                {
                    "seed": seed,
                    "backend": task.backend,
                    "outcome": "success" if reward.success else "failure",
                    "success": reward.success,
                    "episode_return": reward.total,
                    "steps": len(answer),
                    "format": reward.format,
                    **reward.parts,
                }
            )
    return episodes


def _write(
    model: LanguageModel,
    task: TextTask,
    prompts: Sequence[TaskPrompt],
    config: GRPOConfig,
    uniforms: np.ndarray | None,
    repeats: int,
) -> tuple[list[Tokens], float]:
    """Answers, and the sum of their words' entropies."""
    allowed = None if task.allowed is None else torch.from_numpy(task.allowed)
    written = generate(
        model,
        [prompt.tokens for prompt in prompts],
        [config.max_completion_length] * len(prompts),
        task.vocabulary.eos,
        uniforms,
        repeats,
        config.temperature,
        allowed,
    )
    inside = torch.arange(written.tokens.shape[1]) < written.lengths[:, None]
    return [written.row(i) for i in range(len(written))], float(written.entropies[inside].sum())
