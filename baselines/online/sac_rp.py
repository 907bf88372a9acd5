"""SAC+RP: the reward carries the expert's opinion. The paper's meaning of "RP" is not known, so both readings are here.

penalty:  r' = r - c 1[the expert took over]          (intervention-aided RL; the expert does take over)
shaping:  r' = r - c 1[the learner disagreed]         (the expert only labels)
"""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import Literal

from lgdrl.guidance.arbiters import ArbiterConfig, LearnerDrives
from lgdrl.guidance.labelling import GateConfig, GuidedEpisodes
from lgdrl.guidance.records import Transitions
from lgdrl.guidance.strategy import Strategy
from lgdrl.loops.online import OnlineSettings, online_method
from sim.bounds import Number, config_dataclass


@config_dataclass
class SACRPConfig:
    mode: Literal["penalty", "shaping"] = "penalty"
    cost: Number = 1.0  # c, in units of reward
    episodes: GateConfig = field(default_factory=GateConfig)
    arbiter: ArbiterConfig = field(default_factory=ArbiterConfig)  # mode penalty: when the expert takes over


class SACRP(Strategy):
    """Reward penalties in `on_store`; nothing is added to the losses."""

    def __init__(self, config: SACRPConfig, labeller: GuidedEpisodes, traffic: bool) -> None:
        penalty = config.mode == "penalty"
        super().__init__("sac-rp", labeller, config.arbiter.make(traffic) if penalty else LearnerDrives())
        self.mode, self.cost = config.mode, config.cost

    def on_store(self, transitions: Transitions) -> Transitions:
        transitions = super().on_store(transitions)
        penalised = transitions.intervened
        if self.mode == "shaping":
            labels = transitions.labels
            penalised = labels.given & (labels.action != transitions.learner_actions)
        return dataclasses.replace(transitions, rewards=transitions.rewards - self.cost * penalised.astype("float32"))


def build(config: SACRPConfig, settings: OnlineSettings) -> Strategy:
    """The strategy of a run."""
    gate_seed, label_seed = settings.seed.spawn(2)
    labeller = GuidedEpisodes(
        config.episodes, settings.total_decisions, (gate_seed, label_seed), label_budget=settings.label_budget
    )
    return SACRP(config, labeller, settings.traffic)


METHOD = online_method("sac-rp", "SAC with a reward penalty for interventions (or disagreement)", SACRPConfig(), build)
