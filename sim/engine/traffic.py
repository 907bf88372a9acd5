"""One simulation step of highway-env's traffic on any road: decisions, motion, contacts (highway-env 1.12).

Bodies stand in highway-env's list order: the ego, the other vehicles, then obstacles. The order of work is too,
because results depend on it: vehicles decide one after the other, each seeing the targets that earlier ones have just
chosen; then all move; then contacts are taken pair by pair. What the step does differently is to find things: it keeps
the bodies sorted by x, so that neighbours and contacts are looked for nearby, and skips trigonometry whose result is
known. Both give the same bits.

Kernel arguments: `w` the world's record, `ego` its first `BODY`, `lanes` the first `roads.LANE`, `p` the parameters of
the family; all are rows, the others are reached by `nth`.
"""

from __future__ import annotations

import math

import numpy as np

from sim.actions import MetaAction
from sim.compiled import kernel
from sim.engine import physics, roads
from sim.engine.records import nth
from sim.engine.rng import STREAM

MOST_LANES = 64
"""Lanes of a network beyond which everybody's leader is searched."""
MOST_PAIRS = 64
"""Near pairs of bodies beyond which all pairs are gone through."""

WORLD = np.dtype(
    [
        ("time", "f8"),
        ("episode_return", "f8"),
        ("speed_sum", "f8"),
        ("distance", "f8"),
        ("min_ttc", "f8"),
        ("range_y", "f8"),  # lateral range of the observation, fixed at reset
        ("fastest", "f8"),  # largest |speed| of the last step
        ("vehicles", "i8"),
        ("bodies", "i8"),  # vehicles and obstacles
        ("speed_index", "i8"),
        ("changers", "i8"),  # length of the list in `BODY.changer`; more than `bodies`: it did not fit
        ("steps", "i8"),
        ("lane_changes", "i8"),
        ("outcome", "i8"),
        ("terminated", "i8"),
        ("truncated", "i8"),
        ("stream", "u8", STREAM),
        ("ahead", "i4", MOST_LANES),  # scratch of `_find_fronts`
        ("pairs", "i8", MOST_PAIRS),  # scratch of `_collide`
    ],
    align=True,
)
"""One world but for its bodies."""

BODY = np.dtype(
    [
        ("x", "f8"),
        ("y", "f8"),
        ("heading", "f8"),
        ("speed", "f8"),
        ("cos", "f8"),  # of the heading
        ("sin", "f8"),
        ("vx", "f8"),
        ("vy", "f8"),
        ("target_speed", "f8"),
        ("delta", "f8"),  # IDM exponent
        ("steering", "f8"),
        ("acceleration", "f8"),
        ("timer", "f8"),  # seconds since it last thought of changing lane
        ("push_x", "f8"),  # displacement that the next step adds after a contact
        ("push_y", "f8"),
        ("lane", "i4"),
        ("target", "i4"),
        ("order", "i4"),  # row k holds the body that is k-th in x ...
        ("rank", "i4"),  # ... and this is its inverse
        ("front", "i4"),  # the body ahead of it in its lane, -1: nobody, UNKNOWN: to be searched ...
        ("front_left", "i4"),  # ... and in the lanes beside
        ("front_right", "i4"),
        ("changer", "i4"),  # row k holds the k-th of the vehicles that aim at another lane
        ("crashed", "i4"),
        ("pushed", "i4"),
        ("checks", "i4"),  # looks for contacts of its own
        ("changes", "i4"),  # thinks of changing lane
        ("route", "i4"),
        ("route_step", "i4"),
    ],
    align=True,
)
"""One body. Obstacles have speed 0 and use neither targets nor timer."""

LEFT, RIGHT, FASTER, SLOWER = (
    int(action) for action in (MetaAction.LANE_LEFT, MetaAction.LANE_RIGHT, MetaAction.FASTER, MetaAction.SLOWER)
)
UNKNOWN = -2
NONE = -1
"""No action: the simulation steps after the first of a decision."""

