"""A training run as a session: watch it learn, see labels arrive, take over. One environment, step by step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from experts.data.episodes import Controller, Episode, Turn
from experts.human import Hands
from experts.provider import Decision
from lgdrl.guidance.records import STATUSES, Reason
from lgdrl.guidance.terms import ConstraintTerm
from lgdrl.loops.online import OnlineLoop
from lgdrl.training import Trainer
from lgdrl.visualizer.track import Assessment, Track, contributions, episode_of, learner_assessment, turn_of, unsafe_of
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

    def __init__(self, trainer: Trainer) -> None:
        loop = trainer.loop
        assert isinstance(loop, OnlineLoop)
        assert loop.person is not None
        assert isinstance(loop.envs, DrivingVecEnv)
        self.envs = loop.envs
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
        self.track = Track(last=self._assess())

    @property
    def done(self) -> bool:
        return self.trainer.done

    def begin(self, seed: int) -> None:
        if len(self.track):
            self.track = Track(last=self._assess())

    def _assess(self) -> Assessment:
        envs, model = self.envs, self.loop.model
        obs, legal = model._last_obs, envs.action_masks()
        assert isinstance(obs, np.ndarray)
        scene = envs.scenes([0])[0]
        return Assessment(
            scene, obs[0].copy(), legal[0], unsafe=unsafe_of(scene), **learner_assessment(model, obs[0], legal[0])
        )

    def ask_expert(self) -> None:
        """Nothing: the strategy itself queries the expert, in the middle of a decision."""

    def _hear(self, words: str) -> None:
        self.track.saying = words

    def act(self) -> None:
        model, assessment = self.loop.model, self.track.last
        assert assessment is not None
        self._whole = False
        self.trainer.advance(1, self._watch)
        self._whole = True
        execution = model.execution
        assert execution is not None
        labels = execution.labels
        status, human = int(labels.status[0]), execution.reason[0] == Reason.PERSON
        if status >= 0 and not human:
            probs = None if labels.probs is None or not labels.probs[0].any() else labels.probs[0]
            action = int(labels.action[0]) if labels.given[0] else None
            decision = Decision(action=action, probs=probs, status=STATUSES[status])
            assessment = replace(assessment, expert=decision)
        controller: Controller = "expert" if execution.intervened[0] else "learner"
        reaction = None
        if human:
            controller, reaction = "human", self.arbiter.person.reaction_s
        info = self._infos[0]
        terms = contributions(info.get("rewards"), self.envs.scenario_config)
        turn = turn_of(assessment, int(execution.actions[0]), controller, self._reward, reaction, terms)
        turns: list[Turn] = [*self.track.turns, turn]
        if "episode" in info:
            late = bool(info.get("TimeLimit.truncated", False))
            self._ended = not late, late
            summary = dict(info.get("summary", {}))
            self.track = Track(turns, assessment, info.get("outcome") or "ended", summary)
        else:
            self._ended = False, False
            self.track = Track(turns, self._assess())
        if self.done:
            self.track.outcome = self.track.outcome or "trained"

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
