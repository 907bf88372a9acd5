"""Placing bodies at the start of an episode, from the same random stream as highway-env (highway-env 1.12, `envs/`).

The families draw; these kernels put what they have drawn onto the road, as highway-env's constructors do. Kernel
arguments as in `sim.engine.bodies`.
"""

from __future__ import annotations

import math

from sim.compiled import kernel
from sim.engine import roads
from sim.engine.bodies import OBSTACLE_SIZE, place
from sim.engine.records import nth
from sim.engine.rng import next_double

EGO_SPEED = 25.0
"""m/s with which `Vehicle.create_random` starts the ego on a highway."""


@kernel
def uniform(low, high, stream):
    """`Generator.uniform`."""
    return low + (high - low) * next_double(stream)


@kernel
def clear(env):
    """Take all bodies off the road."""
    env.vehicles = env.bodies = env.place = env.road_steps = 0


@kernel
def add_vehicle(env, ego, lanes, n, s, speed):
    """One more vehicle, `s` metres along lane n; returns its record. Obstacles must follow all vehicles."""
    body, lane = nth(ego, env.vehicles), nth(lanes, n)
    x, y = roads.position(lane, s, 0.0)
    place(body, lanes, x, y, roads.heading_at(lane, s), speed)
    env.vehicles += 1
    env.bodies = env.vehicles
    return body


@kernel
def is_free(env, ego, x, y, distance):
    """Whether all vehicles keep a distance (m) from a point."""
    free = True
    for i in range(env.vehicles):
        free = free and not is_near(nth(ego, i), x, y, distance)
    return free


@kernel
def is_near(body, x, y, distance):
    """Whether a body is less than a distance (m) from a point."""
    dx, dy = body.x - x, body.y - y
    return math.sqrt(dx * dx + dy * dy) < distance


@kernel
def add_obstacle(env, ego, lanes, x, y):
    """One more obstacle, at a point."""
    body = nth(ego, env.bodies)
    place(body, lanes, x, y, 0.0, 0.0)
    body.length = body.width = OBSTACLE_SIZE
    env.bodies += 1


@kernel
def add_behind_the_last(env, ego, lanes, n, speed, spacing, crowding):
    """One more vehicle on lane n, as `Vehicle.create_random` puts it: at random distance beyond the foremost one.

    `spacing` scales the mean distance of 12 m + 1 s * speed, and so does `crowding`, the share by the number of lanes.
    """
    lane, offset = nth(lanes, n), spacing * (12 + 1.0 * speed) * crowding
    s = -math.inf
    for i in range(env.vehicles):
        other = nth(ego, i)
        s = max(s, roads.along(lane, other.x, other.y))
    if env.vehicles == 0:
        s = 3 * offset
    return add_vehicle(env, ego, lanes, n, s + offset * uniform(0.9, 1.1, env.stream), speed)


def crowding(lanes: int) -> float:
    """Share of the mean distance between vehicles on a road of so many lanes (`Vehicle.create_random`)."""
    return math.exp(-5 / 40 * lanes)
