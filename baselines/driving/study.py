"""`lgdrl bench driving-language`: ways of learning with an expert, side by side on the driving language task.

Every arm is a method of `lgdrl list strategies` with options, every arm and seed an ordinary run folder. All arms of a
seed imitate the same few traces first (unless the method does not imitate), train until they have generated the same
number of tokens (searches and a live teacher's reading included), and are evaluated alone, on held-out seeds and on
held-out densities of traffic. One folder: what is finished is not done again, and what was stopped continues.
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

from baselines.driving.report import write_report
from baselines.driving.scenes import SceneConfig, SituationSource, row_of, situations
from baselines.driving.task import DrivingTask, DrivingTaskConfig, Teacher, make
from baselines.language.evaluation import evaluate
from baselines.language.grpo import GRPOConfig
from baselines.language.loop import LanguageLoop
from baselines.language.method import TokenMethod, language_method
from baselines.language.sft import SFTConfig, imitate
from baselines.language.task import TaskPrompt
from experts.language import gpt
from experts.language.gpt import GPTConfig
from experts.language.vocabulary import DRIVING
from lgdrl import training
from lgdrl.config import RunConfig
from lgdrl.jobs import Job, Report, contained, run_all, say
from lgdrl.runs import Run, write_json, write_text
from lgdrl.statistics import t_interval
from sim.actions import MetaAction
from sim.config import dump_yaml, load_yaml, parse_overrides, resolve, to_dict
from sim.errors import UsageError
from sim.files import check_outputs

KS = (1, 8, 32)
"""Of pass@k; the largest is the number of sampled answers per prompt."""
LOGGED = (
    "rollout/zero_advantage_share",
    "guidance/skipped",
    "guidance/probes",
    "guidance/anchor",
    "guidance/revealed_share",
    "guidance/weight",
    "guidance/taught_share",
)
"""Columns of training whose means are reported."""


@dataclass(frozen=True)
class TeacherConfig:
    """A larger model of the same vocabulary, trained on traces of situations of its own: a teacher of tokens."""

    situations: int = 6000
    model: GPTConfig = field(default_factory=lambda: GPTConfig(len(DRIVING), 96, 4, 4, 160))
    sft: SFTConfig = field(default_factory=lambda: SFTConfig(num_train_epochs=4, batch_size=64))


@dataclass(frozen=True)
class StudyConfig:
    """What is compared. Each arm is named after its method, or names it as `strategy`; what else it has are changes to
    the method's own options."""

    steps: int = 3  # meta-actions of a plan
    check_facts: bool = False  # whether facts must be right too (D3)
    sources: tuple[SituationSource, ...] = (
        SituationSource("lane-change"),
        SituationSource("highway-fast-v0"),
        SituationSource("merge-v1"),
    )
    held_out: tuple[SituationSource, ...] = ()  # densities that were never trained on
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
        for name, changes in self.arms.items():
            arm_options(name, changes)
        if not (self.sources and self.seeds and min(self.train, self.test, self.tokens) >= 1):
            raise ValueError("a study needs sources, seeds, situations and tokens")


def arm_options(name: str, changes: Mapping[str, Any]) -> tuple[TokenMethod, dict[str, Any]]:
    """The method of an arm, and its changes to the options as a run takes them.

    Args:
        name: Of the arm.
        changes: As in `StudyConfig.arms`.
    Raises:
        UsageError: There is no such method, or it has no such option.
    """
    method = language_method(changes.get("strategy", name))
    own = {key: value for key, value in changes.items() if key != "strategy"}
    options = {"method": own} if own else {}
    resolve(method.defaults, options, f"arms.{name}")
    return method, options


@dataclass(frozen=True)
class Material:
    """The task, and the prompts of its two evaluations."""

    task: DrivingTask
    test: list[TaskPrompt]
    """Other seeds."""
    held_out: list[TaskPrompt]
    """Other densities."""


SEEDS = {"test": 2, "held_out": 3, "teacher": 4}
"""Roots of the random streams that situations are drawn from: no set shares an episode with another. 1 and 5 are the
task's own."""
MANY = 10**9
"""Updates of a run that ends when its tokens are spent."""


