"""Engine family `lane-change`: the task of `sim.lane_change` as arrays and kernels.

A world is one record (ego, counters, random stream) and one block of car rows. Cars stand in highway-env's list order:
lane by lane from the left, each lane in ascending x. Traffic keeps its lane, so a car's leader is its right neighbour
in the row, and a simulation step is a few vector loops. Where that does not hold (cars overlap, or a contact has pushed
one sideways) the step falls back to `_traffic_scan`, highway-env's own search. Both give the same bits.

Kernel arguments: `w` the record, `cars` float64 (ROWS, C) with car c in lane c // cars-per-lane, `p` the parameters.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from gymnasium import spaces
from numba import prange

from sim import lane_change as task
from sim.actions import FULL, NUM_ACTIONS, MetaAction
from sim.compiled import kernel
from sim.engine import physics
from sim.engine.rng import STREAM, next_double
from sim.engine.world import World
from sim.lane_change import LaneChangeConfig
from sim.outcome import Outcome
from sim.scene import Ego, Goal, LaneShape, Scene, Vehicles
from sim.view import VIEW, Views, look, set_speeds

WORLD = np.dtype(
    [
        ("x", "f8"),
        ("y", "f8"),
        ("heading", "f8"),
        ("speed", "f8"),
        ("target_speed", "f8"),
        ("steering", "f8"),
        ("acceleration", "f8"),
        ("push_x", "f8"),  # displacement that the next simulation step adds after a contact
        ("push_y", "f8"),
        ("episode_return", "f8"),
        ("speed_sum", "f8"),
        ("distance", "f8"),
        ("min_ttc", "f8"),
        ("lane", "i8"),
        ("target_lane", "i8"),
        ("speed_index", "i8"),
        ("crashed", "i8"),
        ("pushed", "i8"),
        ("disorder", "i8"),  # cars overlap or were hit: leaders must be searched
        ("steps", "i8"),
        ("lane_changes", "i8"),
        ("outcome", "i8"),
        ("stream", "u8", STREAM),
    ],
    align=True,
)
"""One world but for its traffic."""

# Rows of the car block
X, Y, V, A, V_DESIRED, A_MAX, HEADWAY, TWO_ROOT_AB, PUSHED, CRASHED, PUSH_X, PUSH_Y = range(12)
ROWS = 12

RUNNING, SUCCESS, CRASH, MISSED = (int(outcome) for outcome in Outcome)
LEFT, RIGHT, FASTER, SLOWER = (
    int(action) for action in (MetaAction.LANE_LEFT, MetaAction.LANE_RIGHT, MetaAction.FASTER, MetaAction.SLOWER)
)
IDLE = int(MetaAction.IDLE)
DT = task.SIMULATION_STEP
CONTACT_RANGE = (physics.DIAGONAL + physics.DIAGONAL) / 2
PUBLISHED_ROWS = (X, V, A_MAX, HEADWAY)


class State(NamedTuple):
    worlds: np.ndarray
    """`WORLD` (N,)"""
    cars: np.ndarray
    """float64 (N, ROWS, C)"""

    @property
    def stream(self) -> np.ndarray:
        """uint64 (N, STREAM): PCG64 stream of each world."""
        return self.worlds["stream"]


def params_of(config: LaneChangeConfig) -> np.ndarray:
    """The config as one record for the kernels, in an array of one (parallel kernels take no bare records)."""
    weights = config.reward
    values: dict[str, tuple[str, float | bool]] = {
        "lanes": ("i8", config.lanes),
        "cars": ("i8", config.cars_per_lane),
        "cars_behind": ("i8", config.cars_behind),
        "start_lane": ("i8", config.start_lane),
        "goal_lane": ("i8", config.goal_lane),
        "time_limit": ("i8", config.time_limit),
        "substeps": ("i8", config.substeps),
        "period": ("f8", config.decision_period),
        "published": ("i8", config.layout == "published"),
        "random_phase": ("i8", config.phase == "random"),
        "start_x": ("f8", config.start_x),
        "start_speed": ("f8", config.start_speed),
        "goal_x": ("f8", config.goal_x),
        "goal_distance": ("f8", config.goal_distance),
        "slowest": ("f8", config.slowest),
        "fastest": ("f8", config.fastest),
        "crash": ("f8", weights.crash),
        "success": ("f8", weights.success),
        "missed": ("f8", weights.missed),
        "speed_weight": ("f8", weights.speed),
        "lane_gained": ("f8", weights.lane_gained),
        "lane_change": ("f8", weights.lane_change),
        "short_ttc": ("f8", weights.short_ttc),
    }
    for name in ("density", "traffic_speed", "traffic_acceleration", "traffic_headway"):
        low, high = getattr(config, name)
        values |= {f"{name}_low": ("f8", low), f"{name}_high": ("f8", high)}
    dtype = [(name, kind) for name, (kind, _) in values.items()]
    return np.array([tuple(value for _, value in values.values())], dtype=np.dtype(dtype, align=True))


# --- reset -----------------------------------------------------------------------------------------------------------


@kernel
def _reset_world(w, cars, p, set_points, published):
    """Start a world: same order of draws as `sim.lane_change.draw_traffic`."""
    w.x, w.y, w.heading, w.speed = p.start_x, p.start_lane * physics.LANE_WIDTH, 0.0, p.start_speed
    w.lane = w.target_lane = p.start_lane
    w.speed_index = physics.speed_index(p.start_speed, set_points)
    w.target_speed = set_points[w.speed_index]
    w.steering = w.acceleration = w.push_x = w.push_y = 0.0
    w.crashed = w.pushed = w.steps = w.lane_changes = 0
    w.outcome = RUNNING
    w.episode_return = w.speed_sum = w.distance = 0.0
    cars[:] = 0.0
    if p.published:
        for row in range(len(PUBLISHED_ROWS)):
            cars[PUBLISHED_ROWS[row]] = published[row]
    else:
        _draw_traffic(cars, p, w.stream)
    for c in range(cars.shape[1]):
        cars[Y, c] = (c // p.cars) * physics.LANE_WIDTH
        cars[V_DESIRED, c] = cars[V, c]
        cars[TWO_ROOT_AB, c] = 2 * math.sqrt(-cars[A_MAX, c] * -task.IDM_DECELERATION)
    w.disorder = 0 if _in_order(cars[X], p.cars) else 1
    _, w.min_ttc = _front_gap_ttc(w, cars, p, w.lane)


@kernel
def _draw_traffic(cars, p, stream):
    density = p.density_low
    if p.density_high > p.density_low:
        density = p.density_low + (p.density_high - p.density_low) * next_double(stream)
    mean_spacing = 1000.0 / density
    for lane in range(p.lanes):
        spacing = mean_spacing * (0.9 + 0.2 * next_double(stream))
        phase = spacing * next_double(stream) if p.random_phase else 0.0
        if lane == p.start_lane:
            phase = 0.0
        for k in range(p.cars):
            c = lane * p.cars + k
            slot = float(k - p.cars_behind)
            if lane == p.start_lane and k >= p.cars_behind:
                slot += 1.0
            jitter = next_double(stream)
            cars[X, c] = p.start_x + (slot * spacing + phase) + 0.1 * mean_spacing * (2.0 * jitter - 1.0)
            cars[V, c] = _within(p.traffic_speed_low, p.traffic_speed_high, stream)
            cars[A_MAX, c] = _within(p.traffic_acceleration_low, p.traffic_acceleration_high, stream)
            cars[HEADWAY, c] = _within(p.traffic_headway_low, p.traffic_headway_high, stream)


@kernel
def _within(low, high, stream):
    return low + (high - low) * next_double(stream)


@kernel
def _in_order(x, per_lane):
    """Whether every lane's cars are in strictly ascending x."""
    ordered = True
    for start in range(0, x.size, per_lane):
        for c in range(start, start + per_lane - 1):
            ordered &= x[c] < x[c + 1]
    return ordered


