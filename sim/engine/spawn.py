"""Starts of episodes, drawn as highway-env draws them from the same random stream (highway-env 1.12, `envs/`)."""

from __future__ import annotations

import math

from sim.compiled import kernel
from sim.engine import physics, roads
from sim.engine.records import nth
from sim.engine.rng import next_below, next_double, next_normal
from sim.engine.traffic import place, settle

HIGHWAY, TWO_WAY, MERGE, MERGE_GENERIC, EXIT = range(5)
"""Families of worlds: what is spawned, what is rewarded and when an episode ends."""

EGO_SPEED = 25.0
MERGE_TRAFFIC = ((90.0, 29.0), (70.0, 31.0), (5.0, 31.5))
"""(position, speed) around which the cars of `merge` are drawn."""
SPAWN_TRIES = 10
SPAWN_DISTANCE = 15.0


@kernel
def reset_world(w, ego, lanes, p):
    """Draw a world from its stream."""
    w.vehicles = 0
    if p.family == HIGHWAY:
        _spawn_highway(w, ego, lanes, p)
    elif p.family == TWO_WAY:
        _spawn_two_way(w, ego, lanes)
    elif p.family == MERGE:
        _spawn_merge(w, ego, lanes, p)
    elif p.family == MERGE_GENERIC:
        _spawn_merge_generic(w, ego, lanes, p)
    else:
        _spawn_exit(w, ego, lanes, p)
    w.bodies = w.vehicles
    if p.family in (MERGE, MERGE_GENERIC):
        place(nth(ego, w.bodies), lanes, p.obstacle_x, p.obstacle_y, 0.0, 0.0)
        w.bodies += 1
    settle(w, ego)
    w.speed_index = physics.speed_index(ego.speed, p.speeds[: p.set_points])
    ego.target_speed = p.speeds[w.speed_index]
    w.range_y = physics.LANE_WIDTH * nth(lanes, ego.lane).count
    w.time = w.episode_return = w.speed_sum = w.distance = 0.0
    w.steps = w.lane_changes = w.outcome = w.terminated = w.truncated = 0


@kernel
def _add(w, ego, lanes, n, s, speed):
    """One more vehicle, `s` metres along lane n."""
    body, lane = nth(ego, w.vehicles), nth(lanes, n)
    x, y = roads.position(lane, s, 0.0)
    place(body, lanes, x, y, roads.heading_at(lane, s), speed)
    w.vehicles += 1
    return body


@kernel
def _behind_the_last(w, ego, lane, offset):
    """Where `Vehicle.create_random` puts the next vehicle: `offset` metres, more or less, beyond the foremost one."""
    s = -math.inf
    for i in range(w.vehicles):
        other = nth(ego, i)
        s = max(s, roads.along(lane, other.x, other.y))
    if w.vehicles == 0:
        s = 3 * offset
    return s + offset * uniform(0.9, 1.1, w.stream)


@kernel
def uniform(low, high, stream):
    """`Generator.uniform`."""
    return low + (high - low) * next_double(stream)


@kernel
def _spacing(spacing, speed, crowding):
    return spacing * (12 + 1.0 * speed) * crowding


@kernel
def _spawn_highway(w, ego, lanes, p):
    n = p.initial_lane if p.initial_lane >= 0 else next_below(w.stream, p.lanes)
    offset = _spacing(p.ego_spacing, EGO_SPEED, p.crowding)
    _add(w, ego, lanes, n, _behind_the_last(w, ego, nth(lanes, n), offset), EGO_SPEED)
    for _ in range(p.others):
        n = next_below(w.stream, p.lanes)
        speed = uniform(0.7 * lanes.speed_limit, 0.8 * lanes.speed_limit, w.stream)
        offset = _spacing(p.spacing, speed, p.crowding)
        body = _add(w, ego, lanes, n, _behind_the_last(w, ego, nth(lanes, n), offset), speed)
        body.delta = uniform(3.5, 4.5, w.stream)
        body.checks = 0 if p.only_ego_checks else 1


@kernel
def _spawn_two_way(w, ego, lanes):
    """Lanes 0 and 1 lead one way, lane 2 the other."""
    _add(w, ego, lanes, 1, 30.0, 30.0)
    for k in range(5):
        oncoming = k >= 3
        start = 200.0 + 100.0 * float(k - 3) if oncoming else 70.0 + 40.0 * float(k)
        s = start + 10.0 * next_normal(w.stream)
        speed = 20.0 + 5.0 * next_normal(w.stream) if oncoming else 24.0 + 2.0 * next_normal(w.stream)
        body = _add(w, ego, lanes, 2 if oncoming else 1, s, speed)
        body.changes = 0
        if oncoming:
            body.target = 2


@kernel
def _spawn_merge(w, ego, lanes, p):
    _add(w, ego, lanes, p.main + 1, 30.0, 30.0)
    for start, speed in MERGE_TRAFFIC:
        n = p.main + next_below(w.stream, 2)
        s = start + uniform(-5.0, 5.0, w.stream)
        _add(w, ego, lanes, n, s, speed + uniform(-1.0, 1.0, w.stream))
    _spawn_merging(w, ego, lanes, p.ramp, 110.0)


@kernel
def _spawn_merging(w, ego, lanes, n, s):
    body = _add(w, ego, lanes, n, s, 20.0)
    body.target_speed = 30.0


@kernel
def _spawn_merge_generic(w, ego, lanes, p):
    _add(w, ego, lanes, p.main + p.lanes - 1, 30.0, 30.0)
    for _ in range(p.others):
        for _ in range(SPAWN_TRIES):
            n = p.main + next_below(w.stream, p.lanes)
            s = uniform(0.0, p.spawn_end, w.stream)
            free = True
            for i in range(w.vehicles):
                other = nth(ego, i)
                free &= other.y != nth(lanes, n).y or abs(s - other.x) > SPAWN_DISTANCE
            if free:
                _add(w, ego, lanes, n, s, 30.0 + uniform(-2.0, 2.0, w.stream))
                break
    _spawn_merging(w, ego, lanes, p.ramp, 60.0)


@kernel
def _spawn_exit(w, ego, lanes, p):
    offset = _spacing(p.ego_spacing, EGO_SPEED, p.crowding)
    _add(w, ego, lanes, 0, _behind_the_last(w, ego, nth(lanes, 0), offset), EGO_SPEED)
    for _ in range(p.others):
        share = next_double(w.stream)
        n = 0
        while p.shares[n] <= share:
            n += 1
        speed = nth(lanes, n).speed_limit
        offset = _spacing(p.spacing, speed, p.crowding)
        body = _add(w, ego, lanes, n, _behind_the_last(w, ego, nth(lanes, n), offset), speed)
        body.changes = 0
        body.route = body.lane
