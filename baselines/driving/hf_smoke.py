"""`lgdrl bench hf-smoke`: a pretrained Hugging Face model learns the driving language, with the loops of the study.

Imitation of a few traces, then some updates of each method from there; evaluated alone on situations of other seeds
before and after. It shows that the path works and what it costs on this machine. It compares no methods: that takes the
budgets of `lgdrl bench driving-language`, which a model of this size cannot spend on a CPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from baselines.driving.scenes import SceneConfig, SituationSource, situations
from baselines.driving.study import trivial_plans
from baselines.driving.task import DrivingTask
from baselines.language import hf
from baselines.language.grpo import GRPOConfig
from baselines.language.loop import run_updates
from baselines.language.method import language_method
from baselines.language.rollout import Ledger
from baselines.language.sft import SFTConfig, imitate, loss_on
from experts.language.gpt import generate
from lgdrl.runs import write_json
from sim.config import load_yaml, parse_overrides, resolve, to_dict
from sim.errors import UsageError
from sim.files import check_outputs

TRAIN, TEST = 1, 2
"""Roots of the random streams of situations."""


@dataclass(frozen=True)
class SmokeConfig:
    """Small enough for ten minutes of one core with SmolLM2-135M."""

    student: hf.HFConfig = field(default_factory=hf.HFConfig)
    steps: int = 2  # meta-actions of a plan
    sources: tuple[SituationSource, ...] = (SituationSource("lane-change"),)
    scenes: SceneConfig = field(default_factory=SceneConfig)
    train: int = 64  # situations
    test: int = 24  # of other seeds
    trace_share: float = 1.0  # of the training situations that have a trace
    sft: SFTConfig = field(default_factory=lambda: SFTConfig(num_train_epochs=3, batch_size=8))
    grpo: GRPOConfig = field(
        default_factory=lambda: GRPOConfig(
            num_generations=4, prompts_per_update=2, max_completion_length=32, learning_rate=1e-4
        )
    )
    strategies: tuple[str, ...] = ("sft-grpo", "bread")  # each from the imitated model
    updates: int = 2  # of each strategy
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.strategies:
            if language_method(name).needs_teacher or language_method(name).build is None:
                raise ValueError(
                    f"strategy {name!r} is not for this command: choose one without a teacher, with updates"
                )
        if min(self.train, self.test) < 1 or self.updates < 0:
            raise ValueError("choose train >= 1, test >= 1 and updates >= 0")


@dataclass(frozen=True)
class SmokeStage:
    """How good the student is at some point, and what it took to get there."""

    name: str
    loss: float
    """Nats per word of the traces of the test situations."""
    readable: float
    """Share of the greedy answers that keep to the form."""
    success: float
    """Share of the greedy answers whose plan is good."""
    words_per_s: float
    """Of these answers, written side by side; wall time."""
    trained_words_per_s: float
    """Of traces that were imitated, or of answers that a strategy had written; wall time of this stage's training. 0
    where there was none."""
    seconds: float
    """Wall time of this stage's training."""


