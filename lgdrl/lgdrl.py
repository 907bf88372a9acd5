"""LGDRL: an expert constrains the policy and sometimes drives while the learner trains; then the learner drives alone.

LGDRL-style, as specified here (after arXiv 2412.18511, whose equations were not available). The policy pi is to stay
near the expert p_E on the states that the expert labelled:

    minimise L_0    subject to    C = E_labelled[ JS(pi || p_E) ] <= delta
    dual <- clip(dual + eta (C - delta), 0, max)

In guided episodes an arbiter may execute the expert's action in place of the learner's. Labels are kept whether they
are executed or not: the constraint needs labels, not interventions.

This is the second form, made for experts that answer seldom. It differs from the first in four ways, each an option:

    pull            The actor descends KL(p_E || pi) in place of JS(pi || p_E), which stays the constraint. Both are
                    least at the same policy, but the gradient of JS vanishes where pi is certain of another action.
    full_price      L_pi = L_0 + price C' with price = dual min(1, sqrt(full_price / n)), n labels so far: the more
                    there are, the less each is insisted on, and the more reinforcement learning decides.
    pace            Of few labels the expert is asked early, before reinforcement learning has settled on a policy that
                    never reaches the goal: the guided part ends at min(episodes.until, pace sqrt(budget / FEW)).
    intervention_share  Interventions take place at labelled states; they cost no labels of their own.

`experiments/lgdrl_first_form.yaml` has the options of the first form. On continuous actions policy and expert are
Gaussians, and the divergences are those of `lgdrl.guidance.gaussian`.

    labeller   some steps of guided episodes                `GuidedEpisodes`
    arbiter    the expert where the proposal is unsafe      `Unsafe`, within its share of the labels: `Rationed`
               (without traffic: where JS is large          `Divergence`)
    term       divergence priced by a dual variable         `ConstraintTerm`
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import field
from typing import Literal

from lgdrl.guidance.arbiters import Arbiter, ArbiterConfig, Rationed
from lgdrl.guidance.constraint import DivergenceName, DualConfig
from lgdrl.guidance.labelling import GateConfig, GuidedEpisodes
from lgdrl.guidance.strategy import Strategy
from lgdrl.guidance.terms import ConstraintTerm
from lgdrl.loops.online import OnlineSettings, online_method
from lgdrl.methods import Needs
from sim.bounds import BatchSize, Count, Share, config_dataclass

FEW = 20
"""Labels that the defaults are made for; larger label budgets are paced and priced by the square root of their size."""


@config_dataclass
class LGDRLConfig:
    constraint: Literal["js", "kl", "reverse_kl", "bc", "none"] = "js"  # what the dual variable holds under its target
    # what the actor descends; null: the constraint itself
    pull: Literal["js", "kl", "reverse_kl", "bc"] | None = "kl"
    dual: DualConfig = field(default_factory=DualConfig)
    full_price: Count | None = FEW  # labels from which on more of them lower the price; null: they do not
    # the price is scaled linearly to 0 between these shares of the training
    fade: tuple[Share, Share] | None = None
    guide_batch: BatchSize = 128  # labelled states per update
    # a label budget that does not fit into the guided part makes it longer
    episodes: GateConfig = field(default_factory=GateConfig)
    pace: Share | None = 0.15  # of the training: the guided part for a label budget of FEW; null: it is episodes.until
    arbiter: ArbiterConfig = field(default_factory=ArbiterConfig)
    # of a label budget: what the arbiter may ask for in states that would not be labelled otherwise, spread over the
    # guided part of the training. null: as much as it likes, which spends a small budget in the first decisions
    intervention_share: Share | None = 0.0
    label_share: Share | None = None  # of the steps in guided episodes; arbiter `unsafe` also asks where it takes over.
    # null: all of them, or, under a label budget, as many as spread it evenly

    def __post_init__(self) -> None:
        if self.fade is not None and not self.fade[0] < self.fade[1]:
            raise ValueError(f"fade = {list(self.fade)}: choose [from, to] with 0 <= from < to <= 1")


def build(config: LGDRLConfig, settings: OnlineSettings) -> Strategy:
    """The strategy of a run."""
    episodes = guided_part(config, settings)
    arbiter, budget = ration(config, settings, episodes.until)
    gate_seed, label_seed = settings.seed.spawn(2)
    labeller = GuidedEpisodes(episodes, settings.total_decisions, (gate_seed, label_seed), config.label_share, budget)
    return Strategy("lgdrl", labeller, arbiter, [] if config.constraint == "none" else [constraint(config, settings)])


def guided_part(config: LGDRLConfig, settings: OnlineSettings) -> GateConfig:
    """The gate: early for few labels, and open for as long as it takes to use up the label budget."""
    budget, share = settings.label_budget, config.episodes.make(settings.seed).share
    if not budget or not share:
        return config.episodes
    early = 1.0 if config.pace is None else config.pace * math.sqrt(budget / FEW)
    needed = budget / (share * settings.total_decisions)
    return dataclasses.replace(config.episodes, until=min(max(min(config.episodes.until, early), needed), 1.0))


def ration(config: LGDRLConfig, settings: OnlineSettings, until: float) -> tuple[Arbiter, int | None]:
    """The arbiter, with its share of the label budget, and what is left of that for the labeller."""
    arbiter, budget = config.arbiter.make(settings.traffic), settings.label_budget
    if budget is None or config.intervention_share is None or not arbiter.asks:
        return arbiter, budget
    rationed = config.intervention_share * budget
    return Rationed(arbiter, rationed, max(until * settings.total_decisions, 1.0)), max(budget - round(rationed), 0)


def constraint(config: LGDRLConfig, settings: OnlineSettings) -> ConstraintTerm:
    """The term of the actor's loss."""
    fade = None if config.fade is None else tuple(share * settings.total_decisions for share in config.fade)
    name: DivergenceName = config.constraint  # type: ignore[assignment]
    return ConstraintTerm(name, config.guide_batch, config.dual, fade, config.pull, config.full_price)  # type: ignore[arg-type]


METHOD = online_method(
    "lgdrl",
    "SAC under a Jensen-Shannon constraint towards the expert, with intermittent interventions",
    LGDRLConfig(),
    build,
    Needs(),
)
