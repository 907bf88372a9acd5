"""Simulation steps of the lane-change task: its state layout, the ego's servos, traffic that keeps its lane, contacts.

Cars stand in highway-env's list order: lane by lane from the left, each lane in ascending x. Traffic keeps its lane, so
a car's leader is its right neighbour in the row, and a simulation step is a few vector loops. Where that does not hold
(cars overlap, or a contact has pushed one sideways) the step falls back to `_traffic_scan`, highway-env's own search.
Both give the same bits.

Kernel arguments: `env` is the environment's record, `cars` float64 (ROWS, C) with car c in lane c // cars-per-lane, `p`
the parameters (`sim.engine.families.lane_change`).
"""

from __future__ import annotations

import math

import numpy as np

from sim import kinematics
from sim import lane_change as task
from sim.actions import MetaAction
from sim.compiled import kernel
from sim.engine.episode import FIELDS
from sim.sizes import CAR_LENGTH, CAR_WIDTH, LANE_WIDTH

ENV = np.dtype(
    [
        *FIELDS,
        ("x", "f8"),
        ("y", "f8"),
        ("heading", "f8"),
        ("speed", "f8"),
        ("target_speed", "f8"),
        ("steering", "f8"),
        ("acceleration", "f8"),
        ("push_x", "f8"),  # displacement that the next simulation step adds after a contact
        ("push_y", "f8"),
        ("lane", "i8"),
        ("target_lane", "i8"),
        ("old_lane", "i8"),  # both before the last decision
        ("old_target", "i8"),
        ("speed_index", "i8"),
        ("crashed", "i8"),
        ("pushed", "i8"),
        ("disorder", "i8"),  # cars overlap or were hit: leaders must be searched
    ],
    align=True,
)
"""One environment but for its traffic."""

# Rows of the car block
X, Y, V, A, V_DESIRED, A_MAX, HEADWAY, TWO_ROOT_AB, PUSHED, CRASHED, PUSH_X, PUSH_Y = range(12)
ROWS = 12

LEFT, IDLE, RIGHT, FASTER, SLOWER = (int(action) for action in MetaAction)
DT = task.SIMULATION_STEP
CONTACT_RANGE = (kinematics.DIAGONAL + kinematics.DIAGONAL) / 2


@kernel
def in_order(x, per_lane):
    """Whether every lane's cars are in strictly ascending x."""
    ordered = True
    for start in range(0, x.size, per_lane):
        for c in range(start, start + per_lane - 1):
            ordered &= x[c] < x[c + 1]
    return ordered


@kernel
def _idm(cars, c, distance, dv):
    """IDM acceleration of car c, clipped; `distance` = inf on a free road, `dv` its speed less the leader's."""
    v, a_max = cars[V, c], cars[A_MAX, c]
    ratio = max(v, 0.0) / cars[V_DESIRED, c]
    a = a_max * (1 - (ratio * ratio) * (ratio * ratio))
    if distance < math.inf:
        gap = task.IDM_JAM_DISTANCE + v * cars[HEADWAY, c] + v * dv / cars[TWO_ROOT_AB, c]
        closeness = gap / kinematics.not_zero(distance)
        a -= a_max * (closeness * closeness)
    return kinematics.clip(a, -task.TRAFFIC_ACCELERATION_LIMIT, task.TRAFFIC_ACCELERATION_LIMIT)


@kernel
def _follow_right_neighbour(x, v, v_desired, a_max, headway, two_root_ab, a):
    """`_idm` of every car but the last behind its right neighbour in the row, as one vector loop."""
    limit = task.TRAFFIC_ACCELERATION_LIMIT
    for c in range(x.size - 1):
        distance = x[c + 1] - x[c]
        distance = distance if distance > 1e-2 else 1e-2
        forward = v[c] if v[c] > 0.0 else 0.0
        ratio = forward / v_desired[c]
        gap = task.IDM_JAM_DISTANCE + v[c] * headway[c] + v[c] * (v[c] - v[c + 1]) / two_root_ab[c]
        closeness = gap / distance
        value = a_max[c] * (1 - (ratio * ratio) * (ratio * ratio)) - a_max[c] * (closeness * closeness)
        value = value if value > -limit else -limit
        a[c] = value if value < limit else limit


