"""Supervised fine-tuning: imitate the traces, word by word, with AdamW and a cosine schedule.

A model from scratch has never seen a hint. Where hints will be shown in prompts (`anchor_mode = hint`), some examples
have to show one: `hint_share`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from baselines.language.rollout import Ledger
from baselines.language.task import Prompt, Task, traced
from experts.language.gpt import check_room, padded
from experts.language.model import LanguageModel


@dataclass(frozen=True)
class SFTConfig:
    """Names are TRL's (SFTConfig) where it has them."""

    num_train_epochs: int = 10
    batch_size: int = 32
    learning_rate: float = 1e-3  # at the start; falls to a tenth along a cosine
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    hint_share: float = 0.0  # of the examples whose prompt shows a random opening of the trace as a hint

    def __post_init__(self) -> None:
        if not 0 <= self.hint_share <= 1:
            raise ValueError(f"hint_share = {self.hint_share}: choose 0 to 1")
        if self.num_train_epochs < 0 or self.batch_size < 1 or not self.learning_rate > 0:
            raise ValueError("choose num_train_epochs >= 0, batch_size >= 1 and learning_rate > 0")


def imitate(
    model: LanguageModel,
    task: Task,
    prompts: Sequence[Prompt],
    config: SFTConfig,
    seed: int | np.random.SeedSequence,
    ledger: Ledger | None = None,
    observer: Callable[[dict[str, Any]], None] | None = None,
) -> list[dict[str, Any]]:
    """Train `model` in place on the traces of `prompts` (those that have one). Only answers have a gradient.

    Returns one row per epoch: epoch, loss (nats per token), trace_tokens so far. UsageError where there is no trace.
    """
    torch.set_num_threads(1)
    model.requires_grad_(True)
    prompts = traced(prompts, "imitation")
    stream = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    steps = config.num_train_epochs * -(-len(prompts) // config.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1), config.learning_rate / 10)
    rows, seen = [], 0
    for epoch in range(config.num_train_epochs):
        total, count = 0.0, 0
        for batch in _batches(prompts, config.batch_size, stream):
            loss, tokens = _loss(model, [_example(task, prompt, config.hint_share, stream) for prompt in batch])
            (loss / tokens).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
            total, count = total + float(loss.detach()), count + tokens
        seen += count
        if ledger:
            ledger.trace += count
        rows.append({"epoch": epoch + 1, "loss": total / count, "trace_tokens": seen})
        if observer:
            observer(rows[-1])
    return rows


@torch.no_grad()
def loss_on(model: LanguageModel, prompts: Sequence[Prompt], batch_size: int = 32) -> float:
    """Nats per token of the traces of `prompts` (those that have one), without learning from them.

    UsageError where there is no trace."""
    total, count = 0.0, 0
    examples = [(list(p.tokens), list(p.trace.tokens)) for p in traced(prompts, "a loss") if p.trace is not None]
    for start in range(0, len(examples), batch_size):
        loss, tokens = _loss(model, examples[start : start + batch_size])
        total, count = total + float(loss), count + tokens
    return total / count


Example = tuple[list[int], list[int]]
"""Prompt and answer."""


def _batches(prompts: Sequence[Prompt], size: int, stream: np.random.Generator) -> Iterator[list[Prompt]]:
    order = stream.permutation(len(prompts))
    for start in range(0, len(order), size):
        yield [prompts[i] for i in order[start : start + size]]


def _example(task: Task, prompt: Prompt, hint_share: float, stream: np.random.Generator) -> Example:
    trace = prompt.trace
    assert trace is not None
    shown = prompt.tokens
    if hint_share and trace.episodes > 1 and stream.random() < hint_share:
        shown = task.hinted(prompt, trace.opening(int(stream.integers(1, trace.episodes))))
    return list(shown), list(trace.tokens)


def _loss(model: LanguageModel, batch: list[Example]) -> tuple[torch.Tensor, int]:
    """Summed negative log-likelihood of the answers, and how many tokens they have."""
    check_room(model, [prompt for prompt, _ in batch], [len(answer) for _, answer in batch])
    tokens, lengths = padded([prompt + answer for prompt, answer in batch])
    at = torch.arange(1, tokens.shape[1])
    starts = torch.tensor([len(prompt) for prompt, _ in batch])
    learned = (at >= starts[:, None]) & (at < lengths[:, None])
    logits = model(tokens[:, :-1])
    return F.cross_entropy(logits[learned], tokens[:, 1:][learned], reduction="sum"), int(learned.sum())
