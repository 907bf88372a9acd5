"""Plain SAC: no expert. The floor that every guided method has to leave behind."""

from __future__ import annotations

from lgdrl.guidance.strategy import Strategy
from lgdrl.loops.online import OnlineSettings, online_method
from sim.config import NoOptions


def build(config: NoOptions, settings: OnlineSettings) -> Strategy:
    """The strategy of a run."""
    return Strategy("sac")


METHOD = online_method("sac", "plain discrete SAC, no expert", NoOptions(), build)
