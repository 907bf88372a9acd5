"""Vanilla SAC: nobody is asked. The floor that every guided method has to leave behind."""

from __future__ import annotations

from dataclasses import dataclass

from lgdrl.guidance.registry import Method, Setting
from lgdrl.guidance.strategy import Strategy


@dataclass(frozen=True)
class NoGuidance:
    """Nothing to set."""


def build(config: NoGuidance, setting: Setting) -> Strategy:
    return Strategy()


METHOD = Method("sac", "plain discrete SAC, no expert", NoGuidance(), build, needs_expert=False)