# IDMVehicle, MOBIL and ControlledVehicle
ACC_MAX = 6.0
COMFORT_ACC_MAX = 3.0
COMFORT_ACC_MIN = -5.0
DISTANCE_WANTED = 5.0 + physics.LENGTH
TIME_WANTED = 1.5
TWO_ROOT_AB = 2 * math.sqrt(-COMFORT_ACC_MAX * COMFORT_ACC_MIN)
LANE_CHANGE_MIN_ACC_GAIN = 0.2
LANE_CHANGE_MAX_BRAKING_IMPOSED = 2.0
LANE_CHANGE_DELAY = 1.0
KP_A = 1 / 0.6
KP_HEADING = 1 / 0.2
KP_LATERAL = 1 / 0.6
LEVEL = 1e-9
"""m of difference in x up to which rounding along a lane may make two bodies level."""
OBSTACLE_SIZE = 2.0
OBSTACLE_DIAGONAL = math.sqrt(OBSTACLE_SIZE**2 + OBSTACLE_SIZE**2)


# --- placing ---------------------------------------------------------------------------------------------------------


@kernel
def place(body, lanes, x, y, heading, speed):
    """A body as highway-env constructs an IDMVehicle there."""
    body.x, body.y, body.heading, body.speed = x, y, heading, speed
    body.cos, body.sin = math.cos(heading), math.sin(heading)
    body.vx, body.vy = speed * body.cos, speed * body.sin
    body.target_speed = speed
    body.delta = 4.0
    body.steering = body.acceleration = body.push_x = body.push_y = 0.0
    body.timer = physics.modulo((x + y) * math.pi, LANE_CHANGE_DELAY)
    body.lane = body.target = roads.closest_lane(lanes, x, y, heading)
    body.crashed = body.pushed = 0
    body.checks = body.changes = 1
    body.route, body.route_step = -1, 0


@kernel
def settle(w, ego):
    """Sort the bodies after all have been placed."""
    for i in range(w.bodies):
        nth(ego, i).order = i
    _sort(w, ego)
    for k in range(w.bodies):
        nth(ego, nth(ego, k).order).rank = k
    w.fastest = 0.0


@kernel
def _sort(w, ego):
    """Insertion sort by x: nearly linear, because overtaking is rare."""
    moved = False
    last_x = nth(ego, ego.order).x
    for k in range(1, w.bodies):
        i = nth(ego, k).order
        x = nth(ego, i).x
        if x >= last_x:
            last_x = x
            continue
        moved = True
        q = k - 1
        while q >= 0 and nth(ego, nth(ego, q).order).x > x:
            nth(ego, q + 1).order = nth(ego, q).order
            q -= 1
        nth(ego, q + 1).order = i
    if moved:
        for k in range(w.bodies):
            nth(ego, nth(ego, k).order).rank = k


# --- neighbours ------------------------------------------------------------------------------------------------------


@kernel
def _find_fronts(w, ego, lanes):
    """Who is ahead of every body in its own lane and in those beside, by one sweep from the foremost to the last.

    Works on lanes that run along x; what it cannot tell (level bodies, other lanes) is left UNKNOWN. Lists the vehicles
    that are changing lane on the way.
    """
    w.changers = 0
    if lanes.lanes > MOST_LANES:
        for i in range(w.bodies):
            body = nth(ego, i)
            body.front = body.front_left = body.front_right = UNKNOWN
            _note_change(w, ego, i)
        return
    for n in range(lanes.lanes):
        w.ahead[n] = -1
    last = ego
    for k in range(w.bodies - 1, -1, -1):
        i = nth(ego, k).order
        body = nth(ego, i)
        lane = nth(lanes, body.lane)
        _note_change(w, ego, i)
        body.front = body.front_left = body.front_right = UNKNOWN
        if lane.swept:
            n = body.lane
            body.front = w.ahead[n]
            body.front_left = w.ahead[max(n - 1, lane.first)]
            body.front_right = w.ahead[min(n + 1, lane.first + lane.count - 1)]
        seen = i
        if last.x - body.x <= LEVEL and k < w.bodies - 1:  # which of the two counts depends on the list
            body.front = body.front_left = body.front_right = UNKNOWN
            last.front = last.front_left = last.front_right = seen = UNKNOWN
        last = body
        s, lateral = roads.project(lane, body.x, body.y)
        alone = lane.clear - 1.5 * abs(lateral) > lane.width / 2 + physics.LANE_MARGIN
        if alone and roads.END_ZONE < s < lane.length - roads.END_ZONE:
            w.ahead[body.lane] = seen
            continue
        for n in range(lanes.lanes):
            other = nth(lanes, n)
            s, lateral = roads.project(other, body.x, body.y)
            if roads.holds(other, s, lateral, physics.LANE_MARGIN):
                w.ahead[n] = seen