# --- one simulation step ---------------------------------------------------------------------------------------------


@kernel
def _idm(cars, c, distance, dv):
    """IDM acceleration of car c, clipped; `distance` = inf on a free road, `dv` its speed less the leader's."""
    v, a_max = cars[V, c], cars[A_MAX, c]
    ratio = max(v, 0.0) / cars[V_DESIRED, c]
    a = a_max * (1 - (ratio * ratio) * (ratio * ratio))
    if distance < math.inf:
        gap = task.IDM_JAM_DISTANCE + v * cars[HEADWAY, c] + v * dv / cars[TWO_ROOT_AB, c]
        closeness = gap / physics.not_zero(distance)
        a -= a_max * (closeness * closeness)
    return physics.clip(a, -task.TRAFFIC_ACCELERATION_LIMIT, task.TRAFFIC_ACCELERATION_LIMIT)


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
def _traffic_rows(w, cars, p):
    """Accelerations where all lanes are in order and nobody was hit.

    The first car of each lane and the ego's follower have another leader than their right neighbour: computed again.
    """
    _follow_right_neighbour(cars[X], cars[V], cars[V_DESIRED], cars[A_MAX], cars[HEADWAY], cars[TWO_ROOT_AB], cars[A])
    ego_vx = w.speed if w.heading == 0.0 else w.speed * math.cos(w.heading)
    for lane in range(p.lanes):
        start, end = lane * p.cars, (lane + 1) * p.cars
        cars[A, end - 1] = _idm(cars, end - 1, math.inf, 0.0)
        if physics.on_lane(w.y, lane):
            c = _last_at_or_behind(cars[X], start, end, w.x)
            if c >= start:
                cars[A, c] = _idm(cars, c, w.x - cars[X, c], cars[V, c] - ego_vx)


