"""Arbiters: who controls the environment, step by step.

One contract serves the trainer, the window, and every method: an arbiter sees the step, the labels and the steps in
which it may intervene, and returns what is executed, with the expert's authority and a reason for each environment.
LGDRL-style, as specified here; `value` is the rule of TS2C (arXiv 2303.01728).

Arbiters are plug-ins (entry point group `lgdrl.arbiters`, each entry an `ArbiterPlugin`); a config chooses one by
`kind` and `options`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from experts.safety import unsafe_actions
from lgdrl.guidance import gaussian
from lgdrl.guidance.constraint import js
from lgdrl.guidance.records import Execution, Labels, LearnerInfo, Reason, StepContext, Transitions
from lgdrl.plugins import Registry
from sim.bounds import NonNegative, Number, config_dataclass
from sim.config import NoOptions, resolve
from sim.errors import UsageError


class Arbiter(ABC):
    """Decides who controls N environments. Keeps what it needs to know of the steps before."""

    asks = False
    """Whether it may require labels in states that the labeller does not want."""
    needs_traffic = False
    """Whether it decides on traffic scenes."""

    def attach(self, learner: LearnerInfo) -> None:
        """Check the learner, before the first step. Raises UsageError where it cannot arbitrate there."""

    def requires(self, context: StepContext, wanted: np.ndarray, allowed: np.ndarray) -> np.ndarray:
        """Labels that the decision depends on. Called once per step, before `decide`.

        Args:
            context: The step; nothing has been asked yet.
            wanted: States that are labelled anyway, bool (N,).
            allowed: Environments in which the expert may control this step, bool (N,).
        Returns:
            Environments whose label is needed at once, bool (N,). Default: none.
        """
        return np.zeros(context.num_envs, bool)

    @abstractmethod
    def decide(self, context: StepContext, labels: Labels, allowed: np.ndarray) -> Execution:
        """Who controls this step.

        Args:
            context: The step.
            labels: The expert's labels so far; rows that were not required may still be empty.
            allowed: Environments in which the expert may control this step, bool (N,).
        """

    def on_store(self, transitions: Transitions) -> None:
        """Steps that are over, before they are stored. Default: nothing."""

    def metrics(self) -> dict[str, float]:
        """Values to log under guidance/ in every row."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to continue identically."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""


@dataclass(frozen=True)
class ArbiterPlugin:
    """A named arbiter. `defaults` is an instance of its frozen config dataclass."""

    name: str
    summary: str
    defaults: Any
    make: Callable[[Any], Arbiter]
    """resolved config -> arbiter"""


ARBITERS: Registry[ArbiterPlugin] = Registry("lgdrl.arbiters", "arbiter")


@dataclass(frozen=True)
class ArbiterConfig:
    """Which arbiter, and its settings."""

    # a registered arbiter; `lgdrl list` prints them. null: unsafe, the best reading of "when necessary", where there is
    # traffic to check; elsewhere js
    kind: str | None = None
    options: dict[str, Any] = field(default_factory=dict)  # of the arbiter

    def __post_init__(self) -> None:
        if self.kind is not None:
            self.make()
        elif self.options:
            raise UsageError(f"options {sorted(self.options)} of no arbiter: name its kind")

    def make(self, traffic: bool = True) -> Arbiter:
        """The arbiter; UsageError for an unknown kind or option, and for one that needs traffic where there is none.

        Args:
            traffic: There are traffic scenes and discrete actions.
        """
        kind = self.kind or ("unsafe" if traffic else "js")
        plugin = ARBITERS.get(kind)
        arbiter = plugin.make(resolve(plugin.defaults, self.options, f"options of arbiter {kind!r}"))
        if arbiter.needs_traffic and not traffic:
            raise UsageError(f"arbiter {kind!r} needs traffic scenes: choose 'js' or 'value' here")
        return arbiter


class LearnerDrives(Arbiter):
    """The learner controls every step; labels are only learned from."""

    def decide(self, context: StepContext, labels: Labels, allowed: np.ndarray) -> Execution:
        return Execution.by_learner(context, labels)


