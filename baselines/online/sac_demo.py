"""SAC+Demo: the expert drives first, its transitions stay in the replay buffer, and fill half of every batch.

Symmetric sampling as in RLPD (arXiv 2302.02948); meaning otherwise inferred from the name, as specified here. The
demonstration decisions count towards the training's decisions. Recorded demonstrations (`RunConfig.demonstrations`) may
take the place of the expert's drive: with `decisions` = 0 no expert is asked.
"""

from __future__ import annotations

from typing import Annotated

from lgdrl.guidance.arbiters import ExpertDrives
from lgdrl.guidance.labelling import FirstDecisions
from lgdrl.guidance.replay import GuidedReplayBuffer, Samples
from lgdrl.guidance.strategy import RL, Batches, Strategy
from lgdrl.loops.online import OnlineSettings, online_method
from lgdrl.methods import Needs
from sim.bounds import Bounds, Whole, config_dataclass
from sim.errors import UsageError

DECISIONS = 10_000
"""That the expert drives in a training without a label budget."""
CONSECUTIVE = 100
"""Decisions in a row, more than an episode of most scenarios has."""


@config_dataclass
class SACDemoConfig:
    # that the expert drives at the start; 0: recorded demonstrations only; None: the label budget, or 10,000
    decisions: Whole | None = None
    share: Annotated[float, Bounds(0, 1, open_low=True, open_high=True)] = 0.5  # of every batch that is drawn from them


class SACDemo(Strategy):
    """The expert drives the first decisions; batches are mixed from its steps and from all steps."""

    def __init__(self, decisions: int, share: float) -> None:
        super().__init__("sac-demo", FirstDecisions(decisions, CONSECUTIVE), ExpertDrives(), needs_expert=decisions > 0)
        self.share = share

    def on_batch(self, replay: GuidedReplayBuffer, size: int) -> Batches:
        demonstrated = replay.sample_intervened(int(size * self.share))
        if demonstrated is None:
            return super().on_batch(replay, size)
        own = replay.sample_uniform(size - len(demonstrated))
        return {RL: Samples.concatenate([demonstrated, own])}


def build(config: SACDemoConfig, settings: OnlineSettings) -> Strategy:
    """The strategy of a run. UsageError where nothing is demonstrated."""
    budget = DECISIONS if settings.label_budget is None else settings.label_budget
    decisions = budget if config.decisions is None else config.decisions
    if config.decisions == 0 and not settings.demonstrated:
        raise UsageError(
            "strategy_options.decisions = 0: choose at least 1, or give demonstrations, e.g. demonstrations=FILE"
        )
    return SACDemo(decisions, config.share)


METHOD = online_method(
    "sac-demo", "SAC with expert demonstrations in half of every batch", SACDemoConfig(), build, Needs(replay=True)
)
