"""Right of way at a crossing: which vehicles stop for which (highway-env 1.12, `road/regulation.py`).

Every half second all vehicles are predicted along their routes at constant speed. Of two that would meet the one in the
lane of lower priority stops, in equal lanes the one that is behind; it goes on when the next prediction finds no
conflict. Kernel arguments as in `sim.engine.bodies`.
"""

from __future__ import annotations

import math

import numpy as np

from sim.compiled import kernel
from sim.engine import roads
from sim.engine.bodies import row_of
from sim.engine.records import nth
from sim.sizes import CAR_LENGTH, CAR_WIDTH

POSES = 11
"""Predicted poses of a vehicle."""
POSE_STEP = 0.25
"""Seconds between them."""
HALF_LENGTH, HALF_WIDTH = 1.5 * CAR_LENGTH / 2, 0.9 * CAR_WIDTH / 2
"""Of the rectangle around a pose that must stay free, m."""
X, Y, HEADING = range(3)


@kernel
def regulate(env, ego, lanes, p, first):
    """RegulatedRoad.enforce_road_rules; rows before `first` do not yield."""
    for i in range(env.vehicles):
        body = nth(ego, i)
        if body.yielding:
            body.target_speed = nth(lanes, body.lane).speed_limit
            body.yielding = 0
    poses = np.empty((env.vehicles, POSES, 3))
    bounds = np.empty((env.vehicles, 4))
    for i in range(env.vehicles):
        _predict(nth(ego, i), lanes, p, poses[i])
        _bound(poses[i], bounds[i])
    for a in range(env.vehicles - 1):
        for b in range(a + 1, env.vehicles):
            i, j = row_of(env, a), row_of(env, b)
            if _apart(bounds[i], bounds[j]):
                continue
            k = _without_right_of_way(ego, lanes, i, j)
            body = nth(ego, k)
            if k >= first and not body.yielding and _conflict(poses[i], poses[j]):
                body.target_speed = 0.0
                body.yielding = 1


@kernel
def _without_right_of_way(ego, lanes, i, j):
    """Which of two vehicles yields in a conflict, i being earlier in the list."""
    one, other = nth(ego, i), nth(ego, j)
    first, second = nth(lanes, one.lane).priority, nth(lanes, other.lane).priority
    if first != second:
        return j if first > second else i
    dx, dy = other.x - one.x, other.y - one.y
    return i if one.cos * dx + one.sin * dy > other.cos * -dx + other.sin * -dy else j


@kernel
def _predict(body, lanes, p, poses):
    """Poses of a vehicle along its route, from where its lane coordinate is on the road that the route begins with."""
    route, head = body.route, np.int64(body.route_step)
    routed = route >= 0 and p.routes[route, head, 0] >= 0
    here = nth(lanes, body.lane)
    s0 = roads.along(here, body.x, body.y)
    for k in range(POSES):
        s, step = s0 + body.speed * (POSE_STEP * (k + 1)), head
        lane = nth(lanes, _route_lane(lanes, p, here, route, step)) if routed else here
        while routed and s > lane.length and p.routes[route, step + 1, 0] >= 0:
            s -= lane.length
            step += 1
            lane = nth(lanes, _route_lane(lanes, p, here, route, step))
        poses[k, X], poses[k, Y] = roads.position(lane, s, 0.0)
        poses[k, HEADING] = roads.heading_at(lane, s)


@kernel
def _route_lane(lanes, p, here, route, step):
    """The lane of one step of a route: the one that it names, else the one numbered as the present lane."""
    road, wanted = p.routes[route, step, 0], p.routes[route, step, 1]
    return road + (here.id if wanted < 0 else wanted)


@kernel
def _bound(poses, bounds):
    """Smallest and largest x, smallest and largest y."""
    bounds[0], bounds[1], bounds[2], bounds[3] = poses[0, X], poses[0, X], poses[0, Y], poses[0, Y]
    for k in range(1, POSES):
        x, y = poses[k, X], poses[k, Y]
        bounds[0], bounds[1] = min(bounds[0], x), max(bounds[1], x)
        bounds[2], bounds[3] = min(bounds[2], y), max(bounds[3], y)


@kernel
def _apart(one, other):
    """A cheap test that implies that no two poses come near each other."""
    return (
        one[0] - other[1] > CAR_LENGTH
        or other[0] - one[1] > CAR_LENGTH
        or one[2] - other[3] > CAR_LENGTH
        or other[2] - one[3] > CAR_LENGTH
    )


@kernel
def _conflict(one, other):
    """RegulatedRoad.is_conflict_possible: whether rectangles around two poses of the same time intersect."""
    for k in range(POSES):
        dx, dy = other[k, X] - one[k, X], other[k, Y] - one[k, Y]
        if abs(dx) > CAR_LENGTH or abs(dy) > CAR_LENGTH or math.sqrt(dx * dx + dy * dy) > CAR_LENGTH:
            continue
        if _reaches_into(one[k], other[k]) or _reaches_into(other[k], one[k]):
            return True
    return False


@kernel
def _reaches_into(one, other):
    """Whether a corner, the middle of an edge or the centre of one rectangle is in another (`has_corner_inside`).

    highway-env turns points into the other rectangle's axes by its heading with the wrong sign; it is kept.
    """
    c, s = math.cos(one[HEADING]), math.sin(one[HEADING])
    other_c, other_s = math.cos(other[HEADING]), math.sin(other[HEADING])
    for a in (-1.0, 0.0, 1.0):
        for b in (-1.0, 0.0, 1.0):
            along, aside = a * HALF_LENGTH, b * HALF_WIDTH
            dx = (c * along - s * aside) + one[X] - other[X]
            dy = (s * along + c * aside) + one[Y] - other[Y]
            inside = abs(other_c * dx - other_s * dy) <= HALF_LENGTH
            if inside and abs(other_s * dx + other_c * dy) <= HALF_WIDTH:
                return True
    return False
