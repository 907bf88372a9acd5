"""A chain of states as a text task: small, fast, and hard for chance.

The prompt is a map: for each state of the chain the move that leads on. The answer is the moves. An untrained student
succeeds once in moves^length tries. The chain of `baselines.bread.toy` is the same without a language model.

    chain m2 m0 m1 <think>   ->   m2 ; m0 ; m1 <eos>
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from baselines.language.task import Reward, TaskPrompt, Tokens, Trace, with_hint
from baselines.language.tasks import TaskKind
from experts.language import gpt
from experts.language.teacher import Follower, GPTTeacher, TokenProvider
from experts.language.vocabulary import EOS, SPECIALS, THINK, Vocabulary
from lgdrl.config import RunConfig
from sim.errors import UsageError

TRAIN, HELD_OUT = 1, 2
"""Roots of the random streams of chains."""


@dataclass(frozen=True)
class ChainConfig:
    length: int = 4  # states, up to 16
    moves: int = 4  # in each state, up to 16; one leads on
    train: int = 48  # chains
    trace_share: float = 0.4  # of the training chains that have a trace
    doubt: float = 0.1  # of the live teacher: probability that it spreads over the wrong words

    def __post_init__(self) -> None:
        if not (1 <= self.length <= 16 and 2 <= self.moves <= 16 and self.train >= 1):
            raise ValueError("choose length 1 to 16, moves 2 to 16 and train >= 1")
        if not (0 <= self.trace_share <= 1 and 0 < self.doubt < 1):
            raise ValueError("choose trace_share from 0 to 1 and doubt between 0 and 1")


class ChainTask:
    """Implements `baselines.language.task.TextTask`. Held-out chains differ from all training chains.

    Args:
        config: The settings.
    """

    backend = "text"

    def __init__(self, config: ChainConfig) -> None:
        self.config = config
        self.name = f"chain({config.length}, {config.moves})"
        names = [f"m{i}" for i in range(config.moves)]
        self.vocabulary = Vocabulary("chain", [*SPECIALS, ";", "chain", *names])
        self.allowed: np.ndarray | None = np.isin(self.vocabulary.words, [EOS, ";", *names])
        stream = np.random.default_rng(TRAIN)
        drawn = stream.integers(0, config.moves, (config.train, config.length))
        traced = stream.random(config.train) < config.trace_share
        self._train = [self._prompt(chain, bool(shown)) for chain, shown in zip(drawn, traced, strict=True)]
        self._known = {prompt.key for prompt in self._train}
        if len(self._known) == config.moves**config.length:
            raise UsageError("all chains of this length are among the training chains: make the chains longer")

    def _prompt(self, chain: Iterable[int], traced: bool) -> TaskPrompt:
        words = " ".join(f"m{move}" for move in chain)
        tokens = self.vocabulary.encode(f"chain {words} {THINK}")
        return TaskPrompt(words, tokens, self.trace(words) if traced else None)

    def trace(self, key: str) -> Trace:
        """The right answer; an episode ends after every move."""
        tokens = self.vocabulary.encode(" ; ".join(key.split()) + f" {EOS}")
        return Trace(tokens, tuple(range(2, len(tokens) + 1, 2)))

    def prompts(self, split: Literal["train", "test"]) -> Sequence[TaskPrompt]:
        return self._train if split == "train" else self.held_out(range(100))

    def held_out(self, seeds: Sequence[int]) -> list[TaskPrompt]:
        return [self._held_out(seed) for seed in seeds]

    def _held_out(self, seed: int) -> TaskPrompt:
        stream = np.random.default_rng((HELD_OUT, seed))
        while True:
            prompt = self._prompt(stream.integers(0, self.config.moves, self.config.length), False)
            if prompt.key not in self._known:
                return prompt

    def rewards(self, prompts: Sequence[TaskPrompt], answers: Sequence[Tokens]) -> Sequence[Reward]:
        return [self._reward(prompt.key, answer) for prompt, answer in zip(prompts, answers, strict=True)]

    def _reward(self, key: str, answer: Tokens) -> Reward:
        words = self.vocabulary.decode(answer).split()
        moves = words[::2]
        form = len(moves) == self.config.length and words == [*" ; ".join(moves).split(), EOS]
        success = tuple(answer) == self.trace(key).tokens
        return Reward(0.9 * success + 0.1 * form, success, form)

    def hinted(self, prompt: TaskPrompt, opening: Tokens) -> Tokens:
        return with_hint(prompt.tokens, opening, self.vocabulary)


class ChainTeacher:
    """A live teacher that reads the map: 1 - doubt on the right next word, the rest evenly. It has no opinion on an
    answer that has left the form, or is over.

    Args:
        task: The task.
    """

    name = "chain"

    def __init__(self, task: ChainTask) -> None:
        self.task = task
        self.vocabulary = task.vocabulary.version

    def follow(self, prompts: Sequence[Sequence[int]]) -> Follower:
        """See `TokenProvider`."""
        right = [self.task.trace(" ".join(self.task.vocabulary.decode(p[1:-1]).split())).tokens for p in prompts]

        def log_probs(completions: Sequence[Sequence[int]], count: int) -> torch.Tensor:
            rows = [
                [self._next(answer, said[: len(said) - count + 1 + i]) for i in range(count)]
                for answer, said in zip(right, completions, strict=True)
            ]
            return torch.tensor(np.array(rows), dtype=torch.float32)

        return log_probs

    def _next(self, right: Tokens, said: Sequence[int]) -> np.ndarray:
        words, separator = len(self.task.vocabulary), self.task.vocabulary.id(";")
        at_form = all((token == separator) == (i % 2 == 1) for i, token in enumerate(said))
        if len(said) >= len(right) or not at_form or self.task.vocabulary.eos in said:
            return np.full(words, np.nan)
        probs = np.full(words, self.task.config.doubt / (words - 1))
        probs[right[len(said)]] = 1 - self.task.config.doubt
        return np.log(probs)


def make(config: ChainConfig, run: RunConfig) -> ChainTask:
    """The task of a run; its scenario plays no part."""
    return ChainTask(config)


def teacher(task: ChainTask, file: str | None) -> TokenProvider:
    """A model of a file, or a teacher that reads the map."""
    if file is None:
        return ChainTeacher(task)
    from pathlib import Path

    return GPTTeacher(gpt.load(Path(file), task.vocabulary).requires_grad_(False), task.vocabulary.version)


TASK = TaskKind(
    "chain",
    "moves along a chain of states",
    ChainConfig(),
    lambda config, run: None,
    make,
    teacher,  # type: ignore[arg-type]
)