@kernel
def _last_at_or_behind(x, start, end, position):
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
def _traffic_scan(w, cars, p):
    """Accelerations by highway-env's search: nearest at or ahead of a car, equal ones to the last in the list.

    Cars that were not hit are on their own lane only: a car looks at its lane, the ego, and those that were hit.
    """
    x, y, v = cars[X], cars[Y], cars[V]
    hit = np.flatnonzero(cars[CRASHED])
    for lane in range(p.lanes):
        ego_here = physics.on_lane(w.y, lane)
        start, end = lane * p.cars, (lane + 1) * p.cars
        for c in range(start, end):
            if cars[CRASHED, c]:
                continue
            front_x, front_vx = math.inf, 0.0
            if ego_here and x[c] <= w.x:
                front_x, front_vx = w.x, w.speed * math.cos(w.heading)
            for k in range(hit.size):
                other = hit[k]
                if other < start and x[c] <= x[other] <= front_x and physics.on_lane(y[other], lane):
                    front_x, front_vx = x[other], v[other]
            for other in range(start, end):
                if other != c and x[c] <= x[other] <= front_x and physics.on_lane(y[other], lane):
                    front_x, front_vx = x[other], v[other]
            for k in range(hit.size):
                other = hit[k]
                if other >= end and x[c] <= x[other] <= front_x and physics.on_lane(y[other], lane):
                    front_x, front_vx = x[other], v[other]
            cars[A, c] = _idm(cars, c, front_x - x[c], v[c] - front_vx)


@kernel
def _ego_act(w, p, set_points, action):
    """The meta-action (IDLE after the first simulation step) and the two servos."""
    if action in (LEFT, RIGHT):
        step = 1 if action == RIGHT else -1
        target = min(max(w.target_lane + step, 0), p.lanes - 1)
        if abs(w.y - target * physics.LANE_WIDTH) <= physics.REACHABLE:
            w.target_lane = target
    elif action in (FASTER, SLOWER):
        step = 1 if action == FASTER else -1
        index = physics.speed_index(w.speed, set_points) + step
        w.speed_index = min(max(index, 0), set_points.size - 1)
        w.target_speed = set_points[w.speed_index]
    lateral = w.y - w.target_lane * physics.LANE_WIDTH
    w.steering = physics.steering_to(lateral, 0.0, w.heading, w.speed, task.KP_LATERAL, task.KP_HEADING)
    w.acceleration = task.KP_SPEED * (w.target_speed - w.speed)


