"""One episode as the window knows it: every decision with what learner, expert and safety check said before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from experts.data.episodes import Controller, Episode, Turn
from experts.provider import Decision, Status
from experts.safety import unsafe_actions
from lgdrl.guidance.constraint import js
from lgdrl.learners.guided import Guided
from sim.config import to_dict
from sim.env import ScenarioEnv, ScenarioVecEnv
from sim.picture import Picture, Shown
from sim.render import interpolate
from sim.view import views_of


@dataclass(frozen=True)
class Assessment:
    """One state, and what learner, expert and safety check say about it, before anything is executed."""

    scene: Shown
    obs: np.ndarray
    legal: np.ndarray
    """bool (A,)"""
    learner_action: int | np.ndarray | None = None
    """The greedy action, or float32 (D,), the mean of a continuous policy."""
    learner_std: np.ndarray | None = None
    """float32 (D,), of a Gaussian policy."""
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

    def scene(self, k: int) -> Shown:
        """The scene before decision k; the newest one for k = len(self)."""
        if k < len(self.turns):
            return self.turns[k].scene
        assert self.last is not None
        return self.last.scene

    def between(self, k: int, share: float) -> Shown:
        """The scene between two decisions; scene k itself where decisions between them are missing, or pictures shown.

        Args:
            k: The decision before.
            share: Of the way to the next one, in [0, 1].
        """
        a, b = self.scene(k), self.scene(min(k + 1, len(self)))
        if isinstance(a, Picture) or isinstance(b, Picture):
            return a
        return interpolate(a, b, share) if b.time - a.time < 1.5 * a.decision_period else a

    @property
    def rewards(self) -> np.ndarray:
        """float64 (decisions,)"""
        return np.array([turn.reward for turn in self.turns])


def episode_of(
    track: Track, env: ScenarioEnv | ScenarioVecEnv, seed: int | None, driver: str, ended: tuple[bool, bool]
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
        legal: bool (A,); not used where actions are continuous.
    """
    discrete = isinstance(learner.action_space, spaces.Discrete)
    policy, values = learner.describe(obs[None], legal[None] if discrete else None)
    if policy.probs is not None:
        q_values = None if values is None else values[0]
        return {"learner_action": int(policy.probs[0].argmax()), "learner_probs": policy.probs[0], "q_values": q_values}
    assert policy.mean is not None
    return {"learner_action": policy.mean[0], "learner_std": None if policy.std is None else policy.std[0]}


def unsafe_of(scene: Shown) -> np.ndarray | None:
    """bool (A,): actions that the safety check calls unsafe; None where they are not meta-actions."""
    return None if isinstance(scene, Picture) or not scene.meanings else unsafe_actions(views_of([scene]))[0]


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


def summands(info: Mapping[str, Any], reward: float) -> dict[str, float] | None:
    """Terms of the reward that an environment without scenes reports, as those of MuJoCo do (`reward_forward` ...).

    Args:
        info: Of the decision.
        reward: What they should add up to.
    Returns:
        Summands by name; None where none are reported, or where they do not add up.
    """
    found = {name.removeprefix("reward_"): value for name, value in info.items() if name.startswith("reward_")}
    if not found or not all(np.isscalar(value) for value in found.values()):
        return None
    terms = {name: float(value) for name, value in found.items()}
    return terms if np.isclose(sum(terms.values()), reward, atol=1e-6) else None


def turn_of(
    assessment: Assessment,
    action: int | np.ndarray,
    controller: Controller,
    reward: float,
    reaction: float | None,
    terms: dict[str, float] | None = None,
    authority: float | None = None,
    control: str = "",
) -> Turn:
    """A decision as recordings keep it.

    Args:
        assessment: The state before it.
        action: What was executed.
        controller: Who chose it.
        reward: What came of it.
        reaction: A person's reaction time, s; None without a new input.
        terms: Summands of the reward.
        authority: The expert's share of the action, in [0, 1]; None: no strategy decided.
        control: Why it had that share.
    """
    expert = assessment.expert
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
        expert_action=None if expert is None or expert.action is None else _plain(expert.action),
        expert_probs=None if expert is None else expert.probs,
        expert_status=None if expert is None else str(expert.status.value),
        expert_reason="" if expert is None else expert.reason or "",
        expert_latency_s=0.0 if expert is None else expert.latency_s,
        unsafe=assessment.unsafe,
        terms=terms,
        reaction_s=reaction,
        learner_std=assessment.learner_std,
        authority=authority,
        control=control,
    )


def _plain(action: int | np.ndarray) -> int | np.ndarray:
    """An id as an int; a continuous action as it is."""
    return action if isinstance(action, np.ndarray) and action.ndim else int(action)


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
        learner_std=turn.learner_std,
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


def separation(assessment: Assessment) -> float | None:
    """Distance of the learner's and the expert's continuous actions: root mean square over components, as a share of
    the range of each; None where one is missing or actions are discrete."""
    scene, learner = assessment.scene, assessment.learner_action
    expert = None if assessment.expert is None else assessment.expert.action
    if not isinstance(learner, np.ndarray) or not isinstance(expert, np.ndarray) or not isinstance(scene, Picture):
        return None
    if scene.low is None or scene.high is None:
        return None
    span = scene.high - scene.low
    apart = (np.clip(learner, scene.low, scene.high) - expert) / np.where(np.isfinite(span), span, 2.0)
    return float(np.sqrt(np.mean(np.square(apart))))
