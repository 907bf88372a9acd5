"""SAC+RP: the reward carries the expert's opinion. The paper's meaning of "RP" is not known, so both readings are here.

penalty:  r' = r - c 1[the expert took over]          (intervention-aided RL; the expert does take over)
shaping:  r' = r - c 1[the learner disagreed]         (the expert only judges)
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from lgdrl.guidance.gates import EpisodeGateConfig, StepGateConfig
from lgdrl.guidance.lgdrl import LGDRL, LGDRLConfig
from lgdrl.guidance.registry import Method, Setting
from lgdrl.guidance.strategy import Transitions


@dataclass(frozen=True)
class SACRPConfig:
    mode: Literal["penalty", "shaping"] = "penalty"
    cost: float = 1.0  # c, in units of reward
    episodes: EpisodeGateConfig = field(default_factory=EpisodeGateConfig)
    gate: StepGateConfig = field(default_factory=StepGateConfig)  # mode penalty: when the expert takes over


class SACRP(LGDRL):
    name = "sac-rp"

    def __init__(self, config: SACRPConfig, setting: Setting) -> None:
        gate = config.gate if config.mode == "penalty" else StepGateConfig(kind="never")
        super().__init__(LGDRLConfig(constraint="none", episodes=config.episodes, gate=gate), setting)
        self.mode, self.cost = config.mode, config.cost

    def on_store(self, transitions: Transitions) -> Transitions:
        judged = transitions.intervened
        if self.mode == "shaping":
            advice = transitions.advice
            judged = advice.given & (advice.action != transitions.learner_actions)
        return dataclasses.replace(transitions, rewards=transitions.rewards - self.cost * judged.astype("float32"))


METHOD = Method("sac-rp", "SAC with a reward penalty for take-overs (or disagreement)", SACRPConfig(), SACRP)
