"""LGDRL: an expert constrains the policy and sometimes drives while the learner trains; then the learner drives alone.

LGDRL-style, as specified here (after arXiv 2412.18511, whose equations were not available): the actor minimises

    L_pi = L_0 + dual * E_labelled[ JS(pi || p_E) ],      dual <- clip(dual + eta (E[JS] - delta), 0, max)

over states that the expert labelled. In guided episodes an arbiter may execute the expert's action in place of the
learner's. Labels are kept whether executed or not: the constraint needs labels, not interventions. Defaults are the
settings that were measured best on the mandatory lane change.

    labeller   a share of the steps of guided episodes      `GuidedEpisodes`
    arbiter    the expert where the proposal is unsafe      `Unsafe`
    term       divergence priced by a dual variable         `ConstraintTerm`
"""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from lgdrl.guidance.arbiters import ArbiterConfig, Rationed
from lgdrl.guidance.constraint import DualConfig
from lgdrl.guidance.labelling import GateConfig, GuidedEpisodes
from lgdrl.guidance.strategy import Strategy
from lgdrl.guidance.terms import ConstraintTerm
from lgdrl.loops.online import OnlineSettings, online_method
from sim.bounds import BatchSize, Share, config_dataclass


@config_dataclass
class LGDRLConfig:
    constraint: Literal["js", "kl", "reverse_kl", "bc", "none"] = "js"
    dual: DualConfig = field(default_factory=DualConfig)
    # the dual is scaled linearly to 0 between these shares of the training
    fade: tuple[Share, Share] | None = None
    guide_batch: BatchSize = 128  # labelled states per update
    episodes: GateConfig = field(default_factory=GateConfig)
    arbiter: ArbiterConfig = field(default_factory=ArbiterConfig)
    # of a label budget: what the arbiter may ask for in states that would not be labelled otherwise, spread over the
    # guided part of the training. None: as much as it likes, which spends a small budget in the first decisions
    intervention_share: Share | None = None
    label_share: Share | None = None  # of the steps in guided episodes; arbiter `unsafe` also asks where it takes over.
    # None: all of them, or, under a label budget, as many as spread it evenly

    def __post_init__(self) -> None:
        if self.fade is not None and not self.fade[0] < self.fade[1]:
            raise ValueError(f"fade = {list(self.fade)}: choose [from, to] with 0 <= from < to <= 1")


def build(config: LGDRLConfig, settings: OnlineSettings) -> Strategy:
    """The strategy of a run."""
    gate_seed, label_seed = settings.seed.spawn(2)
    budget, arbiter = settings.label_budget, config.arbiter.make()
    if budget is not None and config.intervention_share is not None and arbiter.asks:
        rationed = config.intervention_share * budget
        arbiter = Rationed(arbiter, rationed, max(config.episodes.until * settings.total_decisions, 1.0))
        budget = max(budget - round(rationed), 0)
    labeller = GuidedEpisodes(
        config.episodes,
        settings.total_decisions,
        (gate_seed, label_seed),
        config.label_share,
        budget,
    )
    fade = None if config.fade is None else tuple(share * settings.total_decisions for share in config.fade)
    terms = []
    if config.constraint != "none":
        terms.append(ConstraintTerm(config.constraint, config.guide_batch, config.dual, fade))  # type: ignore[arg-type]
    return Strategy("lgdrl", labeller, arbiter, terms)


METHOD = online_method(
    "lgdrl",
    "SAC under a Jensen-Shannon constraint towards the expert, with intermittent interventions",
    LGDRLConfig(),
    build,
)
