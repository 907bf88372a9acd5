"""One simulation step of highway-env's traffic on any `Road`: decisions, motion, contacts (highway-env 1.12).

Bodies stand in highway-env's list order: the ego, the other vehicles, then obstacles. The order of work is highway-env's
too, because results depend on it: vehicles decide one after the other, each seeing the targets that earlier ones have
just chosen; then all move; then contacts are taken pair by pair. What the step does differently is to find things: it
keeps the bodies sorted by x, so that neighbours and contacts are looked for nearby, and skips trigonometry whose result
is known. Both give the same bits.

Kernel arguments: `w` the world's record, `cars` float64 (ROWS, B), `tags` int32 (TAGS, B), `road` a `Road`, `p` the
parameters of the family.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from sim.actions import MetaAction
from sim.engine import physics, roads
from sim.engine.rng import STREAM

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
        ("bodies", "i8"),
        ("speed_index", "i8"),
        ("steps", "i8"),
        ("lane_changes", "i8"),
        ("outcome", "i8"),
        ("terminated", "i8"),
        ("truncated", "i8"),
        ("stream", "u8", STREAM),
    ],
    align=True,
)
"""One world but for its bodies."""

# Rows of `cars`
X, Y, H, V, V_TARGET, TIMER, DELTA, STEERING, ACCELERATION, PUSH_X, PUSH_Y, C, S, VX, VY = range(15)
ROWS = 15
# Rows of `tags`; ORDER lists bodies by ascending x, RANK is its inverse, PAIRS is scratch
LANE, TARGET, CRASHED, PUSHED, CHECKS, CHANGES, ROUTE, ROUTE_STEP, ORDER, RANK, PAIRS = range(11)
TAGS = 11

LEFT, RIGHT, FASTER, SLOWER = (
    int(action) for action in (MetaAction.LANE_LEFT, MetaAction.LANE_RIGHT, MetaAction.FASTER, MetaAction.SLOWER)
)
IDLE = int(MetaAction.IDLE)
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
OBSTACLE_SIZE = 2.0
OBSTACLE_DIAGONAL = math.sqrt(OBSTACLE_SIZE**2 + OBSTACLE_SIZE**2)


# --- placing ---------------------------------------------------------------------------------------------------------


@njit(cache=True, error_model="numpy")
def place(cars, tags, road, i, x, y, heading, speed):
    """Body i as highway-env constructs a ControlledVehicle there."""
    cars[:, i] = 0.0
    tags[:ORDER, i] = 0
    cars[X, i], cars[Y, i], cars[H, i], cars[V, i] = x, y, heading, speed
    cars[DELTA, i] = 4.0
    cars[C, i], cars[S, i] = math.cos(heading), math.sin(heading)
    cars[VX, i], cars[VY, i] = speed * cars[C, i], speed * cars[S, i]
    cars[V_TARGET, i] = speed
    cars[TIMER, i] = physics.modulo((x + y) * math.pi, LANE_CHANGE_DELAY)
    tags[LANE, i] = tags[TARGET, i] = roads.closest_lane(road.lanes, x, y, heading)
    tags[CHECKS, i] = tags[CHANGES, i] = 1
    tags[ROUTE, i] = -1


@njit(cache=True, error_model="numpy")
def settle(w, cars, tags):
    """Sort the bodies after all have been placed."""
    for i in range(w.bodies):
        tags[ORDER, i] = i
    _sort(w, cars, tags)
    for k in range(w.bodies):
        tags[RANK, tags[ORDER, k]] = k
    w.fastest = 0.0


@njit(cache=True, error_model="numpy")
def _sort(w, cars, tags):
    """Insertion sort of ORDER by x: nearly linear, because overtaking is rare."""
    x, order, rank = cars[X], tags[ORDER], tags[RANK]
    moved = False
    last_x = x[order[0]]
    for k in range(1, w.bodies):
        i = order[k]
        here = x[i]
        if here >= last_x:
            last_x = here
            continue
        moved = True
        q = k - 1
        while q >= 0 and x[order[q]] > here:
            order[q + 1] = order[q]
            q -= 1
        order[q + 1] = i
    if moved:
        for k in range(w.bodies):
            rank[order[k]] = k


# --- neighbours ------------------------------------------------------------------------------------------------------


@njit(cache=True, error_model="numpy")
def front_of(w, cars, tags, road, i, n):
    """The nearest body at or ahead of body i along lane n, of equals the last in the list; -1 without one."""
    lane = road.lanes[n]
    if lane.axis == 0 or road.reach_lanes.shape[1] > 1:
        return _search(w, cars, road, i, n)[0]
    x, y, order = cars[X], cars[Y], tags[ORDER]
    s = roads.along(lane, x[i], y[i])
    step, q, count = lane.axis, np.int64(tags[RANK, i]), w.bodies
    while 0 <= q - step < count and roads.along(lane, x[order[q - step]], y[order[q - step]]) >= s:
        q -= step
    best, best_s = -1, math.inf
    half, end = lane.width / 2 + physics.LANE_MARGIN, lane.length + roads.VEHICLE_LENGTH
    while 0 <= q < count:
        j = order[q]
        q += step
        if j == i:
            continue
        s_j, lateral = roads.project(lane, x[j], y[j])
        if s_j > best_s or s_j >= end:
            break
        if abs(lateral) <= half and s_j >= -roads.VEHICLE_LENGTH and (s_j < best_s or j > best):
            best, best_s = j, s_j
    return best


@njit(cache=True, error_model="numpy")
def rear_of(w, cars, tags, road, i, n):
    """The nearest body strictly behind body i along lane n, of equals the first in the list; -1 without one."""
    lane = road.lanes[n]
    if lane.axis == 0 or road.reach_lanes.shape[1] > 1:
        return _search(w, cars, road, i, n)[1]
    x, y, order = cars[X], cars[Y], tags[ORDER]
    s = roads.along(lane, x[i], y[i])
    step, q, count = -lane.axis, np.int64(tags[RANK, i]), w.bodies
    best, best_s = -1, -math.inf
    half, end = lane.width / 2 + physics.LANE_MARGIN, lane.length + roads.VEHICLE_LENGTH
    while 0 <= q < count:
        j = order[q]
        q += step
        s_j, lateral = roads.project(lane, x[j], y[j])
        if s_j >= s:
            continue
        if s_j < best_s or s_j < -roads.VEHICLE_LENGTH:
            break
        if abs(lateral) <= half and s_j < end and (s_j > best_s or j < best):
            best, best_s = j, s_j
    return best


@njit(cache=True, error_model="numpy")
def _search(w, cars, road, i, n):
    """(front, rear) of body i along lane n and the lanes joined to it: highway-env's own loop over all bodies."""
    s = roads.along(road.lanes[n], cars[X, i], cars[Y, i])
    front, rear, front_s, rear_s = -1, -1, math.inf, -math.inf
    for j in range(w.bodies):
        if j == i:
            continue
        for k in range(road.reach_lanes.shape[1]):
            m = road.reach_lanes[n, k]
            if m < 0:
                break
            lane = road.lanes[m]
            s_j, lateral = roads.project(lane, cars[X, j], cars[Y, j])
            if not roads.holds(lane, s_j, lateral, physics.LANE_MARGIN):
                continue
            s_j += road.reach_offsets[n, k]
            if s <= s_j and s_j <= front_s:
                front, front_s = j, s_j
            if s_j < s and s_j > rear_s:
                rear, rear_s = j, s_j
            break  # found on this lane: the others do not matter
    return front, rear


