"""View: a scene reduced to the numbers that rules decide on, and the kernels that compute it.

A view describes the cars around the ego lane by lane and the speeds that its actions lead to. Distances lie between the
centres of 5 m cars (a longer car counts as nearer by its extra length) and are always positive; an absent car is at
infinity with speed 0; an oncoming one has a negative speed. A car whose path crosses the ego's is in no lane, even
while it stands on the ego's road: it is a conflict (`sim.conflicts`). SI units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sim.actions import MetaAction
from sim.compiled import kernel
from sim.errors import UsageError
from sim.kinematics import speed_index
from sim.scene import CONFLICT, MOST_CONFLICTS, Scene
from sim.sizes import CAR_LENGTH, LANE_MARGIN

STRONGEST_BRAKING = 5.0
"""m/s2: the most that an ego is assumed to brake where its set-points lie far apart."""
WEAKEST_BRAKING = 1.0
"""m/s2, where set-points do not say."""
NO_GOAL = -1

LANE = np.dtype((np.record, [("front", "f8"), ("front_speed", "f8"), ("rear", "f8"), ("rear_speed", "f8")]))
"""The nearest cars of one lane, at or ahead of the ego and behind it, by highway-env's tie rules."""
VIEW = np.dtype(
    (
        np.record,
        [
            ("speed", "f8"),
            ("offset", "f8"),  # m to the right of the centre of the lane that the ego steers to
            ("old_distance", "f8"),  # m from the centre of the lane that it is leaving; inf where it leaves none
            ("target", LANE),  # the lane that it steers to
            ("old", LANE),  # the lane that it is leaving
            ("left", LANE),  # the lanes beside the target lane; empty where there is none
            ("right", LANE),
            ("has_left", "?"),
            ("has_right", "?"),
            ("changing", "?"),  # its present lane is not yet the target lane
            ("goal_lane", "i8"),  # the lane to reach; NO_GOAL without one
            ("lanes_to_go", "i8"),  # from the target lane to the goal lane, positive to the right; 0 without a goal
            ("slower", "f8"),  # m/s that it steers to after SLOWER ...
            ("idle", "f8"),  # ... after IDLE ...
            ("faster", "f8"),  # ... and after FASTER
            ("lowest", "f8"),  # set-points; the present speed, and inf, where there are none
            ("highest", "f8"),
            ("braking", "f8"),  # m/s2, what stepping down one set-point per decision amounts to
            ("step", "f8"),  # m/s between set-points; 0 where there are fewer than two
            ("period", "f8"),  # s per decision
            ("conflict_count", "i8"),
            ("conflicts", CONFLICT, (MOST_CONFLICTS,)),  # the first `conflict_count` of them, the nearest first
        ],
    ),
)
"""What one ego sees."""


class Views(NamedTuple):
    """What the egos of several environments of one scenario see."""

    rows: np.ndarray
    """`VIEW` (R,)"""
    manoeuvres: tuple[MetaAction, ...]
    """What the action ids mean."""


def manoeuvres(scene: Scene) -> tuple[MetaAction, ...]:
    """The meta-actions of a scene.

    Args:
        scene: The scene.
    Returns:
        `Scene.meanings`.
    Raises:
        UsageError: Its actions are not meta-actions.
    """
    if not scene.meanings:
        raise no_manoeuvres(scene.scenario)
    return scene.meanings


def no_manoeuvres(scenario: str) -> UsageError:
    """The error for an expert that chooses among meta-actions where there are none.

    Args:
        scenario: Name of the scenario.
    Returns:
        The error, to be raised.
    """
    return UsageError(
        f"scenario {scenario!r} as configured has other actions than meta-actions, among which rules choose: "
        "idm-continuous, random, policy:PATH or a person (lgdrl play --drive) can drive there"
    )


def views_of(scenes: Sequence[Scene]) -> Views:
    """Views of scenes.

    Args:
        scenes: Scenes of one scenario.
    Returns:
        One view each.
    Raises:
        UsageError: The actions are not meta-actions.
    """
    return Views(view_rows(scenes), manoeuvres(scenes[0]) if scenes else ())


def view_rows(scenes: Sequence[Scene]) -> np.ndarray:
    """What the egos of scenes see, whatever their actions are; an ego without set-points keeps its present speed.

    Args:
        scenes: Scenes of one scenario.
    Returns:
        `VIEW` (R,)
    """
    rows = np.zeros(len(scenes), VIEW)
    for scene, view in zip(scenes, rows, strict=True):
        ego, cars, lane = scene.ego, scene.vehicles, scene.goal.lane if scene.goal else None
        s = np.array(cars.s, np.float64)
        s[scene.conflicts["vehicle"][~scene.conflicts["joins"]]] = np.nan
        look(
            view,
            (ego.s, ego.d, ego.speed, ego.heading, ego.length),
            (ego.lane, ego.target_lane, NO_GOAL if lane is None else lane),
            np.array(scene.lane_centers, np.float64),
            scene.lane_width,
            s,
            *(_column(values) for values in (cars.d, cars.speed, cars.heading, cars.length)),
        )
        set_speeds(view, ego.speed_index, np.array(scene.set_points, np.float64), scene.decision_period)
        count = min(len(scene.conflicts), MOST_CONFLICTS)
        view["conflict_count"], view["conflicts"][:count] = count, scene.conflicts[:count]
    return rows


