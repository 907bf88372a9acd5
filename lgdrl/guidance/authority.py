"""Authority: the expert's share of control, as it changes over a training.

A share of 1 is the expert alone, 0 the learner alone. Schedules follow the decisions made so far (`Scheduled`) or the
position within an episode (`FirstSteps`); gates follow what the learner can do by itself (`Performance`) or how often
it agrees with the expert (`Agreement`).

Shapes: N environments.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from gymnasium import spaces

from lgdrl.guidance.gaussian import ActionScale
from lgdrl.guidance.records import Labels, LearnerInfo, StepContext, Transitions
from lgdrl.guidance.terms import NEAR

Curve = Literal["linear", "cosine", "exponential", "constant"]

CURVES: dict[str, Callable[[float], float]] = {
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
    "exponential": lambda done: (math.exp(-5.0 * done) - math.exp(-5.0)) / (1.0 - math.exp(-5.0)),
    "constant": lambda done: 1.0 if done < 1.0 else 0.0,
}
"""What is left of the way from the first share to the last one, by the part of the schedule that is done, in [0, 1]."""


class Authority(ABC):
    """The expert's share in every environment."""

    def attach(self, learner: LearnerInfo) -> None:
        """Learn about the learner, before the first step."""

    @abstractmethod
    def share(self, context: StepContext) -> np.ndarray:
        """The share in this step: float32 (N,) in [0, 1]."""

    def on_labels(self, context: StepContext, labels: Labels) -> None:
        """What the expert says in this step, before anything is executed."""

    def on_store(self, transitions: Transitions) -> None:
        """Steps that are over."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to continue identically."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""


class Scheduled(Authority):
    """A share that goes from one value to another along a curve, and stays there.

    Args:
        curve: A name in `CURVES`; `exponential` has five time constants on its way.
        initial: The share at the first decision.
        final: The share from the end of the schedule on.
        decisions: Length of the schedule; 0: `final` from the start.
    """

    def __init__(self, curve: Curve, initial: float, final: float, decisions: float) -> None:
        self.curve, self.initial, self.final, self.decisions = CURVES[curve], initial, final, decisions

    def at(self, decisions: int) -> float:
        """The share after so many decisions."""
        done = min(decisions / self.decisions, 1.0) if self.decisions > 0 else 1.0
        return self.initial if done == 0.0 else self.final + self.curve(done) * (self.initial - self.final)

    def share(self, context: StepContext) -> np.ndarray:
        return np.full(context.num_envs, self.at(context.decisions), np.float32)


class FirstSteps(Authority):
    """The expert alone in the first steps of every episode, fewer and fewer of them (the curriculum of JSRL).

    As in jump-start reinforcement learning (arXiv 2204.02372), with a horizon that shrinks linearly.

    Args:
        steps: Of each episode, at the first decision of the training.
        decisions: After which none are left.
    """

    def __init__(self, steps: int, decisions: float) -> None:
        self.steps, self.decisions = steps, decisions

    def share(self, context: StepContext) -> np.ndarray:
        left = max(1.0 - context.decisions / self.decisions, 0.0) if self.decisions > 0 else 0.0
        return (context.steps < self.steps * left).astype(np.float32)


class Performance(Authority):
    """A share that falls as the learner's own episodes approach the expert's return.

    Some episodes are probes, in which the learner has full control. With the mean return of the latest probes R, that
    of the first probes R_0 and that of the expert's first episodes R_E:

        share = 1 - min(1, max(0, R - R_0) / (fraction (R_E - R_0)))

    and it never rises again. Until R_E and R_0 are known it is 1. All returns are those of training episodes, with the
    learner's exploration.

    Args:
        fraction: Of the expert's lead over the first probes, at which the learner has all control.
        probe_every: One episode of so many is a probe; at least 2.
        window: Episodes of each mean.
    """

    def __init__(self, fraction: float, probe_every: int, window: int) -> None:
        self.fraction, self.probe_every, self.window = fraction, probe_every, window
        self.lowest = 1.0
        """The share of all episodes that are no probes."""
        self._expert: list[float] = []
        self._first: list[float] = []
        self._latest: deque[float] = deque(maxlen=window)
        self._returns: dict[int, float] = {}
        self._led: set[int] = set()
        """Running episodes in which every step so far was the expert's."""

    def probes(self, episodes: np.ndarray) -> np.ndarray:
        """Which episodes are probes, bool (N,)."""
        return episodes % self.probe_every == self.probe_every - 1

    def share(self, context: StepContext) -> np.ndarray:
        return np.where(self.probes(context.episodes), 0.0, self.lowest).astype(np.float32)

    def on_store(self, transitions: Transitions) -> None:
        probes = self.probes(transitions.episodes)
        for i, episode in enumerate(transitions.episodes.tolist()):
            if transitions.steps[i] == 0:
                self._returns[episode] = 0.0
                self._led.add(episode)
            if episode not in self._returns:
                continue  # began before this run
            self._returns[episode] += float(transitions.rewards[i])
            if transitions.authority[i] < 1.0:
                self._led.discard(episode)
            if transitions.terminated[i] or transitions.truncated[i]:
                self._ended(self._returns.pop(episode), bool(probes[i]), episode in self._led)
                self._led.discard(episode)

    def _ended(self, episode_return: float, probe: bool, led: bool) -> None:
        if probe:
            if len(self._first) < self.window:
                self._first.append(episode_return)
            self._latest.append(episode_return)
        elif led and len(self._expert) < self.window:
            self._expert.append(episode_return)
        if len(self._first) == self.window and len(self._expert) == self.window:
            start, lead = float(np.mean(self._first)), float(np.mean(self._expert) - np.mean(self._first))
            gained = max(float(np.mean(self._latest)) - start, 0.0)
            done = 1.0 if lead <= 0 else min(gained / (self.fraction * lead), 1.0)
            self.lowest = min(self.lowest, 1.0 - done)

    def state_dict(self) -> dict[str, Any]:
        return {
            "lowest": self.lowest,
            "expert": list(self._expert),
            "first": list(self._first),
            "latest": list(self._latest),
            "returns": dict(self._returns),
            "led": sorted(self._led),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.lowest = state["lowest"]
        self._expert, self._first = list(state["expert"]), list(state["first"])
        self._latest = deque(state["latest"], self.window)
        self._returns, self._led = dict(state["returns"]), set(state["led"])


class Agreement(Authority):
    """A share that falls as the learner's proposals come to agree with the labels, and never rises again.

        share = 1 - min(1, agreement / fraction)

    with the moving average of the share of labels that the proposals agree with: the same discrete action, or one
    within `NEAR` of the label in every dimension, in units of half the range.

    Args:
        fraction: Agreement at which the learner has all control.
        labels: Time constant of the average.
    """

    def __init__(self, fraction: float, labels: int) -> None:
        self.fraction, self.labels = fraction, labels
        self.scale: ActionScale | None = None
        self.agreement = 0.0
        self.lowest = 1.0

    def attach(self, learner: LearnerInfo) -> None:
        if isinstance(learner.action_space, spaces.Box):
            self.scale = ActionScale(learner.action_space)

    def share(self, context: StepContext) -> np.ndarray:
        return np.full(context.num_envs, self.lowest, np.float32)

    def on_labels(self, context: StepContext, labels: Labels) -> None:
        for agrees in self._agrees(context.proposals[labels.given], labels.action[labels.given]):
            self.agreement += (float(agrees) - self.agreement) / self.labels
        self.lowest = min(self.lowest, max(1.0 - self.agreement / self.fraction, 0.0))

    def _agrees(self, proposals: np.ndarray, labels: np.ndarray) -> np.ndarray:
        if self.scale is None:
            return proposals == labels
        return np.abs(self.scale.scaled(proposals) - self.scale.scaled(labels)).max(axis=-1, initial=0.0) <= NEAR

    def state_dict(self) -> dict[str, Any]:
        return {"agreement": self.agreement, "lowest": self.lowest}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.agreement, self.lowest = state["agreement"], state["lowest"]
