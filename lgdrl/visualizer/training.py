"""A training run as a session: watch it learn, see labels arrive, take over. One environment, step by step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from experts.data.episodes import Controller, Episode, Turn
from experts.human import Hands
from experts.provider import Decision
from lgdrl.guidance.records import STATUSES, Execution, Reason
from lgdrl.guidance.terms import ConstraintTerm
from lgdrl.loops.online import OnlineLoop
from lgdrl.training import Trainer
from lgdrl.visualizer.session import outcome_of
from lgdrl.visualizer.stage import Stage
from lgdrl.visualizer.track import (
    Assessment,
    Track,
    contributions,
    episode_of,
    learner_assessment,
    summands,
    turn_of,
    unsafe_of,
)
from sim.env import DrivingVecEnv


class TrainSession:
    """The episodes of a `Trainer` with one environment, as they happen.

    Seeds mean nothing here: the environments of a training have their own stream. The last scene of an episode is the
    one before its end, because the environment of a training is reset in the same step.

    Args:
        trainer: Made with the `Hands` of the person who may take over.
    """

    live = True
    waits = True  # the strategy asks the expert in the middle of a decision
    autopilot: Controller = "learner"
    seed: int | None = None
    picture_rate: float | None = None

    def __init__(self, trainer: Trainer) -> None:
        loop = trainer.loop
        assert isinstance(loop, OnlineLoop)
        assert loop.person is not None
        self.envs = loop.envs
        self.stage = Stage(loop.envs)
        self.trainer, self.loop, self.arbiter = trainer, loop, loop.person
        self.hands: Hands | None = self.arbiter.person.hands
        self.expert_name = trainer.config.expert if loop.advisor is not None else ""
        self.title = " · ".join(name for name in (trainer.config.strategy, self.expert_name) if name)
        self._infos: list[dict[str, Any]] = []
        self._reward = 0.0
        self._ended = False, False
        self._whole = True
        """No decision was broken off: the state in memory may be saved."""
        if loop.advisor is not None:
            loop.advisor.say = self._hear
        loop.prepare()
        self.track = Track()

    @property
    def done(self) -> bool:
        return self.trainer.done

    def begin(self, seed: int) -> None:
        if len(self.track) or self.track.last is None:
            self.track = Track(last=self._assess(0))

    def _assess(self, step: int) -> Assessment:
        obs, legal = self.loop.model._last_obs, self.envs.action_masks()[0]
        assert isinstance(obs, np.ndarray)
        scene = self.stage.look(step, legal, self.picture_rate)
        says = learner_assessment(self.loop.model, obs[0], legal)
        return Assessment(scene, obs[0].copy(), legal, unsafe=unsafe_of(scene), **says)

    def ask_expert(self) -> None:
        """Nothing: the strategy itself queries the expert, in the middle of a decision."""

    def _hear(self, words: str) -> None:
        self.track.saying = words

    def act(self) -> None:
        model, assessment = self.loop.model, self.track.last or self._assess(0)
        self._whole = False
        self.trainer.advance(1, self._watch)
        self._whole = True
        execution = model.execution
        assert execution is not None
        assessment = _labelled(assessment, execution)
        turn = self._turn(assessment, execution)
        info = self._infos[0]
        turns: list[Turn] = [*self.track.turns, turn]
        if "episode" in info:
            late = bool(info.get("TimeLimit.truncated", False))
            self._ended = not late, late
            summary = dict(info.get("summary", {}))
            self.track = Track(turns, assessment, outcome_of(info, late), summary)
        else:
            self._ended = False, False
            self.track = Track(turns, self._assess(len(turns)))
        if self.done:
            self.track.outcome = self.track.outcome or "trained"

    def _turn(self, assessment: Assessment, execution: Execution) -> Turn:
        """The decision that was made, with what came of it."""
        controller: Controller = "expert" if execution.intervened[0] else "learner"
        reaction, info = None, self._infos[0]
        if execution.reason[0] == Reason.PERSON:
            controller, reaction = "human", self.arbiter.person.reaction_s
        if isinstance(self.envs, DrivingVecEnv):
            terms = contributions(info.get("rewards"), self.envs.scenario_config)
        else:
            terms = summands(info, self._reward)
        authority, why = float(execution.authority[0]), Reason(execution.reason[0]).name.lower()
        action = _first(execution.actions)
        return turn_of(assessment, action, controller, self._reward, reaction, terms, authority, why)

    def _watch(self, local: dict[str, Any], _: dict[str, Any]) -> bool:
        """SB3's callback: what the environment returned."""
        self._infos, self._reward = local["infos"], float(local["rewards"][0])
        return True

    def episode(self) -> Episode:
        return episode_of(self.track, self.envs, None, self.title, self._ended)

    def facts(self) -> list[tuple[str, str]]:
        trainer = self.trainer
        rows = [("Decisions", f"{self.loop.progress:,} of {trainer.config.steps:,}")]
        successes = self.loop.model.ep_success_buffer
        if successes:
            rows.append(("Success, last 100", f"{100 * float(np.mean(successes)):.0f}%"))
        rows.append(("Labels", f"{self.loop.model.replay.num_labelled:,}"))
        for term in self.loop.strategy.actor:
            if isinstance(term, ConstraintTerm):
                rows.append(("Dual", f"{term.dual.value:.2f}"))
        return rows

    def interrupt(self) -> None:
        if self.loop.advisor is not None:
            self.loop.advisor.provider.interrupt()

    def close(self) -> None:
        try:
            if self._whole:
                self.trainer.finish()
        finally:
            self.trainer.close()


def _labelled(assessment: Assessment, execution: Execution) -> Assessment:
    """The state with the expert's label, where the strategy asked for one; a person's is no expert's."""
    labels = execution.labels
    status = int(labels.status[0])
    if status < 0 or execution.reason[0] == Reason.PERSON:
        return assessment
    probs = None if labels.probs is None or not labels.probs[0].any() else labels.probs[0]
    action = _first(labels.action) if labels.given[0] else None
    return replace(assessment, expert=Decision(action=action, probs=probs, status=STATUSES[status]))


def _first(actions: np.ndarray) -> int | np.ndarray:
    """The action of the first environment: an id, or the components of a continuous one."""
    return actions[0].copy() if actions.ndim > 1 else int(actions[0])
