"""The four fixed thresholds of the published action-utility code, as an expert of their own.

The distances are the mid-points of what the 63 published frames of LGDRL (arXiv 2412.18511) accept and refuse, measured
centre to centre. Ordered rules: change towards the goal if both gaps and the time to collision with the car ahead
allow; brake when the car ahead is too close; catch up when it is far. The published text asks for a time to collision
with the front car only, so none is asked of the car behind. A weak driver: fixed gaps ignore closing speeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from experts.answers import answer_each, require_discrete, scene_decision
from experts.provider import Context, Decision
from experts.rules.kernel import CAR_LENGTH
from experts.rules.view import SIDE_NAMES, SIDES, Lane, View, view_of
from sim.actions import MetaAction
from sim.config import resolve
from sim.scene import Scene

GAP_AHEAD = 12.5
"""m; published: 13.1 accepted, 11.9 refused."""
GAP_BEHIND = 22.0
"""m; published: 27.9 accepted, 18.8 refused."""
FOLLOWING_DISTANCE = 30.0
"""m; published: 29.8 is too close, 31.0 is far enough to accelerate."""
MIN_TTC = 4.0
"""s, bumper to bumper; stated by the published rules."""
OLD_LANE_REACH = 3.0
"""m from its centre within which the lane being left is looked at."""


@dataclass(frozen=True)
class ThresholdConfig:
    """The published values; distances in m between centres, times in s between bumpers."""

    gap_ahead: float = GAP_AHEAD  # m that a lane change needs ahead
    gap_behind: float = GAP_BEHIND  # m that a lane change needs behind
    following_distance: float = FOLLOWING_DISTANCE  # m to the car ahead: brake below, accelerate above
    min_ttc: float = MIN_TTC  # s to the car ahead that a lane change and keeping the speed need

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) >= 0:
                raise ValueError(f"{field.name} = {getattr(self, field.name)}: must not be negative")


class ThresholdExpert:
    """Deterministic, without state. Without a goal lane it stays in its lane."""

    name = "thresholds"

    def __init__(self, config: ThresholdConfig | None = None) -> None:
        self.config = config or ThresholdConfig()

    def decide(self, contexts: Sequence[Context]) -> list[Decision]:
        return answer_each(contexts, lambda context: scene_decision(context, self._choose))

    def _choose(self, scene: Scene, legal: Mapping[MetaAction, int]) -> tuple[MetaAction, str]:
        config = self.config
        view = view_of(scene, OLD_LANE_REACH)
        side = (view.lanes_to_go > 0) - (view.lanes_to_go < 0)
        waiting = ""
        if side and SIDES[side] in legal:
            shortage = self.shortage(view, view.right if side > 0 else view.left)
            if shortage is None:
                return SIDES[side], f"the {SIDE_NAMES[side]} lane is clear"
            waiting = f"{shortage}: wait, "
        distance, ttc = view.target.front, ttc_ahead(view, view.target)
        if distance < config.following_distance:
            return MetaAction.SLOWER, f"{waiting}the car ahead at {distance:.1f} m is too close: slow down"
        if ttc <= config.min_ttc:
            return MetaAction.SLOWER, f"{waiting}TTC {ttc:.1f} s <= {config.min_ttc:g} s: slow down"
        if distance > config.following_distance:
            return MetaAction.FASTER, f"{waiting}the car ahead is far: catch up"
        return MetaAction.IDLE, f"{waiting}keep the gap"

    def shortage(self, view: View, lane: Lane) -> str | None:
        """What forbids a change into `lane`; None when nothing does."""
        config = self.config
        if lane.front < config.gap_ahead:
            return f"front gap {lane.front:.1f} m < {config.gap_ahead:.1f} m"
        if lane.rear < config.gap_behind:
            return f"rear gap {lane.rear:.1f} m < {config.gap_behind:.1f} m"
        ttc = ttc_ahead(view, lane)
        return f"front TTC {ttc:.1f} s <= {config.min_ttc:g} s" if ttc <= config.min_ttc else None


def ttc_ahead(view: View, lane: Lane) -> float:
    """Seconds until the bumpers of the ego and the car ahead in `lane` meet; inf when the gap does not shrink."""
    closing = view.speed - lane.front_speed
    return max(lane.front - CAR_LENGTH, 0.0) / closing if closing > 0 else math.inf


def make_thresholds(options: Mapping[str, Any], scenario: str, seed: int) -> ThresholdExpert:
    """The expert `thresholds`; options are `ThresholdConfig` fields. The seed is not used."""
    require_discrete("thresholds", scenario)
    return ThresholdExpert(resolve(ThresholdConfig(), options, "thresholds"))
