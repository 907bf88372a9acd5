"""The loops of runs that train a language model: imitation alone, and imitation followed by updates of a strategy.

Deterministic by seed on one machine: random numbers come from separate streams for the order of prompts, the words of
bare groups, and the strategy, so that methods which agree up to some point have equal bits up to there.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import torch

from baselines.language.evaluation import greedy_episodes
from baselines.language.learner import TokenLearner
from baselines.language.options import TokenOptions
from baselines.language.rollout import Author, Ledger, Rollout, Sampler
from baselines.language.sft import Imitation, imitate
from baselines.language.strategy import TokenSettings, TokenStrategy, mean
from baselines.language.task import TaskPrompt, TextTask
from experts.language import gpt
from experts.language.model import LanguageModel
from experts.language.teacher import TokenProvider
from lgdrl.evaluation import Evaluation
from lgdrl.loops.loop import Callback, Loop
from sim.errors import UsageError

Row = dict[str, Any]


class LanguageLoop(Loop):
    """What both loops share.

    Args:
        task: Prompts and verifier.
        model: The student, trained in place.
        options: Of the method.
        seed: Of the run.
        total: Updates of the whole run.
    Raises:
        UsageError: The task has no training prompts, or task and model have different vocabularies.
    """

    unit = "updates"

    def __init__(self, task: TextTask, model: LanguageModel, options: TokenOptions, seed: int, total: int) -> None:
        torch.set_num_threads(1)
        words = len(task.vocabulary)
        if model.config.vocab_size != words:
            raise UsageError(
                f"the model has {model.config.vocab_size} words, task {task.name!r} has {words}: "
                f"make one with vocab_size = {words}"
            )
        self.task = task
        self.model = model
        self.options = options
        self.seed = seed
        self.total = total
        self.ledger = Ledger()
        self._train_prompts = task.prompts("train")
        if not self._train_prompts:
            raise UsageError(f"task {task.name!r} has no training prompts: give it some")

    @property
    def labels(self) -> int:
        """Words of experts so far: of traces, and those that a live teacher read."""
        return self.ledger.trace + self.ledger.teacher

    def evaluate(self, episodes: int) -> Evaluation:
        return Evaluation(greedy_episodes(self.model, self.task, range(episodes), self.options.grpo))

    def write_policy(self, file: BinaryIO) -> None:
        """The student as safetensors; read it with `experts.language.gpt.load`."""
        if not isinstance(self.model, gpt.GPT):
            raise UsageError("only students of experts.language.gpt are written as policies: use baselines.language.hf")
        file.write(gpt.to_bytes(self.model, self.task.vocabulary))

    def close(self) -> None:
        """Nothing is held open."""

    @abstractmethod
    def _metrics(self) -> Row:
        """Columns beside the ledger's."""

    def row(self) -> Row:
        return self._metrics() | _ledger_columns(self.ledger)


