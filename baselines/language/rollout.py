"""Groups of scored completions for prompts, with every token accounted for by who wrote it.

Methods are compared at equal numbers of *generated* tokens, not of updates: a search for hints and a teacher's words
cost something too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import torch

from baselines.language.grpo import GRPOConfig
from baselines.language.task import Reward, TaskPrompt, TextTask, Tokens
from experts.language.gpt import Completions, generate
from experts.language.model import LanguageModel
from sim.errors import UsageError

ROWS = 256
"""Most completions that are written at once: bounds memory."""


class Author(StrEnum):
    """Who wrote a completion."""

    STUDENT = "student"
    MIXED = "mixed"
    """Student and teacher, word by word."""
    EXPERT = "expert"
    """A recorded trace."""


@dataclass(slots=True)
class Ledger:
    """Tokens so far, by purpose."""

    student: int = 0
    """Written by the student for what it then learned from; drafts that a teacher rejected are among them."""
    search: int = 0
    """Written by the student in groups that were thrown away, in search of a better hint."""
    teacher: int = 0
    """Read by a live teacher to say what it would have written."""
    trace: int = 0
    """Of recorded traces, each time that they were used: to begin a group, as a member of one, or to imitate."""

    @property
    def generated(self) -> int:
        """What budgets count: student, search and teacher. A recorded trace costs nothing to generate again."""
        return self.student + self.search + self.teacher

    def load(self, counts: Mapping[str, int]) -> None:
        """Take over the counts of another ledger, as `dataclasses.asdict` gives them."""
        for name, count in counts.items():
            setattr(self, name, count)

    def to_dict(self) -> dict[str, int]:
        """Tokens by name, and their sum that counts as generated."""
        counts = {f"{name}_tokens": count for name, count in dataclasses.asdict(self).items()}
        return {**counts, "generated_tokens": self.generated}


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be completed: a bare prompt, or one with the first `anchor` episodes of its trace given away."""

    prompt: TaskPrompt
    context: Tokens
    """What the model is given."""
    opening: Tokens = ()
    """The last tokens of `context`, where they open the answer."""
    anchor: int = 0
    revealed: int = 0
    """Tokens of the trace in `context`."""

    @classmethod
    def bare(cls, prompt: TaskPrompt) -> Request:
        return cls(prompt, prompt.tokens)

    @classmethod
    def anchored(cls, task: TextTask, prompt: TaskPrompt, opening: Tokens, anchor: int, mode: str) -> Request:
        """The opening of a trace as "prefix" of the answer, which the model continues, or as "hint" in the prompt,
        after which it answers from the start."""
        if mode == "prefix":
            return cls(prompt, prompt.tokens + opening, opening, anchor, len(opening))
        return cls(prompt, task.hinted(prompt, opening), (), anchor, len(opening))


@dataclass(frozen=True, slots=True)
class Rollout:
    """One scored completion of n tokens."""

    prompt: TaskPrompt
    context: Tokens
    opening: Tokens
    """The last tokens of `context` where they are part of the answer."""
    tokens: Tokens
    log_probs: np.ndarray
    """float32 (n,), of the student when it was sampled; empty for a trace, which was not sampled."""
    entropies: np.ndarray
    """float32 (n,), nats, of the student where each token was chosen; empty for a trace."""
    reward: Reward
    author: Author = Author.STUDENT
    taught: np.ndarray | None = None
    """bool (n,) in a mixed rollout: words that are the teacher's."""
    learned_opening: np.ndarray | None = None
    """bool (opening,): words of the opening that are learned from too; None: none of them."""
    shaping: float = 0.0
    """0: the clipped ratio. Above: p / (p + shaping) in its place, for words that were not sampled (LUFFY)."""

    @property
    def answer(self) -> Tokens:
        return self.opening + self.tokens

    def to_dict(self) -> dict[str, Any]:
        """Plain values, one line of a JSONL log."""
        return {
            "prompt": self.prompt.key,
            "author": str(self.author),
            "context": list(self.context),
            "opening": len(self.opening),
            "tokens": list(self.tokens),
            "log_probs": [round(float(x), 5) for x in self.log_probs],
            "reward": self.reward.total,
            "success": self.reward.success,
            "format": self.reward.format,
            **self.reward.parts,
        }