@kernel
def _ego_move(w, p):
    """Kinematic bicycle, explicit Euler with the old speed and heading; a pending push makes it crashed."""
    if w.crashed:
        w.steering, w.acceleration = 0.0, -1.0 * w.speed
    w.acceleration = physics.limit_acceleration(w.acceleration, w.speed)
    if w.steering == 0.0 and w.heading == 0.0 and not w.pushed:
        w.x += w.speed * DT  # the general case with every cosine 1 and every sine 0
    else:
        beta = math.atan(0.5 * math.tan(w.steering))
        w.x += w.speed * math.cos(w.heading + beta) * DT
        w.y += w.speed * math.sin(w.heading + beta) * DT
        if w.pushed:
            w.x += w.push_x
            w.y += w.push_y
            w.crashed, w.pushed = 1, 0
        w.heading += w.speed * math.sin(beta) / (physics.LENGTH / 2) * DT
        w.lane = physics.closest_lane(w.y, w.heading, p.lanes)
    w.speed += w.acceleration * DT


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
def _collide(w, cars, p):
    """Contacts of the ego with all cars, in list order. Returns whether there was one."""
    reach = CONTACT_RANGE + w.speed * DT
    contact = False
    if w.disorder:
        for c in range(cars.shape[1]):
            contact |= _collide_with(w, cars, c, reach)
        return contact
    sine = abs(math.sin(w.heading)) if w.heading != 0.0 else 0.0
    # Half widths along y of both boxes plus the ego's motion: beyond that the y axis separates them, now and soon.
    side = 1.0 + (1.0 + 2.5 * sine) + abs(w.speed) * sine * DT + 1e-6
    for lane in range(p.lanes):
        if abs(lane * physics.LANE_WIDTH - w.y) > side:
            continue
        start, end = lane * p.cars, (lane + 1) * p.cars
        c = _last_at_or_behind(cars[X], start, end, w.x - reach - 1e-6) + 1
        while c < end and cars[X, c] <= w.x + reach + 1e-6:
            contact |= _collide_with(w, cars, c, reach)
            c += 1
    return contact


@kernel
def _collide_with(w, cars, c, reach):
    """Contact of the ego with car c; a later contact overwrites the ego's push, as in highway-env."""
    dx, dy = cars[X, c] - w.x, cars[Y, c] - w.y
    if math.sqrt(dx * dx + dy * dy) > reach:
        return False
    cosine, sine = math.cos(w.heading), math.sin(w.heading)
    now, soon, push_x, push_y = physics.rectangles_collide(
        w.x,
        w.y,
        cosine,
        sine,
        w.speed * cosine,
        w.speed * sine,
        cars[X, c],
        cars[Y, c],
        1.0,
        0.0,
        cars[V, c],
        0.0,
        physics.LENGTH / 2,
        physics.WIDTH / 2,
        DT,
    )
    if soon:
        w.push_x, w.push_y, w.pushed = push_x / 2, push_y / 2, 1
        cars[PUSH_X, c], cars[PUSH_Y, c], cars[PUSHED, c] = -push_x / 2, -push_y / 2, 1.0
    if now:
        w.crashed = 1
        cars[CRASHED, c] = 1.0
    return now or soon


@kernel
def _substep(w, cars, p, set_points, action):
    _ego_act(w, p, set_points, action)
    if w.disorder:
        _traffic_scan(w, cars, p)
        _ego_move(w, p)
        _advance_hit(cars)
    else:
        _traffic_rows(w, cars, p)
        _ego_move(w, p)
        _advance(cars[X], cars[V], cars[A])
        if not _in_order(cars[X], p.cars):
            w.disorder = 1
    if _collide(w, cars, p):
        w.disorder = 1


# --- one decision ----------------------------------------------------------------------------------------------------


