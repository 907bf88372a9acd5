"""Supervised fine-tuning: imitate the traces, word by word, with AdamW and a cosine schedule.

A model from scratch has never seen a hint. Where hints will be shown in prompts (`anchor_mode = hint`), some examples
have to show one: `hint_share`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from baselines.language.rollout import Ledger
from baselines.language.task import TaskPrompt, TextTask, traced
from experts.language.gpt import check_room, padded
from experts.language.model import LanguageModel
from sim.bounds import BatchSize, LearningRate, NonNegative, Positive, Share, Whole, config_dataclass


@config_dataclass
class SFTConfig:
    """Names are TRL's (SFTConfig) where it has them."""

    num_train_epochs: Whole = 10
    batch_size: BatchSize = 32
    learning_rate: LearningRate = 1e-3  # at the start; falls to a tenth along a cosine
    weight_decay: NonNegative = 0.01
    max_grad_norm: Positive = 1.0
    hint_share: Share = 0.0  # of the examples whose prompt shows a random opening of the trace as a hint


class Imitation:
    """Supervised fine-tuning of a model, epoch by epoch. Only answers have a gradient.

    Args:
        model: Trained in place.
        task: Makes prompts with hints.
        prompts: Those that have a trace are learned from.
        config: The settings.
        seed: Of the order of the examples and of hints.
        ledger: Tokens of traces are added to it.
    Raises:
        UsageError: No prompt has a trace.
    """

    def __init__(
        self,
        model: LanguageModel,
        task: TextTask,
        prompts: Sequence[TaskPrompt],
        config: SFTConfig,
        seed: int | np.random.SeedSequence,
        ledger: Ledger | None = None,
    ) -> None:
        torch.set_num_threads(1)
        self.model = model.requires_grad_(True)
        self.task = task
        self.config = config
        self.ledger = ledger
        self.epoch = 0
        """Epochs so far."""
        self._prompts = traced(prompts, "imitation")
        self._stream = np.random.default_rng(seed)
        self._optimiser = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=config.weight_decay)
        steps = config.num_train_epochs * -(-len(self._prompts) // config.batch_size)
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            self._optimiser, max(steps, 1), config.learning_rate / 10
        )
        self._seen = 0

    @property
    def done(self) -> bool:
        """Whether all epochs are over."""
        return self.epoch >= self.config.num_train_epochs

    def run_epoch(self) -> dict[str, Any]:
        """Every trace once.

        Returns:
            epoch, loss (nats per token), trace_tokens so far.
        """
        total, count = 0.0, 0
        for batch in _batches(self._prompts, self.config.batch_size, self._stream):
            examples = [_example(self.task, prompt, self.config.hint_share, self._stream) for prompt in batch]
            loss, tokens = _loss(self.model, examples)
            (loss / tokens).backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
            self._optimiser.step()
            self._schedule.step()
            self._optimiser.zero_grad()
            total, count = total + float(loss.detach()), count + tokens
        self.epoch += 1
        self._seen += count
        if self.ledger:
            self.ledger.trace += count
        return {"epoch": self.epoch, "loss": total / count, "trace_tokens": self._seen}

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the remaining epochs, but for the ledger."""
        return {
            "model": {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()},
            "optimiser": copy.deepcopy(self._optimiser.state_dict()),
            "schedule": self._schedule.state_dict(),
            "stream": self._stream.bit_generator.state,
            "epoch": self.epoch,
            "seen": self._seen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`, with the same arguments."""
        self.model.load_state_dict(state["model"])
        self._optimiser.load_state_dict(copy.deepcopy(state["optimiser"]))
        self._schedule.load_state_dict(state["schedule"])
        self._stream.bit_generator.state = state["stream"]
        self.epoch, self._seen = state["epoch"], state["seen"]


def imitate(
    model: LanguageModel,
    task: TextTask,
    prompts: Sequence[TaskPrompt],
    config: SFTConfig,
    seed: int | np.random.SeedSequence,
    ledger: Ledger | None = None,
    observer: Callable[[dict[str, Any]], None] | None = None,
) -> list[dict[str, Any]]:
    """All epochs of an `Imitation`.

    Args:
        model: Trained in place.
        task: Makes prompts with hints.
        prompts: Those that have a trace are learned from.
        config: The settings.
        seed: Of the order of the examples and of hints.
        ledger: Tokens of traces are added to it.
        observer: Called with the row of each epoch.
    Returns:
        The rows of the epochs, see `Imitation.run_epoch`.
    Raises:
        UsageError: No prompt has a trace.
    """
    imitation = Imitation(model, task, prompts, config, seed, ledger)
    rows = []
    while not imitation.done:
        rows.append(imitation.run_epoch())
        if observer:
            observer(rows[-1])
    return rows


@torch.no_grad()
def loss_on(model: LanguageModel, prompts: Sequence[TaskPrompt], batch_size: int = 32) -> float:
    """Nats per token of traces, without learning from them.

    Args:
        model: The model.
        prompts: Those that have a trace count.
        batch_size: Traces that are read at once.
    Raises:
        UsageError: No prompt has a trace.
    """
    total, count = 0.0, 0
    examples = [(list(p.tokens), list(p.trace.tokens)) for p in traced(prompts, "a loss") if p.trace is not None]
    for start in range(0, len(examples), batch_size):
        loss, tokens = _loss(model, examples[start : start + batch_size])
        total, count = total + float(loss), count + tokens
    return total / count


Example = tuple[list[int], list[int]]
"""Prompt and answer."""


def _batches(prompts: Sequence[TaskPrompt], size: int, stream: np.random.Generator) -> Iterator[list[TaskPrompt]]:
    order = stream.permutation(len(prompts))
    for start in range(0, len(order), size):
        yield [prompts[i] for i in order[start : start + size]]


def _example(task: TextTask, prompt: TaskPrompt, hint_share: float, stream: np.random.Generator) -> Example:
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
