"""A person who may take over: an arbiter around the one of the method, in the trainer and in the window.

What the person does is executed, kept as a label and marked as an intervention, like any expert's. Human-gated
interventions as in HG-DAgger (arXiv 1810.02890): the person alone decides when.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experts.human import Hands, HumanExpert
from experts.provider import Context, Decision, label_distribution
from lgdrl.guidance.arbiters import Arbiter
from lgdrl.guidance.records import STATUSES, Execution, Labels, LearnerInfo, Reason, StepContext, Transitions
from sim.actions import MetaAction

Report = Callable[[StepContext, Decision, Any], None]
"""Called with the step, the person's decision and the scene of the first environment."""


class PersonArbiter(Arbiter):
    """`inner`, unless the person takes over the first environment.

    Args:
        inner: Decides everywhere else, and where the person does nothing.
        hands: The person's controls.
        label_spread: Share of the person's label that is spread over all legal actions.
        report: Receives each decision of the person.
        keys: As in `HumanExpert`, for environments without scenes.
    """

    def __init__(
        self,
        inner: Arbiter,
        hands: Hands,
        label_spread: float = 0.0,
        report: Report | None = None,
        keys: tuple[MetaAction | None, ...] = (),
    ) -> None:
        self.inner, self.person = inner, HumanExpert(hands, keys)
        self.label_spread, self.report = label_spread, report
        self.decisions = 0
        """Decisions of the person so far."""

    def attach(self, learner: LearnerInfo) -> None:
        self.inner.attach(learner)

    def requires(self, context: StepContext, wanted: np.ndarray, allowed: np.ndarray) -> np.ndarray:
        return self.inner.requires(context, wanted, allowed)

    def decide(self, context: StepContext, labels: Labels, allowed: np.ndarray) -> Execution:
        execution = self.inner.decide(context, labels, allowed)
        scene = context.scenes(np.array([0]))[0]
        legal = None if context.legal is None else context.legal[0]
        decision = self.person.decide(
            [Context(context.obs[0], context.action_space, scene, legal, int(context.episodes[0]))]
        )[0]
        if decision.action is None:
            return execution
        actions, authority, reason = execution.actions.copy(), execution.authority.copy(), execution.reason.copy()
        kept = execution.labels
        actions[0] = kept.action[0] = decision.action
        kept.given[0], kept.status[0] = True, STATUSES.index(decision.status)
        if kept.probs is not None and legal is not None:
            kept.probs[0] = label_distribution(int(decision.action), legal, self.label_spread)
        authority[0], reason[0] = 1.0, Reason.PERSON
        self.decisions += 1
        if self.report is not None:
            self.report(context, decision, scene)
        return Execution(actions, kept, authority, reason)

    def on_store(self, transitions: Transitions) -> None:
        self.inner.on_store(transitions)

    def metrics(self) -> dict[str, float]:
        return self.inner.metrics() | {"human_decisions": float(self.decisions)}

    def state_dict(self) -> dict[str, Any]:
        return {"inner": self.inner.state_dict(), "decisions": self.decisions}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.inner.load_state_dict(state["inner"])
        self.decisions = state["decisions"]