@kernel
def _note_change(w, ego, i):
    """List vehicle i if it aims at another lane than its own; listing it twice does no harm."""
    body = nth(ego, i)
    if body.lane != body.target and i < w.vehicles:
        if w.changers < w.bodies:
            nth(ego, w.changers).changer = i
        w.changers += 1


@kernel
def _front_in(w, ego, lanes, i, n):
    """`front_of`, from what the sweep has found where it can be."""
    body = nth(ego, i)
    front = UNKNOWN
    if n == body.lane:
        front = body.front
    elif n == body.lane - 1 and nth(lanes, body.lane).id > 0:
        front = body.front_left
    elif n == body.lane + 1 and nth(lanes, body.lane).id < nth(lanes, body.lane).count - 1:
        front = body.front_right
    return np.int64(front) if front != UNKNOWN else front_of(w, ego, lanes, i, n)


@kernel
def front_of(w, ego, lanes, i, n):
    """The nearest body at or ahead of body i along lane n, of equals the last in the list; -1 without one."""
    lane, body = nth(lanes, n), nth(ego, i)
    if lane.axis == 0 or lane.reach > 1:
        return _search(w, ego, lanes, i, n)[0]
    s = roads.along(lane, body.x, body.y)
    step, q, count = lane.axis, np.int64(body.rank), w.bodies
    while 0 <= q - step < count:  # others that are level with it
        other = nth(ego, nth(ego, q - step).order)
        if roads.along(lane, other.x, other.y) < s:
            break
        q -= step
    best, best_s = -1, math.inf
    half, end = lane.width / 2 + physics.LANE_MARGIN, lane.length + roads.VEHICLE_LENGTH
    while 0 <= q < count:
        j = nth(ego, q).order
        q += step
        if j == i:
            continue
        other = nth(ego, j)
        s_j, lateral = roads.project(lane, other.x, other.y)
        if s_j > best_s or s_j >= end:
            break
        if abs(lateral) <= half and s_j >= -roads.VEHICLE_LENGTH and (s_j < best_s or j > best):
            best, best_s = j, s_j
    return best


@kernel
def rear_of(w, ego, lanes, i, n):
    """The nearest body strictly behind body i along lane n, of equals the first in the list; -1 without one."""
    lane, body = nth(lanes, n), nth(ego, i)
    if lane.axis == 0 or lane.reach > 1:
        return _search(w, ego, lanes, i, n)[1]
    s = roads.along(lane, body.x, body.y)
    step, q, count = -lane.axis, np.int64(body.rank), w.bodies
    best, best_s = -1, -math.inf
    half, end = lane.width / 2 + physics.LANE_MARGIN, lane.length + roads.VEHICLE_LENGTH
    while 0 <= q < count:
        j = nth(ego, q).order
        q += step
        other = nth(ego, j)
        s_j, lateral = roads.project(lane, other.x, other.y)
        if s_j >= s:
            continue
        if s_j < best_s or s_j < -roads.VEHICLE_LENGTH:
            break
        if abs(lateral) <= half and s_j < end and (s_j > best_s or j < best):
            best, best_s = j, s_j
    return best


@kernel
def _search(w, ego, lanes, i, n):
    """(front, rear) of body i along lane n and the lanes joined to it: highway-env's own loop over all bodies."""
    own, body = nth(lanes, n), nth(ego, i)
    s = roads.along(own, body.x, body.y)
    front, rear, front_s, rear_s = -1, -1, math.inf, -math.inf
    for j in range(w.bodies):
        if j == i:
            continue
        other = nth(ego, j)
        for k in range(own.reach):
            lane = nth(lanes, own.reach_lanes[k])
            s_j, lateral = roads.project(lane, other.x, other.y)
            if not roads.holds(lane, s_j, lateral, physics.LANE_MARGIN):
                continue
            s_j += own.reach_offsets[k]
            if s <= s_j and s_j <= front_s:
                front, front_s = j, s_j
            if s_j < s and s_j > rear_s:
                rear, rear_s = j, s_j
            break  # found on this lane: the others do not matter
    return front, rear


