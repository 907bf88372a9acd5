"""TimeToCollision: when which speed in which lane would lead to a contact (highway-env 1.12, `finite_mdp.py`)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces

from sim import kinematics
from sim.compiled import kernel
from sim.engine import roads
from sim.engine.records import Field, nth
from sim.engine.routes import connected_roads
from sim.sizes import CAR_LENGTH

NEIGHBOURING = 3
"""Lanes and speeds that the grid shows around the ego's own."""


def times(config: Any) -> int:
    """Decisions that the grid looks ahead."""
    return int(config.observation.get("horizon", 10) / (1 / config.policy_frequency))


def fields(config: Any) -> dict[str, Field]:
    return {"obs_times": ("i8", times(config))}


def space(config: Any) -> spaces.Box:
    """[0, 1], (speeds, lanes, times)."""
    return spaces.Box(0.0, 1.0, (NEIGHBOURING, NEIGHBOURING, times(config)), np.float32)


@kernel
def time_to_collision(env, ego, lanes, p, out):
    """`out` is (9, T): speeds and lanes around the ego's own, speed by speed; beside the road it is 1."""
    lane = nth(lanes, ego.lane)
    out[:] = 0.0
    for a in range(NEIGHBOURING):
        for b in range(NEIGHBOURING):
            if not 0 <= lane.id - 1 + b < lane.count:
                out[a * NEIGHBOURING + b] = 1.0
    s = roads.along(lane, ego.x, ego.y)
    connected = connected_roads(lanes, p, ego.lane, ego.route, ego.route_step)
    for a in range(NEIGHBOURING):
        ego_speed = p.speeds[min(max(env.speed_index - 1 + a, 0), p.set_points - 1)]
        for j in range(1, env.vehicles):
            body = nth(ego, j)
            other = nth(lanes, body.lane)
            if ego_speed == body.speed or not (connected >> np.uint64(other.road)) & np.uint64(1):
                continue
            gap = roads.along(lane, body.x, body.y) - s
            projected = body.speed * (body.cos * ego.cos + body.sin * ego.sin)
            closing = kinematics.not_zero(ego_speed - projected)
            alike = other.count == lane.count
            first, last = (other.id, other.id) if alike else (0, lane.count - 1)
            for point in range(3):
                ttc = (gap + (point == 1) * -CAR_LENGTH + (point == 2) * CAR_LENGTH) / closing
                if ttc < 0:
                    continue
                cost = 1.0 if point == 0 else 0.5
                for time in (math.floor(ttc / p.period), math.ceil(ttc / p.period)):
                    if not 0 <= time < p.obs_times:
                        continue
                    for n in range(first, last + 1):
                        b = n - lane.id + 1
                        if 0 <= b < NEIGHBOURING:
                            row = a * NEIGHBOURING + b
                            out[row, int(time)] = max(out[row, int(time)], np.float32(cost))
