"""Sources of episodes for the window: live environments and recordings.

A session plays one episode after the other and keeps it as a `Track`, which the window shows and may scrub through. A
live session extends it decision by decision: `ask_expert` labels the present state, `act` executes. Both may be slow,
so the window calls them from worker threads.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from gymnasium import spaces

from experts.data.episodes import Controller, Episode
from experts.human import Hands
from experts.provider import Context, PolicyProvider
from experts.views import ViewExpert
from lgdrl.guidance.arbiters import Arbiter, LearnerDrives
from lgdrl.guidance.human import PersonArbiter
from lgdrl.guidance.log import LoggedEpisodes
from lgdrl.guidance.records import Labels, PolicySummary, Reason, StepContext
from lgdrl.guidance.shield import safe_masks
from lgdrl.learners.guided import Guided
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
from sim.actions import MetaAction
from sim.env import DrivingEnv, ScenarioEnv
from sim.picture import Picture, keys_of
from sim.scene import Scene
from sim.view import views_of


class PlaySession(Protocol):
    """What the window needs of a source of episodes."""

    title: str
    track: Track
    live: bool
    """Whether it can be extended and driven; a replay cannot."""
    waits: bool
    """Whether the environment must not step before the expert has decided, because the expert steps copies of it."""
    expert_name: str
    """The expert that labels every state; empty: there is none."""
    autopilot: Controller
    """Who drives when no person does; human: the car then keeps speed and lane."""
    hands: Hands | None
    """Driving input of the person who may take over; None: it cannot be driven by a person."""
    seed: int | None
    """Of the present episode; None: it has none that would start it again."""
    picture_rate: float | None
    """Most pictures per simulated second of an environment without scenes; None: one of every state."""

    @property
    def done(self) -> bool:
        """Whether no further episode can follow."""
        ...

    def begin(self, seed: int) -> None:
        """Start an episode.

        Args:
            seed: Of the episode; of a recording, its number.
        """
        ...

    def ask_expert(self) -> None:
        """Add the expert's decision to the newest assessment; may take seconds."""
        ...

    def act(self) -> None:
        """Make one decision."""
        ...

    def facts(self) -> list[tuple[str, str]]:
        """(name, value) pairs for the panel, beyond those of the track."""
        ...

    def episode(self) -> Episode:
        """The episode so far, to be kept."""
        ...

    def interrupt(self) -> None:
        """The window closes: end a request to the expert that is under way. From any thread."""
        ...

    def close(self) -> None:
        """End environment and expert."""
        ...


class DriveSession:
    """One environment, driven by the learner, the expert or a person, who may take over at any time.

    Args:
        env: Where it drives; an environment without scenes is shown by its own pictures.
        learner: Shown and, as the autopilot, driving; None: there is none.
        expert: Labels every state and, as the autopilot, drives; None: there is none.
        autopilot: Who drives when no person does.
        hands: Driving input of the person who may take over; None: it cannot be driven by a person.
        title: Names the driver in the panel and in recordings.
        shield: The learner chooses among safe actions only.
    """

    live = True
    done = False
    picture_rate: float | None = None

    def __init__(
        self,
        env: ScenarioEnv,
        learner: Guided | None,
        expert: PolicyProvider | None,
        autopilot: Controller,
        hands: Hands | None,
        title: str,
        shield: bool = False,
    ) -> None:
        self.env, self.learner, self.expert = env, learner, expert
        self.autopilot, self.hands, self.title, self.shield = autopilot, hands, title, shield
        self.stage = Stage(env)
        self.arbiter: Arbiter = LearnerDrives()
        if hands is not None:
            self.arbiter = PersonArbiter(LearnerDrives(), hands, keys=keys_of(env.action_names))
        self.expert_name = expert.name if expert is not None else ""
        self.waits = isinstance(expert, ViewExpert)
        self.track = Track()
        self.seed: int | None = None
        self._ended: tuple[bool, bool] = (False, False)

    def begin(self, seed: int) -> None:
        obs, _ = self.env.reset(seed=seed)
        self.seed, self._ended = seed, (False, False)
        if self.expert is not None:
            self.expert.on_episode_start([seed])
        self.track = Track(last=self._assess(obs, 0))

    def _assess(self, obs: np.ndarray, step: int) -> Assessment:
        """What can be known at once: everything but the expert's decision."""
        legal = self.env.action_masks()
        scene = self.stage.look(step, legal, self.picture_rate)
        assessment = Assessment(scene, obs, legal, unsafe=unsafe_of(scene))
        if self.learner is None:
            return assessment
        allowed = legal
        if self.shield and isinstance(scene, Scene):
            allowed = safe_masks(views_of([scene]), legal[None])[0]
        return replace(assessment, **learner_assessment(self.learner, obs, allowed))

    def ask_expert(self) -> None:
        track = self.track  # if the person goes on without the label, it goes to a track that is no longer shown
        assessment = track.last
        if self.expert is None or assessment is None or assessment.expert is not None or track.outcome:
            return

        def hear(words: str) -> None:
            track.saying = words

        started = time.perf_counter()
        decision = self.expert.decide([replace(self.context(assessment, self.waits), say=hear)])[0]
        decision = replace(decision, latency_s=decision.latency_s or time.perf_counter() - started)
        track.last = replace(assessment, expert=decision)

    def context(self, assessment: Assessment, branch: bool) -> Context:
        """What the expert is given of a state.

        Args:
            assessment: The state.
            branch: The expert may step copies of the environment.
        """
        env = self.env
        return Context(
            assessment.obs,
            env.action_space,
            assessment.scene if isinstance(assessment.scene, Scene) else None,
            assessment.legal if isinstance(env.action_space, spaces.Discrete) else None,
            episode=self.seed or 0,
            step=len(self.track),
            branch=env.branch if branch and isinstance(env, DrivingEnv) else None,
        )

    def act(self) -> None:
        assessment = self.track.last
        assert assessment is not None
        action, controller, reaction = self._choose(assessment)
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._ended = terminated, truncated
        if isinstance(self.env, DrivingEnv):
            terms = contributions(info.get("rewards") or self.env.reward_terms(), self.env.scenario_config)
        else:
            terms = summands(info, float(reward))
        turn = turn_of(assessment, action, controller, float(reward), reaction, terms)
        ended = terminated or truncated
        self.track = Track(
            turns=[*self.track.turns, turn],
            last=self._assess(obs, len(self.track) + 1),
            outcome=outcome_of(info, truncated and not terminated) if ended else "",
            summary=dict(info.get("summary", {})) if ended else {},
        )

    def _choose(self, assessment: Assessment) -> tuple[int | np.ndarray, Controller, float | None]:
        """(action, its source, a person's reaction time): the arbiter that trainings have decides over a person."""
        action: int | np.ndarray | None = None
        if self.autopilot == "learner":
            action = assessment.learner_action
        elif self.autopilot == "expert" and assessment.expert is not None:
            action = assessment.expert.action
        if action is None:
            action = idle_action(self.env.action_space, assessment)
        step = self._step_context(assessment, action)
        execution = self.arbiter.decide(step, step.no_labels(), np.zeros(1, bool))
        if execution.reason[0] != Reason.PERSON:
            return action, self.autopilot, None
        assert isinstance(self.arbiter, PersonArbiter)
        chosen = execution.actions[0]
        return chosen if np.ndim(chosen) else int(chosen), "human", self.arbiter.person.reaction_s

    def _step_context(self, assessment: Assessment, proposal: int | np.ndarray) -> StepContext:
        """The present step of the one environment, as the collector of a training describes it."""
        scene = assessment.scene if isinstance(assessment.scene, Scene) else None
        return StepContext(
            obs=np.array([assessment.obs], object) if isinstance(assessment.obs, dict) else assessment.obs[None],
            legal=assessment.legal[None] if isinstance(self.env.action_space, spaces.Discrete) else None,
            proposals=np.asarray(proposal)[None],
            policy=PolicySummary(),
            decisions=len(self.track),
            episodes=np.zeros(1, np.int64),
            steps=np.array([len(self.track)]),
            action_space=self.env.action_space,
            ask=lambda rows, now=None: Labels.none(1, self.env.action_space),
            scenes=lambda indices: [scene for _ in indices],
            views=lambda indices: None if scene is None else views_of([scene]),
            values=lambda actions: np.zeros(1, np.float32),
        )

    def episode(self) -> Episode:
        return episode_of(self.track, self.env, self.seed, self.title, self._ended)

    def facts(self) -> list[tuple[str, str]]:
        return []

    def interrupt(self) -> None:
        if self.expert is not None:
            self.expert.interrupt()

    def close(self) -> None:
        self.env.close()
        if self.expert is not None:
            self.expert.close()


