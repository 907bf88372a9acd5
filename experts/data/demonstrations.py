"""Demonstrations: recorded decisions as flat arrays, with who drove and what was demonstrated, ready to learn from.

Demonstrated is, in recordings, the executed action where an expert or a person drove, and the expert's label where the
learner did; in a transition data set its labels, or, where it has none, every action but random ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from gymnasium import spaces

from experts.data.episodes import Episode, Turn
from experts.data.transitions import STATUSES, TransitionDataset
from experts.provider import Status
from experts.spaces import form, same_actions
from sim.errors import UsageError

RANDOM = "random"
"""The policy whose actions demonstrate nothing."""


@dataclass(frozen=True)
class Demonstrations:
    """R decisions in the order recorded. Legal actions and distributions are None where actions are continuous."""

    source: str
    """Where they come from, for messages."""
    obs: np.ndarray
    """(R, ...)"""
    next_obs: np.ndarray
    """(R, ...): true successors."""
    legal: np.ndarray | None
    """bool (R, A)"""
    next_legal: np.ndarray | None
    """bool (R, A)"""
    actions: np.ndarray
    """int64 (R,) or float32 (R, D): executed."""
    labels: np.ndarray
    """int64 (R,) or float32 (R, D): demonstrated; -1 or NaN where nothing is."""
    probs: np.ndarray | None
    """float64 (R, A): the expert's distribution; zero rows where there is none or only the label is known."""
    statuses: tuple[Status, ...]
    """R of them: how the label came about; OK where that is not known."""
    driven: np.ndarray
    """bool (R,): an expert or a person drove."""
    learner_actions: np.ndarray
    """As `actions`: the learner's proposal; the executed action where there is none."""
    rewards: np.ndarray
    """float64 (R,)"""
    dones: np.ndarray
    """bool (R,): the last decision of an episode, also of one that was broken off."""
    terminated: np.ndarray
    """bool (R,): the episode ended for good here."""
    episodes: np.ndarray
    """int64 (R,): number of the episode, from 0."""
    steps: np.ndarray
    """int64 (R,): number of the decision in its episode, from 0."""

    action_space: spaces.Space
    """What the actions were chosen from."""

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def given(self) -> np.ndarray:
        """bool (R,): decisions at which something is demonstrated."""
        return self.labels >= 0 if self.labels.ndim == 1 else np.isfinite(self.labels).all(axis=1)

    def check(self, shape: tuple[int, ...], space: spaces.Space) -> None:
        """UsageError unless observations of `shape` and actions of `space` are like the recorded ones."""
        if shape != self.obs.shape[1:]:
            raise UsageError(
                f"{self.source} holds observations of shape {self.obs.shape[1:]}, the environments give {shape}: "
                "record it with the scenario_config of this run"
            )
        if isinstance(self.action_space, spaces.Discrete):
            offered = f"{space.n}" if isinstance(space, spaces.Discrete) else "continuous"
            if offered != str(self.action_space.n):
                raise UsageError(
                    f"{self.source} holds decisions among {self.action_space.n} actions, the environments offer "
                    f"{offered}: record it with the scenario_config of this run"
                )
        elif not same_actions(self.action_space, space):
            raise UsageError(
                f"{self.source} holds actions {form(self.action_space)}, the environments take {form(space)}: record "
                "it with the scenario_config of this run"
            )


def demonstrations_in(dataset: TransitionDataset, source: str) -> Demonstrations:
    """The decisions of a transition data set.

    Args:
        dataset: Its labels are what is demonstrated, and nothing else; without labels, every action is that a policy
            other than `random` chose.
        source: Where it comes from, for messages.

    Raises:
        UsageError: Nothing is demonstrated.
    """
    experts = [number for number, name in enumerate(dataset.about.origins) if name != RANDOM]
    driven, status = np.isin(dataset.origin, experts), np.zeros(len(dataset), np.int8)
    given, labels = driven, dataset.actions
    if dataset.labels is not None:
        driven = np.zeros(len(dataset), bool)
        given, labels, status = dataset.labels.given, dataset.labels.actions, dataset.labels.status
    if not given.any():
        raise UsageError(f"{source} demonstrates nothing: it has no label, and random actions only")
    nothing = -1 if dataset.discrete else np.nan
    dones = dataset.lasts | np.append(np.diff(dataset.steps) != 1, True)
    return Demonstrations(
        source=source,
        obs=dataset.observations,
        next_obs=dataset.next_observations,
        legal=dataset.legal,
        next_legal=dataset.next_legal,
        actions=dataset.actions,
        labels=np.where(given if dataset.discrete else given[:, None], labels, nothing).astype(labels.dtype),
        probs=None if dataset.legal is None else np.zeros(dataset.legal.shape),
        statuses=tuple(STATUSES[max(number, 0)] for number in status.tolist()),
        driven=driven,
        learner_actions=dataset.actions,
        rewards=dataset.rewards.astype(float),
        dones=dones,
        terminated=dataset.terminated,
        episodes=dataset.episodes,
        steps=dataset.steps,
        action_space=dataset.about.action_space,
    )


