"""The slot-aligning rule as an expert.

With a goal lane: change towards it when the gaps allow, otherwise drive so as to come beside a slot of the next lane,
always below the safe speed. Without one: keep the safe speed and overtake where another lane allows clearly more.
It reads lanes and exact neighbours, not the distance left. It does not see crossing traffic: in intersections it only
keeps its distance to the car ahead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from experts.answers import answer_each, require_discrete, scene_decision
from experts.provider import Context, Decision
from experts.rules import kernel
from experts.rules.config import RuleConfig
from experts.rules.view import SIDE_NAMES, SIDES, Lane, View, speed_after, view_of
from sim.actions import MetaAction
from sim.config import resolve
from sim.scene import Scene

STEPS = (MetaAction.SLOWER, MetaAction.IDLE, MetaAction.FASTER)
"""Manoeuvre of set-point steps -1, 0, 1, at index steps + 1."""


class RuleExpert:
    """Deterministic, without state."""

    name = "rule"

    def __init__(self, config: RuleConfig | None = None) -> None:
        self.config = config or RuleConfig()
        self._p = self.config.record()

    def decide(self, contexts: Sequence[Context]) -> list[Decision]:
        return answer_each(contexts, lambda context: scene_decision(context, self._choose))

    def _choose(self, scene: Scene, legal: Mapping[MetaAction, int]) -> tuple[MetaAction, str]:
        view = view_of(scene, self.config.old_lane_reach)
        faster = speed_after(scene, MetaAction.FASTER) if MetaAction.FASTER in legal else math.inf
        if scene.goal is None or scene.goal.lane is None:
            return self._cruise(scene, view, faster, legal)
        return self._reach_goal(view, faster, legal)

    def _reach_goal(self, view: View, faster: float, legal: Mapping[MetaAction, int]) -> tuple[MetaAction, str]:
        side = 1 if view.lanes_to_go > 0 else -1
        beside = view.right if side > 0 else view.left
        lanes_to_go = abs(view.lanes_to_go) if SIDES[side] in legal else 0
        change, step, verdict, wanted = kernel.decide(
            view.speed,
            faster,
            view.offset,
            lanes_to_go,
            *view.target[:2],
            *view.old[:2],
            *beside,
            view.braking,
            self._p,
        )
        if change:
            return SIDES[side], f"the {SIDE_NAMES[side]} lane is clear"
        waiting = f"{self._shortage(view, beside, verdict)}: " if lanes_to_go else ""
        return STEPS[step + 1], f"{waiting}{_speed_words(step, wanted)}"

    def _cruise(
        self, scene: Scene, view: View, faster: float, legal: Mapping[MetaAction, int]
    ) -> tuple[MetaAction, str]:
        sides = (
            MetaAction.LANE_LEFT in legal and view.has_left,
            MetaAction.LANE_RIGHT in legal and view.has_right,
        )
        top = scene.set_points[-1] if scene.set_points else math.inf
        side, step, allowed, there = kernel.cruise(
            view.speed,
            faster,
            view.offset,
            *view.target[:2],
            *view.old[:2],
            tuple(view.left),
            tuple(view.right),
            sides,
            top,
            view.braking,
            self._p,
        )
        if side:
            return SIDES[side], f"overtake on the {SIDE_NAMES[side]}: {there:.1f} m/s instead of {allowed:.1f} m/s"
        return STEPS[step + 1], _speed_words(step, min(allowed, top))

    def _shortage(self, view: View, beside: Lane, verdict: int) -> str:
        """The test that a lane change fails, in numbers."""
        if verdict == kernel.FRONT_GAP:
            needed = kernel.front_needed(view.speed - beside.front_speed, view.braking, self._p)
            return f"front gap {beside.front:.1f} m < {needed:.1f} m"
        if verdict == kernel.REAR_GAP:
            needed = kernel.rear_needed(beside.rear_speed - view.speed, self._p)
            return f"rear gap {beside.rear:.1f} m < {needed:.1f} m"
        if verdict == kernel.FRONT_TTC:
            return f"front TTC < {self.config.front_ttc:g} s"
        if verdict == kernel.REAR_TTC:
            return f"rear TTC < {self.config.rear_ttc:g} s"
        return "still changing lane"


def _speed_words(step: int, wanted: float) -> str:
    if step == 0:
        return "keep the speed"
    target = "the top speed" if wanted == math.inf else f"{max(wanted, 0.0):.1f} m/s"
    return f"{'slow down' if step < 0 else 'speed up'} towards {target}"


def make_rule(options: Mapping[str, Any], scenario: str, seed: int) -> RuleExpert:
    """The expert `rule`; options are `RuleConfig` fields. The seed is not used."""
    require_discrete("rule", scenario)
    return RuleExpert(resolve(RuleConfig(), options, "rule"))