def material(config: StudyConfig) -> Material:
    """The situations of a study, the same for all its arms and seeds."""
    task = make(_task_config(config), RunConfig())
    test, held_out = (
        task.add(met, [False] * len(met))
        for met in (
            situations(config.sources, config.test, SEEDS["test"], config.scenes),
            situations(config.held_out, config.test, SEEDS["held_out"], config.scenes) if config.held_out else [],
        )
    )
    return Material(task, test, held_out)


def _task_config(config: StudyConfig) -> DrivingTaskConfig:
    return DrivingTaskConfig(
        config.steps,
        config.check_facts,
        config.sources,
        config.scenes,
        config.train,
        config.traces,
        config.trace_share,
    )


def run_config(config: StudyConfig, arm: str, seed: int, out: Path) -> RunConfig:
    """The run of one arm and seed.

    Args:
        config: The study.
        arm: Name of the arm.
        seed: Training seed.
        out: Folder of the study; the teacher is there.
    """
    method, options = arm_options(arm, config.arms[arm])
    options |= {
        "task": "driving",
        "task_options": to_dict(_task_config(config)),
        "model": to_dict(config.student),
        "grpo": to_dict(config.grpo),
        "tokens": config.tokens,
        "teacher": str(_teacher(out)) if method.needs_teacher else None,
    }
    if method.defaults.sft.num_train_epochs:
        options["sft"] = to_dict(config.sft)
    return RunConfig(
        strategy=method.name,
        strategy_options=options,
        steps=MANY,
        seed=seed,
        log_every=1,
        evaluate_every=0,
        checkpoint_every=20,
    )


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
    write_json(path.with_suffix(".json"), evaluated(model, shared, config) | {"parameters": model.parameter_count})
    gpt.save(model, DRIVING, path)


def evaluated(model: gpt.GPT, shared: Material, config: StudyConfig) -> dict[str, Any]:
    """The model alone on both test sets: no hints, no teacher."""
    found: dict[str, Any] = {}
    for name, prompts in (("test", shared.test), ("held_out", shared.held_out)):
        if prompts:
            answers = evaluate(model, shared.task, prompts, config.grpo, max(KS), seed=0)
            found[name] = answers.to_dict(KS) | {"by_prompt": answers.success().tolist()}
    return found


