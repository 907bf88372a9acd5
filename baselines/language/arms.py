"""All arms by name: BREAD and MENTOR, what they are compared with, and their ablations. An arm is switches, or a small
strategy; the trainer is the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from baselines.bread.strategy import BREAD, BREADConfig
from baselines.language.grpo import GRPOConfig
from baselines.language.rivals import (
    Distillation,
    DistillationConfig,
    FixedPrefix,
    FixedPrefixConfig,
    PrefixRFT,
    PrefixRFTConfig,
    WholeTrace,
    WholeTraceConfig,
)
from baselines.language.rollout import Ledger
from baselines.language.strategy import Arm, Setting, Strategy
from baselines.language.task import Task
from baselines.language.trainer import Trainer
from baselines.mentor.strategy import MENTOR, MENTORConfig
from experts.language.model import LanguageModel
from experts.language.teacher import TokenProvider
from sim.config import resolve
from sim.errors import UsageError, unknown


@dataclasses.dataclass(frozen=True)
class NoConfig:
    """An arm without settings of its own."""


def _plain(config: NoConfig, setting: Setting) -> Strategy:
    return Strategy()


_BREAD, _MENTOR = BREADConfig(), MENTORConfig()
_LIST = (
    Arm("sft", "imitation of the traces alone", NoConfig(), _plain, rl=False),
    Arm("grpo", "reinforcement learning from scratch", NoConfig(), _plain, sft=False),
    Arm("sft-grpo", "imitation, then reinforcement learning", NoConfig(), _plain),
    Arm("whole-trace", "the whole trace as a member of the group (LUFFY-like)", WholeTraceConfig(), WholeTrace),
    Arm("fixed-prefix", "half of every trace given away (QuestA-like)", FixedPrefixConfig(), FixedPrefix),
    Arm("prefix-rft", "one answer per group continues a trace (Prefix-RFT-like)", PrefixRFTConfig(), PrefixRFT),
    Arm("distillation", "a teacher corrects every word", DistillationConfig(), Distillation, needs_teacher=True),
    Arm("bread", "the shortest hint that helps (BREAD-style)", _BREAD, BREAD),
    Arm("bread-hint", "the same, shown in the prompt", dataclasses.replace(_BREAD, anchor_mode="hint"), BREAD),
    Arm("bread-linear", "the same, searched one by one", dataclasses.replace(_BREAD, search="linear"), BREAD),
    Arm("bread-random", "a hint of random length", dataclasses.replace(_BREAD, search="random"), BREAD),
    Arm(
        "mentor", "a teacher's words where the student is uncertain (MENTOR-style)", _MENTOR, MENTOR, needs_teacher=True
    ),
    Arm(
        "mentor-random",
        "as many of a teacher's words at random places",
        dataclasses.replace(_MENTOR, weights="random"),
        MENTOR,
        needs_teacher=True,
    ),
    Arm(
        "mentor-constant",
        "the same weight of the teacher everywhere",
        dataclasses.replace(_MENTOR, weights="constant"),
        MENTOR,
        needs_teacher=True,
    ),
    Arm(
        "mentor-steady",
        "a teacher that does not fade out",
        dataclasses.replace(_MENTOR, fade=False),
        MENTOR,
        needs_teacher=True,
    ),
)
ARMS: dict[str, Arm] = {arm.name: arm for arm in _LIST}


def get(name: str) -> Arm:
    """UsageError with a suggestion for a name that is none."""
    if name not in ARMS:
        raise unknown("arm", name, ARMS)
    return ARMS[name]


def make_trainer(
    task: Task,
    model: LanguageModel,
    arm: Arm,
    options: Mapping[str, Any],
    config: GRPOConfig,
    seed: int,
    teacher: TokenProvider | None = None,
    ledger: Ledger | None = None,
) -> Trainer:
    """The trainer of an arm's reinforcement learning. `model` is trained in place: give a copy of one that others start
    from too. Args: overrides of the arm's config; the rest as in `Trainer`. UsageError for a missing teacher."""
    if arm.needs_teacher and teacher is None:
        raise UsageError(f"arm {arm.name!r} needs a teacher of the same vocabulary: give it one")
    resolved = resolve(arm.defaults, options, f"options of arm {arm.name!r}")
    return Trainer(task, model, lambda setting: arm.build(resolved, setting), config, seed, teacher, ledger)
