"""Starts of episodes: the worlds that highway-env draws from the same random stream (highway-env 1.12, `envs/*_env.py`)."""

from __future__ import annotations

import math

from numba import njit

from sim.engine import physics, roads
from sim.engine.rng import next_below, next_double, next_normal
from sim.engine.traffic import CHANGES, CHECKS, DELTA, LANE, ROUTE, TARGET, V_TARGET, C, V, X, Y, place, settle

HIGHWAY, TWO_WAY, MERGE, MERGE_GENERIC, EXIT = range(5)
"""Families of worlds: what is spawned, what is rewarded and when an episode ends."""

EGO_SPEED = 25.0
MERGE_TRAFFIC = ((90.0, 29.0), (70.0, 31.0), (5.0, 31.5))
"""(position, speed) around which the cars of `merge` are drawn."""
SPAWN_TRIES = 10
SPAWN_DISTANCE = 15.0


@njit(cache=True, error_model="numpy")
def reset_world(w, cars, tags, road, set_points, p, shares):
    """Draw a world from its stream. `shares` are the cumulative lane shares of `exit`."""
    w.vehicles = 0
    if p.family == HIGHWAY:
        _spawn_highway(w, cars, tags, road, p)
    elif p.family == TWO_WAY:
        _spawn_two_way(w, cars, tags, road)
    elif p.family == MERGE:
        _spawn_merge(w, cars, tags, road, p)
    elif p.family == MERGE_GENERIC:
        _spawn_merge_generic(w, cars, tags, road, p)
    else:
        _spawn_exit(w, cars, tags, road, p, shares)
    w.bodies = w.vehicles
    if p.family in (MERGE, MERGE_GENERIC):
        place(cars, tags, road, w.bodies, p.obstacle_x, p.obstacle_y, 0.0, 0.0)
        w.bodies += 1
    settle(w, cars, tags)
    w.speed_index = physics.speed_index(cars[V, 0], set_points)
    cars[V_TARGET, 0] = set_points[w.speed_index]
    w.range_y = physics.LANE_WIDTH * road.lanes[tags[LANE, 0]].count
    w.time = w.episode_return = w.speed_sum = w.distance = 0.0
    w.steps = w.lane_changes = w.outcome = w.terminated = w.truncated = 0


@njit(cache=True, error_model="numpy")
def _add(w, cars, tags, road, n, s, speed):
    """One more vehicle, `s` metres along lane n. Returns its number."""
    i = w.vehicles
    lane = road.lanes[n]
    x, y = roads.position(lane, s, 0.0)
    place(cars, tags, road, i, x, y, roads.heading_at(lane, s), speed)
    w.vehicles += 1
    return i


@njit(cache=True, error_model="numpy")
def _behind_the_last(w, cars, road, n, offset, stream):
    """Where `Vehicle.create_random` puts the next vehicle: `offset` metres, more or less, beyond the foremost one."""
    s = -math.inf
    for i in range(w.vehicles):
        s = max(s, roads.along(road.lanes[n], cars[X, i], cars[Y, i]))
    if w.vehicles == 0:
        s = 3 * offset
    return s + offset * uniform(0.9, 1.1, stream)


@njit(cache=True, error_model="numpy")
def uniform(low, high, stream):
    """`Generator.uniform`."""
    return low + (high - low) * next_double(stream)


@njit(cache=True, error_model="numpy")
def _spacing(spacing, speed, crowding):
    return spacing * (12 + 1.0 * speed) * crowding


@njit(cache=True, error_model="numpy")
def _spawn_highway(w, cars, tags, road, p):
    n = p.initial_lane if p.initial_lane >= 0 else next_below(w.stream, p.lanes)
    offset = _spacing(p.ego_spacing, EGO_SPEED, p.crowding)
    _add(w, cars, tags, road, n, _behind_the_last(w, cars, road, n, offset, w.stream), EGO_SPEED)
    limit = road.lanes[0].speed_limit
    for _ in range(p.others):
        n = next_below(w.stream, p.lanes)
        speed = uniform(0.7 * limit, 0.8 * limit, w.stream)
        offset = _spacing(p.spacing, speed, p.crowding)
        i = _add(w, cars, tags, road, n, _behind_the_last(w, cars, road, n, offset, w.stream), speed)
        cars[DELTA, i] = uniform(3.5, 4.5, w.stream)
        tags[CHECKS, i] = 0 if p.only_ego_checks else 1


@njit(cache=True, error_model="numpy")
def _spawn_two_way(w, cars, tags, road):
    """Lanes 0 and 1 lead one way, lane 2 the other."""
    _add(w, cars, tags, road, 1, 30.0, 30.0)
    for k in range(5):
        oncoming = k >= 3
        start = 200.0 + 100.0 * float(k - 3) if oncoming else 70.0 + 40.0 * float(k)
        s = start + 10.0 * next_normal(w.stream)
        speed = 20.0 + 5.0 * next_normal(w.stream) if oncoming else 24.0 + 2.0 * next_normal(w.stream)
        i = _add(w, cars, tags, road, 2 if oncoming else 1, s, speed)
        tags[CHANGES, i] = 0
        if oncoming:
            tags[TARGET, i] = 2


@njit(cache=True, error_model="numpy")
def _spawn_merge(w, cars, tags, road, p):
    _add(w, cars, tags, road, p.main + 1, 30.0, 30.0)
    for start, speed in MERGE_TRAFFIC:
        n = p.main + next_below(w.stream, 2)
        s = start + uniform(-5.0, 5.0, w.stream)
        _add(w, cars, tags, road, n, s, speed + uniform(-1.0, 1.0, w.stream))
    _spawn_merging(w, cars, tags, road, p.ramp, 110.0)


@njit(cache=True, error_model="numpy")
def _spawn_merging(w, cars, tags, road, n, s):
    i = _add(w, cars, tags, road, n, s, 20.0)
    cars[V_TARGET, i] = 30.0


@njit(cache=True, error_model="numpy")
def _spawn_merge_generic(w, cars, tags, road, p):
    _add(w, cars, tags, road, p.main + p.lanes - 1, 30.0, 30.0)
    for _ in range(p.others):
        for _ in range(SPAWN_TRIES):
            n = p.main + next_below(w.stream, p.lanes)
            s = uniform(0.0, p.spawn_end, w.stream)
            free = True
            for i in range(w.vehicles):
                same_lane = cars[Y, i] == road.lanes[n].y
                free &= not same_lane or abs(s - cars[X, i]) > SPAWN_DISTANCE
            if free:
                _add(w, cars, tags, road, n, s, 30.0 + uniform(-2.0, 2.0, w.stream))
                break
    _spawn_merging(w, cars, tags, road, p.ramp, 60.0)


@njit(cache=True, error_model="numpy")
def _spawn_exit(w, cars, tags, road, p, shares):
    offset = _spacing(p.ego_spacing, EGO_SPEED, p.crowding)
    _add(w, cars, tags, road, 0, _behind_the_last(w, cars, road, 0, offset, w.stream), EGO_SPEED)
    for _ in range(p.others):
        share = next_double(w.stream)
        n = 0
        while shares[n] <= share:
            n += 1
        speed = road.lanes[n].speed_limit
        offset = _spacing(p.spacing, speed, p.crowding)
        i = _add(w, cars, tags, road, n, _behind_the_last(w, cars, road, n, offset, w.stream), speed)
        tags[CHANGES, i] = 0
        tags[ROUTE, i] = tags[LANE, i]