@kernel
def _traffic_rows(env, cars, p):
    """Accelerations where all lanes are in order and no car was hit.

    The first car of each lane and the ego's follower have another leader than their right neighbour: computed again.
    """
    _follow_right_neighbour(cars[X], cars[V], cars[V_DESIRED], cars[A_MAX], cars[HEADWAY], cars[TWO_ROOT_AB], cars[A])
    ego_vx = env.speed if env.heading == 0.0 else env.speed * math.cos(env.heading)
    for lane in range(p.lanes):
        start, end = lane * p.cars, (lane + 1) * p.cars
        cars[A, end - 1] = _idm(cars, end - 1, math.inf, 0.0)
        if kinematics.on_lane(env.y, lane):
            c = last_at_or_behind(cars[X], start, end, env.x)
            if c >= start:
                cars[A, c] = _idm(cars, c, env.x - cars[X, c], cars[V, c] - ego_vx)


@kernel
def last_at_or_behind(x, start, end, position):
    """The foremost car with x <= position among the ascending x[start:end]; start - 1 if there is none."""
    low, high = start, end
    while low < high:
        middle = (low + high) // 2
        if x[middle] <= position:
            low = middle + 1
        else:
            high = middle
    return low - 1


@kernel
def _traffic_scan(env, cars, p):
    """Accelerations by highway-env's search: nearest at or ahead of a car, equal ones to the last in the list.

    Cars that were not hit are on their own lane only: a car looks at its lane, the ego, and those that were hit.
    """
    x, y, v = cars[X], cars[Y], cars[V]
    hit = np.flatnonzero(cars[CRASHED])
    for lane in range(p.lanes):
        ego_here = kinematics.on_lane(env.y, lane)
        start, end = lane * p.cars, (lane + 1) * p.cars
        for c in range(start, end):
            if cars[CRASHED, c]:
                continue
            front_x, front_vx = math.inf, 0.0
            if ego_here and x[c] <= env.x:
                front_x, front_vx = env.x, env.speed * math.cos(env.heading)
            for k in range(hit.size):
                other = hit[k]
                if other < start and x[c] <= x[other] <= front_x and kinematics.on_lane(y[other], lane):
                    front_x, front_vx = x[other], v[other]
            for other in range(start, end):
                if other != c and x[c] <= x[other] <= front_x and kinematics.on_lane(y[other], lane):
                    front_x, front_vx = x[other], v[other]
            for k in range(hit.size):
                other = hit[k]
                if other >= end and x[c] <= x[other] <= front_x and kinematics.on_lane(y[other], lane):
                    front_x, front_vx = x[other], v[other]
            cars[A, c] = _idm(cars, c, front_x - x[c], v[c] - front_vx)


@kernel
def _ego_act(env, p, set_points, action):
    """The meta-action (IDLE after the first simulation step) and the two servos."""
    if action in (LEFT, RIGHT):
        step = 1 if action == RIGHT else -1
        target = min(max(env.target_lane + step, 0), p.lanes - 1)
        if abs(env.y - target * LANE_WIDTH) <= kinematics.REACHABLE:
            env.target_lane = target
    elif action in (FASTER, SLOWER):
        step = 1 if action == FASTER else -1
        index = kinematics.speed_index(env.speed, set_points) + step
        env.speed_index = min(max(index, 0), set_points.size - 1)
        env.target_speed = set_points[env.speed_index]
    lateral = env.y - env.target_lane * LANE_WIDTH
    env.steering = kinematics.steering_to(lateral, 0.0, env.heading, env.speed, task.KP_LATERAL, task.KP_HEADING)
    env.acceleration = task.KP_SPEED * (env.target_speed - env.speed)


