"""One episode as the window knows it: every decision with what learner, expert and safety check said before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from experts.data.episodes import Controller, Episode, Turn
from experts.provider import Decision, Status
from experts.safety import unsafe_actions
from lgdrl.guidance.constraint import js
from lgdrl.learners.guided import Guided
from sim.config import to_dict
from sim.env import DrivingEnv, DrivingVecEnv
from sim.render import interpolate
from sim.scene import Scene
from sim.view import views_of


@dataclass(frozen=True)
class Assessment:
    """One state, and what learner, expert and safety check say about it, before anything is executed."""

    scene: Scene
    obs: np.ndarray
    legal: np.ndarray
    """bool (A,)"""
    learner_action: int | None = None
    learner_probs: np.ndarray | None = None
    """float32 (A,)"""
    q_values: np.ndarray | None = None
    """float32 (A,), the smaller of the two critics'."""
    unsafe: np.ndarray | None = None
    """bool (A,), None where actions are not meta-actions."""
    expert: Decision | None = None
    """None: there is no expert, or it has not decided yet."""


@dataclass
class Track:
    """One episode as far as it went; a session puts a longer one in its place.

    Scene k is the state before decision k; the last one has no decision yet.
    """

    turns: list[Turn] = field(default_factory=list)
    last: Assessment | None = None
    outcome: str = ""
    """success | crash | missed; empty while it goes on."""
    summary: dict[str, Any] = field(default_factory=dict)
    saying: str = ""
    """What the expert is saying about the newest state, before it has decided."""

    def __len__(self) -> int:
        return len(self.turns)

    def scene(self, k: int) -> Scene:
        """The scene before decision k; the newest one for k = len(self)."""
        if k < len(self.turns):
            return self.turns[k].scene
        assert self.last is not None
        return self.last.scene

    def between(self, k: int, share: float) -> Scene:
        """The scene between two decisions; scene k itself where decisions between them are missing.

        Args:
            k: The decision before.
            share: Of the way to the next one, in [0, 1].
        """
        a, b = self.scene(k), self.scene(min(k + 1, len(self)))
        return interpolate(a, b, share) if b.time - a.time < 1.5 * a.decision_period else a

    @property
    def rewards(self) -> np.ndarray:
        """float64 (decisions,)"""
        return np.array([turn.reward for turn in self.turns])


def episode_of(
    track: Track, env: DrivingEnv | DrivingVecEnv, seed: int | None, driver: str, ended: tuple[bool, bool]
) -> Episode:
    """A track as an episode to keep.

    Args:
        track: What was driven.
        env: Where.
        seed: Of the episode; None: the environment draws its own.
        driver: Title of the session.
        ended: (terminated, truncated).
    """
    assert track.last is not None
    return Episode(
        scenario=env.scenario,
        backend=env.backend,
        scenario_config=to_dict(env.scenario_config),
        seed=seed,
        driver=driver,
        turns=tuple(track.turns),
        last_scene=track.last.scene,
        last_obs=track.last.obs,
        last_legal=track.last.legal,
        terminated=ended[0],
        truncated=ended[1],
        summary=track.summary,
    )


def learner_assessment(learner: Guided, obs: np.ndarray, legal: np.ndarray) -> dict[str, Any]:
    """What the learner says about a state, as fields of an `Assessment`.

    Args:
        learner: Its policy is evaluated without exploration.
        obs: One observation.
        legal: bool (A,).
    """
    policy, values = learner.describe(obs[None], legal[None])
    assert policy.probs is not None
    assert values is not None
    return {"learner_action": int(policy.probs[0].argmax()), "learner_probs": policy.probs[0], "q_values": values[0]}


def unsafe_of(scene: Scene) -> np.ndarray | None:
    """bool (A,): actions that the safety check calls unsafe; None where they are not meta-actions."""
    return unsafe_actions(views_of([scene]))[0] if scene.meanings else None


def contributions(terms: Mapping[str, float] | None, config: Any) -> dict[str, float] | None:
    """What the reported terms of a reward add to it, before the environment rescales their sum.

    highway-env reports terms named `..._reward` without their weights, which its config has under the same names (a
    term without one is a factor, not a summand); other environments report weighted terms.

    Args:
        terms: By name, as the environment reports them.
        config: Of its scenario.
    Returns:
        Summands by name; None where no terms are reported.
    """
    if not terms:
        return None
    unweighted = {name: float(getattr(config, name, 0.0)) for name in terms if name.endswith("_reward")}
    return {name: value * unweighted.get(name, 1.0) for name, value in terms.items()}


def turn_of(
    assessment: Assessment,
    action: int | np.ndarray,
    controller: Controller,
    reward: float,
    reaction: float | None,
    terms: dict[str, float] | None = None,
) -> Turn:
    """A decision as recordings keep it.

    Args:
        assessment: The state before it.
        action: What was executed.
        controller: Who chose it.
        reward: What came of it.
        reaction: A person's reaction time, s; None without a new input.
        terms: Summands of the reward.
    """
    expert = assessment.expert
    given = expert is not None and expert.action is not None
    return Turn(
        scene=assessment.scene,
        obs=assessment.obs,
        legal=assessment.legal,
        action=action,  # type: ignore[arg-type]
        controller=controller,
        reward=reward,
        learner_action=assessment.learner_action,
        learner_probs=assessment.learner_probs,
        q_values=assessment.q_values,
        expert_action=int(expert.action) if given and np.ndim(expert.action) == 0 else None,  # type: ignore[union-attr, arg-type]
        expert_probs=None if expert is None else expert.probs,
        expert_status=None if expert is None else str(expert.status.value),
        expert_reason="" if expert is None else expert.reason or "",
        expert_latency_s=0.0 if expert is None else expert.latency_s,
        unsafe=assessment.unsafe,
        terms=terms,
        reaction_s=reaction,
    )


def assessment_of(turn: Turn) -> Assessment:
    """The state before a recorded decision."""
    expert = None
    if turn.expert_status is not None:
        expert = Decision(
            action=turn.expert_action,
            probs=turn.expert_probs,
            reason=turn.expert_reason,
            status=Status(turn.expert_status),
            latency_s=turn.expert_latency_s,
        )
    return Assessment(
        scene=turn.scene,
        obs=turn.obs,
        legal=turn.legal,
        learner_action=turn.learner_action,
        learner_probs=turn.learner_probs,
        q_values=turn.q_values,
        unsafe=turn.unsafe,
        expert=expert,
    )


def divergence(assessment: Assessment) -> float | None:
    """Jensen-Shannon divergence of the learner's policy and the expert's label, nats; None where one is missing."""
    if assessment.learner_probs is None or assessment.expert is None or assessment.expert.action is None:
        return None
    probs = assessment.expert.probs
    if probs is None:
        probs = np.eye(len(assessment.learner_probs), dtype=np.float32)[int(assessment.expert.action)]
    log_p = torch.log(torch.as_tensor(np.maximum(assessment.learner_probs, 1e-12))[None])
    return float(js(log_p, torch.as_tensor(np.asarray(probs, np.float32))[None])[0])