def train_arm(config: StudyConfig, arm: str, seed: int, out: Path) -> dict[str, Any]:
    """One arm and seed, from wherever its run stands to its figures.

    Args:
        config: The study.
        arm: Name of the arm.
        seed: Training seed.
        out: Folder of the study.
    """
    begin = time.process_time()
    folder, name = out / arm / f"seed{seed}", f"{arm}/seed{seed}"
    started = Run(folder).config.exists()
    trainer = training.resume(folder) if started else training.start(run_config(config, arm, seed, out), folder)
    loop = trainer.loop
    assert isinstance(loop, LanguageLoop)

    def observe(progress: training.Progress) -> None:
        spent = min(loop.ledger.generated, config.tokens)
        say(name, config.tokens if progress.done == progress.total else spent, config.tokens)

    try:
        with training.stop_on_interrupt(trainer):
            if not trainer.train(observe):
                raise KeyboardInterrupt
        student = gpt.load(trainer.run.policy, DRIVING)
        return {
            "arm": arm,
            "seed": seed,
            **evaluated(student, _material(_frozen(config)), config),
            "ledger": loop.ledger.to_dict(),
            "training": [_numbers(row) for row in trainer.metrics.rows if row.get("train/updates") not in (None, "")],
            "cpu_s": time.process_time() - begin,
        }
    finally:
        trainer.close()


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The columns of a row of metrics.csv that have a group and a value; text where the row was read back."""
    return {name: float(value) for name, value in row.items() if "/" in name and value not in (None, "")}


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


def trivial_plans(task: DrivingTask, prompts: Sequence[TaskPrompt]) -> dict[str, dict[str, float]]:
    """What constant and random plans reach, and those of the rule, which sees the result of each action.

    Args:
        task: The task of the prompts.
        prompts: The prompts.
    """
    cases = [task.case(prompt.key) for prompt in prompts]
    steps = task.steps
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
    """Run what is not finished, and write the figures (study.json, study.md, plots).

    Args:
        config: The study.
        out: Its folder.
        processes: Worker processes.
        report: Called with the progress of each run.
    Returns:
        The figures.
    Raises:
        UsageError: There are no arms, or the folder holds another study.
        RunFailed: A run failed; the others are finished.
    """
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
    taught = any(arm_options(arm, changes)[0].needs_teacher for arm, changes in config.arms.items())
    if taught and not _teacher(out).exists():
        run_all([(_teacher_job, (frozen, str(out)))], processes, report)
    jobs: list[Job] = [
        (_arm_job, (frozen, arm, seed, str(out)))
        for seed in config.seeds
        for arm in config.arms
        if not _result(out, arm, seed).exists()
    ]
    run_all(jobs, processes, report)
    figures = collect(config, out)
    write_json(out / "study.json", figures)
    write_report(figures, out)
    return figures


def collect(config: StudyConfig, out: Path) -> dict[str, Any]:
    """All figures of a finished study in plain values."""
    shared = _material(_frozen(config))
    sets = {"test": shared.test, **({"held_out": shared.held_out} if shared.held_out else {})}
    arms = {
        arm: [json.loads(_result(out, arm, seed).read_text(encoding="utf-8")) for seed in config.seeds]
        for arm in config.arms
    }
    figures: dict[str, Any] = {
        "config": to_dict(config),
        "task": shared.task.name,
        "prompts": {"train": len(shared.task.prompts("train"))} | {name: len(found) for name, found in sets.items()},
        "traces": sum(prompt.trace is not None for prompt in shared.task.prompts("train")),
        "references": {name: trivial_plans(shared.task, prompts) for name, prompts in sets.items()},
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
    """One arm over its seeds: intervals of its evaluations, means of its training."""
    columns = ("success", "pass_at_1", "pass_at_8", "pass_at_32", "crash", "speed", "distinct", "entropy", "facts")
    found: dict[str, Any] = {}
    for name in sets:
        known = [column for column in columns if all(column in run[name] for run in runs)]
        found[name] = {column: t_interval([run[name][column] for run in runs]) for column in known}
    found["training"] = {}
    for column in LOGGED:
        values = [row[column] for run in runs for row in run["training"] if row.get(column) is not None]
        if values:
            found["training"][column.split("/")[1]] = float(np.mean(values))
    for column in ("rollout/format", "rollout/entropy"):
        values = [[row[column] for row in run["training"] if row.get(column) is not None] for run in runs]
        if all(values):
            quarters = [np.array_split(row, min(4, len(row))) for row in values]
            found["training"][column.split("/")[1]] = [
                float(np.mean([run[i].mean() for run in quarters])) for i in (0, -1)
            ]
    found["ledger"] = {key: float(np.mean([run["ledger"][key] for run in runs])) for key in runs[0]["ledger"]}
    found["updates"] = float(np.mean([len(run["training"]) for run in runs]))
    found["cpu_s"] = float(np.mean([run["cpu_s"] for run in runs]))
    found["curves"] = [
        [
            [row["rollout/generated_tokens"], row["rollout/success"]]
            for row in run["training"]
            if row.get("rollout/success") is not None
        ]
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
    check_outputs(vars(given))
    config = resolve(StudyConfig(), load_yaml(given.config) if given.config else None, "config")
    config = resolve(config, parse_overrides(given.overrides), "config")
    if given.seed is not None:
        config = resolve(config, {"seeds": [given.seed + i for i in range(len(config.seeds))]}, "config")
    from lgdrl.display import comparison_progress, make_console

    console = make_console()
    with comparison_progress(console) as report:
        figures = study(config, given.out, given.jobs, report)
    console.print((given.out / "study.md").read_text(encoding="utf-8"), soft_wrap=True, highlight=False)
    if given.json:
        write_json(given.json, figures)


if __name__ == "__main__":
    main()
