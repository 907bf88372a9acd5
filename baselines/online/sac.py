"""Plain SAC: no expert. The floor that every guided method has to leave behind."""

from __future__ import annotations

from dataclasses import dataclass

from lgdrl.guidance.strategy import Strategy
from lgdrl.loops.online import OnlineSettings, online_method


@dataclass(frozen=True)
class SACOptions:
    """Nothing to set: the learner has its own options."""


def build(config: SACOptions, settings: OnlineSettings) -> Strategy:
    """The strategy of a run."""
    return Strategy("sac")


METHOD = online_method("sac", "plain discrete SAC, no expert", SACOptions(), build)
