"""DAgger without reinforcement learning (Ross et al. 2011): clone the expert on states that the learner reaches.

The honest rival of every expert-guided RL method. Training is cut into rounds; each round begins with its share of the
labels, asked on consecutive decisions, then keeps fitting all labels so far. In the first round the expert drives while
it labels, afterwards the learner does. Loss: E_labelled[-ln pi(u|s)], the RL loss is off (the critics train unused).
"""

from __future__ import annotations

from lgdrl.guidance.arbiters import ExpertDrives
from lgdrl.guidance.labelling import Rounds
from lgdrl.guidance.strategy import Strategy
from lgdrl.guidance.terms import ImitationTerm
from lgdrl.loops.online import OnlineSettings, online_method
from lgdrl.methods import Needs
from sim.bounds import BatchSize, Count, config_dataclass

LABELS = 16_000
"""In a training without a label budget."""


@config_dataclass
class DAggerConfig:
    labels: Count | None = None  # in the whole training; None: the label budget of the run, or 16,000
    rounds: Count = 16  # fewer where there are fewer labels
    guide_batch: BatchSize = 256  # labelled states per update
    thinning: Count = 1  # ask on every k-th decision of the labelling phase: less alike states for the same labels

    def __post_init__(self) -> None:
        if self.labels is not None and self.labels < self.rounds:
            raise ValueError(f"labels = {self.labels} are fewer than rounds = {self.rounds}: choose labels >= rounds")


def build(config: DAggerConfig, settings: OnlineSettings) -> Strategy:
    """The strategy of a run."""
    budget = LABELS if settings.label_budget is None else settings.label_budget
    labels = budget if config.labels is None else config.labels
    rounds = max(min(config.rounds, labels), 1)
    labeller = Rounds(labels, rounds, config.thinning, settings.total_decisions, settings.seed)
    return Strategy("dagger", labeller, ExpertDrives(), [ImitationTerm("bc", config.guide_batch, rl_share=0.0)])


METHOD = online_method("dagger", "imitation on the learner's own states, no RL", DAggerConfig(), build, Needs())