@kernel
def _neighbour(w, cars, p, lane, ahead):
    """Nearest car ahead of or behind the ego on `lane` by highway-env's tie rules, or -1."""
    x = cars[X]
    if w.disorder:
        return _search_neighbour(w.x, x, cars[Y], lane, ahead)
    start, end = lane * p.cars, (lane + 1) * p.cars
    c = _last_at_or_behind(x, start, end, w.x)
    level = c >= start and x[c] == w.x
    if ahead:
        front = c if level else c + 1
        return front if front < end else -1
    rear = c - 1 if level else c
    return rear if rear >= start else -1


@kernel
def _search_neighbour(ego_x, x, y, lane, ahead):
    """`_neighbour` over every car, wherever it has been pushed."""
    best, best_distance = -1, math.inf
    for c in range(x.size):
        if physics.on_lane(y[c], lane):
            dx = x[c] - ego_x
            if ahead and 0 <= dx <= best_distance:
                best, best_distance = c, dx
            elif not ahead and dx < 0 and -dx < best_distance:
                best, best_distance = c, -dx
    return best


@kernel
def _front_gap_ttc(w, cars, p, lane):
    """Bumper gap (m) and time-to-collision (s) to the car ahead on `lane`; both inf when there is none."""
    c = _neighbour(w, cars, p, lane, True)
    if c < 0:
        return math.inf, math.inf
    gap = cars[X, c] - w.x - physics.LENGTH
    closing = w.speed - cars[V, c]
    return gap, (max(gap, 0.0) / closing if closing > 0 else math.inf)


@kernel
def _decide(w, cars, p, set_points, action):
    """One decision: its simulation steps, outcome, reward, statistics. Returns the reward."""
    old_lane, old_target, old_x, old_y = w.lane, w.target_lane, w.x, w.y
    for substep in range(p.substeps):
        _substep(w, cars, p, set_points, action if substep == 0 else IDLE)
    w.steps += 1
    if w.crashed:
        w.outcome = CRASH
    elif w.x >= p.goal_x:
        w.outcome = SUCCESS if w.lane == p.goal_lane else MISSED
    elif w.steps >= p.time_limit:
        w.outcome = MISSED
    changed = w.target_lane != old_target
    _, ttc = _front_gap_ttc(w, cars, p, w.lane)
    gained = abs(p.goal_lane - old_lane) - abs(p.goal_lane - w.lane)
    reward = (
        (p.crash if w.outcome == CRASH else 0.0)
        + (p.success if w.outcome == SUCCESS else 0.0)
        + (p.missed if w.outcome == MISSED else 0.0)
        + p.speed_weight * ((w.speed - p.slowest) / (p.fastest - p.slowest))
        + p.lane_gained * gained
        + (p.lane_change if changed else 0.0)
        + (p.short_ttc if ttc < task.TTC_WARNING else 0.0)
    )
    w.lane_changes += 1 if w.lane != old_lane else 0
    w.distance += math.sqrt((w.x - old_x) ** 2 + (w.y - old_y) ** 2)
    w.episode_return += reward
    w.speed_sum += w.speed
    w.min_ttc = min(w.min_ttc, ttc)
    return reward


@kernel
def _unit(x):
    return np.float32(min(max(x, -1.0), 1.0))


@kernel
def _observe(w, cars, p, set_points, obs):
    """float32 (29,), see `sim.lane_change`."""
    obs[0] = _unit(w.lane / (p.lanes - 1))
    obs[1] = _unit(w.speed / p.fastest)
    obs[2] = _unit((p.goal_lane - w.lane) / (p.lanes - 1))
    obs[3] = _unit((p.goal_x - w.x) / p.goal_distance)
    obs[4] = _unit(w.speed_index / (set_points.size - 1))
    at = 5
    for side in (0, -1, 1):
        lane = w.lane + side
        for ahead in (True, False):
            c = _neighbour(w, cars, p, lane, ahead) if 0 <= lane < p.lanes else -1
            if c >= 0:
                obs[at] = 1.0
                obs[at + 1] = _unit((cars[X, c] - w.x) / 100.0)
                obs[at + 2] = _unit((cars[V, c] - w.speed) / 20.0)
                obs[at + 3] = _unit(cars[A, c] / 2.0)
            else:
                obs[at], obs[at + 1] = 0.0, 1.0 if ahead else -1.0
                obs[at + 2] = obs[at + 3] = 0.0
            at += 4


