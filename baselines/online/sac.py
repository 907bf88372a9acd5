"""The learner alone, plain SAC by default: no expert. The floor that every guided method has to leave behind."""

from __future__ import annotations

from lgdrl.guidance.strategy import Strategy
from lgdrl.loops.online import OnlineSettings, online_method
from lgdrl.methods import Needs
from sim.config import NoOptions


def build(config: NoOptions, settings: OnlineSettings) -> Strategy:
    """The strategy of a run."""
    return Strategy("sac")


METHOD = online_method("sac", "the learner alone, no expert", NoOptions(), build, Needs())
