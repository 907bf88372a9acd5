"""Records that learners, strategies, arbiters and replay buffers exchange: plain arrays, one row per environment.

A step of N environments passes through them in this order: `StepContext` (before the action), `Labels` (what the expert
says), `Execution` (what is done, and who is in control), `Transitions` (what came of it, as it is stored).

Shapes: N environments, A discrete actions, D action dimensions. Actions are int64 (N,) where the action space is
discrete and float32 (N, D) where it is a box.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Any, Protocol

import numpy as np
from gymnasium import spaces

from experts.provider import Status
from sim.view import Views

STATUSES: tuple[Status, ...] = tuple(Status)
"""Decision statuses by the small integers under which arrays keep them."""
LATE = STATUSES.index(Status.LATE)
NO_STATUS = -1


@dataclass(frozen=True)
class LearnerInfo:
    """What strategies and arbiters may know of the learner that they guide."""

    name: str
    observation_space: spaces.Space
    action_space: spaces.Space
    on_policy: bool = False
    """Whether it learns only from actions that its own policy drew, and has no replay buffer to draw batches from."""


class Reason(IntEnum):
    """Why a step was controlled as it was; the guidance log keeps the lower-case name."""

    LEARNER = 0
    """The learner's own proposal was executed."""
    SCHEDULE = 1
    """The expert drives here by plan (demonstrations, first round of DAgger, fading authority)."""
    UNSAFE = 2
    """The learner's proposal failed the safety check."""
    DISAGREEMENT = 3
    """Expert and learner chose different actions."""
    VALUE = 4
    """The critics prefer the expert's action."""
    DIVERGENCE = 5
    """Policy and expert are far apart."""
    PERSON = 6
    """A person took over."""
    OTHER = 7
    """An arbiter of a third party."""


@dataclass(slots=True)
class Labels:
    """What an expert says about N states. Rows without a label hold zeros and status -1."""

    given: np.ndarray
    """bool (N,): rows with a label."""
    action: np.ndarray
    """int64 (N,) or float32 (N, D)."""
    probs: np.ndarray | None
    """float32 (N, A), zero rows where there is no label; None where actions are continuous."""
    status: np.ndarray
    """int8 (N,): index into `STATUSES`; -1 where the expert was not asked."""

    @property
    def executable(self) -> np.ndarray:
        """bool (N,): rows whose label may be executed now. A late label is only learned from."""
        return self.given & (self.status != LATE)

    def fill(self, more: Labels) -> None:
        """Copy the rows of `more` for which the expert was not asked here."""
        rows = (more.status != NO_STATUS) & (self.status == NO_STATUS)
        self.given[rows], self.action[rows], self.status[rows] = more.given[rows], more.action[rows], more.status[rows]
        if self.probs is not None and more.probs is not None:
            self.probs[rows] = more.probs[rows]

    @classmethod
    def none(cls, num: int, action_space: spaces.Space) -> Labels:
        """No labels for `num` environments."""
        given, status = np.zeros(num, bool), np.full(num, NO_STATUS, np.int8)
        if isinstance(action_space, spaces.Discrete):
            return cls(given, np.zeros(num, np.int64), np.zeros((num, int(action_space.n)), np.float32), status)
        return cls(given, np.zeros((num, *(action_space.shape or ())), np.float32), None, status)


@dataclass(slots=True)
class PolicySummary:
    """The learner's policy in N states, in the form that its action space has."""

    probs: np.ndarray | None = None
    """float32 (N, A): categorical policies."""
    mean: np.ndarray | None = None
    """float32 (N, D): the greedy action of Gaussian and deterministic policies."""
    std: np.ndarray | None = None
    """float32 (N, D): standard deviation of Gaussian policies before they are squashed to the range of the actions, in
    units of half that range."""


class Ask(Protocol):
    """Asks the expert. Budget, counts and log are kept behind it."""

    def __call__(self, rows: np.ndarray, now: np.ndarray | None = None) -> Labels:
        """Labels for some of the environments.

        Args:
            rows: Environments to ask about, bool (N,).
            now: Environments whose label may be executed at once, bool (N,); None: all of them. The others are only
                learned from: in a run with a `label_lag` the environments go on meanwhile, their rows are empty here,
                and are filled in before the transition is stored.
        """
        ...


@dataclass(slots=True)
class StepContext:
    """What is known in N environments before an action is executed."""

    obs: np.ndarray
    """(N, ...)"""
    legal: np.ndarray | None
    """bool (N, A): legal actions; None where actions are continuous."""
    proposals: np.ndarray
    """int64 (N,) or float32 (N, D): what the learner would do."""
    policy: PolicySummary
    decisions: int
    """Decisions made so far in the run, over all environments."""
    episodes: np.ndarray
    """int64 (N,): number of each environment's present episode, unique within the run."""
    steps: np.ndarray
    """int64 (N,): decisions made in the present episode."""
    action_space: spaces.Space
    ask: Ask
    scenes: Callable[[np.ndarray], list[Any]]
    """Scenes of the environments named by an int array; None for each environment that has no scenes."""
    views: Callable[[np.ndarray], Views | None]
    """What the egos of the environments named by an int array see; None where environments have no scenes."""
    values: Callable[[np.ndarray], np.ndarray]
    """The critics' estimate of actions shaped like `proposals`: float32 (N,), the smaller one of twin critics."""

    @property
    def num_envs(self) -> int:
        return len(self.proposals)

    def no_labels(self) -> Labels:
        """Labels of an expert that was not asked."""
        return Labels.none(self.num_envs, self.action_space)