# --- decisions -------------------------------------------------------------------------------------------------------


@njit(cache=True, error_model="numpy")
def _desired_gap(cars, e, f):
    """Distance (m) that body e wants to body f ahead of it."""
    dv = (cars[VX, e] - cars[VX, f]) * cars[C, e] + (cars[VY, e] - cars[VY, f]) * cars[S, e]
    v = cars[V, e]
    return DISTANCE_WANTED + v * TIME_WANTED + v * dv / TWO_ROOT_AB


@njit(cache=True, error_model="numpy")
def _free_road(cars, tags, road, e, delta):
    """IDM acceleration of vehicle e with nobody ahead."""
    limit = road.lanes[tags[LANE, e]].speed_limit
    target = min(max(cars[V_TARGET, e], 0.0), limit)
    return COMFORT_ACC_MAX * (1 - math.pow(max(cars[V, e], 0.0) / abs(physics.not_zero(target)), delta))


@njit(cache=True, error_model="numpy")
def _interaction(cars, tags, road, e, f):
    """What body f ahead takes from vehicle e's IDM acceleration."""
    lane = road.lanes[tags[LANE, e]]
    d = roads.along(lane, cars[X, f], cars[Y, f]) - roads.along(lane, cars[X, e], cars[Y, e])
    ratio = _desired_gap(cars, e, f) / physics.not_zero(d)
    return COMFORT_ACC_MAX * (ratio * ratio)


@njit(cache=True, error_model="numpy")
def _acceleration(w, cars, tags, road, e, f, delta):
    """IDM acceleration of body e behind body f (-1: none) with exponent `delta`; 0 for nobody and for obstacles."""
    if e < 0 or e >= w.vehicles:
        return 0.0
    a = _free_road(cars, tags, road, e, delta)
    if f >= 0:
        a -= _interaction(cars, tags, road, e, f)
    return a


