"""SAC+BC: the actor also clones the expert's labels, L_pi = L_0 + w E_labelled[-ln pi(u|s)]; the expert never drives.

Meaning inferred from the name, as specified here.
"""

from __future__ import annotations

from dataclasses import field

from lgdrl.guidance.labelling import GateConfig, GuidedEpisodes
from lgdrl.guidance.strategy import Strategy
from lgdrl.guidance.terms import ImitationTerm
from lgdrl.loops.online import OnlineSettings, online_method
from lgdrl.methods import Needs
from sim.bounds import BatchSize, NonNegative, config_dataclass


@config_dataclass
class SACBCConfig:
    weight: NonNegative = 1.0  # of the cloning loss
    guide_batch: BatchSize = 128  # labelled states per update
    episodes: GateConfig = field(default_factory=GateConfig)  # episodes in which labels are asked


def build(config: SACBCConfig, settings: OnlineSettings) -> Strategy:
    """The strategy of a run."""
    gate_seed, label_seed = settings.seed.spawn(2)
    labeller = GuidedEpisodes(
        config.episodes, settings.total_decisions, (gate_seed, label_seed), label_budget=settings.label_budget
    )
    return Strategy("sac-bc", labeller, actor=[ImitationTerm("bc", config.guide_batch, config.weight)])


METHOD = online_method("sac-bc", "SAC plus behaviour cloning on expert labels", SACBCConfig(), build, Needs())