def demonstrations_of(episodes: Sequence[Episode], source: str) -> Demonstrations:
    """The decisions of episodes of one scenario as flat arrays.

    Args:
        episodes: Of one scenario.
        source: Where they come from, for messages.

    Raises:
        UsageError: Nothing is demonstrated, or a decision cannot be learned from.
    """
    rows = [(k, t, turn) for k, episode in enumerate(episodes) for t, turn in enumerate(episode.turns)]
    turns = [turn for _, _, turn in rows]
    for k, t, turn in rows:
        problem = _problem(turn)
        if problem:
            raise UsageError(f"{source}, episode {k}, decision {t}: {problem}")
    shapes = {(np.shape(turn.obs), len(turn.legal)) for turn in turns}
    shapes |= {(np.shape(episode.last_obs), len(episode.last_legal)) for episode in episodes if episode.turns}
    if len(shapes) > 1:
        raise UsageError(f"{source} mixes observations or actions of different environments: keep one kind of them")
    driven = np.array([turn.controller != "learner" for turn in turns], bool)
    labels = np.array([_label(turn) for turn in turns], np.int64)
    if not (labels >= 0).any():
        raise UsageError(f"{source} demonstrates nothing: no expert or person drives or labels in it")
    ended = [episode for episode in episodes if episode.turns]
    lasts = np.cumsum([len(episode.turns) for episode in ended]) - 1
    successors = [turn for episode in ended for turn in (*episode.turns[1:], None)]
    dones = np.zeros(len(turns), bool)
    terminated = np.zeros(len(turns), bool)
    dones[lasts], terminated[lasts] = True, [episode.terminated for episode in ended]
    last_obs = iter([episode.last_obs for episode in ended])
    last_legal = iter([episode.last_legal for episode in ended])
    return Demonstrations(
        source=source,
        obs=np.stack([turn.obs for turn in turns]),
        next_obs=np.stack([next(last_obs) if turn is None else turn.obs for turn in successors]),
        legal=np.stack([turn.legal for turn in turns]),
        next_legal=np.stack([next(last_legal) if turn is None else turn.legal for turn in successors]),
        actions=np.array([turn.action for turn in turns], np.int64),
        labels=labels,
        probs=np.stack([_probs(turn, label) for turn, label in zip(turns, labels, strict=True)]),
        statuses=tuple(_status(turn) for turn in turns),
        driven=driven,
        learner_actions=np.array([_proposal(turn) for turn in turns], np.int64),
        rewards=np.array([turn.reward for turn in turns], float),
        dones=dones,
        terminated=terminated,
        episodes=np.array([k for k, _, _ in rows], np.int64),
        steps=np.array([t for _, t, _ in rows], np.int64),
        action_space=spaces.Discrete(len(turns[0].legal)),
    )


def _problem(turn: Turn) -> str | None:
    """Why a decision cannot be learned from, and what to do."""
    if isinstance(turn.obs, dict):
        return "the observation has several parts: choose a scenario with plain observations"
    if np.ndim(turn.action):
        return "the action is continuous: choose a scenario with discrete actions"
    named = {"action": turn.action, "expert_action": turn.expert_action, "learner_action": turn.learner_action}
    for name, action in named.items():
        if action is not None and not (0 <= action < len(turn.legal) and turn.legal[action]):
            return f"{name} {action} is not legal there: record it again"
    return None


def _label(turn: Turn) -> int:
    if turn.controller != "learner":
        return turn.action
    return -1 if turn.expert_action is None else int(turn.expert_action)


def _proposal(turn: Turn) -> int:
    return turn.action if turn.learner_action is None else int(turn.learner_action)


def _probs(turn: Turn, label: int) -> np.ndarray:
    """The expert's distribution where the label is the expert's own and the distribution fits; zeros otherwise."""
    probs = np.asarray(turn.expert_probs, float) if turn.expert_probs is not None else np.zeros(0)
    fits = label >= 0 and label == turn.expert_action and probs.shape == turn.legal.shape and (probs >= 0).all()
    if not fits or not np.isclose(probs[turn.legal].sum(), 1.0, atol=1e-3):
        return np.zeros(len(turn.legal))
    return probs


def _status(turn: Turn) -> Status:
    named = {status.value: status for status in Status}
    return named.get(turn.expert_status or "", Status.OK) if turn.controller != "human" else Status.OK
