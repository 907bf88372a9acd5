"""Which actions are unsafe in a scene: the test of the 'unsafe' step gate, on any highway-like Scene.

A lane change is unsafe while the ego is still on its way to a lane (more than 1.37 m off its centre), or when it fails
the rule's gap test with all distances and times relaxed to 80 %. Keeping the speed or accelerating is unsafe when the
set-point that it leads to exceeds the safe speed by more than half a set-point of the published grid. Braking never is.
A lane change that has no effect, because there is no lane, counts as keeping the speed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from experts.rules import kernel
from experts.rules.config import RuleConfig
from experts.rules.view import Lane, View, manoeuvres, speed_after, view_of
from sim.actions import MetaAction
from sim.scene import Scene


@dataclass(frozen=True)
class SafetyConfig:
    """Tolerances of the test; its distances and times are the rule's."""

    gap_scale: float = 0.8  # share of the rule's distances and times that a lane change must keep
    speed_margin: float = 0.6  # m/s above the safe speed that are tolerated (half a set-point)
    rule: RuleConfig = field(default_factory=RuleConfig)


DEFAULT = SafetyConfig()
SHORT_OF = {
    kernel.FRONT_GAP: "too close to the car ahead there",
    kernel.REAR_GAP: "too close to the car behind there",
    kernel.FRONT_TTC: "closing in too fast on the car ahead there",
    kernel.REAR_TTC: "the car behind there closes in too fast",
    kernel.NOT_STEADY: "the last lane change is not finished",
}


def is_unsafe(scene: Scene, action: int, config: SafetyConfig = DEFAULT) -> bool:
    """Whether `action` may lead to a collision. ValueError where the scene's actions are not meta-actions."""
    return unsafe_reason(scene, action, config) is not None


def unsafe_reason(scene: Scene, action: int, config: SafetyConfig = DEFAULT) -> str | None:
    """Why `action` is unsafe, as a short sentence; None when it is safe."""
    manoeuvre = manoeuvres(scene)[action]
    if manoeuvre is MetaAction.SLOWER:
        return None
    view = view_of(scene, config.rule.old_lane_reach)
    if manoeuvre in (MetaAction.LANE_LEFT, MetaAction.LANE_RIGHT):
        side = 1 if manoeuvre is MetaAction.LANE_RIGHT else -1
        verdict = _change(view, view.right if side > 0 else view.left, config)
        exists = 0 <= scene.ego.target_lane + side < scene.num_lanes
        if verdict == kernel.NOT_STEADY or (exists and verdict != kernel.CLEAR):
            return SHORT_OF[verdict]
        if exists:
            return None
        manoeuvre = MetaAction.IDLE
    speed, limit = speed_after(scene, manoeuvre), safe_speed(view, config.rule)
    if speed > limit + config.speed_margin:
        return f"{speed:.1f} m/s is above the safe speed {max(limit, 0.0):.1f} m/s"
    return None


def safe_speed(view: View, rule: RuleConfig) -> float:
    """m/s: the lower of the safe speeds behind the cars ahead in the target lane and in the lane being left."""
    p = rule.record()
    return min(
        kernel.safe_speed(view.target.front, view.target.front_speed, view.braking, p),
        kernel.safe_speed(view.old.front, view.old.front_speed, view.braking, p),
    )


def _change(view: View, lane: Lane, config: SafetyConfig) -> int:
    return kernel.change_test(view.speed, view.offset, *lane, view.braking, config.gap_scale, config.rule.record())
