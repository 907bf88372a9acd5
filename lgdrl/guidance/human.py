"""A person at the wheel while a learner learns: any strategy, with take-overs of world 0 by hand on top.

What the person does is executed, kept as a label and marked as an intervention, like any expert's. Human-gated
take-overs as in HG-DAgger (arXiv 1810.02890): the person alone decides when.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from experts.human import Hands, HumanExpert
from experts.provider import Context, label_distribution
from lgdrl.guidance.log import HUMAN, GuidanceLog
from lgdrl.guidance.strategy import STATUSES, Batch, Execution, GuidanceLoss, Moment, Strategy, Transitions
from lgdrl.learners.replay import GuidedReplayBuffer, GuidedSamples


class WithHuman(Strategy):
    """`inner` with a person's take-overs; labels are spread as the run's labels are and written to its log."""

    def __init__(self, inner: Strategy, hands: Hands, spread: float, log: GuidanceLog) -> None:
        self.inner, self.person, self.spread, self.log = inner, HumanExpert(hands), spread, log
        self.name, self.needs_expert = inner.name, inner.needs_expert
        self.taken_over = 0
        """Decisions in which the person drove."""

    def on_action(self, moment: Moment) -> Execution:
        execution = self.inner.on_action(moment)
        first, mask = np.array([0]), moment.masks[0]
        context = Context(
            moment.obs[0], spaces.Discrete(len(mask)), moment.scenes(first)[0], mask, int(moment.episodes[0])
        )
        decision = self.person.decide([context])[0]
        if decision.action is None:
            return execution
        actions, intervened, advice = execution.actions.copy(), execution.intervened.copy(), execution.advice
        action = actions[0] = int(decision.action)
        intervened[0] = True
        advice.action[0], advice.status[0] = action, STATUSES.index(decision.status)
        advice.probs[0] = label_distribution(action, mask, self.spread)
        self.taken_over += 1
        self.log.add(HUMAN, first, moment.episodes[first], moment.steps[first], [decision], [context.scene])
        return Execution(actions, advice, intervened)

    def on_store(self, transitions: Transitions) -> Transitions:
        return self.inner.on_store(transitions)

    def on_batch(self, replay: GuidedReplayBuffer, batch_size: int) -> Batch:
        return self.inner.on_batch(replay, batch_size)

    def loss(self, guide: GuidedSamples, log_probs: torch.Tensor) -> GuidanceLoss:
        return self.inner.loss(guide, log_probs)

    def metrics(self) -> dict[str, float]:
        return self.inner.metrics() | {"human_decisions": float(self.taken_over)}

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict() | {"human_decisions": self.taken_over}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.taken_over = state.get("human_decisions", 0)
        self.inner.load_state_dict({name: value for name, value in state.items() if name != "human_decisions"})
