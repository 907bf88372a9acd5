"""SAC with a large-margin loss: the critics rank the expert's action above every other one.

The supervised loss of DQfD (Hester et al., arXiv 1704.03732, equation 4) on states that the expert labelled with u:

    L_Q = L_1 + L_2 + w E_labelled[ max_a (Q(s, a) + m 1[a != u]) - Q(s, u) ]        Q = min_i Q_i

The loss is 0 once Q(s, u) exceeds all other values by the margin m. The expert labels guided episodes; it never drives.

    lgdrl train --strategy third-strategy strategy_options.weight=0.5
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from lgdrl.guidance.labelling import GateConfig, GuidedEpisodes
from lgdrl.guidance.replay import GuidedReplayBuffer, Samples
from lgdrl.guidance.strategy import Batches, Strategy
from lgdrl.guidance.terms import Networks, Terms
from lgdrl.loops.online import OnlineSettings, online_method

LABELLED = "labelled"
"""Name of the batch that the loss is computed on."""


@dataclass(frozen=True)
class MarginConfig:
    """Settings under `strategy_options`."""

    weight: float = 1.0  # w, of the margin loss
    margin: float = 0.8  # m, in units of return
    guide_batch: int = 64  # labelled states per update
    episodes: GateConfig = field(default_factory=GateConfig)  # episodes in which labels are asked

    def __post_init__(self) -> None:
        if self.weight < 0 or self.margin < 0 or self.guide_batch < 1:
            raise ValueError("choose weight >= 0, margin >= 0 and guide_batch >= 1")


def margin_loss(q: torch.Tensor, labels: torch.Tensor, margin: float) -> torch.Tensor:
    """max_a (Q(s, a) + m 1[a != u]) - Q(s, u), per state.

    Args:
        q: Values of all actions, float (B, A).
        labels: The expert's actions u, int64 (B,).
        margin: m.
    Returns:
        float (B,), at least 0.
    """
    labelled = labels[:, None]
    rivals = (q + margin).scatter(1, labelled, q.gather(1, labelled))
    return rivals.amax(dim=1) - q.gather(1, labelled).squeeze(1)


class MarginStrategy(Strategy):
    """A strategy of its own: one more batch, and one more term in the critics' loss."""

    def __init__(self, config: MarginConfig, labeller: GuidedEpisodes) -> None:
        super().__init__("third-strategy", labeller)
        self.config = config

    def on_batch(self, replay: GuidedReplayBuffer, size: int) -> Batches:
        batches = super().on_batch(replay, size)
        labelled = replay.sample_labelled(self.config.guide_batch)
        return batches if labelled is None else batches | {LABELLED: labelled}

    def critic_terms(self, batches: Batches, networks: Networks) -> Terms:
        samples: Samples | None = batches.get(LABELLED)
        if samples is None:  # no label has come yet
            return Terms()
        q = networks.q_values(samples).amin(dim=0)
        loss = margin_loss(q, samples.label_actions, self.config.margin).mean()
        return Terms(self.config.weight * loss, metrics={"margin_loss": float(loss.detach())})


def build(config: MarginConfig, settings: OnlineSettings) -> Strategy:
    """The strategy of a run."""
    gate_seed, label_seed = settings.seed.spawn(2)
    labeller = GuidedEpisodes(
        config.episodes, settings.total_decisions, (gate_seed, label_seed), label_budget=settings.label_budget
    )
    return MarginStrategy(config, labeller)


METHOD = online_method("third-strategy", "SAC whose critics prefer the expert by a margin", MarginConfig(), build)
