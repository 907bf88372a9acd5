"""The four fixed thresholds of the published action-utility code, as an expert of their own.

The distances are the mid-points of what the 63 published frames of LGDRL (arXiv 2412.18511) accept and refuse, measured
centre to centre. Ordered rules: change towards the goal if both gaps and the time to collision with the car ahead
allow; brake when the car ahead is too close; catch up when it is far. The published text asks for a time to collision
with the front car only, so none is asked of the car behind. A weak driver: fixed gaps ignore closing speeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from experts.answers import require_discrete
from experts.rules.config import as_record
from experts.rules.kernel import (
    CAR_LENGTH,
    CLEAR,
    FASTER,
    FRONT_GAP,
    FRONT_TTC,
    IDLE,
    LEFT,
    REAR_GAP,
    RIGHT,
    SLOWER,
)
from experts.rules.published import PUBLISHED_FOLLOWING, PUBLISHED_FRONT_GAP, PUBLISHED_MIN_TTC, PUBLISHED_REAR_GAP
from experts.views import SIDE_NAMES, KernelExpert, too_near
from sim.actions import MetaAction
from sim.bounds import NonNegative, config_dataclass
from sim.compiled import kernel
from sim.config import resolve


@config_dataclass
class ThresholdConfig:
    """The published values; distances in m between centres, times in s between bumpers."""

    gap_ahead: NonNegative = PUBLISHED_FRONT_GAP  # m that a lane change needs ahead
    gap_behind: NonNegative = PUBLISHED_REAR_GAP  # m that a lane change needs behind
    following_distance: NonNegative = PUBLISHED_FOLLOWING  # m to the car ahead: brake below, accelerate above
    min_ttc: NonNegative = PUBLISHED_MIN_TTC  # s to the car ahead that a lane change and keeping the speed need

    def record(self) -> np.ndarray:
        """The numbers as one record for the compiled functions, in an array of one."""
        return as_record(self)


CHANGE, TOO_CLOSE, SHORT_TTC, CATCH_UP, KEEP = range(5)
"""Rules, in the order in which they are asked."""


@kernel
def ttc_ahead(v, lane):
    """Seconds until the bumpers of the ego and the car ahead in `lane` meet; inf when the gap does not shrink."""
    closing = v.speed - lane.front_speed
    return max(lane.front - CAR_LENGTH, 0.0) / closing if closing > 0 else math.inf


@kernel
def shortage(v, lane, p):
    """What forbids a change into `lane`: CLEAR, FRONT_GAP, REAR_GAP or FRONT_TTC."""
    if lane.front < p.gap_ahead:
        return FRONT_GAP
    if lane.rear < p.gap_behind:
        return REAR_GAP
    return FRONT_TTC if ttc_ahead(v, lane) <= p.min_ttc else CLEAR


@kernel
def decide(v, legal, p):
    """(manoeuvre, rule that decided, result of `shortage`; CLEAR also where no change was wanted)."""
    verdict = CLEAR
    if v.lanes_to_go != 0:
        side = RIGHT if v.lanes_to_go > 0 else LEFT
        if legal[side]:
            verdict = shortage(v, v.right if side == RIGHT else v.left, p)
            if verdict == CLEAR:
                return side, CHANGE, verdict
    if v.target.front < p.following_distance:
        return SLOWER, TOO_CLOSE, verdict
    if ttc_ahead(v, v.target) <= p.min_ttc:
        return SLOWER, SHORT_TTC, verdict
    if v.target.front > p.following_distance:
        return FASTER, CATCH_UP, verdict
    return IDLE, KEEP, verdict


@kernel
def drive(views, legal, params, out):
    """`decide` for many egos: `VIEW` (R,), bool (R, 5), the record in an array of one -> int64 (R,) manoeuvres."""
    for i in range(views.size):
        out[i], _, _ = decide(views[i], legal[i], params[0])


class ThresholdExpert(KernelExpert):
    """Deterministic, without state. Without a goal lane it stays in its lane."""

    name = "thresholds"
    kernel = staticmethod(drive)

    def __init__(self, config: ThresholdConfig | None = None) -> None:
        self.config = config or ThresholdConfig()
        self.parameters = self.config.record()

    def reason(self, view: np.record, legal: np.ndarray) -> str:
        chosen, rule, verdict = decide(view, legal, self.parameters[0])
        if rule == CHANGE:
            return f"the {SIDE_NAMES[chosen]} lane is clear"
        waiting = f"{self._shortage(view, verdict)}: wait, " if verdict != CLEAR else ""
        ahead = "the car ahead in the target lane" if view.changing else "the car ahead"
        if rule == TOO_CLOSE:
            return f"{waiting}{ahead} is too close ({view.target.front:.1f} m between centres): slow down"
        if rule == SHORT_TTC:
            ttc = ttc_ahead(view, view.target)
            return f"{waiting}TTC to {ahead} {ttc:.1f} s <= {self.config.min_ttc:g} s: slow down"
        return f"{waiting}{f'{ahead} is far: catch up' if rule == CATCH_UP else 'keep the gap'}"

    def _shortage(self, view: np.record, verdict: int) -> str:
        side = MetaAction.LANE_RIGHT if view.lanes_to_go > 0 else MetaAction.LANE_LEFT
        lane, config = view.right if view.lanes_to_go > 0 else view.left, self.config
        if verdict == FRONT_GAP:
            return too_near(side, "ahead", lane.front, config.gap_ahead)
        if verdict == REAR_GAP:
            return too_near(side, "behind", lane.rear, config.gap_behind)
        ttc = ttc_ahead(view, lane)
        return f"{SIDE_NAMES[side]} lane: TTC to the car ahead {ttc:.1f} s <= {config.min_ttc:g} s"


def make_thresholds(options: Mapping[str, Any], scenario: str, seed: int) -> ThresholdExpert:
    """The expert `thresholds`: the published rule of fixed distances and times.

    Args:
        options: Fields of `ThresholdConfig`.
        scenario: Name of the scenario.
        seed: Not used.

    Raises:
        UsageError: An option is bad, or the scenario has continuous actions.
    """
    require_discrete("thresholds", scenario)
    return ThresholdExpert(resolve(ThresholdConfig(), options, "thresholds"))
