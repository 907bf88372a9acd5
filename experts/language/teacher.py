"""Teachers of tokens: next-word distributions along another model's answer, over the student's own vocabulary.

A trace says what an expert would have written; a `TokenProvider` says what it would write next wherever the student has
got to. A larger model of the same vocabulary is one (`GPTTeacher`); a program that knows grammar and facts can be
another; people and models behind an API cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from experts.language.gpt import log_policy, padded
from experts.language.model import LanguageModel

Tokens = Sequence[int]
Follower = Callable[[Sequence[Tokens], int], Tensor]
"""(completions so far, count) -> float (B, count, V) log-probabilities, one row per followed prompt, in order.

Entry [b, i] is about the token that follows completions[b] without its last count - 1 - i tokens: the last entry is
about the next token. Completions hold at least count - 1 tokens, and may go on behind their end of text. An entry of
NaN means that the teacher has no opinion there (an answer that left its grammar, or is over): the student then goes its
own way."""


@runtime_checkable
class TokenProvider(Protocol):
    """A teacher of tokens."""

    name: str
    vocabulary: str
    """Version of the vocabulary whose ids it speaks; trainers refuse a teacher of another one."""

    def follow(self, prompts: Sequence[Tokens]) -> Follower:
        """Listen to the answers to some prompts. A follower may remember what it was given in earlier calls: between
        two calls an answer may change anywhere, but what stays need not be read again."""
        ...


class GPTTeacher:
    """A language model as a teacher. Followers keep its keys and values, and read only what changed. It has no opinion
    beyond its context."""

    def __init__(self, model: LanguageModel, vocabulary: str, name: str = "gpt", temperature: float = 1.0) -> None:
        self.model, self.vocabulary, self.name, self.temperature = model, vocabulary, name, temperature

    def follow(self, prompts: Sequence[Tokens]) -> Follower:
        return _Following(self.model, prompts, self.temperature).log_probs


class _Following:
    def __init__(self, model: LanguageModel, prompts: Sequence[Tokens], temperature: float) -> None:
        self._model, self._temperature = model, temperature
        self._prompts = [list(prompt) for prompt in prompts]
        self._read: list[list[int]] = [[] for _ in prompts]
        self._cache = model.new_cache(len(prompts), 2 * model.config.context)  # a short row's read is padded

    @torch.no_grad()
    def log_probs(self, completions: Sequence[Tokens], count: int) -> Tensor:
        texts = [prompt + list(said) for prompt, said in zip(self._prompts, completions, strict=True)]
        starts = [min(_common(text, read), len(text) - count) for text, read in zip(texts, self._read, strict=True)]
        fresh, lengths = padded([text[start:] for text, start in zip(texts, starts, strict=True)])
        logits = self._model(fresh, self._cache, torch.tensor(starts))
        self._read = texts
        wanted = lengths[:, None] - count + torch.arange(count)
        policies = log_policy(logits.gather(1, wanted[:, :, None].expand(-1, -1, logits.shape[-1])), self._temperature)
        beyond = torch.tensor(starts)[:, None] + wanted >= self._model.config.context
        return policies.masked_fill(beyond[:, :, None], torch.nan)


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