def smoke(
    config: SmokeConfig, report: Callable[[SmokeStage], None] = lambda _: None, out: Path | None = None
) -> dict[str, Any]:
    """All stages in plain values.

    Args:
        config: The settings.
        report: Called with each stage.
        out: File for the student of the last stage.
    Raises:
        UsageError: There is no model, or no situation to learn from.
    """
    torch.set_num_threads(1)
    train = situations(config.sources, config.train, TRAIN, config.scenes)
    test = situations(config.sources, config.test, TEST, config.scenes)
    task = DrivingTask(train, test, config.steps, trace_share=config.trace_share)
    if not (task.prompts("train") and task.prompts("test")):
        raise UsageError("in none of the situations a plan ends well: raise train and test")
    student = hf.open_student(config.student, task.vocabulary, config.seed)
    stages = []

    def evaluate(name: str, model: hf.HFStudent, words: int = 0, seconds: float = 0.0) -> None:
        stages.append(_evaluated(name, model, task, config, words, seconds))
        report(stages[-1])

    evaluate("pretrained", student)
    begin, ledger = time.perf_counter(), Ledger()
    imitate(student, task, task.prompts("train"), config.sft, config.seed, ledger)
    evaluate("imitation", student, ledger.trace, time.perf_counter() - begin)
    model, rows = student, {}
    for name in config.strategies:
        model, begin, method = student.copy(), time.perf_counter(), language_method(name)
        options = resolve(method.defaults, {"sft": {"num_train_epochs": 0}, "grpo": to_dict(config.grpo)}, name)
        loop = method.loop(task, model, options, config.seed, config.updates)
        loop.begin()
        rows[name] = list(run_updates(loop, config.updates))
        evaluate(name, model, loop.ledger.generated, time.perf_counter() - begin)
    if out is not None:
        hf.save(model, task.vocabulary, out)
    return {
        "config": to_dict(config),
        "task": task.name,
        "trained_parameters": student.parameter_count,
        "frozen_parameters": student.frozen_count,
        "references": {name: row["success"] for name, row in trivial_plans(task, task.prompts("test")).items()},
        "stages": [dataclasses.asdict(stage) for stage in stages],
        "training": rows,
    }


def _evaluated(
    name: str, model: hf.HFStudent, task: DrivingTask, config: SmokeConfig, words: int, seconds: float
) -> SmokeStage:
    prompts = task.prompts("test")
    loss = loss_on(model, [dataclasses.replace(prompt, trace=task.trace(prompt.key)) for prompt in prompts])
    begin = time.perf_counter()
    written = generate(
        model,
        [prompt.tokens for prompt in prompts],
        [config.grpo.max_completion_length] * len(prompts),
        task.vocabulary.eos,
        allowed=None if task.allowed is None else torch.from_numpy(task.allowed),
    )
    taken = time.perf_counter() - begin
    rewards = task.rewards(prompts, [written.row(i) for i in range(len(prompts))])
    return SmokeStage(
        name,
        loss,
        float(np.mean([reward.format for reward in rewards])),
        float(np.mean([reward.success for reward in rewards])),
        int(written.lengths.sum()) / taken,
        words / seconds if seconds else 0.0,
        seconds,
    )


def main(words: Sequence[str] | None = None) -> None:
    """`lgdrl bench hf-smoke`."""
    parser = argparse.ArgumentParser(prog="lgdrl bench hf-smoke", description=__doc__.split("\n\n")[1])
    parser.add_argument("--model", help="smollm2 (default), FILE.gguf, or a folder of transformers' files")
    parser.add_argument("--config", help="YAML file with changes to the built-in settings")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write what the last student learned (safetensors)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="e.g. train=128 student.lora_rank=16")
    given = parser.parse_args(words)
    check_outputs(vars(given))
    config = resolve(SmokeConfig(), load_yaml(given.config) if given.config else None, "config")
    config = resolve(config, parse_overrides(given.overrides), "config")
    if given.model:
        config = resolve(config, {"student": {"model": given.model}}, "config")
    print(f"{'':12} {'loss':>6} {'readable':>9} {'success':>8} {'words/s':>8} {'trained words/s':>16} {'s':>6}")
    figures = smoke(config, lambda stage: print(_line(stage), flush=True), given.save)
    print(
        f"{figures['task']}, {config.student.model}: {figures['trained_parameters']:,} parameters learn, "
        f"{figures['frozen_parameters']:,} are frozen"
    )
    references = ", ".join(f"{name} {success:.2f}" for name, success in figures["references"].items())
    print(f"success of trivial plans, and of the rule: {references}")
    if given.json:
        write_json(given.json, figures)


def _line(stage: SmokeStage) -> str:
    line = f"{stage.name:12} {stage.loss:6.3f} {stage.readable:9.2f} {stage.success:8.2f} {stage.words_per_s:8.1f}"
    return f"{line} {stage.trained_words_per_s:16.1f} {stage.seconds:6.1f}" if stage.seconds else line


if __name__ == "__main__":
    main()
