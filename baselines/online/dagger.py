"""DAgger without reinforcement learning (Ross et al. 2011): clone the expert on states that the learner reaches.

The honest rival of every expert-guided RL method. Training is cut into rounds; each round begins with its share of the
labels, asked on consecutive decisions, then keeps fitting all labels so far. In the first round the expert drives while
it labels, afterwards the learner does. Loss: E_labelled[-ln pi(u|s)], the RL loss is off (the critics train unused).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from lgdrl.guidance.constraint import bc
from lgdrl.guidance.registry import Method, Setting
from lgdrl.guidance.strategy import Advice, Batch, Execution, GuidanceLoss, Moment, Strategy
from lgdrl.learners.replay import GuidedReplayBuffer, GuidedSamples


@dataclass(frozen=True)
class DAggerConfig:
    labels: int = 16_000  # in the whole training
    rounds: int = 16
    guide_batch: int = 256  # labelled states per update
    thinning: int = 1  # ask on every k-th decision of the labelling phase: less alike states for the same labels

    def __post_init__(self) -> None:
        if not (self.labels >= self.rounds >= 1 and self.guide_batch >= 1 and self.thinning >= 1):
            raise ValueError("choose labels >= rounds >= 1, guide_batch >= 1 and thinning >= 1")


class DAgger(Strategy):
    name = "dagger"
    needs_expert = True

    def __init__(self, config: DAggerConfig, setting: Setting) -> None:
        self.config = config
        self.round_length = max(setting.total_decisions // config.rounds, 1)
        self.asking = min(config.labels / config.rounds * config.thinning, self.round_length)
        self._stream = np.random.default_rng(setting.seed)

    def on_action(self, moment: Moment) -> Execution:
        num = len(moment.proposals)
        turn, into = divmod(moment.decisions, self.round_length)
        advice = Advice.none(*moment.masks.shape)
        if into < self.asking:
            expert_drives = turn == 0
            chosen = self._stream.random(num) < 1.0 / self.config.thinning
            advice = moment.ask(chosen | expert_drives, now=np.full(num, expert_drives))
            if expert_drives:
                driven = advice.executable
                return Execution(np.where(driven, advice.action, moment.proposals), advice, driven)
        return Execution(moment.proposals, advice, np.zeros(num, bool))

    def on_batch(self, replay: GuidedReplayBuffer, batch_size: int) -> Batch:
        return Batch(replay.sample_uniform(batch_size), replay.sample_labelled(self.config.guide_batch))

    def loss(self, guide: GuidedSamples, log_probs: torch.Tensor) -> GuidanceLoss:
        loss = bc(log_probs, guide.expert_probs).mean()
        return GuidanceLoss(loss, rl_share=0.0, metrics={"divergence": float(loss.detach())})

    def state_dict(self) -> dict:
        return {"stream": self._stream.bit_generator.state}

    def load_state_dict(self, state: dict) -> None:
        self._stream.bit_generator.state = state["stream"]


METHOD = Method("dagger", "imitation on the learner's own states, no RL", DAggerConfig(), DAgger)
