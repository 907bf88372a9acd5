"""The options that all methods of this package share: what is learned, by which model, with which budgets."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from baselines.language.grpo import GRPOConfig
from baselines.language.sft import SFTConfig
from experts.language.gpt import GPTConfig
from sim.bounds import Count, config_dataclass


@config_dataclass
class TokenOptions:
    """Methods with settings of their own have them in a further field, `method`."""

    task: str = "driving"  # `driving` (situations of the run's scenario) or `chain`; others by entry points
    task_options: dict[str, Any] = field(default_factory=dict)  # changes to the task's settings
    model: GPTConfig = field(default_factory=lambda: GPTConfig(context=96, layers=2, heads=4, width=64))
    # the student; vocab_size is taken from the task. 96 tokens hold the longest driving prompt and its answer
    sft: SFTConfig = field(default_factory=lambda: SFTConfig(batch_size=8))
    # imitation before the first update (no epochs: none); small batches, since there are few traces
    grpo: GRPOConfig = field(default_factory=lambda: GRPOConfig(max_completion_length=32, prompts_per_update=16))
    # its lengths and temperature hold for evaluation too
    # the run ends early when so many were generated; searches and a teacher's reading count
    tokens: Count | None = None
    teacher: str | None = None  # file of the language model that is the live teacher; null: the task's own