@kernel
def _masks(w, p, set_points, mask):
    """Legal actions by highway-env's rule: lanes from the present lane, speeds from the present set-point."""
    mask[LEFT] = w.lane > 0
    mask[IDLE] = True
    mask[RIGHT] = w.lane < p.lanes - 1
    mask[FASTER] = w.speed_index < set_points.size - 1
    mask[SLOWER] = w.speed_index > 0


# --- batches ---------------------------------------------------------------------------------------------------------


@kernel
def _step_one(w, cars, p, set_points, action, obs, mask):
    reward = _decide(w, cars, p, set_points, action)
    _observe(w, cars, p, set_points, obs)
    _masks(w, p, set_points, mask)
    return reward


@kernel
def _step_serial(worlds, cars, params, set_points, actions, rewards, outcomes, obs, masks):
    for i in range(actions.size):
        rewards[i] = _step_one(worlds[i], cars[i], params[0], set_points, actions[i], obs[i], masks[i])
        outcomes[i] = worlds[i].outcome


@kernel(parallel=True)
def _step_parallel(worlds, cars, params, set_points, actions, rewards, outcomes, obs, masks):
    for i in prange(actions.size):
        rewards[i] = _step_one(worlds[i], cars[i], params[0], set_points, actions[i], obs[i], masks[i])
        outcomes[i] = worlds[i].outcome


@kernel
def _reset_rows(worlds, cars, params, set_points, published, rows, obs, masks):
    p = params[0]
    for i in rows:
        _reset_world(worlds[i], cars[i], p, set_points, published)
        _observe(worlds[i], cars[i], p, set_points, obs[i])
        _masks(worlds[i], p, set_points, masks[i])


@kernel
def _roll_out(worlds, cars, params, set_points, plans, rewards, steps, final):
    """Play plans[b] in world b until it ends; worlds that ended stay as they are."""
    p = params[0]
    for b in range(plans.shape[0]):
        w = worlds[b]
        for h in range(plans.shape[1]):
            if w.outcome != RUNNING:
                break
            rewards[b, h] = _decide(w, cars[b], p, set_points, plans[b, h])
            steps[b] += 1
        final[b, 0], final[b, 1], final[b, 2], final[b, 3], final[b, 4] = w.x, w.y, w.lane, w.target_lane, w.speed
        final[b, 5], _ = _front_gap_ttc(w, cars[b], p, w.target_lane)


@kernel
def _views(worlds, cars, params, set_points, rows, centers, headings, lengths, views):
    p = params[0]
    for k in range(rows.size):
        w, traffic = worlds[rows[k]], cars[rows[k]]
        ego = (w.x, w.y, w.speed, w.heading, physics.LENGTH)
        lanes = (w.lane, w.target_lane, p.goal_lane)
        look(views[k], ego, lanes, centers, task.LANE_WIDTH, traffic[X], traffic[Y], traffic[V], headings, lengths)
        set_speeds(views[k], w.speed_index, set_points, p.period)