@dataclass(slots=True)
class Execution:
    """What is done in one step, and who is in control."""

    actions: np.ndarray
    """Executed actions, int64 (N,) or float32 (N, D)."""
    labels: Labels
    """Labels that are kept, executed or not."""
    authority: np.ndarray
    """float32 (N,) in [0, 1]: the expert's share of the executed action. 0: learner, 1: expert, between: blended."""
    reason: np.ndarray
    """int8 (N,) of `Reason`."""

    @property
    def intervened(self) -> np.ndarray:
        """bool (N,): steps in which the expert has a share of control."""
        return self.authority > 0

    @classmethod
    def by_learner(cls, context: StepContext, labels: Labels | None = None) -> Execution:
        """The learner's proposals, everywhere."""
        zeros = np.zeros(context.num_envs, np.float32)
        reason = np.full(context.num_envs, Reason.LEARNER, np.int8)
        return cls(context.proposals, context.no_labels() if labels is None else labels, zeros, reason)

    @classmethod
    def switched(cls, context: StepContext, labels: Labels, rows: np.ndarray, reason: Reason) -> Execution:
        """The expert's action in some rows, the learner's in the others.

        Args:
            context: The step.
            labels: Labels, given in all of `rows`.
            rows: Environments that the expert controls, bool (N,).
            reason: Why it does.
        """
        choose = rows if context.proposals.ndim == 1 else rows[:, None]
        return cls(
            np.where(choose, labels.action, context.proposals),
            labels,
            rows.astype(np.float32),
            np.where(rows, reason, Reason.LEARNER).astype(np.int8),
        )

    @classmethod
    def blended(cls, context: StepContext, labels: Labels, authority: np.ndarray, reason: Reason) -> Execution:
        """(1 - authority) x proposal + authority x label: continuous actions only.

        Args:
            context: The step.
            labels: Labels; rows without one are the learner's.
            authority: The expert's share, float (N,) in [0, 1].
            reason: Why it has one.
        Raises:
            ValueError: Actions are discrete, which cannot be mixed.
        """
        if context.proposals.ndim == 1:
            raise ValueError("discrete actions cannot be blended: use authority 0 or 1")
        share = np.where(labels.executable, authority, 0.0).astype(np.float32)
        actions = (1 - share[:, None]) * context.proposals + share[:, None] * labels.action
        reasons = np.where(share > 0, reason, Reason.LEARNER).astype(np.int8)
        return cls(actions.astype(np.float32), labels, share, reasons)


@dataclass(slots=True)
class Transitions:
    """N finished steps, as they are about to be stored: both proposals, who was in control, and what came of it."""

    obs: np.ndarray
    """(N, ...)"""
    next_obs: np.ndarray
    """(N, ...): true successor, also where the episode ended (not the first observation of the next one)."""
    legal: np.ndarray | None
    """bool (N, A), or None."""
    next_legal: np.ndarray | None
    """bool (N, A), or None."""
    learner_actions: np.ndarray
    """What the learner proposed."""
    actions: np.ndarray
    """What was executed."""
    labels: Labels
    authority: np.ndarray
    """float32 (N,), see `Execution`."""
    reason: np.ndarray
    """int8 (N,) of `Reason`."""
    rewards: np.ndarray
    """float32 (N,)"""
    terminated: np.ndarray
    """bool (N,): the episode ended for good, so nothing is bootstrapped."""
    truncated: np.ndarray
    """bool (N,): the episode was cut off (time limit) and is bootstrapped."""
    episodes: np.ndarray
    """int64 (N,): unique within the run; equal ids with steps in succession form a trajectory."""
    steps: np.ndarray
    """int64 (N,): position within the episode, from 0."""

    def __len__(self) -> int:
        return len(self.actions)

    def take(self, rows: np.ndarray) -> Transitions:
        """Some of the steps, by an int array."""
        return _take(replace(self, labels=_take(self.labels, rows)), rows)

    @property
    def intervened(self) -> np.ndarray:
        """bool (N,): steps in which the expert had a share of control."""
        return self.authority > 0

    @property
    def dones(self) -> np.ndarray:
        """bool (N,): steps that ended their episode."""
        return self.terminated | self.truncated


def _take(record: Any, rows: np.ndarray) -> Any:
    """A record with some of the rows of its arrays."""
    arrays = {field.name: getattr(record, field.name) for field in fields(record)}
    return replace(record, **{name: value[rows] for name, value in arrays.items() if isinstance(value, np.ndarray)})
