"""The integration contract: four hooks through which a method uses an expert while a learner trains.

`on_action` decides what is executed, `on_store` what is kept, `on_batch` what is sampled, `loss` what is added to the
actor's objective. `Strategy` itself is plain learning; a method overrides only the hooks that it needs. LGDRL is one
such method (`lgdrl.guidance.lgdrl`), the baselines are others; a config word chooses.

Shapes: N parallel worlds, A actions, B sampled transitions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from experts.provider import Status

if TYPE_CHECKING:
    import torch

    from lgdrl.learners.replay import GuidedReplayBuffer, GuidedSamples
    from sim.view import Views


STATUSES: tuple[Status, ...] = tuple(Status)
"""Decision statuses by the small integers under which buffers keep them."""
LATE = STATUSES.index(Status.LATE)


@dataclass(slots=True)
class Advice:
    """Expert advice for N worlds; rows that were not asked for hold -1 and zeros."""

    action: np.ndarray
    """int64 (N,), -1 where there is none."""
    probs: np.ndarray
    """float32 (N, A), zero rows where there is none."""
    status: np.ndarray
    """int8 (N,): index into `STATUSES`, -1 where there is none."""

    @property
    def given(self) -> np.ndarray:
        """bool (N,): rows with a label."""
        return self.action >= 0

    @property
    def executable(self) -> np.ndarray:
        """bool (N,): rows whose advice may be executed now. A late answer is a label only."""
        return self.given & (self.status != LATE)

    def fill(self, more: Advice) -> None:
        """Take over the rows of `more` for which nobody was asked here."""
        rows = (more.status >= 0) & (self.status < 0)
        self.action[rows], self.probs[rows], self.status[rows] = more.action[rows], more.probs[rows], more.status[rows]

    @classmethod
    def none(cls, num: int, num_actions: int) -> Advice:
        return cls(np.full(num, -1, np.int64), np.zeros((num, num_actions), np.float32), np.full(num, -1, np.int8))


class Ask(Protocol):
    """Asks the expert. Budgets, counting and logging happen behind it."""

    def __call__(self, rows: np.ndarray, now: np.ndarray | None = None) -> Advice:
        """Advice for the worlds where bool (N,) `rows` is True.

        `now`, bool (N,), says for which of them the method may execute it; None: for all. The others only want a label:
        a run with a `label_lag` lets the worlds run on meanwhile. Their rows are empty here, and filled in before the
        transition is stored.
        """
        ...


@dataclass(slots=True)
class Moment:
    """One decision moment of N worlds, before anything is executed."""

    obs: np.ndarray
    """(N, ...) what the learner sees."""
    masks: np.ndarray
    """bool (N, A) legal actions."""
    proposals: np.ndarray
    """int64 (N,) what the learner would do."""
    probs: np.ndarray
    """float32 (N, A) the learner's policy."""
    decisions: int
    """Decisions made so far, over all worlds."""
    episodes: np.ndarray
    """int64 (N,) running number of each world's present episode, unique over the run."""
    steps: np.ndarray
    """int64 (N,) decisions made in the present episode."""
    ask: Ask
    scenes: Callable[[np.ndarray], list[Any]]
    """Scenes of the worlds named by an int array."""
    views: Callable[[np.ndarray], Views | None]
    """What the egos of the worlds named by an int array see; None where the worlds have no scenes."""
    q_values: Callable[[], np.ndarray]
    """float32 (N, A): smaller of the twin critics, computed when asked for."""


@dataclass(slots=True)
class Execution:
    """What is done at a moment."""

    actions: np.ndarray
    """int64 (N,) executed actions."""
    advice: Advice
    """Labels that are kept, executed or not."""
    intervened: np.ndarray
    """bool (N,): the expert's action was executed in place of the learner's."""


@dataclass(slots=True)
class Transitions:
    """N finished steps, as they are about to be stored. Both proposals and who was in control are kept."""

    obs: np.ndarray
    next_obs: np.ndarray
    """True successor, also where the episode ended (not the first observation of the next one)."""
    masks: np.ndarray
    next_masks: np.ndarray
    learner_actions: np.ndarray
    actions: np.ndarray
    """Executed."""
    advice: Advice
    intervened: np.ndarray
    rewards: np.ndarray
    """float32 (N,)"""
    dones: np.ndarray
    """bool (N,): the episode ended here, terminated or truncated."""
    terminated: np.ndarray
    """bool (N,): the episode ended for good, so nothing is bootstrapped."""


@dataclass(slots=True)
class Batch:
    """What one gradient step learns from."""

    rl: GuidedSamples
    """Feeds critic and actor."""
    guide: GuidedSamples | None = None
    """Labelled states for `Strategy.loss`; None when there are none or the method wants none."""


@dataclass(slots=True)
class GuidanceLoss:
    """What a method adds to the actor objective: `rl_share` x RL loss + `value`."""

    value: torch.Tensor | None = None
    rl_share: float = 1.0
    metrics: dict[str, float] = field(default_factory=dict)
    """Logged under guidance/."""


class Strategy:
    """Plain learning without an expert; base of every integration method."""

    name = "none"
    needs_expert = False

    def on_action(self, moment: Moment) -> Execution:
        """Choose what is executed. Default: the learner's own proposal, nobody is asked."""
        num, num_actions = moment.masks.shape
        return Execution(moment.proposals, Advice.none(num, num_actions), np.zeros(num, bool))

    def on_store(self, transitions: Transitions) -> Transitions:
        """Change what is kept (for example the reward). Default: everything as it was."""
        return transitions

    def on_batch(self, replay: GuidedReplayBuffer, batch_size: int) -> Batch:
        """Choose what is learned from. Default: uniform over the replay buffer."""
        return Batch(replay.sample_uniform(batch_size))

    def loss(self, guide: GuidedSamples, log_probs: torch.Tensor) -> GuidanceLoss:
        """Term for the actor. Called only when `on_batch` gave a guide batch.

        Args: labelled samples; float (B, A) log-probabilities of the present policy on them, finite everywhere.
        """
        return GuidanceLoss()

    def metrics(self) -> dict[str, float]:
        """Values to log under guidance/ with every dump."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to continue identically (dual variable, random streams, counters)."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
