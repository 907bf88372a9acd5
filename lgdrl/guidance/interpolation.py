"""Arbiters in which expert and learner share control, by an authority that changes over the training.

Continuous actions are blended, each dimension by itself (`Blend`). Discrete ones cannot be: there one of the two acts,
for a step, for a segment of steps, or by a draw from a mixture of both policies (`HandOver`). After dynamic action
interpolation (arXiv 2504.18766), as specified here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from gymnasium import spaces

from lgdrl.guidance.arbiters import Arbiter, ArbiterPlugin
from lgdrl.guidance.authority import Authority, Curve, Scheduled
from lgdrl.guidance.records import Execution, Labels, LearnerInfo, Reason, StepContext, Transitions
from sim.bounds import Share, Whole, config_dataclass
from sim.errors import UsageError

Form = Literal["step", "segment", "mixture"]


class Shared(Arbiter):
    """Base of arbiters with an `Authority`."""

    asks = True

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.alpha = 0.0
        """The learner's share in the last step, mean over the environments."""

    def attach(self, learner: LearnerInfo) -> None:
        self.authority.attach(learner)

    def requires(self, context: StepContext, wanted: np.ndarray, allowed: np.ndarray) -> np.ndarray:
        return allowed & (self.authority.share(context) > 0)

    def decide(self, context: StepContext, labels: Labels, allowed: np.ndarray) -> Execution:
        share = np.where(allowed, self.authority.share(context), np.float32(0))
        self.alpha = 1.0 - float(share.mean())
        execution = self.execute(context, labels, share)
        self.authority.on_labels(context, labels)
        return execution

    def execute(self, context: StepContext, labels: Labels, share: np.ndarray) -> Execution:
        """What is done at these shares of the expert, float32 (N,)."""
        raise NotImplementedError

    def on_store(self, transitions: Transitions) -> None:
        """Steps that are over."""
        self.authority.on_store(transitions)

    def metrics(self) -> dict[str, float]:
        return {"alpha": self.alpha}

    def state_dict(self) -> dict[str, Any]:
        return {"authority": self.authority.state_dict(), "alpha": self.alpha}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.authority.load_state_dict(state["authority"])
        self.alpha = state["alpha"]


class Blend(Shared):
    """Both act: (1 - share) x proposal + share x label; the blended action is what is stored.

    Args:
        authority: The expert's share.
        switched: Dimensions that are not mixed: there the expert's action counts while its share is above a half.
    """

    def __init__(self, authority: Authority, switched: Sequence[int] = ()) -> None:
        super().__init__(authority)
        self.switched = tuple(switched)

    def attach(self, learner: LearnerInfo) -> None:
        space = learner.action_space
        if isinstance(space, spaces.Discrete):
            raise UsageError(f"arbiter 'blend' mixes continuous actions, the scenario has {space}: choose another")
        if learner.on_policy:
            raise UsageError(
                f"arbiter 'blend': learner {learner.name!r} learns only from actions that its own policy drew, and a "
                "blended one was drawn by no policy: choose arbiter 'expert' or 'js', or learner 'sac' or 'td3'"
            )
        dimensions = (space.shape or (0,))[0]
        beyond = [k for k in self.switched if not 0 <= k < dimensions]
        if beyond:
            raise UsageError(f"switched = {list(self.switched)}: actions have dimensions 0 to {dimensions - 1}")
        super().attach(learner)

    def execute(self, context: StepContext, labels: Labels, share: np.ndarray) -> Execution:
        execution = Execution.blended(context, labels, share, Reason.SCHEDULE)
        for k in self.switched:
            led = labels.executable & (share > 0.5)
            execution.actions[:, k] = np.where(led, labels.action[:, k], context.proposals[:, k])
        return execution


class HandOver(Shared):
    """One of the two acts: the expert with a probability that is its share.

    Args:
        authority: The expert's share.
        form: `step`: drawn in every step; `segment`: once for so many steps of an episode; `mixture`: in every step,
            and where the learner acts, its action is drawn from the softmax of its critics' values.
        seed: Of the draws.
        segment: Steps that one draw counts for.
        temperature: Of the softmax, in units of return.
    """

    def __init__(
        self,
        authority: Authority,
        form: Form,
        seed: np.random.SeedSequence,
        segment: int = 10,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(authority)
        self.form, self.segment, self.temperature = form, segment, temperature
        self._stream = np.random.default_rng(seed)
        self._draws = np.zeros(0)

    def attach(self, learner: LearnerInfo) -> None:
        if self.form == "mixture" and not isinstance(learner.action_space, spaces.Discrete):
            raise UsageError(
                f"form 'mixture' draws discrete actions, the scenario has {learner.action_space}: "
                "choose 'step' or 'segment'"
            )
        if self.form == "mixture" and learner.on_policy:
            raise UsageError(
                f"form 'mixture' draws actions anew, and learner {learner.name!r} learns only from actions "
                "that its own policy drew: choose 'step' or 'segment'"
            )
        super().attach(learner)

    def execute(self, context: StepContext, labels: Labels, share: np.ndarray) -> Execution:
        led = labels.executable & (self._drawn(context) < share)
        execution = Execution.switched(context, labels, led, Reason.SCHEDULE)
        if self.form == "mixture" and (share > 0).any():
            execution.actions = np.where((share > 0) & ~led, self._softmax(context), execution.actions)
        return execution

    def _drawn(self, context: StepContext) -> np.ndarray:
        """A number in [0, 1) per environment, kept for a segment."""
        fresh = self._stream.random(context.num_envs)
        if self.form != "segment":
            return fresh
        if len(self._draws) != context.num_envs:
            self._draws = fresh
        self._draws = np.where(context.steps % self.segment == 0, fresh, self._draws)
        return self._draws

    def _softmax(self, context: StepContext) -> np.ndarray:
        assert context.legal is not None
        num, actions = context.legal.shape
        values = np.stack([context.values(np.full(num, a)) for a in range(actions)], axis=1).astype(np.float64)
        logits = np.where(context.legal, values / self.temperature, -np.inf)
        return (logits + self._stream.gumbel(size=logits.shape)).argmax(axis=1)  # a draw from the softmax

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"stream": self._stream.bit_generator.state, "draws": self._draws.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._stream.bit_generator.state = state["stream"]
        self._draws = state["draws"].copy()


@config_dataclass
class BlendConfig:
    curve: Curve = "linear"  # on which the share changes
    initial: Share = 1.0  # the expert's share of the action at the start ...
    final: Share = 0.0  # ... and from there on where the schedule ends
    decisions: Whole = 10_000  # over which it goes from one to the other


def _blend(config: BlendConfig) -> Blend:
    return Blend(Scheduled(config.curve, config.initial, config.final, config.decisions))


BLEND = ArbiterPlugin("blend", "both, with a share that fades (continuous actions)", BlendConfig(), _blend)
