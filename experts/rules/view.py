"""From a Scene to the scalars that rules decide on: the cars around the ego, and the speed that an action leads to."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from experts.rules.kernel import CAR_LENGTH
from sim.actions import FULL, LATERAL, LONGITUDINAL, NUM_ACTIONS, MetaAction
from sim.compiled import kernel
from sim.scene import LANE_MARGIN, Scene

SIDES = {-1: MetaAction.LANE_LEFT, 1: MetaAction.LANE_RIGHT}
SIDE_NAMES = {-1: "left", 1: "right"}
STRONGEST_BRAKING = 5.0
"""m/s2 that an ego is trusted with where its set-points lie far apart."""
WEAKEST_BRAKING = 1.0
"""m/s2, where set-points do not tell."""


class Lane(NamedTuple):
    """The nearest cars of one lane, at positive distances (see `experts.rules.kernel`); inf and 0 m/s where absent."""

    front: float
    front_speed: float
    rear: float
    rear_speed: float


class View(NamedTuple):
    """What a rule reads of a scene."""

    speed: float
    offset: float
    """m, signed, from the centre of the lane that the ego steers to."""
    target: Lane
    """The lane that the ego steers to."""
    old: Lane
    """The lane that it is leaving; empty unless it is still on it."""
    left: Lane
    """The lanes beside the target lane; empty where there is none."""
    right: Lane
    has_left: bool
    has_right: bool
    lanes_to_go: int
    """From the target lane to the goal lane, positive to the right; 0 without a goal lane."""
    braking: float
    """m/s2, what stepping down one set-point per decision amounts to."""


def manoeuvres(scene: Scene) -> tuple[MetaAction, ...]:
    """What the action ids of this scene mean. ValueError where they are not meta-actions (continuous control)."""
    count = len(scene.legal)
    if count == NUM_ACTIONS:
        return FULL
    if count == len(LONGITUDINAL):
        return LONGITUDINAL if scene.set_points else LATERAL
    raise ValueError(f"scenario {scene.scenario!r} has {count} actions, not meta-actions: rules cannot drive it")


def goal_lane(scene: Scene) -> int | None:
    """The goal's lane, or the outermost lane on its side where the goal's own lane has not begun yet."""
    if scene.goal is None or scene.goal.lane is None or not scene.num_lanes:
        return None
    return min(max(scene.goal.lane, 0), scene.num_lanes - 1)


def view_of(scene: Scene, old_lane_reach: float) -> View:
    """The scalars of `scene`; cars that are not on the ego's road (NaN s, d) are not seen."""
    ego, cars, centers = scene.ego, scene.vehicles, scene.lane_centers
    target, last = ego.target_lane, scene.num_lanes - 1
    here = centers[target] if 0 <= target <= last else ego.d
    offset = ego.d - here
    old = ego.lane
    if old == target and offset:
        old = target + (1 if offset > 0 else -1)
    old_center = centers[old] if old != target and 0 <= old <= last else math.nan
    if not abs(ego.d - old_center) < old_lane_reach:
        old_center = math.nan
    has_left, has_right = 0 < target <= last, 0 <= target < last
    left = centers[target - 1] if has_left else math.nan
    right = centers[target + 1] if has_right else math.nan
    found = _nearest(
        _column(cars.s),
        _column(cars.d),
        _column(cars.speed),
        _column(cars.heading),
        _column(cars.length),
        ego.s,
        ego.heading,
        ego.length,
        (here, old_center, left, right),
        scene.lane_width / 2 + LANE_MARGIN,
    )
    goal = goal_lane(scene)
    return View(
        speed=ego.speed,
        offset=offset,
        target=Lane(*found[0]),
        old=Lane(*found[1]),
        left=Lane(*found[2]),
        right=Lane(*found[3]),
        has_left=has_left,
        has_right=has_right,
        lanes_to_go=0 if goal is None else goal - target,
        braking=braking_of(scene),
    )


def _column(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.float64)


@kernel
def _nearest(s, d, speed, heading, length, ego_s, ego_heading, ego_length, centers, reach):
    """Per lane centre the nearest car at or ahead of the ego and the nearest behind, by highway-env's tie rules.

    Oncoming cars have negative speeds.
    """
    found = [(math.inf, 0.0, math.inf, 0.0)] * 4
    for lane in range(4):
        center = centers[lane]
        front = rear = -1
        front_dx, rear_dx = math.inf, -math.inf
        for c in range(s.size):
            if abs(d[c] - center) <= reach:
                dx = s[c] - ego_s
                if 0.0 <= dx <= front_dx:
                    front, front_dx = c, dx
                elif rear_dx < dx < 0.0:
                    rear, rear_dx = c, dx
        front_speed = rear_speed = 0.0
        if front >= 0:
            front_speed = speed[front] if math.cos(heading[front] - ego_heading) >= 0.0 else -speed[front]
            front_dx -= (length[front] + ego_length) / 2 - CAR_LENGTH
        if rear >= 0:
            rear_speed = speed[rear] if math.cos(heading[rear] - ego_heading) >= 0.0 else -speed[rear]
            rear_dx += (length[rear] + ego_length) / 2 - CAR_LENGTH
        found[lane] = (front_dx, front_speed, -rear_dx, rear_speed)
    return found[0], found[1], found[2], found[3]


def braking_of(scene: Scene) -> float:
    """m/s2 of stepping down one set-point per decision."""
    points = scene.set_points
    if len(points) < 2:
        return WEAKEST_BRAKING
    step = (points[-1] - points[0]) / (len(points) - 1)
    return min(max(step / scene.decision_period, WEAKEST_BRAKING), STRONGEST_BRAKING)


def speed_after(scene: Scene, manoeuvre: MetaAction) -> float:
    """The set-point that the ego steers to after `manoeuvre`, m/s. Its present speed where there are no set-points.

    As in highway-env, FASTER and SLOWER step from the set-point nearest to the present speed.
    """
    points = scene.set_points
    if not points:
        return scene.ego.speed
    last = len(points) - 1
    if manoeuvre is MetaAction.FASTER:
        return points[min(_nearest_point(scene) + 1, last)]
    if manoeuvre is MetaAction.SLOWER:
        return points[max(_nearest_point(scene) - 1, 0)]
    return points[min(max(scene.ego.speed_index, 0), last)]


def _nearest_point(scene: Scene) -> int:
    points = scene.set_points
    last = len(points) - 1
    if last == 0:
        return 0
    return min(max(round((scene.ego.speed - points[0]) / (points[-1] - points[0]) * last), 0), last)
