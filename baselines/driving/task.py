"""Reasoning tasks on traffic scenes, for the methods of `baselines.language`.

D1: one meta-action. D2(m): a plan of m meta-actions, open loop; a plan that is good in its first action and bad in its
third fails, so success is the rarer the longer plans are. D3(m): the same, and what the answer says about the scene
must be right too. Success is what the simulator says (`scenes.Outcomes`); the total is 0.9 success + 0.1 form.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from baselines.driving.scenes import (
    LONGEST,
    Outcomes,
    SceneConfig,
    Situation,
    SituationSource,
    outcomes,
    row_of,
    situations,
)
from baselines.language.task import Reward, TaskPrompt, Tokens, Trace, with_hint
from baselines.language.tasks import TaskKind
from experts.language.driver import Driver
from experts.language.driving_language import answer, read_answer
from experts.language.teacher import GPTTeacher, TokenProvider
from experts.language.vocabulary import ACTIONS, ANSWERED, DRIVING, EOS, PLACES, PUNCTUATION, SPEED, TTC, VERDICTS
from lgdrl.config import RunConfig
from sim.config import resolve, to_dict
from sim.errors import UsageError

Teacher = Literal["search", "rule"]

ANSWER_WORDS = (EOS, ANSWERED, *PUNCTUATION, *ACTIONS, *PLACES, *VERDICTS, *TTC.words, *SPEED.words, "limit")
TERSE = 0.9
"""Share of success in the total; the rest is form."""
TRAIN, TEST, HELD_OUT = 1, 2, 5
"""Roots of the random streams that situations are drawn from: no set shares an episode with another (3 and 4 are the
study's)."""
BLOCK = 50
"""Held-out prompts that are made together."""
SPREAD = 8
"""Situations that are met for each of them."""


@dataclass(frozen=True, slots=True)
class Case:
    """A situation with the outcomes of its plans."""

    situation: Situation
    outcomes: Outcomes


@dataclass(frozen=True)
class DrivingTaskConfig:
    """The task of a run."""

    steps: int = 2  # meta-actions of a plan
    check_facts: bool = False  # whether facts must be right too (D3)
    sources: tuple[SituationSource, ...] = ()  # of situations, for training and evaluation; none: the run's scenario
    scenes: SceneConfig = field(default_factory=SceneConfig)
    train: int = 200  # situations; the same for all training seeds, so that runs differ in what they learn only
    traces: Teacher = "search"  # who writes them
    trace_share: float = 0.4  # of the training situations that have one

    def __post_init__(self) -> None:
        if self.train < 1:
            raise ValueError(f"train = {self.train}: choose at least 1")


class DrivingTask:
    """Implements `baselines.language.task.TextTask`. Situations in which no plan ends well are left out.

    Args:
        train: Situations of the training prompts.
        test: Situations of the test prompts.
        steps: Meta-actions of a plan.
        check_facts: Whether the facts must be right too (D3).
        teacher: Who writes the traces: a search over all plans (`Outcomes.best`), or the rule where its plan is good.
        trace_share: Of the training prompts that have a trace.
        seed: Draws them.
        sources: Of held-out situations; none: there are none.
        scenes: How held-out situations are met.
    Raises:
        UsageError: A number is out of range.
    """

    backend = "engine"
    vocabulary = DRIVING

    def __init__(
        self,
        train: Sequence[Situation],
        test: Sequence[Situation],
        steps: int = 3,
        check_facts: bool = False,
        teacher: Teacher = "search",
        trace_share: float = 1.0,
        seed: int = 0,
        sources: Sequence[SituationSource] = (),
        scenes: SceneConfig | None = None,
    ) -> None:
        if not 1 <= steps <= LONGEST:
            raise UsageError(f"steps = {steps}: choose 1 to {LONGEST}")
        if not 0 <= trace_share <= 1:
            raise UsageError(f"trace_share = {trace_share}: choose 0 to 1")
        self.steps, self.check_facts, self.teacher = steps, check_facts, teacher
        self.name = f"D3({steps})" if check_facts else "D1" if steps == 1 else f"D2({steps})"
        self.allowed: np.ndarray | None = np.isin(DRIVING.words, ANSWER_WORDS)
        self._cases: dict[str, Case] = {}
        self._sources, self._scenes = sources, scenes
        self._blocks: dict[int, list[TaskPrompt]] = {}
        drawn = np.random.default_rng(seed).random(len(train)) < trace_share
        self._prompts = {
            "train": self.add(train, [bool(traced) for traced in drawn]),
            "test": self.add(test, [False] * len(test)),
        }

    def add(self, situations: Sequence[Situation], traced: Sequence[bool] | None = None) -> list[TaskPrompt]:
        """Prompts of further situations that the task can score from now on, e.g. held-out densities.

        Args:
            situations: The situations; those in which no plan ends well are left out.
            traced: Which of them have a trace; None: all.
        """
        prompts = []
        ends = outcomes(situations, self.steps)
        for situation, end, with_trace in zip(situations, ends, traced or [True] * len(situations), strict=True):
            if end is None:
                continue
            self._cases[situation.key] = Case(situation, end)
            tokens = DRIVING.encode(situation.picture.prompt(self.steps))
            prompts.append(TaskPrompt(situation.key, tokens, self.trace(situation.key) if with_trace else None))
        return prompts

    def prompts(self, split: Literal["train", "test"]) -> Sequence[TaskPrompt]:
        return self._prompts[split]

    def held_out(self, seeds: Sequence[int]) -> list[TaskPrompt]:
        """Prompts of situations that no training or test prompt is of.

        Args:
            seeds: One per prompt; the same seed always gives the same prompt.
        Raises:
            UsageError: The task has no sources, or no plan ends well there.
        """
        return [self._block(seed // BLOCK)[seed % BLOCK] for seed in seeds]

    def _block(self, number: int) -> list[TaskPrompt]:
        """The prompts of `BLOCK` successive seeds, drawn from more situations than are needed: those that are met in
        the same step are alike."""
        if number not in self._blocks:
            count = SPREAD * BLOCK if self._sources else 0
            met = situations(self._sources, count, (HELD_OUT, number), self._scenes) if count else []
            order = np.random.default_rng((HELD_OUT, number)).permutation(count)
            found: list[TaskPrompt] = []
            for part in np.array_split(order, SPREAD) if count else []:
                found += self.add([met[i] for i in part], [False] * len(part))
                if len(found) >= BLOCK:
                    break
            else:
                raise UsageError(f"task {self.name!r} has no held-out situations in which a plan ends well")
            self._blocks[number] = found[:BLOCK]
        return self._blocks[number]

    def case(self, key: str) -> Case:
        return self._cases[key]

    def trace(self, key: str) -> Trace | None:
        """A verified answer: its facts are computed, its plan is good. None where the rule's own plan is not."""
        case = self._cases[key]
        rule = case.situation.rule[: self.steps]
        if self.teacher == "rule" and not case.outcomes.good[row_of(rule)]:
            return None
        plan = rule if self.teacher == "rule" else case.outcomes.plan(case.outcomes.best)
        return trace_of(case.situation, plan)

    def rewards(self, prompts: Sequence[TaskPrompt], answers: Sequence[Tokens]) -> Sequence[Reward]:
        return [self._reward(self._cases[prompt.key], tokens) for prompt, tokens in zip(prompts, answers, strict=True)]

    def _reward(self, case: Case, tokens: Tokens) -> Reward:
        read = read_answer(DRIVING.decode(tokens), self.steps)
        if read is None:
            return Reward(0.0, False, False)
        row, told, true = row_of(read.plan), read.facts, case.situation.facts
        facts = [told.own == true.own, told.left == true.left, told.right == true.right]
        good = bool(case.outcomes.good[row])
        success = good and all(facts) if self.check_facts else good
        parts = {
            "good_plan": float(good),
            "crash": float(case.outcomes.crash[row]),
            "speed": float(case.outcomes.speed[row]),
            "facts": float(np.mean(facts)),
        }
        return Reward(TERSE * success + (1 - TERSE), success, True, parts)

    def hinted(self, prompt: TaskPrompt, opening: Tokens) -> Tokens:
        return with_hint(prompt.tokens, opening, DRIVING)

    def chance(self, split: Literal["train", "test"] = "test") -> float:
        """Share of good plans, over the prompts of a split: what uniform guessing of actions would reach."""
        return float(np.mean([self._cases[prompt.key].outcomes.good.mean() for prompt in self._prompts[split]]))


def trace_of(situation: Situation, plan: Sequence[int]) -> Trace:
    """An answer with right facts and this plan; an episode ends after every fact and every meta-action."""
    tokens = DRIVING.encode(answer(situation.facts, plan))
    separator = DRIVING.id(";")
    ends = [i + 1 for i, token in enumerate(tokens) if token == separator]
    ends[2] += 1  # the third fact ends with </think>
    return Trace(tokens, (*ends, len(tokens)))


# --- as the task of a run --------------------------------------------------------------------------------------------


def check(config: DrivingTaskConfig, run: RunConfig) -> None:
    """Refuse sources that cannot be used, and plans of a wrong length.

    Args:
        config: The settings of the task.
        run: The resolved config of the run.
    """
    for source in located(config, run).sources:
        source.envs(1)
    DrivingTask([], [], config.steps, config.check_facts, config.traces, config.trace_share)


def make(config: DrivingTaskConfig, run: RunConfig) -> DrivingTask:
    """The task of a run; made once per process.

    Args:
        config: The settings of the task.
        run: The resolved config of the run.
    """
    return _made(json.dumps(to_dict(located(config, run))))


def located(config: DrivingTaskConfig, run: RunConfig) -> DrivingTaskConfig:
    """The same settings with the run's scenario as the source, where no others are named."""
    sources = config.sources or (SituationSource(run.scenario, run.scenario_config),)
    return dataclasses.replace(config, sources=sources)


@functools.lru_cache(maxsize=2)
def _made(frozen: str) -> DrivingTask:
    config = resolve(DrivingTaskConfig(), json.loads(frozen), "task_options")
    train = situations(config.sources, config.train, TRAIN, config.scenes)
    return DrivingTask(
        train,
        [],
        config.steps,
        config.check_facts,
        config.traces,
        config.trace_share,
        sources=config.sources,
        scenes=config.scenes,
    )


def token_teacher(task: DrivingTask, file: str | None) -> TokenProvider:
    """A live teacher of the driving language.

    Args:
        task: The task.
        file: A model that training wrote; None: the one that the package ships.
    Raises:
        UsageError: The file holds no such model.
    """
    return GPTTeacher(Driver.load(file).model, DRIVING.version)


TASK = TaskKind("driving", "plans of meta-actions in traffic", DrivingTaskConfig(), check, make, token_teacher)  # type: ignore[arg-type]
