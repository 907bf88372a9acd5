"""What a text task offers a loop: prompts, a verifier, and expert traces cut into episodes.

A task is anything with these few members; no base class is needed. Tokens are ids of the task's vocabulary. An answer
is what follows the prompt, up to and including the end-of-text token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from experts.language.vocabulary import HINT, HINTED, Vocabulary
from sim.errors import UsageError

Tokens = tuple[int, ...]
Split = Literal["train", "test"]


@dataclass(frozen=True, slots=True)
class Trace:
    """An expert's whole answer. Episode k is tokens[ends[k - 1] : ends[k]]; boundaries are token offsets, so that a
    prefix and its rest are the same tokens as the whole."""

    tokens: Tokens
    ends: tuple[int, ...]

    def __post_init__(self) -> None:
        ascending = all(a < b for a, b in zip((0, *self.ends), self.ends, strict=False))
        if not (self.ends and ascending and self.ends[-1] == len(self.tokens)):
            raise ValueError(
                f"ends = {self.ends}: expected ascending offsets of which the last is {len(self.tokens)}, the length"
            )

    @property
    def episodes(self) -> int:
        return len(self.ends)

    def opening(self, episodes: int) -> Tokens:
        """The beginning of the answer.

        Args:
            episodes: How many episodes of it.
        """
        return self.tokens[: self.ends[episodes - 1]] if episodes else ()

    def merged(self, most: int) -> Trace:
        """The same trace in fewer episodes of nearly equal length, at boundaries that it has already.

        Args:
            most: Most episodes.
        """
        if self.episodes <= most:
            return self
        kept: list[int] = []
        for k in range(1, most):
            wanted = len(self.tokens) * k / most
            first = self.ends.index(kept[-1]) + 1 if kept else 0
            beyond = self.episodes - (most - k)
            kept.append(min(self.ends[first:beyond], key=lambda end: abs(end - wanted)))
        return Trace(self.tokens, (*kept, len(self.tokens)))


@dataclass(frozen=True, slots=True)
class TaskPrompt:
    """One prompt."""

    key: str
    """Unique and permanent: rewards may be cached under it, and results of different methods are paired by it."""
    tokens: Tokens
    trace: Trace | None = None
    """An expert's answer that the verifier accepts; None where there is none (or none is given away)."""


@dataclass(frozen=True, slots=True)
class Reward:
    """The verifier's score of one answer."""

    total: float
    """What is maximised, in [0, 1]."""
    success: bool
    """Whether the answer solves the task. Searches for hints and final results go by this, not by `total`."""
    format: bool
    """Whether the answer could be read at all."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Anything else worth a column, by name (crash, speed, ...)."""


class TextTask(Protocol):
    """A set of prompts and a verifier."""

    name: str
    backend: str
    """Where the answers are tried out, for reports: `engine` or `text`."""
    vocabulary: Vocabulary
    allowed: np.ndarray | None
    """bool (V,): words that an answer may contain; None: all. Traces keep to it."""

    def prompts(self, split: Split) -> Sequence[TaskPrompt]:
        """The prompts of a split, always the same and in the same order. Traces are only used on "train".

        Args:
            split: Which ones.
        """
        ...

    def held_out(self, seeds: Sequence[int]) -> Sequence[TaskPrompt]:
        """Prompts for evaluation, none of which is in a split.

        Args:
            seeds: One per prompt; the same seed always gives the same prompt.
        """
        ...

    def rewards(self, prompts: Sequence[TaskPrompt], answers: Sequence[Tokens]) -> Sequence[Reward]:
        """Score answers. Deterministic.

        Args:
            prompts: The prompt of each answer.
            answers: As many answers.
        """
        ...

    def hinted(self, prompt: TaskPrompt, opening: Tokens) -> Tokens:
        """The tokens of a prompt that shows a hint (`with_hint` does for most).

        Args:
            prompt: The prompt.
            opening: The opening of an expert's answer.
        """
        ...


def with_hint(prompt: Tokens, opening: Tokens, vocabulary: Vocabulary) -> Tokens:
    """`... <hint> opening </hint> last`: the hint precedes the prompt's last token, after which the answer begins.

    Args:
        prompt: The tokens without a hint.
        opening: The hint.
        vocabulary: Of both.
    """
    return (*prompt[:-1], vocabulary.id(HINT), *opening, vocabulary.id(HINTED), prompt[-1])


def traced(prompts: Sequence[TaskPrompt], why: str) -> list[TaskPrompt]:
    """The prompts that have a trace.

    Args:
        prompts: All prompts.
        why: What needs traces, for the message.
    Raises:
        UsageError: None has one.
    """
    found = [prompt for prompt in prompts if prompt.trace is not None]
    if not found:
        raise UsageError(f"{why} needs expert traces, and no prompt of the task has one: record some")
    return found
