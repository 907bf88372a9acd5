"""SAC+Demo: the expert drives first, its transitions stay in the replay, and half of every batch is drawn from them.

Symmetric sampling as in RLPD (arXiv 2302.02948); meaning otherwise inferred from the name, as specified here. The
demonstration decisions count towards the training's decisions. Recorded demonstrations (`RunConfig.demonstrations`) may
take the place of the expert's drive: with `decisions` = 0 nobody is asked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lgdrl.guidance.registry import Method, Setting
from lgdrl.guidance.strategy import Batch, Execution, Moment, Strategy
from lgdrl.learners.replay import GuidedReplayBuffer, GuidedSamples
from sim.errors import UsageError


@dataclass(frozen=True)
class SACDemoConfig:
    decisions: int = 10_000  # that the expert drives at the start; 0: recorded demonstrations only
    share: float = 0.5  # of every batch that is drawn from them

    def __post_init__(self) -> None:
        if self.decisions < 0 or not 0 < self.share < 1:
            raise ValueError(
                f"decisions = {self.decisions}, share = {self.share}: choose decisions >= 0, 0 < share < 1"
            )


class SACDemo(Strategy):
    name = "sac-demo"
    needs_expert = True

    def __init__(self, config: SACDemoConfig, setting: Setting) -> None:
        if config.decisions == 0 and not setting.demonstrated:
            raise UsageError(
                "strategy_options.decisions = 0: choose at least 1, or give demonstrations, e.g. demonstrations=FILE"
            )
        self.config = config
        self.needs_expert = config.decisions > 0

    def on_action(self, moment: Moment) -> Execution:
        if moment.decisions >= self.config.decisions:
            return super().on_action(moment)
        advice = moment.ask(np.ones(len(moment.proposals), bool))
        driven = advice.executable
        return Execution(np.where(driven, advice.action, moment.proposals), advice, driven)

    def on_batch(self, replay: GuidedReplayBuffer, batch_size: int) -> Batch:
        demonstrated = replay.sample_intervened(int(batch_size * self.config.share))
        if demonstrated is None:
            return super().on_batch(replay, batch_size)
        own = replay.sample_uniform(batch_size - len(demonstrated))
        return Batch(GuidedSamples.concatenate([demonstrated, own]))


METHOD = Method("sac-demo", "SAC with expert demonstrations in half of every batch", SACDemoConfig(), SACDemo)