@kernel
def _ego_move(env, p):
    """Kinematic bicycle, explicit Euler with the old speed and heading; a pending push makes it crashed."""
    if env.crashed:
        env.steering, env.acceleration = 0.0, -1.0 * env.speed
    env.acceleration = kinematics.limit_acceleration(env.acceleration, env.speed)
    if env.steering == 0.0 and env.heading == 0.0 and not env.pushed:
        env.x += env.speed * DT  # the general case with every cosine 1 and every sine 0
    else:
        beta = math.atan(0.5 * math.tan(env.steering))
        env.x += env.speed * math.cos(env.heading + beta) * DT
        env.y += env.speed * math.sin(env.heading + beta) * DT
        if env.pushed:
            env.x += env.push_x
            env.y += env.push_y
            env.crashed, env.pushed = 1, 0
        env.heading += env.speed * math.sin(beta) / (CAR_LENGTH / 2) * DT
        env.lane = kinematics.closest_lane(env.y, env.heading, p.lanes)
    env.speed += env.acceleration * DT


@kernel
def _advance(x, v, a):
    for c in range(x.size):
        x[c] += v[c] * DT
        v[c] += a[c] * DT


@kernel
def _advance_hit(cars):
    """As `_advance`, with crashed cars braking and pending pushes applied."""
    for c in range(cars.shape[1]):
        if cars[CRASHED, c]:
            cars[A, c] = -1.0 * cars[V, c]
        cars[X, c] += cars[V, c] * DT
        if cars[PUSHED, c]:
            cars[X, c] += cars[PUSH_X, c]
            cars[Y, c] += cars[PUSH_Y, c]
            cars[PUSHED, c], cars[CRASHED, c] = 0.0, 1.0
        cars[V, c] += cars[A, c] * DT


@kernel
def _collide(env, cars, p):
    """Contacts of the ego with all cars, in list order. Returns whether there was one."""
    reach = CONTACT_RANGE + env.speed * DT
    contact = False
    if env.disorder:
        for c in range(cars.shape[1]):
            contact |= _collide_with(env, cars, c, reach)
        return contact
    sine = abs(math.sin(env.heading)) if env.heading != 0.0 else 0.0
    # Half widths along y of both boxes plus the ego's motion: beyond that the y axis separates them, now and soon.
    side = CAR_WIDTH / 2 + (CAR_WIDTH / 2 + CAR_LENGTH / 2 * sine) + abs(env.speed) * sine * DT + 1e-6
    for lane in range(p.lanes):
        if abs(lane * LANE_WIDTH - env.y) > side:
            continue
        start, end = lane * p.cars, (lane + 1) * p.cars
        c = last_at_or_behind(cars[X], start, end, env.x - reach - 1e-6) + 1
        while c < end and cars[X, c] <= env.x + reach + 1e-6:
            contact |= _collide_with(env, cars, c, reach)
            c += 1
    return contact


@kernel
def _collide_with(env, cars, c, reach):
    """Contact of the ego with car c; a later contact overwrites the ego's push, as in highway-env."""
    dx, dy = cars[X, c] - env.x, cars[Y, c] - env.y
    if math.sqrt(dx * dx + dy * dy) > reach:
        return False
    cosine, sine = math.cos(env.heading), math.sin(env.heading)
    now, soon, push_x, push_y = kinematics.rectangles_collide(
        env.x,
        env.y,
        cosine,
        sine,
        env.speed * cosine,
        env.speed * sine,
        cars[X, c],
        cars[Y, c],
        1.0,
        0.0,
        cars[V, c],
        0.0,
        CAR_LENGTH / 2,
        CAR_WIDTH / 2,
        DT,
    )
    if soon:
        env.push_x, env.push_y, env.pushed = push_x / 2, push_y / 2, 1
        cars[PUSH_X, c], cars[PUSH_Y, c], cars[PUSHED, c] = -push_x / 2, -push_y / 2, 1.0
    if now:
        env.crashed = 1
        cars[CRASHED, c] = 1.0
    return now or soon


@kernel
def substep(env, cars, p, set_points, action):
    _ego_act(env, p, set_points, action)
    if env.disorder:
        _traffic_scan(env, cars, p)
        _ego_move(env, p)
        _advance_hit(cars)
    else:
        _traffic_rows(env, cars, p)
        _ego_move(env, p)
        _advance(cars[X], cars[V], cars[A])
        if not in_order(cars[X], p.cars):
            env.disorder = 1
    if _collide(env, cars, p):
        env.disorder = 1
