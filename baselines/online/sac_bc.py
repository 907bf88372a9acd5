"""SAC+BC: the actor also clones the expert's labels, L_pi = L_0 + w E_labelled[-ln pi(u|s)]; the expert never drives.

Meaning inferred from the name, as specified here. It is LGDRL's machinery with another divergence, a fixed weight and
no take-overs, at the same labels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lgdrl.guidance.constraint import DualConfig
from lgdrl.guidance.gates import EpisodeGateConfig, StepGateConfig
from lgdrl.guidance.lgdrl import LGDRL, LGDRLConfig
from lgdrl.guidance.registry import Method, Setting


@dataclass(frozen=True)
class SACBCConfig:
    weight: float = 1.0  # of the cloning loss
    guide_batch: int = 128  # labelled states per update
    episodes: EpisodeGateConfig = field(default_factory=EpisodeGateConfig)  # episodes in which labels are asked


def build(config: SACBCConfig, setting: Setting) -> LGDRL:
    cloning = LGDRLConfig(
        constraint="bc",
        dual=DualConfig(initial=config.weight, maximum=max(config.weight, 1.0), fixed=True),
        guide_batch=config.guide_batch,
        episodes=config.episodes,
        gate=StepGateConfig(kind="never"),
    )
    return LGDRL(cloning, setting)


METHOD = Method("sac-bc", "SAC plus behaviour cloning on expert labels", SACBCConfig(), build)