@njit(cache=True, error_model="numpy")
def _mobil(w, cars, tags, road, i, n):
    """Should vehicle i change to lane n? Politeness is 0 in highway-env, so its followers' gains are left out."""
    delta = cars[DELTA, i]
    ahead, behind = front_of(w, cars, tags, road, i, n), rear_of(w, cars, tags, road, i, n)
    if _acceleration(w, cars, tags, road, behind, i, delta) < -LANE_CHANGE_MAX_BRAKING_IMPOSED:
        return False
    free = _free_road(cars, tags, road, i, delta)
    there = free - _interaction(cars, tags, road, i, ahead) if ahead >= 0 else free
    route = tags[ROUTE, i]
    if route >= 0:
        wanted = _route_lane(road, route, tags[ROUTE_STEP, i])
        if wanted >= 0:
            own = road.lanes[tags[TARGET, i]].id
            if np.sign(road.lanes[n].id - own) != np.sign(wanted - own):
                return False
            return there >= -LANE_CHANGE_MAX_BRAKING_IMPOSED
    here = free
    old = front_of(w, cars, tags, road, i, tags[LANE, i])
    if old >= 0:
        here = free - _interaction(cars, tags, road, i, old)
    return not there - here < LANE_CHANGE_MIN_ACC_GAIN


@njit(cache=True, error_model="numpy")
def _route_lane(road, route, step):
    return road.routes[route, step, 1] if step < road.routes.shape[1] else -1


@njit(cache=True, error_model="numpy")
def _change_lane(w, cars, tags, road, i):
    """MOBIL once a second; a change under way is given up for another one into the same lane close ahead."""
    lanes, lane, target = road.lanes, tags[LANE, i], tags[TARGET, i]
    if lane != target:
        if lanes[lane].road == lanes[target].road:
            s = roads.along(lanes[lane], cars[X, i], cars[Y, i])
            for j in range(w.vehicles):
                if tags[TARGET, j] == target and tags[LANE, j] != target and j != i:
                    d = roads.along(lanes[lane], cars[X, j], cars[Y, j]) - s
                    if 0 < d < _desired_gap(cars, i, j):
                        tags[TARGET, i] = lane
                        break
        return
    if not cars[TIMER, i] > LANE_CHANGE_DELAY:
        return
    cars[TIMER, i] = 0.0
    if abs(cars[V, i]) < 1:
        return
    x, y = cars[X, i], cars[Y, i]
    own = lanes[lane]
    if own.id > 0 and roads.reachable(lanes[lane - 1], x, y) and _mobil(w, cars, tags, road, i, lane - 1):
        tags[TARGET, i] = lane - 1
    if own.id < own.count - 1 and roads.reachable(lanes[lane + 1], x, y) and _mobil(w, cars, tags, road, i, lane + 1):
        tags[TARGET, i] = lane + 1


@njit(cache=True, error_model="numpy")
def _follow_road(cars, tags, road, i):
    """At the end of its target lane a vehicle aims at the next one."""
    target = tags[TARGET, i]
    lane = road.lanes[target]
    if roads.along(lane, cars[X, i], cars[Y, i]) > lane.length - roads.VEHICLE_LENGTH / 2:
        tags[TARGET, i], tags[ROUTE_STEP, i] = roads.next_lane(
            road, target, tags[ROUTE, i], tags[ROUTE_STEP, i], cars[X, i], cars[Y, i]
        )


@njit(cache=True, error_model="numpy")
def _steer(cars, tags, road, i):
    """Steering angle towards the centre of the target lane."""
    lane = road.lanes[tags[TARGET, i]]
    s, lateral = roads.project(lane, cars[X, i], cars[Y, i])
    speed, heading = cars[V, i], cars[H, i]
    lane_heading = lane.heading
    if lane.kind != roads.STRAIGHT:
        lane_heading = roads.heading_at(lane, s + speed * physics.TAU_PURSUIT)
    elif lateral == 0.0 and heading == 0.0 and lane_heading == 0.0:
        return 0.0  # every term below is a zero
    return physics.steering_to(lateral, lane_heading, heading, speed, KP_LATERAL, KP_HEADING)