class ExpertDrives(Arbiter):
    """The expert controls every step that it may, as far as its label comes in time."""

    asks = True

    def requires(self, context: StepContext, wanted: np.ndarray, allowed: np.ndarray) -> np.ndarray:
        return allowed

    def decide(self, context: StepContext, labels: Labels, allowed: np.ndarray) -> Execution:
        return Execution.switched(context, labels, allowed & labels.executable, Reason.SCHEDULE)


class Replacing(Arbiter):
    """Base of arbiters that replace the learner's action in steps that a rule finds.

    A step counts as an intervention only where the expert's action differs from the learner's.
    """

    reason: Reason
    discrete_only = True
    """Whether its rule is one for discrete actions."""

    def attach(self, learner: LearnerInfo) -> None:
        space = learner.action_space
        if self.discrete_only and not isinstance(space, spaces.Discrete):
            raise UsageError(
                f"this arbiter compares discrete actions, the scenario has {space}: choose 'learner', 'expert', "
                "'value', 'js' or 'blend'"
            )

    @abstractmethod
    def fires(self, context: StepContext, labels: Labels) -> np.ndarray:
        """bool (N,): steps that the expert should control."""

    def decide(self, context: StepContext, labels: Labels, allowed: np.ndarray) -> Execution:
        differs = labels.action != context.proposals
        if differs.ndim > 1:
            differs = differs.any(axis=1)
        rows = allowed & self.fires(context, labels) & labels.executable & differs
        return Execution.switched(context, labels, rows, self.reason)


class Unsafe(Replacing):
    """The expert takes over where the learner's proposal fails the safety check of the scene."""

    asks = True
    needs_traffic = True
    reason = Reason.UNSAFE

    def __init__(self) -> None:
        self._fires = np.zeros(0, bool)

    def requires(self, context: StepContext, wanted: np.ndarray, allowed: np.ndarray) -> np.ndarray:
        self._fires = np.zeros(context.num_envs, bool)
        indices = np.flatnonzero(allowed)
        if indices.size:
            views = context.views(indices)
            if views is None:
                raise UsageError("arbiter 'unsafe' needs traffic scenes: choose 'disagree', 'value' or 'js' here")
            self._fires[indices] = unsafe_actions(views)[np.arange(indices.size), context.proposals[indices]]
        return self._fires

    def fires(self, context: StepContext, labels: Labels) -> np.ndarray:
        return self._fires


class Comparing(Replacing):
    """Base of arbiters that compare the expert's label with the learner: they need every label at once."""

    def requires(self, context: StepContext, wanted: np.ndarray, allowed: np.ndarray) -> np.ndarray:
        return wanted & allowed


class Disagree(Comparing):
    """The expert takes over wherever it would act differently."""

    reason = Reason.DISAGREEMENT

    def fires(self, context: StepContext, labels: Labels) -> np.ndarray:
        return labels.given


@config_dataclass
class ValueConfig:
    margin: Number = 0.5  # units of return: take over where min Q(label) - min Q(proposal) exceeds this


class Value(Comparing):
    """The expert takes over where the critics prefer its action by more than a margin (TS2C)."""

    reason = Reason.VALUE
    discrete_only = False

    def __init__(self, config: ValueConfig) -> None:
        self.config = config

    def fires(self, context: StepContext, labels: Labels) -> np.ndarray:
        if not labels.given.any():
            return labels.given
        gain = context.values(labels.action) - context.values(context.proposals)
        return labels.given & (gain > self.config.margin)


@config_dataclass
class DivergenceConfig:
    on: NonNegative = 0.35  # nats (ln 2 = 0.69 is total disagreement): the expert takes over above this ...
    off: NonNegative = 0.15  # ... and hands back below this

    def __post_init__(self) -> None:
        if self.off > self.on:
            raise ValueError(f"off = {self.off}, on = {self.on}: choose 0 <= off <= on")