class ImitationLoop(LanguageLoop):
    """Imitation of the traces and nothing else: the start of the other methods, as a run of its own.

    Its epochs are spread over the updates of the run, so that methods of a comparison reach their ends together. Args:
    as for `LanguageLoop`.
    """

    def __init__(self, task: TextTask, model: LanguageModel, options: TokenOptions, seed: int, total: int) -> None:
        super().__init__(task, model, options, seed, total)
        self.imitation = Imitation(model, task, self._train_prompts, options.sft, seed, self.ledger)
        self._recent: list[Row] = []

    @property
    def progress(self) -> int:
        epochs = self.options.sft.num_train_epochs
        return self.total * self.imitation.epoch // epochs if epochs else self.total

    def advance(self, amount: int, callback: Callback | None = None) -> None:
        until = min(self.progress + amount, self.total)
        while self.progress < until:
            self._recent.append(self.imitation.run_epoch())
            if callback is not None and not callback({"self": self, "row": self._recent[-1]}, {}):
                break

    def _metrics(self) -> Row:
        row: Row = {"train/epoch": self.imitation.epoch}
        if self._recent:
            row["train/loss"] = self._recent[-1]["loss"]
        self._recent = []
        return row

    def state_dict(self) -> dict[str, Any]:
        return {
            "imitation": self.imitation.state_dict(),
            "ledger": dataclasses.asdict(self.ledger),
            "recent": list(self._recent),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.imitation.load_state_dict(state["imitation"])
        self.ledger.load(state["ledger"])
        self._recent = list(state["recent"])


class TokenLoop(LanguageLoop):
    """Imitation (in `begin`, where the options ask for any), then reinforcement learning by a strategy.

    Args:
        task: Prompts and verifier.
        model: The student, trained in place.
        build: Makes the strategy.
        options: Of the method.
        seed: Of the run.
        total: Updates of the whole run.
        teacher: A live teacher of tokens, if the strategy uses one.
    Raises:
        UsageError: As for `LanguageLoop`; the teacher has another vocabulary.
    """

    def __init__(
        self,
        task: TextTask,
        model: LanguageModel,
        build: Callable[[TokenSettings], TokenStrategy],
        options: TokenOptions,
        seed: int,
        total: int,
        teacher: TokenProvider | None = None,
    ) -> None:
        super().__init__(task, model, options, seed, total)
        if teacher is not None and teacher.vocabulary != task.vocabulary.version:
            raise UsageError(
                f"teacher {teacher.name!r} has the vocabulary {teacher.vocabulary!r}, task {task.name!r} has "
                f"{task.vocabulary.version!r}: only a teacher of the same vocabulary can be mixed in"
            )
        order, words, own = np.random.SeedSequence(seed).spawn(3)
        self.strategy = build(TokenSettings(own, teacher))
        self.sampler = Sampler(task, model, options.grpo, np.random.default_rng(words), self.ledger)
        self.learner = TokenLearner(model, self.strategy, options.grpo, self.sampler.allowed)
        self.rollouts: list[Rollout] = []
        """What the last update learned from."""
        self._order = np.random.default_rng(order)
        self._waiting: list[int] = []
        self._recent: list[Row] = []

    def begin(self) -> None:
        if self.options.sft.num_train_epochs:
            imitate(self.model, self.task, self._train_prompts, self.options.sft, self.seed, self.ledger)
        self.learner.begin()

    @property
    def updates(self) -> int:
        """Updates so far."""
        return self.sampler.update

    @property
    def spent(self) -> bool:
        """Whether the tokens that may be generated are used up."""
        return self.options.tokens is not None and self.ledger.generated >= self.options.tokens

    @property
    def progress(self) -> int:
        """Updates so far; all of them once the tokens are spent."""
        return self.total if self.spent else self.updates

    def advance(self, amount: int, callback: Callback | None = None) -> None:
        until = min(self.updates + amount, self.total)
        while self.updates < until and not self.spent:
            row = self.update()
            if callback is not None and not callback({"self": self, "row": row}, {}):
                break

    def update(self) -> Row:
        """One update.

        Returns:
            Its columns, without those of the ledger.
        """
        sampler, strategy = self.sampler, self.strategy
        sampler.update += 1
        sampler.bare = []
        groups = strategy.collect(self._next_prompts(), sampler)
        advantages = strategy.advantages(groups, self.options.grpo)
        learned = self.learner.learn(groups, advantages)
        self.rollouts = [rollout for group in groups for rollout in group.rollouts]
        own = [r for r in self.rollouts if r.author is Author.STUDENT]
        row: Row = {
            "train/updates": self.updates,
            "rollout/success": mean([r.reward.success for r in sampler.bare]),
            "rollout/reward": mean([r.reward.total for r in sampler.bare]),
            "rollout/format": mean([r.reward.format for r in sampler.bare]),
            "rollout/entropy": mean(np.concatenate([r.entropies for r in sampler.bare]) if sampler.bare else []),
            "rollout/length": mean([len(r.answer) for r in sampler.bare]),
            "rollout/trained_success": mean([r.reward.success for r in own]),
            "rollout/groups": len(groups),
            "rollout/zero_advantage_share": mean([not np.any(a) for a in advantages]),
            **{f"train/{name}": value for name, value in learned.items()},
            **{f"guidance/{name}": value for name, value in strategy.metrics().items()},
        }
        self._recent.append(row)
        return row

    def _next_prompts(self) -> list[TaskPrompt]:
        """Every prompt once before any comes again, in an order of its own each time."""
        count = self.options.grpo.prompts_per_update
        while len(self._waiting) < count:
            self._waiting += self._order.permutation(len(self._train_prompts)).tolist()
        return [self._train_prompts[self._waiting.pop(0)] for _ in range(count)]

    def _metrics(self) -> Row:
        row = averaged(self._recent)
        self._recent = []
        return row

    def state_dict(self) -> dict[str, Any]:
        return {
            "learner": self.learner.state_dict(),
            "strategy": self.strategy.state_dict(),
            "ledger": dataclasses.asdict(self.ledger),
            "update": self.sampler.update,
            "words": self.sampler.stream.bit_generator.state,
            "order": self._order.bit_generator.state,
            "waiting": list(self._waiting),
            "recent": [dict(row) for row in self._recent],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state["learner"])
        self.strategy.load_state_dict(state["strategy"])
        self.ledger.load(state["ledger"])
        self.sampler.update = state["update"]
        self.sampler.stream.bit_generator.state = state["words"]
        self._order.bit_generator.state = state["order"]
        self._waiting = list(state["waiting"])
        self._recent = [dict(row) for row in state["recent"]]


def run_updates(loop: LanguageLoop, count: int) -> Iterator[Row]:
    """Advance a loop outside of a run folder, one update at a time.

    Args:
        loop: The loop; `begin` was called.
        count: Most updates.
    Yields:
        The row of each update.
    """
    for _ in range(count):
        if loop.progress >= loop.total:
            break
        loop.advance(1)
        yield loop.row()


def averaged(rows: Sequence[Row]) -> Row:
    """The mean of each column over the rows that have a value there; the last value of `train/updates`.

    Args:
        rows: Columns of successive updates.
    """
    if len(rows) <= 1:
        return dict(rows[0]) if rows else {}
    names = dict.fromkeys(name for row in rows for name in row)
    found = {name: mean([row[name] for row in rows if row.get(name) is not None]) for name in names}
    return found | {"train/updates": rows[-1]["train/updates"]}


def _ledger_columns(ledger: Ledger) -> Row:
    """Tokens so far: those of the student, and those of experts."""
    return {
        "rollout/student_tokens": ledger.student,
        "rollout/search_tokens": ledger.search,
        "rollout/generated_tokens": ledger.generated,
        "expert/teacher_tokens": ledger.teacher,
        "expert/trace_tokens": ledger.trace,
    }
