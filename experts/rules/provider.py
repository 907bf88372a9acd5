"""The slot-aligning rule as an expert.

With a goal lane: change towards it when the gaps allow, otherwise drive so as to come beside a slot of the next lane,
always below the safe speed. Without one: keep the safe speed and overtake where another lane allows clearly more.
It reads lanes and exact neighbours, not the distance left. Where other cars' paths cross or join its own it goes first
or gives way, and does not stop where roads cross (`experts.rules.crossing`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from experts.answers import require_discrete
from experts.rules import kernel
from experts.rules.config import RuleConfig
from experts.rules.crossing import clearance, conflict_words, give_way
from experts.views import SIDE_NAMES, KernelExpert, too_near
from sim.actions import MetaAction
from sim.config import resolve
from sim.view import NO_GOAL

STEP_WORDS = {MetaAction.SLOWER: "slow down", MetaAction.FASTER: "speed up"}


class RuleExpert(KernelExpert):
    """Deterministic, without state."""

    name = "rule"
    kernel = staticmethod(kernel.drive)

    def __init__(self, config: RuleConfig | None = None) -> None:
        self.config = config or RuleConfig()
        self.parameters = self.config.record()

    def reason(self, view: np.record, legal: np.ndarray) -> str:
        p = self.parameters[0]
        wish = (kernel.cruise if view.goal_lane == NO_GOAL else kernel.reach_goal)(view, legal, p)[0]
        chosen = give_way(view, legal, wish, p)
        if chosen == wish:
            return self._reason_of_lanes(view, legal)
        pressing = view["conflicts"][clearance(view, wish, p)[1]]
        return f"{conflict_words(pressing)}: {STEP_WORDS.get(MetaAction(chosen), 'keep the speed')}"

    def _reason_of_lanes(self, view: np.record, legal: np.ndarray) -> str:
        """Why, where no conflict changes what the rule does."""
        if view.goal_lane == NO_GOAL:
            chosen, allowed, there = kernel.cruise(view, legal, self.parameters[0])
            if chosen in SIDE_NAMES:
                return f"overtake on the {SIDE_NAMES[chosen]}: {there:.1f} m/s instead of {allowed:.1f} m/s"
            return _speed_words(chosen, min(allowed, view.highest))
        chosen, verdict, wanted = kernel.reach_goal(view, legal, self.parameters[0])
        if chosen in SIDE_NAMES:
            return f"the {SIDE_NAMES[chosen]} lane is clear"
        side = MetaAction.LANE_RIGHT if view.lanes_to_go > 0 else MetaAction.LANE_LEFT
        if not view.lanes_to_go or not legal[side]:
            return _speed_words(chosen, wanted)
        beside = view.right if view.lanes_to_go > 0 else view.left
        return f"{self._shortage(view, side, beside, verdict)}: {_speed_words(chosen, wanted)}"

    def _shortage(self, view: np.record, side: MetaAction, beside: np.record, verdict: int) -> str:
        """The test that a lane change fails, in numbers."""
        if verdict == kernel.FRONT_GAP:
            needed = kernel.front_needed(view.speed - beside.front_speed, view.braking, self.parameters[0])
            return too_near(side, "ahead", beside.front, needed)
        if verdict == kernel.REAR_GAP:
            needed = kernel.rear_needed(beside.rear_speed - view.speed, self.parameters[0])
            return too_near(side, "behind", beside.rear, needed)
        if verdict == kernel.FRONT_TTC:
            return f"{SIDE_NAMES[side]} lane: TTC to the car ahead < {self.config.front_ttc:g} s"
        if verdict == kernel.REAR_TTC:
            return f"{SIDE_NAMES[side]} lane: TTC of the car behind < {self.config.rear_ttc:g} s"
        return "still changing lane"


def _speed_words(chosen: int, wanted: float) -> str:
    if chosen not in STEP_WORDS:
        return "keep the speed"
    target = "the top speed" if wanted == math.inf else f"{max(wanted, 0.0):.1f} m/s"
    return f"{STEP_WORDS[MetaAction(chosen)]} towards {target}"


def make_rule(options: Mapping[str, Any], scenario: str, seed: int) -> RuleExpert:
    """The expert `rule`: gaps, time to collision and braking distances; searched for on lane-change.

    Args:
        options: Fields of `RuleConfig`.
        scenario: Name of the scenario.
        seed: Not used.

    Raises:
        UsageError: An option is bad, or the scenario has continuous actions.
    """
    require_discrete("rule", scenario)
    return RuleExpert(resolve(RuleConfig(), options, "rule"))
