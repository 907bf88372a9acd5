"""A training run as a session: watch it learn, see labels arrive, take over. One environment, step by step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from experts.data.episodes import Controller, Episode, Turn
from experts.human import Hands
from experts.provider import Decision
from lgdrl.guidance.human import WithHuman
from lgdrl.guidance.strategy import STATUSES
from lgdrl.training import Trainer
from lgdrl.visualizer.session import interrupt
from lgdrl.visualizer.track import Assessment, Track, contributions, episode_of, learner_assessment, turn_of, unsafe_of


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
        strategy = trainer.model.strategy
        assert isinstance(strategy, WithHuman)
        self.trainer, self.human = trainer, strategy
        self.hands: Hands | None = strategy.person.hands
        self.expert_name = trainer.config.expert if trainer.desk is not None else ""
        self.title = " · ".join(name for name in (trainer.config.strategy, self.expert_name) if name)
        self._infos: list[dict[str, Any]] = []
        self._reward = 0.0
        self._ended = False, False
        self._whole = True
        """No decision was broken off: the state in memory may be saved."""
        if trainer.desk is not None:
            trainer.desk.say = self._hear
        trainer.prepare()
        self.track = Track(last=self._assess())

    @property
    def done(self) -> bool:
        return self.trainer.decisions >= self.trainer.config.steps

    def begin(self, seed: int) -> None:
        if len(self.track):
            self.track = Track(last=self._assess())

    def _assess(self) -> Assessment:
        worlds, model = self.trainer.worlds, self.trainer.model
        obs, legal = model._last_obs, worlds.action_masks()
        assert isinstance(obs, np.ndarray)
        scene = worlds.scenes([0])[0]
        return Assessment(
            scene, obs[0].copy(), legal[0], unsafe=unsafe_of(scene), **learner_assessment(model, obs[0], legal[0])
        )

    def ask_expert(self) -> None:
        """Nothing: the strategy itself queries the expert, in the middle of a decision."""

    def _hear(self, words: str) -> None:
        self.track.saying = words

    def act(self) -> None:
        model, assessment = self.trainer.model, self.track.last
        assert assessment is not None
        driven = self.human.taken_over
        self._whole = False
        self.trainer.advance(1, self._watch)
        self._whole = True
        moment, execution = model.moment, model.execution
        assert moment is not None
        assert execution is not None
        status, human = int(execution.advice.status[0]), self.human.taken_over > driven
        if status >= 0 and not human:
            action = int(execution.advice.action[0])
            probs = execution.advice.probs[0]
            decision = Decision(
                action=action if action >= 0 else None, probs=probs if probs.any() else None, status=STATUSES[status]
            )
            assessment = replace(assessment, expert=decision)
        controller: Controller = "expert" if execution.intervened[0] else "learner"
        reaction = None
        if human:
            controller, reaction = "human", self.human.person.reaction_s
        info = self._infos[0]
        terms = contributions(info.get("rewards"), self.trainer.worlds.scenario_config)
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
        return episode_of(self.track, self.trainer.worlds, None, self.title, self._ended)

    def facts(self) -> list[tuple[str, str]]:
        trainer = self.trainer
        rows = [("Decisions", f"{trainer.decisions:,} of {trainer.config.steps:,}")]
        successes = trainer.model.ep_success_buffer
        if successes:
            rows.append(("Success, last 100", f"{100 * float(np.mean(successes)):.0f}%"))
        rows.append(("Labels", f"{trainer.model.replay.num_labelled:,}"))
        dual = getattr(self.human.inner, "dual", None)
        if dual is not None:
            rows.append(("Dual", f"{dual.value:.2f}"))
        return rows

    def interrupt(self) -> None:
        if self.trainer.desk is not None:
            interrupt(self.trainer.desk.provider)

    def close(self) -> None:
        try:
            if self._whole:
                self.trainer.finish()
        finally:
            self.trainer.close()
