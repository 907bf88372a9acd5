"""The driving language task for TRL's trainers (extra `trl`): for people with GPUs, and for larger models.

    from datasets import Dataset
    trainer = trl.GRPOTrainer(
        model, reward_func(task), trl.GRPOConfig(...), Dataset.from_list(grpo_rows(task)),
        rollout_func=HintedRollouts(task),  # optional: BREAD-style openings of traces
    )

A model reads and writes the driving language as plain text in its own tokens, without a chat template. It does not know
that language: train it with SFTTrainer on `sft_rows` first, or no answer will ever be readable. Tested against
TRL 1.16, which calls `rollout_func` experimental.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from baselines.bread import anchors
from baselines.bread.strategy import BREADConfig, new_search
from baselines.driving.task import DrivingTask
from baselines.language.rollout import Request
from baselines.language.task import Reward, Split, TaskPrompt, Tokens
from experts.language.vocabulary import EOS
from sim.errors import UsageError, unknown

RewardFunc = Callable[..., list[float]]


def grpo_rows(task: DrivingTask, split: Split = "train") -> list[dict[str, str]]:
    """A row per prompt, for GRPOTrainer: its text and its key. Situations that look alike to the model are one row."""
    return [{"prompt": text, "key": prompt.key} for text, prompt in _by_text(task, split).items()]


def sft_rows(task: DrivingTask, split: Split = "train") -> list[dict[str, str]]:
    """A row per trace, for SFTTrainer: prompt and completion. The trainer adds the end of text."""
    return [
        {"prompt": text, "completion": " " + _text(task, prompt.trace.tokens).removesuffix(f" {EOS}")}
        for text, prompt in _by_text(task, split).items()
        if prompt.trace is not None
    ]


def reward_func(task: DrivingTask) -> RewardFunc:
    """What GRPOTrainer takes as `reward_funcs`: the total reward of every completion, 0 for one that cannot be read.

    The column `key` of `grpo_rows` says what is answered; the column `opening`, which `HintedRollouts` adds, what was
    given away of the answer. A key that the task does not have is a UsageError.

    Args:
        task: The task.
    """
    known = {prompt.key: prompt for prompt in (*task.prompts("train"), *task.prompts("test"))}

    def driving_reward(
        prompts: Sequence[str],
        completions: Sequence[str],
        key: Sequence[str],
        opening: Sequence[str] | None = None,
        **columns: Any,
    ) -> list[float]:
        unmet = [name for name in key if name not in known]
        if unmet:
            raise unknown("key of a prompt", unmet[0], known)
        begun = opening or [""] * len(completions)
        return [
            scored(task, known[name], f"{before} {said}").total
            for name, before, said in zip(key, begun, completions, strict=True)
        ]

    return driving_reward


def scored(task: DrivingTask, prompt: TaskPrompt, answer: str) -> Reward:
    """The reward of an answer in text, without its end of text. Anything beyond the vocabulary cannot be read."""
    words = answer.split()
    if any(word not in task.vocabulary for word in words):
        return Reward(0.0, False, False)
    return task.rewards([prompt], [task.vocabulary.encode(" ".join([*words, EOS]))])[0]


@dataclass(frozen=True)
class _Written:
    """One group."""

    request: Request
    prompt_ids: list[int]
    completion_ids: list[list[int]]
    success: float
    """Share of successes."""


class HintedRollouts:
    """GRPOTrainer's `rollout_func` that searches openings as `baselines.bread.strategy` does.

    Differences: TRL requires an answer for every prompt, so one for which nothing helps keeps its bare group instead of
    being left out; searches are not counted as generated tokens. Answers are written by the trained model itself, not
    by vLLM, and all copies of a prompt have to be on one process. In evaluation nothing is given away.
    """

    def __init__(self, task: DrivingTask, config: BREADConfig | None = None, seed: int = 0) -> None:
        self.config = config or BREADConfig()
        self._task, self._stream = task, np.random.default_rng(seed)
        self._prompts = _by_text(task, "test") | _by_text(task, "train")

    def __call__(self, prompts: Sequence[str], trainer: Any) -> dict[str, Any]:
        """See TRL's `rollout_func`.

        Args:
            prompts: Texts, every one as often as TRL needs answers to it.
            trainer: The GRPOTrainer.
        Returns:
            Token ids of contexts and completions and the text that was given away, one each per text.
        Raises:
            UsageError: The trainer's settings are not supported.
        """
        if trainer.use_vllm:
            raise UsageError("use_vllm: openings are searched with the trained model itself; set use_vllm=False")
        learning = trainer.model.training
        count = trainer.num_generations if learning else trainer.num_generations_eval
        asked = [Request.bare(self._known(text)) for text in prompts[::count]]
        if [text for text in prompts[::count] for _ in range(count)] != list(prompts):
            raise UsageError(
                f"the {count} copies of a prompt are not on one process: use per_device batches of whole groups"
            )
        groups = self._write(asked, count, trainer)
        if learning:
            groups = self._searched(groups, count, trainer)
        every = [(group, said) for group in groups for said in group.completion_ids]
        return {
            "prompt_ids": [group.prompt_ids for group, _ in every],
            "completion_ids": [said for _, said in every],
            "logprobs": None,  # TRL computes them where they are needed
            "opening": [_text(self._task, group.request.opening) for group, _ in every],
        }

    def _searched(self, bare: Sequence[_Written], count: int, trainer: Any) -> list[_Written]:
        """The groups to learn from: those of failing prompts that have a trace are replaced where an opening helps."""
        groups = list(bare)
        traces = {
            i: group.request.prompt.trace.merged(self.config.episodes)
            for i, group in enumerate(groups)
            if group.success < self.config.low and group.request.prompt.trace is not None
        }
        searched = list(traces)
        tried: dict[tuple[int, int], _Written] = {}

        def probe(pairs: list[tuple[int, int]]) -> list[float]:
            places = [(searched[k], anchor) for k, anchor in pairs]
            requests = [self._anchored(groups[i].request.prompt, traces[i].opening(n), n) for i, n in places]
            written = self._write(requests, count, trainer)
            tried.update(zip(places, written, strict=True))
            return [group.success for group in written]

        searches = [new_search(self.config, traces[i].episodes, self._stream) for i in searched]
        for i, found in zip(searched, anchors.run(searches, probe), strict=True):
            if found.anchor is not None:
                groups[i] = tried[i, found.anchor]
        return groups

    def _anchored(self, prompt: TaskPrompt, opening: Tokens, anchor: int) -> Request:
        return Request.anchored(self._task, prompt, opening, anchor, self.config.anchor_mode)

    @torch.no_grad()
    def _write(self, requests: Sequence[Request], count: int, trainer: Any) -> list[_Written]:
        """A group of `count` completions per request."""
        from trl.models import unwrap_model_for_generation

        tokenizer = trainer.processing_class
        contexts = [_text(self._task, request.context) for request in requests]
        given = tokenizer(
            [text for text in contexts for _ in range(count)],
            padding=True,
            padding_side="left",
            return_tensors="pt",
        ).to(trainer.accelerator.device)
        with unwrap_model_for_generation(
            trainer.model_wrapped,
            trainer.accelerator,
            gather_deepspeed3_params=trainer.args.ds3_gather_for_generation,
            gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs,
        ) as model:
            out = model.generate(
                input_ids=given.input_ids,
                attention_mask=given.attention_mask,
                generation_config=trainer.generation_config,
            )
            ends = model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends]) | {tokenizer.eos_token_id}
        said = [_until(row, ends) for row in out[:, given.input_ids.shape[1] :].tolist()]
        texts = tokenizer.batch_decode(said, skip_special_tokens=True)
        groups = []
        for i, request in enumerate(requests):
            own = slice(i * count, (i + 1) * count)
            opening = _text(self._task, request.opening)
            rewards = [scored(self._task, request.prompt, f"{opening} {text}") for text in texts[own]]
            ids = given.input_ids[i * count][given.attention_mask[i * count].bool()].tolist()
            groups.append(_Written(request, ids, said[own], float(np.mean([reward.success for reward in rewards]))))
        return groups

    def _known(self, text: str) -> TaskPrompt:
        if text not in self._prompts:
            raise UsageError(f"prompt {text[:60]!r} is none of the task's: train on grpo_rows of the same task")
        return self._prompts[text]


def _until(tokens: Sequence[int], ends: set[int | None]) -> list[int]:
    """Up to and including the first end of text."""
    last = next((i for i, token in enumerate(tokens) if token in ends), len(tokens) - 1)
    return list(tokens[: last + 1])


def _text(task: DrivingTask, tokens: Tokens) -> str:
    return task.vocabulary.decode(tokens)


def _by_text(task: DrivingTask, split: Split) -> dict[str, TaskPrompt]:
    found: dict[str, TaskPrompt] = {}
    for prompt in task.prompts(split):
        found.setdefault(_text(task, prompt.tokens), prompt)
    return found