# --- decisions -------------------------------------------------------------------------------------------------------


@kernel
def _desired_gap(body, other):
    """Distance (m) that a body wants to another one ahead of it."""
    dv = (body.vx - other.vx) * body.cos + (body.vy - other.vy) * body.sin
    return DISTANCE_WANTED + body.speed * TIME_WANTED + body.speed * dv / TWO_ROOT_AB


@kernel
def _free_road(body, lanes, delta):
    """IDM acceleration of a vehicle with nobody ahead."""
    target = min(max(body.target_speed, 0.0), nth(lanes, body.lane).speed_limit)
    return COMFORT_ACC_MAX * (1 - math.pow(max(body.speed, 0.0) / abs(physics.not_zero(target)), delta))


@kernel
def _behind(a, body, lanes, ego, ahead):
    """IDM acceleration of a vehicle whose free one is `a`, behind body number `ahead` (-1: none)."""
    if ahead < 0:
        return a
    lane, other = nth(lanes, body.lane), nth(ego, ahead)
    d = roads.along(lane, other.x, other.y) - roads.along(lane, body.x, body.y)
    ratio = _desired_gap(body, other) / physics.not_zero(d)
    return a - COMFORT_ACC_MAX * (ratio * ratio)


@kernel
def _mobil(w, ego, lanes, p, i, n, free, here):
    """Should vehicle i change to lane n? `free` and `here` are its accelerations with nobody and with its leader ahead.

    Politeness is 0 in highway-env, so its followers' gains are left out. The tests have no side effects: the cheap one
    comes first.
    """
    body = nth(ego, i)
    there = _behind(free, body, lanes, ego, _front_in(w, ego, lanes, i, n))
    wanted = p.routes[body.route, body.route_step, 1] if body.route >= 0 else -1
    if wanted >= 0:
        own = nth(lanes, body.target).id
        if np.sign(nth(lanes, n).id - own) != np.sign(wanted - own) or there < -LANE_CHANGE_MAX_BRAKING_IMPOSED:
            return False
    elif there - here < LANE_CHANGE_MIN_ACC_GAIN:
        return False
    behind = rear_of(w, ego, lanes, i, n)
    if not 0 <= behind < w.vehicles:
        return True
    follower = nth(ego, behind)
    imposed = _behind(_free_road(follower, lanes, body.delta), follower, lanes, ego, i)
    return not imposed < -LANE_CHANGE_MAX_BRAKING_IMPOSED


@kernel
def _give_up(w, ego, lanes, i):
    """A change under way is given up for another vehicle, close ahead, that is changing into the same lane."""
    body = nth(ego, i)
    lane = nth(lanes, body.lane)
    if lane.road != nth(lanes, body.target).road:
        return
    s = roads.along(lane, body.x, body.y)
    listed = w.changers <= w.bodies
    for k in range(w.changers if listed else w.vehicles):
        j = np.int64(nth(ego, k).changer) if listed else k
        other = nth(ego, j)
        if other.target == body.target and other.lane != body.target and j != i:
            d = roads.along(lane, other.x, other.y) - s
            if 0 < d < _desired_gap(body, other):
                body.target = body.lane
                return


@kernel
def _consider_changing(w, ego, lanes, p, i, free, here):
    """MOBIL on both sides; where both are good the right one wins."""
    body = nth(ego, i)
    if abs(body.speed) < 1:
        return
    n = body.lane
    own = nth(lanes, n)
    for side in (-1, 1):
        exists = 0 <= own.id + side < own.count and roads.reachable(nth(lanes, n + side), body.x, body.y)
        if exists and _mobil(w, ego, lanes, p, i, n + side, free, here):
            body.target = n + side
            _note_change(w, ego, i)


@kernel
def _follow_road(body, lanes, p):
    """At the end of its target lane a vehicle aims at the next one. Returns whether it is there."""
    lane = nth(lanes, body.target)
    if roads.along(lane, body.x, body.y) > lane.length - roads.VEHICLE_LENGTH / 2:
        body.target, body.route_step = roads.next_lane(
            lanes, p, body.target, body.route, body.route_step, body.x, body.y
        )
        return True
    return False


