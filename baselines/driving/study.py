"""`lgdrl bench driving-language`: ways of learning with an expert, side by side on the driving language task.

Every arm and seed starts from the same small model (imitation of the few traces there are), trains until it has
generated the same number of tokens (searches and a live teacher's reading included), and is judged alone, on held-out
seeds and on held-out densities of traffic. One folder: what is finished is not done again.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from baselines.driving.report import write_report
from baselines.driving.scenes import SceneConfig, Source, row_of, situations
from baselines.driving.task import DrivingTask, Teacher
from baselines.language.arms import get, make_trainer
from baselines.language.evaluation import evaluate
from baselines.language.grpo import GRPOConfig
from baselines.language.rollout import Ledger
from baselines.language.sft import SFTConfig, imitate
from baselines.language.task import Prompt
from experts.language import gpt
from experts.language.gpt import GPTConfig
from experts.language.teacher import GPTTeacher
from experts.language.vocabulary import DRIVING
from lgdrl.jobs import Job, Report, contained, run_all, say
from lgdrl.runs import write_json, write_text
from lgdrl.statistics import t_interval
from sim.actions import MetaAction
from sim.config import dump_yaml, load_yaml, parse_overrides, resolve, to_dict
from sim.errors import UsageError

KS = (1, 8, 32)
"""Of pass@k; the largest is the number of sampled answers per prompt."""


@dataclass(frozen=True)
class TeacherConfig:
    """A larger model of the same vocabulary, trained on traces of situations of its own: a teacher of tokens."""

    situations: int = 6000
    model: GPTConfig = field(default_factory=lambda: GPTConfig(len(DRIVING), 96, 4, 4, 160))
    sft: SFTConfig = field(default_factory=lambda: SFTConfig(num_train_epochs=4, batch_size=64))


@dataclass(frozen=True)
class StudyConfig:
    """What is compared. Each arm is a name of `baselines.language.arms` with changes to its options."""

    steps: int = 3  # meta-actions of a plan
    check_facts: bool = False  # whether facts must be right too (D3)
    sources: tuple[Source, ...] = (Source("lane-change"), Source("highway-fast-v0"), Source("merge-v1"))
    held_out: tuple[Source, ...] = ()  # densities that were never trained on
    scenes: SceneConfig = field(default_factory=SceneConfig)
    train: int = 600  # situations, from all sources
    test: int = 300  # of other seeds, and again as many of the held-out sources
    traces: Teacher = "search"  # who writes them
    trace_share: float = 0.4  # of the training situations that have one
    student: GPTConfig = field(default_factory=lambda: GPTConfig(len(DRIVING), 128, 3, 4, 96))
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    sft: SFTConfig = field(default_factory=SFTConfig)
    grpo: GRPOConfig = field(default_factory=lambda: GRPOConfig(max_completion_length=32, prompts_per_update=16))
    tokens: int = 150_000  # that an arm may generate
    arms: dict[str, dict[str, Any]] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        for arm in self.arms:
            get(arm)
        if not (self.sources and self.seeds and min(self.train, self.test, self.tokens) >= 1):
            raise ValueError("a study needs sources, seeds, situations and tokens")


@dataclass(frozen=True)
class Material:
    """The task, and prompts of held-out densities."""

    task: DrivingTask
    held_out: list[Prompt]


SEEDS = {"train": 1, "test": 2, "held_out": 3, "teacher": 4}
"""Roots of the random streams that situations are drawn from: no set shares an episode with another."""


def material(config: StudyConfig) -> Material:
    """The situations of a study, the same for all its arms and seeds."""
    train, test = (
        situations(config.sources, count, SEEDS[name], config.scenes)
        for name, count in (("train", config.train), ("test", config.test))
    )
    task = DrivingTask(train, test, config.steps, config.check_facts, config.traces, config.trace_share)
    if not config.held_out:
        return Material(task, [])
    return Material(task, task.add(situations(config.held_out, config.test, SEEDS["held_out"], config.scenes)))


def train_teacher(config: StudyConfig, path: Path) -> None:
    """Write the teacher of tokens; figures of it beside it."""
    teacher = config.teacher
    met = situations(config.sources, teacher.situations, SEEDS["teacher"], config.scenes)
    task = DrivingTask(met, [], config.steps, config.check_facts, config.traces)
    model = gpt.new(teacher.model, 0)
    total = teacher.sft.num_train_epochs
    imitate(
        model,
        task,
        task.prompts("train"),
        teacher.sft,
        0,
        observer=lambda row: say("teacher", row["epoch"], total),
    )
    shared = material(config)
    write_json(path.with_suffix(".json"), judged(model, shared, config) | {"parameters": model.parameter_count})
    gpt.save(model, DRIVING, path)


def student(config: StudyConfig, task: DrivingTask, seed: int, path: Path, ledger: Ledger) -> gpt.GPT:
    """The model that all arms of a seed start from; imitated once, then read back."""
    tokens = path.with_suffix(".json")
    if not path.exists():
        model, spent = gpt.new(config.student, seed), Ledger()
        imitate(model, task, task.prompts("train"), config.sft, seed, spent)
        write_json(tokens, {"trace": spent.trace})
        gpt.save(model, DRIVING, path)
    ledger.trace += json.loads(tokens.read_text())["trace"]
    return gpt.load(path, DRIVING)


def judged(model: gpt.GPT, shared: Material, config: StudyConfig) -> dict[str, Any]:
    """The model alone on both test sets: no hints, no teacher."""
    found: dict[str, Any] = {}
    for name, prompts in (("test", shared.task.prompts("test")), ("held_out", shared.held_out)):
        if prompts:
            answers = evaluate(model, shared.task, prompts, config.grpo, max(KS), seed=0)
            found[name] = answers.to_dict(KS) | {"by_prompt": answers.success().tolist()}
    return found


def train_arm(config: StudyConfig, arm_name: str, seed: int, out: Path) -> dict[str, Any]:
    """One arm and seed, from the common start to its figures."""
    begin = time.process_time()
    torch.set_num_threads(1)
    shared = _material(_frozen(config))
    arm, ledger, name = get(arm_name), Ledger(), f"{arm_name}/seed{seed}"
    start = out / "students" / f"seed{seed}.safetensors"
    start.parent.mkdir(parents=True, exist_ok=True)
    model = student(config, shared.task, seed, start, ledger) if arm.sft else gpt.new(config.student, seed)
    rows: list[dict[str, Any]] = []
    if arm.rl:
        teacher = None
        if arm.needs_teacher:
            teacher = GPTTeacher(gpt.load(_teacher(out), DRIVING).requires_grad_(False), DRIVING.version)
        trainer = make_trainer(
            shared.task, model, arm, config.arms[arm_name], config.grpo, seed, teacher=teacher, ledger=ledger
        )
        rows = trainer.train(
            10**9,
            config.tokens,
            lambda row: say(name, min(row["generated_tokens"], config.tokens), config.tokens),
        )
    else:
        say(name, 1, 1)
    return {
        "arm": arm_name,
        "seed": seed,
        **judged(model, shared, config),
        "ledger": ledger.to_dict(),
        "training": rows,
        "cpu_s": time.process_time() - begin,
    }


@functools.lru_cache(maxsize=1)
def _material(config: str) -> Material:
    """Once per process."""
    return material(resolve(StudyConfig(), json.loads(config), "study"))


def _frozen(config: StudyConfig) -> str:
    return json.dumps(to_dict(config))


def _teacher(out: Path) -> Path:
    return out / "teacher.safetensors"


def _result(out: Path, arm: str, seed: int) -> Path:
    return out / arm / f"seed{seed}.json"


def _arm_job(config: str, arm: str, seed: int, out: str) -> str | None:
    def work() -> None:
        path = _result(Path(out), arm, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, train_arm(resolve(StudyConfig(), json.loads(config), "study"), arm, seed, Path(out)))

    return contained(f"{arm}/seed{seed}", work)


def _teacher_job(config: str, out: str) -> str | None:
    study = resolve(StudyConfig(), json.loads(config), "study")
    return contained("teacher", lambda: train_teacher(study, _teacher(Path(out))))


def dumb_plans(shared: Material, prompts: Sequence[Prompt]) -> dict[str, dict[str, float]]:
    """What plans without any thought reach, and those of the rule, which sees what becomes of each action."""
    cases = [shared.task.case(prompt.key) for prompt in prompts]
    steps = shared.task.steps
    rows = {action.name: [row_of([action] * steps)] * len(cases) for action in MetaAction}
    rows["rule"] = [row_of(case.situation.rule[:steps]) for case in cases]
    found = {
        name: {
            "success": float(np.mean([case.outcomes.good[row] for case, row in zip(cases, chosen, strict=True)])),
            "crash": float(np.mean([case.outcomes.crash[row] for case, row in zip(cases, chosen, strict=True)])),
            "speed": float(np.mean([case.outcomes.speed[row] for case, row in zip(cases, chosen, strict=True)])),
        }
        for name, chosen in rows.items()
    }
    found["random"] = {
        name: float(np.mean([getattr(case.outcomes, column).mean() for case in cases]))
        for name, column in (("success", "good"), ("crash", "crash"), ("speed", "speed"))
    }
    return found


def study(config: StudyConfig, out: Path, processes: int = 2, report: Report | None = None) -> dict[str, Any]:
    """Run what is not finished; returns and writes the figures (study.json, study.md, plots)."""
    if not config.arms:
        raise UsageError("config.arms is empty: name some, as experiments/driving_language.yaml does")
    saved = out / "study.yaml"
    text = dump_yaml(to_dict(config))
    if saved.exists() and saved.read_text(encoding="utf-8") != text:
        raise UsageError(f"{str(out)!r} holds another study: choose another --out, or the same settings to continue")
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text(saved, text)
    except OSError as error:
        raise UsageError(f"cannot write the output folder {str(out)!r}: {error.strerror}") from None
    frozen = _frozen(config)
    taught = any(get(arm).needs_teacher for arm in config.arms)
    missing = [(arm, seed) for seed in config.seeds for arm in config.arms if not _result(out, arm, seed).exists()]
    first: list[Job] = [(_teacher_job, (frozen, str(out)))] if taught and not _teacher(out).exists() else []
    # the first arm of every seed makes the common start that the others of that seed read
    opening = [(arm, seed) for arm, seed in missing if not (out / "students" / f"seed{seed}.safetensors").exists()]
    starts = {seed: arm for arm, seed in reversed(opening) if get(arm).sft and not get(arm).needs_teacher}
    first += [(_arm_job, (frozen, arm, seed, str(out))) for seed, arm in sorted(starts.items())]
    run_all(first, processes, report)
    rest: list[Job] = [
        (_arm_job, (frozen, arm, seed, str(out))) for arm, seed in missing if not _result(out, arm, seed).exists()
    ]
    run_all(rest, processes, report)
    figures = collect(config, out)
    write_json(out / "study.json", figures)
    write_report(figures, out)
    return figures


def collect(config: StudyConfig, out: Path) -> dict[str, Any]:
    """All figures of a finished study in plain values."""
    shared = _material(_frozen(config))
    sets = {"test": shared.task.prompts("test"), **({"held_out": shared.held_out} if shared.held_out else {})}
    arms = {
        arm: [json.loads(_result(out, arm, seed).read_text(encoding="utf-8")) for seed in config.seeds]
        for arm in config.arms
    }
    figures: dict[str, Any] = {
        "config": to_dict(config),
        "task": shared.task.name,
        "prompts": {"train": len(shared.task.prompts("train"))} | {name: len(found) for name, found in sets.items()},
        "traces": sum(prompt.trace is not None for prompt in shared.task.prompts("train")),
        "references": {name: dumb_plans(shared, prompts) for name, prompts in sets.items()},
        "arms": {arm: _summary(runs, sets) for arm, runs in arms.items()},
    }
    if _teacher(out).exists():
        figures["teacher"] = json.loads(_teacher(out).with_suffix(".json").read_text(encoding="utf-8"))
    base = "sft-grpo" if "sft-grpo" in arms else next(iter(arms))
    for arm, runs in arms.items():
        for name in sets:
            gained = [a[name]["success"] - b[name]["success"] for a, b in zip(runs, arms[base], strict=True)]
            figures["arms"][arm][name]["gain"] = t_interval(gained)
    figures["base"] = base
    return figures


def _summary(runs: Sequence[Mapping[str, Any]], sets: Mapping[str, Any]) -> dict[str, Any]:
    """One arm over its seeds: intervals of what was judged, means of what happened in training."""
    columns = ("success", "pass_at_1", "pass_at_8", "pass_at_32", "crash", "speed", "distinct", "entropy", "facts")
    found: dict[str, Any] = {}
    for name in sets:
        known = [column for column in columns if all(column in run[name] for run in runs)]
        found[name] = {column: t_interval([run[name][column] for run in runs]) for column in known}
    logged = ("zero_advantage_share", "skipped", "probes", "anchor", "revealed_share", "weight", "taught_share")
    found["training"] = {}
    for column in logged:
        values = [row[column] for run in runs for row in run["training"] if row.get(column) is not None]
        if values:
            found["training"][column] = float(np.mean(values))
    for column in ("format", "entropy"):
        values = [[row[column] for row in run["training"] if row[column] is not None] for run in runs]
        if all(values):
            quarters = [np.array_split(row, min(4, len(row))) for row in values]
            found["training"][column] = [float(np.mean([run[i].mean() for run in quarters])) for i in (0, -1)]
    found["ledger"] = {key: float(np.mean([run["ledger"][key] for run in runs])) for key in runs[0]["ledger"]}
    found["updates"] = float(np.mean([len(run["training"]) for run in runs]))
    found["cpu_s"] = float(np.mean([run["cpu_s"] for run in runs]))
    found["curves"] = [
        [[row["generated_tokens"], row["success"]] for row in run["training"] if row["success"] is not None]
        for run in runs
    ]
    return found


def main(words: Sequence[str] | None = None) -> None:
    """`lgdrl bench driving-language`."""
    parser = argparse.ArgumentParser(prog="lgdrl bench driving-language", description=__doc__.split("\n\n")[1])
    parser.add_argument("--config", help="YAML file, e.g. experiments/driving_language.yaml")
    parser.add_argument("--out", type=Path, required=True, help="folder of this study; continued if it exists")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--seed", type=int, help="first training seed (default: that of the config)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="config overrides, e.g. tokens=20000")
    given = parser.parse_args(words)
    config = resolve(StudyConfig(), load_yaml(given.config) if given.config else None, "config")
    config = resolve(config, parse_overrides(given.overrides), "config")
    if given.seed is not None:
        config = resolve(config, {"seeds": [given.seed + i for i in range(len(config.seeds))]}, "config")
    from rich.console import Console

    from lgdrl.display import comparison_progress

    console = Console()
    with comparison_progress(console) as report:
        figures = study(config, given.out, given.jobs, report)
    console.print((given.out / "study.md").read_text(encoding="utf-8"), soft_wrap=True, markup=False, highlight=False)
    if given.json:
        write_json(given.json, figures)


if __name__ == "__main__":
    main()