class ReplaySession:
    """Recorded episodes, or those of a guidance log, one after the other. A seed counts them: k modulo their number."""

    live = done = waits = False
    picture_rate: float | None = None
    autopilot: Controller = "learner"
    hands: Hands | None = None

    def __init__(self, episodes: list[Episode] | LoggedEpisodes, expert_name: str = "") -> None:
        self.episodes, self.expert_name = episodes, expert_name
        self.begin(0)

    def begin(self, seed: int) -> None:
        self.number = seed % len(self.episodes)
        found = self.episodes[self.number]
        self.seed = found.seed
        last = Assessment(found.last_scene, found.last_obs, found.last_legal, unsafe=unsafe_of(found.last_scene))
        turns = [
            turn if turn.unsafe is not None else replace(turn, unsafe=unsafe_of(turn.scene)) for turn in found.turns
        ]
        self.track = Track(turns, last, found.outcome, dict(found.summary))
        self.title = f"Replay · {found.driver}"

    def ask_expert(self) -> None:
        pass

    def act(self) -> None:
        raise RuntimeError("a recording cannot be driven")

    def episode(self) -> Episode:
        return self.episodes[self.number]

    def facts(self) -> list[tuple[str, str]]:
        rows = [("Episode", f"{self.number + 1:,} of {len(self.episodes):,}")]
        if isinstance(self.episodes, LoggedEpisodes):
            rows.append(("Queries kept", f"{self.episodes.moments:,} of {self.episodes.queries:,}"))
        return rows

    def interrupt(self) -> None:
        pass

    def close(self) -> None:
        pass


def outcome_of(info: Mapping[str, Any], cut_off: bool) -> str:
    """How an episode ended, in a word or two.

    Args:
        info: Of its last decision.
        cut_off: It was truncated, by a time limit.
    """
    return str(info.get("outcome") or ("time limit" if cut_off else "ended"))


def idle_action(space: spaces.Space, assessment: Assessment) -> int | np.ndarray:
    """Keep speed and lane, or do nothing; the first legal action where that is not one."""
    if not isinstance(space, spaces.Discrete):
        rest = np.zeros(space.shape or (1,), np.float32)
        return np.clip(rest, space.low, space.high) if isinstance(space, spaces.Box) else rest
    if isinstance(assessment.scene, Picture):
        keys = keys_of(assessment.scene.names)
        idle = keys.index(MetaAction.IDLE) if MetaAction.IDLE in keys else 0
        return idle if assessment.legal[idle] else int(np.argmax(assessment.legal))
    meanings, legal = assessment.scene.meanings, assessment.legal
    idle = meanings.index(MetaAction.IDLE) if MetaAction.IDLE in meanings else 0
    return idle if legal[idle] else int(np.argmax(legal))