@dataclass(slots=True)
class RolloutGroup:
    """Completions of one prompt whose rewards are compared with each other."""

    request: Request
    rollouts: list[Rollout]

    @property
    def prompt(self) -> TaskPrompt:
        return self.request.prompt

    @property
    def success(self) -> float:
        """Share of successes."""
        return sum(rollout.reward.success for rollout in self.rollouts) / len(self.rollouts)

    @property
    def tokens(self) -> int:
        return sum(len(rollout.tokens) for rollout in self.rollouts)


@dataclass
class Sampler:
    """Writes and scores completions of the present student, and counts their tokens."""

    task: TextTask
    model: LanguageModel
    config: GRPOConfig
    stream: np.random.Generator
    """Draws the words of bare groups."""
    ledger: Ledger = field(default_factory=Ledger)
    update: int = 0
    """Number of the present update, from 1."""
    bare: list[Rollout] = field(default_factory=list)
    """The student's answers to bare prompts in this update, for whatever purpose: how good it is by itself."""

    @property
    def allowed(self) -> torch.Tensor | None:
        return None if self.task.allowed is None else torch.from_numpy(self.task.allowed)

    def groups(
        self, requests: Sequence[Request], count: int | None = None, stream: np.random.Generator | None = None
    ) -> list[RolloutGroup]:
        """A group of completions per request, all counted as the student's.

        Args:
            requests: What to complete.
            count: Completions per request; None: num_generations.
            stream: Draws the words; None: that of bare groups.
        Raises:
            UsageError: An opening leaves nothing to write.
        """
        count, stream = count or self.config.num_generations, stream or self.stream
        at_once = max(ROWS // count, 1)
        parts = [requests[i : i + at_once] for i in range(0, len(requests), at_once)]
        return [group for part in parts for group in self._groups(part, count, stream)]

    def _groups(self, requests: Sequence[Request], count: int, stream: np.random.Generator) -> list[RolloutGroup]:
        config = self.config
        limits = [config.max_completion_length - len(request.opening) for request in requests]
        if min(limits) < 1:
            raise UsageError(
                f"max_completion_length = {config.max_completion_length}: an opening of "
                f"{config.max_completion_length - min(limits)} tokens leaves nothing to write; allow longer answers"
            )
        written = generate(
            self.model,
            [request.context for request in requests],
            limits,
            self.task.vocabulary.eos,
            stream.random((len(requests) * count, config.max_completion_length)),
            count,
            config.temperature,
            self.allowed,
        )
        rollouts = self.scored([request for request in requests for _ in range(count)], written)
        groups = [RolloutGroup(request, rollouts[i * count : (i + 1) * count]) for i, request in enumerate(requests)]
        for group in groups:
            self.ledger.student += group.tokens
            self.ledger.trace += group.request.revealed
            if not group.request.revealed:
                self.bare += group.rollouts
        return groups

    def scored(
        self,
        requests: Sequence[Request],
        written: Completions,
        author: Author = Author.STUDENT,
        taught: torch.Tensor | None = None,
    ) -> list[Rollout]:
        """What B rows wrote, with rewards.

        Args:
            requests: The request of every row.
            written: Their tokens.
            author: Who wrote them.
            taught: bool (B, N), words that are a teacher's.
        """
        texts = [written.row(i) for i in range(len(written))]
        prompts = [request.prompt for request in requests]
        answers = [request.opening + text for request, text in zip(requests, texts, strict=True)]
        rewards = self.task.rewards(prompts, answers)
        return [
            Rollout(
                request.prompt,
                request.context,
                request.opening,
                text,
                written.log_probs[i, : len(text)].numpy(),
                written.entropies[i, : len(text)].numpy(),
                reward,
                author,
                None if taught is None else taught[i, : len(text)].numpy(),
            )
            for i, (request, text, reward) in enumerate(zip(requests, texts, rewards, strict=True))
        ]

    def discard(self, group: RolloutGroup) -> None:
        """Count the tokens of a group as search, because nothing is learned from it."""
        self.ledger.student -= group.tokens
        self.ledger.search += group.tokens