@njit(cache=True, error_model="numpy")
def _idm_act(w, cars, tags, road, i):
    """IDMVehicle.act."""
    if tags[CRASHED, i]:
        return
    _follow_road(cars, tags, road, i)
    if tags[CHANGES, i]:
        _change_lane(w, cars, tags, road, i)
    cars[STEERING, i] = _steer(cars, tags, road, i)
    lane, target = tags[LANE, i], tags[TARGET, i]
    free = _free_road(cars, tags, road, i, cars[DELTA, i])
    ahead = front_of(w, cars, tags, road, i, lane)
    a = free - _interaction(cars, tags, road, i, ahead) if ahead >= 0 else free
    if lane != target:
        ahead = front_of(w, cars, tags, road, i, target)
        a = min(a, free - _interaction(cars, tags, road, i, ahead) if ahead >= 0 else free)
    cars[ACCELERATION, i] = physics.clip(a, -ACC_MAX, ACC_MAX)


@njit(cache=True, error_model="numpy")
def _ego_act(w, cars, tags, road, set_points, action):
    """MDPVehicle.act: a meta-action or NONE, then the two servos."""
    _follow_road(cars, tags, road, 0)
    if action in (LEFT, RIGHT):
        lane = road.lanes[tags[TARGET, 0]]
        n = lane.first + min(max(lane.id + (1 if action == RIGHT else -1), 0), lane.count - 1)
        if roads.reachable(road.lanes[n], cars[X, 0], cars[Y, 0]):
            tags[TARGET, 0] = n
    elif action in (FASTER, SLOWER):
        index = physics.speed_index(cars[V, 0], set_points) + (1 if action == FASTER else -1)
        w.speed_index = min(max(index, 0), set_points.size - 1)
        cars[V_TARGET, 0] = set_points[w.speed_index]
    if action != NONE:
        _follow_road(cars, tags, road, 0)  # highway-env acts once for the action and once more with all vehicles
    cars[STEERING, 0] = _steer(cars, tags, road, 0)
    cars[ACCELERATION, 0] = KP_A * (cars[V_TARGET, 0] - cars[V, 0])


# --- motion ----------------------------------------------------------------------------------------------------------


@njit(cache=True, error_model="numpy")
def _move(cars, tags, road, i, dt):
    """Kinematic bicycle, explicit Euler with the old speed and heading; a pending push makes it crashed."""
    speed, acceleration, steering = cars[V, i], cars[ACCELERATION, i], cars[STEERING, i]
    if tags[CRASHED, i]:
        steering, acceleration = 0.0, -1.0 * speed
        cars[STEERING, i] = 0.0
    acceleration = physics.limit_acceleration(acceleration, speed)
    cars[ACCELERATION, i] = acceleration
    cars[TIMER, i] += dt
    n = tags[LANE, i]
    lane = road.lanes[n]
    if steering == 0.0 and cars[H, i] == 0.0 and not tags[PUSHED, i]:
        x = cars[X, i] + speed * dt
        cars[X, i] = x
        speed += acceleration * dt
        cars[V, i], cars[VX, i] = speed, speed
        cars[VY, i] = speed * 0.0
        s = (x - lane.x) * lane.ux
        centred = lane.kind == roads.STRAIGHT and lane.uy == 0.0 and cars[Y, i] == lane.y and lane.heading == 0.0
        if not (centred and 0.0 < s < lane.length):
            tags[LANE, i] = roads.closest_lane(road.lanes, x, cars[Y, i], 0.0)
        return
    if steering == 0.0:
        cars[X, i] += speed * cars[C, i] * dt
        cars[Y, i] += speed * cars[S, i] * dt
        turn = speed * 0.0 / (physics.LENGTH / 2) * dt
    else:
        beta = math.atan(0.5 * math.tan(steering))
        cars[X, i] += speed * math.cos(cars[H, i] + beta) * dt
        cars[Y, i] += speed * math.sin(cars[H, i] + beta) * dt
        turn = speed * math.sin(beta) / (physics.LENGTH / 2) * dt
    if tags[PUSHED, i]:
        cars[X, i] += cars[PUSH_X, i]
        cars[Y, i] += cars[PUSH_Y, i]
        tags[CRASHED, i], tags[PUSHED, i] = 1, 0
    if turn != 0.0:
        heading = cars[H, i] + turn
        cars[H, i] = heading
        cars[C, i], cars[S, i] = math.cos(heading), math.sin(heading)
    speed += acceleration * dt
    cars[V, i] = speed
    cars[VX, i], cars[VY, i] = speed * cars[C, i], speed * cars[S, i]
    tags[LANE, i] = roads.closest_lane(road.lanes, cars[X, i], cars[Y, i], cars[H, i])


# --- contacts --------------------------------------------------------------------------------------------------------