class Divergence(Comparing):
    """The expert takes over where the Jensen-Shannon divergence is large, with hysteresis within an episode."""

    reason = Reason.DIVERGENCE
    discrete_only = False

    def __init__(self, config: DivergenceConfig) -> None:
        self.config = config
        self._engaged = np.zeros(0, bool)
        self._engaged_in = np.zeros(0, np.int64)

    def fires(self, context: StepContext, labels: Labels) -> np.ndarray:
        if len(self._engaged) != context.num_envs:
            self._engaged, self._engaged_in = np.zeros(context.num_envs, bool), np.full(context.num_envs, -1)
        engaged = self._engaged & (self._engaged_in == context.episodes)
        distance = self._distance(context, labels)
        threshold = np.where(engaged, self.config.off, self.config.on)
        self._engaged = labels.given & (distance > threshold)
        self._engaged_in = context.episodes.copy()
        return self._engaged

    @staticmethod
    def _distance(context: StepContext, labels: Labels) -> np.ndarray:
        """JS divergence of policy and label, nats, (N,); of continuous actions the mean over their dimensions."""
        policy = context.policy
        if policy.probs is None:
            assert policy.mean is not None
            return gaussian.distance(policy.mean, policy.std, labels.action, context.action_space)
        assert labels.probs is not None
        with np.errstate(divide="ignore"):
            log_probs = torch.from_numpy(np.log(policy.probs))
        return js(log_probs, torch.from_numpy(labels.probs)).numpy()

    def state_dict(self) -> dict[str, Any]:
        return {"engaged": self._engaged.copy(), "engaged_in": self._engaged_in.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._engaged, self._engaged_in = state["engaged"].copy(), state["engaged_in"].copy()


class Rationed(Arbiter):
    """`inner`, which may ask for a limited number of labels that would not be given otherwise.

    Without a ration an arbiter that asks by itself spends a small label budget in the first decisions of a training,
    on states that are all alike.

    Args:
        inner: Decides.
        labels: Most labels beyond those that the labeller wants.
        until: Decisions over which they become available, evenly.
    """

    def __init__(self, inner: Arbiter, labels: float, until: float) -> None:
        self.inner, self.labels, self.until = inner, labels, until
        self.asked = 0
        """Labels that were asked for so far, beyond those that the labeller wanted."""

    def attach(self, learner: LearnerInfo) -> None:
        self.inner.attach(learner)

    def requires(self, context: StepContext, wanted: np.ndarray, allowed: np.ndarray) -> np.ndarray:
        required = self.inner.requires(context, wanted, allowed)
        extra = np.flatnonzero(required & ~wanted)
        available = int(self.labels * min(context.decisions / self.until, 1.0)) - self.asked
        refused = extra[max(available, 0) :]
        self.asked += len(extra) - len(refused)
        granted = required.copy()
        granted[refused] = False
        return granted

    def decide(self, context: StepContext, labels: Labels, allowed: np.ndarray) -> Execution:
        return self.inner.decide(context, labels, allowed)

    def on_store(self, transitions: Transitions) -> None:
        self.inner.on_store(transitions)

    def metrics(self) -> dict[str, float]:
        return self.inner.metrics()

    def state_dict(self) -> dict[str, Any]:
        return {"inner": self.inner.state_dict(), "asked": self.asked}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.inner.load_state_dict(state["inner"])
        self.asked = state["asked"]


LEARNER = ArbiterPlugin("learner", "the learner always drives", NoOptions(), lambda config: LearnerDrives())
EXPERT = ArbiterPlugin("expert", "the expert always drives", NoOptions(), lambda config: ExpertDrives())
UNSAFE = ArbiterPlugin("unsafe", "where the proposal fails the safety check", NoOptions(), lambda config: Unsafe())
DISAGREE = ArbiterPlugin("disagree", "where the expert acts differently", NoOptions(), lambda config: Disagree())
VALUE = ArbiterPlugin("value", "where the critics prefer the expert's action", ValueConfig(), Value)
JS = ArbiterPlugin("js", "where policy and expert are far apart, with hysteresis", DivergenceConfig(), Divergence)