def view_of(scene: Scene) -> np.record:
    """The view of one scene.

    Args:
        scene: The scene.
    Returns:
        `VIEW` record.
    """
    return views_of([scene]).rows[0]


def _column(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.float64)


@kernel
def look(view, ego, lanes, centers, width, s, d, speed, heading, length):
    """Fill the part of a view that cars and lanes decide.

    Args:
        view: `VIEW` record to fill.
        ego: (s, d, speed, heading, length).
        lanes: (its own, the one that it steers to, the goal's or NO_GOAL), indices into `centers`; a goal beyond the
            outermost lane means that lane.
        centers: d of the lane centres, float64 (L,).
        width: Of the lanes, m.
        s: Of the other cars, float64 (V,) as all columns; NaN where a car is not on the ego's road, or crosses it.
        d: NaN there too.
        speed: m/s.
        heading: rad.
        length: m.
    """
    ego_s, ego_d, ego_speed, ego_heading, ego_length = ego
    lane, target, goal = lanes
    last = centers.size - 1
    here = centers[target] if 0 <= target <= last else ego_d
    view.speed, view.offset, view.changing = ego_speed, ego_d - here, lane != target
    view.has_left, view.has_right = 0 < target <= last, 0 <= target < last
    view.goal_lane = min(goal, last)
    view.lanes_to_go = view.goal_lane - target if view.goal_lane >= 0 else 0
    if lane == target and view.offset != 0.0:
        lane = target + (1 if view.offset > 0 else -1)
    old = centers[lane] if lane != target and 0 <= lane <= last else math.nan
    view.old_distance = abs(ego_d - old) if old == old else math.inf
    left = centers[target - 1] if view.has_left else math.nan
    right = centers[target + 1] if view.has_right else math.nan
    reach = width / 2 + LANE_MARGIN
    _nearest(view.target, here, reach, ego_s, ego_heading, ego_length, s, d, speed, heading, length)
    _nearest(view.old, old, reach, ego_s, ego_heading, ego_length, s, d, speed, heading, length)
    _nearest(view.left, left, reach, ego_s, ego_heading, ego_length, s, d, speed, heading, length)
    _nearest(view.right, right, reach, ego_s, ego_heading, ego_length, s, d, speed, heading, length)


@kernel
def _nearest(found, center, reach, ego_s, ego_heading, ego_length, s, d, speed, heading, length):
    """Of equal cars the last one ahead and the first one behind, as in highway-env; none where the centre is NaN."""
    front = rear = -1
    front_dx, rear_dx = math.inf, -math.inf
    for c in range(s.size):
        if abs(d[c] - center) <= reach:
            dx = s[c] - ego_s
            if 0.0 <= dx <= front_dx:
                front, front_dx = c, dx
            elif rear_dx < dx < 0.0:
                rear, rear_dx = c, dx
    found.front_speed = found.rear_speed = 0.0
    if front >= 0:
        found.front_speed = speed[front] if math.cos(heading[front] - ego_heading) >= 0.0 else -speed[front]
        front_dx -= (length[front] + ego_length) / 2 - CAR_LENGTH
    if rear >= 0:
        found.rear_speed = speed[rear] if math.cos(heading[rear] - ego_heading) >= 0.0 else -speed[rear]
        rear_dx += (length[rear] + ego_length) / 2 - CAR_LENGTH
    found.front, found.rear = front_dx, -rear_dx


@kernel
def set_speeds(view, index, set_points, period):
    """Fill the part of a view that the set-points decide, after `look`.

    As in highway-env, FASTER and SLOWER step from the set-point nearest to the present speed.

    Args:
        view: `VIEW` record to fill.
        index: Set-point in force.
        set_points: Ascending, m/s, float64 (K,), K >= 0.
        period: s per decision.
    """
    last = set_points.size - 1
    view.period, view.braking = period, WEAKEST_BRAKING
    view.slower = view.idle = view.faster = view.lowest = view.speed
    view.highest, view.step = math.inf, 0.0
    if last < 0:
        return
    nearest = speed_index(view.speed, set_points) if last > 0 else 0
    view.slower, view.faster = set_points[max(nearest - 1, 0)], set_points[min(nearest + 1, last)]
    view.idle = set_points[min(max(index, 0), last)]
    view.lowest, view.highest = set_points[0], set_points[last]
    if last > 0:
        view.step = (set_points[last] - set_points[0]) / last
        view.braking = min(max(view.step / period, WEAKEST_BRAKING), STRONGEST_BRAKING)
