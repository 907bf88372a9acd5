"""A text task for tests, and loops on it: the prompt names a key, the answer is the key's sequence of symbols.

`key k3 <think>` -> `s1 ; s0 ; s2 <eos>`: one episode per symbol. A student that knows the form but no key is right once
in symbols ** length tries.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from baselines.language.grpo import GRPOConfig
from baselines.language.loop import LanguageLoop, Row, TokenLoop, run_updates
from baselines.language.method import language_method
from baselines.language.task import Reward, Split, TaskPrompt, TextTask, Tokens, Trace, with_hint
from experts.language.gpt import GPT, GPTConfig, new
from experts.language.model import LanguageModel
from experts.language.teacher import Follower, TokenProvider
from experts.language.vocabulary import SPECIALS, Vocabulary
from sim.config import resolve, to_dict


class KeyTask:
    """`keys` prompts, each with a sequence of `length` of the `symbols`; `traced` of them come with a trace."""

    name = "keys"
    backend = "text"
    allowed = None

    def __init__(self, keys: int = 6, length: int = 3, symbols: int = 3, seed: int = 0, traced: int | None = None):
        self.keys, self.length, self.symbols = keys, length, symbols
        names = [f"k{i}" for i in range(keys)] + [f"s{i}" for i in range(symbols)]
        self.vocabulary = Vocabulary("keys", [*SPECIALS, ";", "key", *names])
        self.right = np.random.default_rng(seed).integers(0, symbols, (keys, length))
        self.traced = keys if traced is None else traced

    def prompts(self, split: Split) -> Sequence[TaskPrompt]:
        return [
            TaskPrompt(str(k), self.vocabulary.encode(f"key k{k} <think>"), self.trace(k) if k < self.traced else None)
            for k in range(self.keys)
        ]

    def held_out(self, seeds: Sequence[int]) -> list[TaskPrompt]:
        """There are no other keys."""
        return [self.prompts("test")[seed % self.keys] for seed in seeds]

    def answer(self, symbols: Sequence[int]) -> Tokens:
        return self.vocabulary.encode(" ; ".join(f"s{s}" for s in symbols) + " <eos>")

    def trace(self, key: int) -> Trace:
        return self._cut(self.answer(self.right[key]))

    def _cut(self, tokens: Tokens) -> Trace:
        return Trace(tokens, tuple(range(2, len(tokens) + 1, 2)))

    def rewards(self, prompts: Sequence[TaskPrompt], answers: Sequence[Tokens]) -> Sequence[Reward]:
        return [self._reward(int(prompt.key), answer) for prompt, answer in zip(prompts, answers, strict=True)]

    def _reward(self, key: int, answer: Tokens) -> Reward:
        words = self.vocabulary.decode(answer).split()
        said = [word for word in words if word[0] == "s"]
        form = words == self.vocabulary.decode(self.answer([int(s[1:]) for s in said])).split() if said else False
        form = form and len(said) == self.length
        success = tuple(answer) == self.trace(key).tokens
        return Reward(0.9 * success + 0.1 * form, success, form, {"symbols": float(len(said))})

    def hinted(self, prompt: TaskPrompt, opening: Tokens) -> Tokens:
        return with_hint(prompt.tokens, opening, self.vocabulary)

    def model(self, seed: int = 0, width: int = 32, layers: int = 2) -> GPT:
        return new(GPTConfig(len(self.vocabulary), context=32, layers=layers, heads=2, width=width), seed)

    def of_form(self, count: int = 64) -> list[TaskPrompt]:
        """Prompts with well-formed traces of random symbols: imitating them teaches the form and no key."""
        stream = np.random.default_rng(99)
        prompts = self.prompts("train")
        drawn = [prompts[i % self.keys] for i in range(count)]
        answers = [self.answer(stream.integers(0, self.symbols, self.length)) for _ in drawn]
        return [
            TaskPrompt(prompt.key, prompt.tokens, self._cut(tokens))
            for prompt, tokens in zip(drawn, answers, strict=True)
        ]


class KeyTeacher:
    """Knows every key: 1 - `doubt` on the right next token, the rest evenly. No opinion off the form."""

    name = "keys"

    def __init__(self, task: KeyTask, doubt: float = 0.1) -> None:
        self.task, self.doubt, self.calls = task, doubt, 0
        self.vocabulary = task.vocabulary.version

    def follow(self, prompts: Sequence[Tokens]) -> Follower:
        keys = [int(self.task.vocabulary.words[prompt[1]][1:]) for prompt in prompts]

        def log_probs(completions: Sequence[Tokens], count: int) -> torch.Tensor:
            self.calls += 1
            rows = [
                [self._next(key, said[: len(said) - count + 1 + i]) for i in range(count)]
                for key, said in zip(keys, completions, strict=True)
            ]
            return torch.tensor(np.array(rows), dtype=torch.float32)

        return log_probs

    def _next(self, key: int, said: Tokens) -> np.ndarray:
        words, right = len(self.task.vocabulary), self.task.trace(key).tokens
        symbol = self.task.vocabulary.id("s0")
        shape = [";" if t < symbol else "s" for t in said]
        if len(said) >= len(right) or shape != [";" if i % 2 else "s" for i in range(len(said))]:
            return np.full(words, np.nan)
        probs = np.full(words, self.doubt / (words - 1))
        probs[right[len(said)]] = 1 - self.doubt
        return np.log(probs)


def token_loop(
    task: TextTask,
    model: LanguageModel,
    strategy: str,
    config: GRPOConfig,
    seed: int = 0,
    teacher: TokenProvider | None = None,
    tokens: int | None = None,
    **own: Any,
) -> TokenLoop:
    """The loop of a strategy with changes to its own settings, without imitation, at its start. The model is copied."""
    method = language_method(strategy)
    changes: dict[str, Any] = {"sft": {"num_train_epochs": 0}, "grpo": to_dict(config), "tokens": tokens}
    options = resolve(method.defaults, changes | ({"method": own} if own else {}), strategy)
    loop = method.loop(task, model.copy(), options, seed, 10**9, teacher)
    assert isinstance(loop, TokenLoop)
    loop.begin()
    return loop


def train(loop: LanguageLoop, updates: int = 10**9) -> list[Row]:
    """Advance a loop until that many updates were made in all, or its tokens are spent; the rows."""
    return list(run_updates(loop, updates - loop.progress))


def step(loop: TokenLoop) -> Row:
    """One update and its row."""
    return next(run_updates(loop, 1))


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """A state as it comes back from a checkpoint: tensors and plain values only."""
    file = io.BytesIO()
    torch.save(state, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=True)