class LaneChangeWorld(World):
    """N lane-change worlds in one process."""

    family = "lane-change"
    num_actions = NUM_ACTIONS
    observation_space = spaces.Box(-1.0, 1.0, (task.OBSERVATION_SIZE,), np.float32)
    state: State

    def __init__(self, config: LaneChangeConfig, num_envs: int, threads: int = 1) -> None:
        self.config = config
        self.decision_frequency = config.decision_frequency
        self.substeps = config.substeps
        self.params = params_of(config)
        self.set_points = config.speeds
        self._set_points = tuple(self.set_points.tolist())
        self._shapes = _lane_shapes(config.lanes)
        count = config.lanes * config.cars_per_lane
        self._centers = np.arange(config.lanes) * task.LANE_WIDTH
        self._headings, self._lengths = np.zeros(count), np.full(count, physics.LENGTH)
        traffic = task.draw_traffic(config, np.random.default_rng(0))
        self._published = np.stack(
            [values.ravel() for values in (traffic.x, traffic.speed, traffic.acceleration, traffic.headway)]
        )
        super().__init__(num_envs, threads)

    def allocate(self, num_envs: int) -> State:
        count = self.config.lanes * self.config.cars_per_lane
        return State(np.zeros(num_envs, WORLD), np.zeros((num_envs, ROWS, count)))

    def _reset(self, rows: np.ndarray) -> None:
        _reset_rows(*self.state, self.params, self.set_points, self._published, rows, self.obs, self.masks)

    def _step(self, actions: np.ndarray) -> None:
        step = _step_parallel if self.parallel else _step_serial
        buffers = (self.rewards, self.outcomes, self.obs, self.masks)
        step(*self.state, self.params, self.set_points, actions, *buffers)
        np.not_equal(self.outcomes, RUNNING, out=self.terminated)  # its time limit is part of the task

    def _roll_out(
        self, state: State, plans: np.ndarray, rewards: np.ndarray, steps: np.ndarray, final: np.ndarray
    ) -> np.ndarray:
        _roll_out(*state, self.params, self.set_points, plans, rewards, steps, final)
        return state.worlds["outcome"][: len(plans)]

    def views(self, rows: np.ndarray) -> Views:
        found = np.zeros(len(rows), VIEW)
        _views(*self.state, self.params, self.set_points, rows, self._centers, self._headings, self._lengths, found)
        return Views(found, FULL)

    @property
    def vehicles(self) -> float:
        return 1.0 + self.state.cars.shape[2]

    @property
    def speeds(self) -> np.ndarray:
        return self.state.worlds["speed"]

    @property
    def crashed(self) -> np.ndarray:
        return self.state.worlds["crashed"] > 0

    def scene(self, i: int) -> Scene:
        config, w, cars = self.config, self.state.worlds[i], self.state.cars[i].copy()
        x, y, count = cars[X], cars[Y], cars.shape[1]
        return Scene(
            scenario="lane-change",
            time=float(w["steps"]) * config.decision_period,
            decision_period=config.decision_period,
            ego=Ego(
                x=float(w["x"]),
                y=float(w["y"]),
                heading=float(w["heading"]),
                speed=float(w["speed"]),
                s=float(w["x"]),
                d=float(w["y"]),
                lane=int(w["lane"]),
                target_lane=int(w["target_lane"]),
                speed_index=int(w["speed_index"]),
                acceleration=float(w["acceleration"]),
                crashed=bool(w["crashed"]),
            ),
            vehicles=Vehicles(
                ids=np.arange(1, count + 1),
                x=x,
                y=y,
                heading=np.zeros(count),
                speed=cars[V],
                acceleration=cars[A],
                s=x,
                d=y,
                lane=np.clip(np.rint(y / task.LANE_WIDTH), 0, config.lanes - 1).astype(np.int64),
                length=np.full(count, physics.LENGTH),
                width=np.full(count, physics.WIDTH),
                crashed=cars[CRASHED] > 0,
            ),
            lane_centers=tuple(lane * task.LANE_WIDTH for lane in range(config.lanes)),
            lane_width=task.LANE_WIDTH,
            set_points=self._set_points,
            legal=self.masks[i].copy(),
            goal=Goal(config.goal_lane, config.goal_x, config.goal_x - float(w["x"])),
            shapes=self._shapes,
        )


def _lane_shapes(lanes: int) -> tuple[LaneShape, ...]:
    return tuple(
        LaneShape(
            center=np.array([[0.0, lane * task.LANE_WIDTH], [10_000.0, lane * task.LANE_WIDTH]]),
            width=task.LANE_WIDTH,
            left="solid" if lane == 0 else "broken",
            right="solid" if lane == lanes - 1 else "broken",
        )
        for lane in range(lanes)
    )