@kernel
def _steer(body, lanes):
    """Steering angle towards the centre of the target lane."""
    lane = nth(lanes, body.target)
    s, lateral = roads.project(lane, body.x, body.y)
    lane_heading = lane.heading
    if lane.kind != roads.STRAIGHT:
        lane_heading = roads.heading_at(lane, s + body.speed * physics.TAU_PURSUIT)
    elif lateral == 0.0 and body.heading == 0.0 and lane_heading == 0.0:
        return 0.0  # every term of the general case is a zero
    return physics.steering_to(lateral, lane_heading, body.heading, body.speed, KP_LATERAL, KP_HEADING)


@kernel
def _idm_act(w, ego, lanes, p, i):
    """IDMVehicle.act."""
    body = nth(ego, i)
    if body.crashed:
        return
    if _follow_road(body, lanes, p):
        _note_change(w, ego, i)
    free = _free_road(body, lanes, body.delta)
    a = _behind(free, body, lanes, ego, _front_in(w, ego, lanes, i, body.lane))
    if body.changes:
        if body.lane != body.target:
            _give_up(w, ego, lanes, i)
        elif body.timer > LANE_CHANGE_DELAY:
            body.timer = 0.0
            _consider_changing(w, ego, lanes, p, i, free, a)
    body.steering = _steer(body, lanes)
    if body.lane != body.target:
        a = min(a, _behind(free, body, lanes, ego, _front_in(w, ego, lanes, i, body.target)))
    body.acceleration = physics.clip(a, -ACC_MAX, ACC_MAX)


@kernel
def _ego_act(w, ego, lanes, p, action):
    """MDPVehicle.act: a meta-action or NONE, then the two servos."""
    _follow_road(ego, lanes, p)
    if action in (LEFT, RIGHT):
        lane = nth(lanes, ego.target)
        n = lane.first + min(max(lane.id + (1 if action == RIGHT else -1), 0), lane.count - 1)
        if roads.reachable(nth(lanes, n), ego.x, ego.y):
            ego.target = n
    elif action in (FASTER, SLOWER):
        index = physics.speed_index(ego.speed, p.speeds[: p.set_points]) + (1 if action == FASTER else -1)
        w.speed_index = min(max(index, 0), p.set_points - 1)
        ego.target_speed = p.speeds[w.speed_index]
    if action != NONE:
        _follow_road(ego, lanes, p)  # highway-env acts once for the action and once more with all vehicles
    _note_change(w, ego, 0)
    ego.steering = _steer(ego, lanes)
    ego.acceleration = KP_A * (ego.target_speed - ego.speed)


# --- motion ----------------------------------------------------------------------------------------------------------


@kernel
def _move(body, lanes, dt):
    """Kinematic bicycle, explicit Euler with the old speed and heading; a pending push makes it crashed."""
    speed = body.speed
    if body.crashed:
        body.steering, body.acceleration = 0.0, -1.0 * speed
    body.acceleration = physics.limit_acceleration(body.acceleration, speed)
    body.timer += dt
    if body.steering == 0.0 and body.heading == 0.0 and not body.pushed:
        _roll(body, lanes, dt)
        return
    if body.steering == 0.0:
        body.x += speed * body.cos * dt
        body.y += speed * body.sin * dt
    else:
        beta = physics.atan(0.5 * physics.tan(body.steering))
        body.x += speed * physics.cos(body.heading + beta) * dt
        body.y += speed * physics.sin(body.heading + beta) * dt
    if body.pushed:
        body.x += body.push_x
        body.y += body.push_y
        body.crashed, body.pushed = 1, 0
    if body.steering != 0.0:
        body.heading += speed * physics.sin(beta) / (physics.LENGTH / 2) * dt
        body.cos, body.sin = physics.cos(body.heading), physics.sin(body.heading)
    speed += body.acceleration * dt
    body.speed = speed
    body.vx, body.vy = speed * body.cos, speed * body.sin
    _find_lane(body, lanes)


@kernel
def _roll(body, lanes, dt):
    """`_move` straight along x: every cosine is 1 and every sine 0."""
    body.x += body.speed * dt
    body.speed += body.acceleration * dt
    body.vx, body.vy = body.speed, body.speed * 0.0
    _find_lane(body, lanes)


@kernel
def _find_lane(body, lanes):
    """The closest lane; most of the time plainly the one that the body was in."""
    if not roads.well_inside(nth(lanes, body.lane), body.x, body.y, body.heading):
        body.lane = roads.closest_lane(lanes, body.x, body.y, body.heading)


