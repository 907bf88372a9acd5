"""Reasoning tasks on traffic scenes, for the trainers of `baselines.language`.

D1: one meta-action. D2(m): a plan of m meta-actions, open loop; a plan that is good in its first action and bad in its
third fails, so success is the rarer the longer plans are. D3(m): the same, and what the answer says about the scene
must be right too. Success is the simulator's verdict (`scenes.Outcomes`); the total is 0.9 success + 0.1 form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from baselines.driving.scenes import LONGEST, Outcomes, Situation, outcomes, row_of
from baselines.language.task import Prompt, Reward, Tokens, Trace, with_hint
from experts.language.driving_language import answer, read_answer
from experts.language.vocabulary import ACTIONS, ANSWERED, DRIVING, EOS, PLACES, PUNCTUATION, SPEED, TTC, VERDICTS
from sim.errors import UsageError

Teacher = Literal["search", "rule"]

ANSWER_WORDS = (EOS, ANSWERED, *PUNCTUATION, *ACTIONS, *PLACES, *VERDICTS, *TTC.words, *SPEED.words, "limit")
TERSE = 0.9
"""Share of success in the total; the rest is form."""


@dataclass(frozen=True, slots=True)
class Case:
    """A situation with the outcomes of its plans."""

    situation: Situation
    outcomes: Outcomes


class DrivingTask:
    """Implements `baselines.language.task.Task`."""

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
    ) -> None:
        """Situations in which no plan ends well are left out.

        Args: situations; meta-actions per plan; whether the facts are judged too (D3); who writes the traces: a search
        over all plans (`Outcomes.best`), or the rule where its plan is good; share of the training prompts that have a
        trace, drawn by `seed`.
        """
        if not 1 <= steps <= LONGEST:
            raise UsageError(f"steps = {steps}: choose 1 to {LONGEST}")
        if not 0 <= trace_share <= 1:
            raise UsageError(f"trace_share = {trace_share}: choose 0 to 1")
        self.steps, self.check_facts, self.teacher = steps, check_facts, teacher
        self.name = f"D3({steps})" if check_facts else "D1" if steps == 1 else f"D2({steps})"
        self.allowed: np.ndarray | None = np.isin(DRIVING.words, ANSWER_WORDS)
        self._cases: dict[str, Case] = {}
        drawn = np.random.default_rng(seed).random(len(train)) < trace_share
        self._prompts = {
            "train": self.add(train, [bool(traced) for traced in drawn]),
            "test": self.add(test, [False] * len(test)),
        }

    def add(self, situations: Sequence[Situation], traced: Sequence[bool] | None = None) -> list[Prompt]:
        """Prompts of further situations that the task can judge from now on, e.g. held-out densities."""
        prompts = []
        ends = outcomes(situations, self.steps)
        for situation, end, with_trace in zip(situations, ends, traced or [True] * len(situations), strict=True):
            if end is None:
                continue
            self._cases[situation.key] = Case(situation, end)
            tokens = DRIVING.encode(situation.picture.prompt(self.steps))
            prompts.append(Prompt(situation.key, tokens, self.trace(situation.key) if with_trace else None))
        return prompts

    def prompts(self, split: Literal["train", "test"]) -> Sequence[Prompt]:
        return self._prompts[split]

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

    def rewards(self, prompts: Sequence[Prompt], answers: Sequence[Tokens]) -> Sequence[Reward]:
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

    def hinted(self, prompt: Prompt, opening: Tokens) -> Tokens:
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