@njit(cache=True, error_model="numpy")
def _apart(cars, i, j):
    """A cheap test that implies that bodies i and j do not touch, now or within the step: both along x, side by side."""
    return cars[H, i] == 0.0 and cars[H, j] == 0.0 and abs(cars[Y, i] - cars[Y, j]) > physics.WIDTH + 1e-6


@njit(cache=True, error_model="numpy")
def _contact(w, cars, tags, i, j, dt):
    """handle_collisions of vehicle i with a later body j; a later contact overwrites a push."""
    if not (tags[CHECKS, i] or tags[CHECKS, j]):
        return
    obstacle = j >= w.vehicles
    diagonal = OBSTACLE_DIAGONAL if obstacle else physics.DIAGONAL
    dx, dy = cars[X, j] - cars[X, i], cars[Y, j] - cars[Y, i]
    if math.sqrt(dx * dx + dy * dy) > (physics.DIAGONAL + diagonal) / 2 + cars[V, i] * dt:
        return
    half_length = OBSTACLE_SIZE / 2 if obstacle else physics.LENGTH / 2
    half_width = OBSTACLE_SIZE / 2 if obstacle else physics.WIDTH / 2
    now, soon, push_x, push_y = physics.rectangles_collide(
        cars[X, i],
        cars[Y, i],
        cars[C, i],
        cars[S, i],
        cars[VX, i],
        cars[VY, i],
        cars[X, j],
        cars[Y, j],
        cars[C, j],
        cars[S, j],
        cars[VX, j],
        cars[VY, j],
        half_length,
        half_width,
        dt,
    )
    if soon:
        if obstacle:
            cars[PUSH_X, i], cars[PUSH_Y, i], tags[PUSHED, i] = push_x, push_y, 1
        else:
            cars[PUSH_X, i], cars[PUSH_Y, i], tags[PUSHED, i] = push_x / 2, push_y / 2, 1
            cars[PUSH_X, j], cars[PUSH_Y, j], tags[PUSHED, j] = -push_x / 2, -push_y / 2, 1
    if now:
        tags[CRASHED, i] = tags[CRASHED, j] = 1


@njit(cache=True, error_model="numpy")
def _collide(w, cars, tags, dt):
    """All contacts, in lexicographic order of the list; only bodies near each other in x are looked at."""
    x, order, pairs = cars[X], tags[ORDER], tags[PAIRS]
    reach = physics.DIAGONAL + w.fastest * dt + 1e-6
    count, bodies = 0, w.bodies
    for k in range(bodies - 1):
        i = order[k]
        for q in range(k + 1, bodies):
            j = order[q]
            if x[j] - x[i] > reach:
                break
            if _apart(cars, i, j) or not (tags[CHECKS, i] or tags[CHECKS, j]):
                continue
            if count == pairs.size:
                _collide_all(w, cars, tags, dt)
                return
            pair = min(i, j) * bodies + max(i, j)
            at = count
            while at > 0 and pairs[at - 1] > pair:
                pairs[at] = pairs[at - 1]
                at -= 1
            pairs[at] = pair
            count += 1
    for k in range(count):
        i, j = pairs[k] // bodies, pairs[k] % bodies
        if i < w.vehicles:
            _contact(w, cars, tags, i, j, dt)


@njit(cache=True, error_model="numpy")
def _collide_all(w, cars, tags, dt):
    """`_collide` over every pair, for pile-ups."""
    for i in range(w.vehicles):
        for j in range(i + 1, w.bodies):
            _contact(w, cars, tags, i, j, dt)


@njit(cache=True, error_model="numpy")
def _collide_ego(w, cars, tags, dt):
    """`_collide` where only the ego checks: its neighbours in x, in the order of the list."""
    reach = physics.DIAGONAL + abs(cars[V, 0]) * dt + 1e-6
    for j in range(1, w.bodies):
        if abs(cars[X, j] - cars[X, 0]) <= reach and not _apart(cars, 0, j):
            _contact(w, cars, tags, 0, j, dt)


# --- one simulation step ---------------------------------------------------------------------------------------------


@njit(cache=True, error_model="numpy")
def substep(w, cars, tags, road, set_points, action, only_ego_checks, dt):
    """Road.act and Road.step; `action` is the ego's meta-action, NONE after the first step of a decision."""
    _ego_act(w, cars, tags, road, set_points, action)
    for i in range(1, w.vehicles):
        _idm_act(w, cars, tags, road, i)
    fastest = 0.0
    for i in range(w.vehicles):
        _move(cars, tags, road, i, dt)
        fastest = max(fastest, abs(cars[V, i]))
    w.fastest = fastest
    _sort(w, cars, tags)
    if only_ego_checks:
        _collide_ego(w, cars, tags, dt)
    else:
        _collide(w, cars, tags, dt)