# --- contacts --------------------------------------------------------------------------------------------------------


@kernel
def _apart(body, other):
    """A cheap test that implies that two bodies do not touch, now or within the step: both along x, side by side."""
    return body.heading == 0.0 and other.heading == 0.0 and abs(body.y - other.y) > physics.WIDTH + 1e-6


@kernel
def _contact(w, ego, i, j, dt):
    """handle_collisions of vehicle i with a later body j; a later contact overwrites a push."""
    body, other = nth(ego, i), nth(ego, j)
    obstacle = j >= w.vehicles
    diagonal = OBSTACLE_DIAGONAL if obstacle else physics.DIAGONAL
    dx, dy = other.x - body.x, other.y - body.y
    if math.sqrt(dx * dx + dy * dy) > (physics.DIAGONAL + diagonal) / 2 + body.speed * dt:
        return
    now, soon, push_x, push_y = physics.rectangles_collide(
        body.x,
        body.y,
        body.cos,
        body.sin,
        body.vx,
        body.vy,
        other.x,
        other.y,
        other.cos,
        other.sin,
        other.vx,
        other.vy,
        OBSTACLE_SIZE / 2 if obstacle else physics.LENGTH / 2,
        OBSTACLE_SIZE / 2 if obstacle else physics.WIDTH / 2,
        dt,
    )
    if soon:
        share = 1.0 if obstacle else 2.0
        body.push_x, body.push_y, body.pushed = push_x / share, push_y / share, 1
        if not obstacle:
            other.push_x, other.push_y, other.pushed = -push_x / 2, -push_y / 2, 1
    if now:
        body.crashed = other.crashed = 1


@kernel
def _collide(w, ego, dt):
    """All contacts, in lexicographic order of the list; only bodies near each other in x are looked at."""
    reach = physics.DIAGONAL + w.fastest * dt + 1e-6
    count = 0
    for k in range(w.bodies - 1):
        i = np.int64(nth(ego, k).order)
        body = nth(ego, i)
        for q in range(k + 1, w.bodies):
            j = np.int64(nth(ego, q).order)
            other = nth(ego, j)
            if other.x - body.x > reach:
                break
            if _apart(body, other) or not (body.checks or other.checks):
                continue
            if count == MOST_PAIRS:
                _collide_all(w, ego, dt)
                return
            pair, at = min(i, j) * w.bodies + max(i, j), count
            while at > 0 and w.pairs[at - 1] > pair:
                w.pairs[at] = w.pairs[at - 1]
                at -= 1
            w.pairs[at] = pair
            count += 1
    for k in range(count):
        i, j = w.pairs[k] // w.bodies, w.pairs[k] % w.bodies
        if i < w.vehicles:
            _contact(w, ego, i, j, dt)


@kernel
def _collide_all(w, ego, dt):
    """`_collide` over every pair, for pile-ups."""
    for i in range(w.vehicles):
        for j in range(i + 1, w.bodies):
            if nth(ego, i).checks or nth(ego, j).checks:
                _contact(w, ego, i, j, dt)


@kernel
def _collide_ego(w, ego, dt):
    """`_collide` where only the ego checks."""
    reach = physics.DIAGONAL + abs(ego.speed) * dt + 1e-6
    for j in range(1, w.bodies):
        other = nth(ego, j)
        if abs(other.x - ego.x) <= reach and not _apart(ego, other):
            _contact(w, ego, 0, j, dt)


# --- one simulation step ---------------------------------------------------------------------------------------------


@kernel
def substep(w, ego, lanes, p, action):
    """Road.act and Road.step; `action` is the ego's meta-action, NONE after the first step of a decision."""
    _find_fronts(w, ego, lanes)
    _ego_act(w, ego, lanes, p, action)
    for i in range(1, w.vehicles):
        _idm_act(w, ego, lanes, p, i)
    fastest = 0.0
    for i in range(w.vehicles):
        body = nth(ego, i)
        _move(body, lanes, p.dt)
        fastest = max(fastest, abs(body.speed))
    w.fastest = fastest
    _sort(w, ego)
    if p.only_ego_checks:
        _collide_ego(w, ego, p.dt)
    else:
        _collide(w, ego, p.dt)
