"""Contacts between bodies, as highway-env takes them (highway-env 1.12, `vehicle/objects.py`).

Pairs are taken in lexicographic order of the list, because a later contact overwrites an earlier one. Kernel arguments
as in `sim.engine.bodies`.
"""

from __future__ import annotations

import math

import numpy as np

from sim import kinematics
from sim.compiled import kernel
from sim.engine.bodies import MOST_PAIRS, OBSTACLE_SIZE, listed, row_of
from sim.engine.records import nth
from sim.sizes import CAR_LENGTH, CAR_WIDTH

OBSTACLE_DIAGONAL = math.sqrt(OBSTACLE_SIZE**2 + OBSTACLE_SIZE**2)


@kernel
def _apart(body, other):
    """A cheap test that implies that two bodies do not touch, now or within the step: both along x, side by side."""
    return body.heading == 0.0 and other.heading == 0.0 and abs(body.y - other.y) > CAR_WIDTH + 1e-6


@kernel
def _contact(env, ego, i, j, dt):
    """handle_collisions of vehicle i with a later body j; a later contact overwrites a push."""
    body, other = nth(ego, i), nth(ego, j)
    obstacle = j >= env.vehicles
    diagonal = OBSTACLE_DIAGONAL if obstacle else kinematics.DIAGONAL
    dx, dy = other.x - body.x, other.y - body.y
    if math.sqrt(dx * dx + dy * dy) > (kinematics.DIAGONAL + diagonal) / 2 + body.speed * dt:
        return
    now, soon, push_x, push_y = kinematics.rectangles_collide(
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
        OBSTACLE_SIZE / 2 if obstacle else CAR_LENGTH / 2,
        OBSTACLE_SIZE / 2 if obstacle else CAR_WIDTH / 2,
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
def collide(env, ego, dt):
    """All contacts, in lexicographic order of the list; only bodies near each other in x are looked at."""
    reach = kinematics.DIAGONAL + env.fastest * dt + 1e-6
    count = 0
    for k in range(env.bodies - 1):
        i = np.int64(nth(ego, k).order)
        body = nth(ego, i)
        for q in range(k + 1, env.bodies):
            j = np.int64(nth(ego, q).order)
            other = nth(ego, j)
            if other.x - body.x > reach:
                break
            if _apart(body, other) or abs(other.y - body.y) > reach or not (body.checks or other.checks):
                continue
            if count == MOST_PAIRS:
                _collide_all(env, ego, dt)
                return
            a, b = listed(env, i), listed(env, j)
            pair, at = min(a, b) * env.bodies + max(a, b), count
            while at > 0 and env.pairs[at - 1] > pair:
                env.pairs[at] = env.pairs[at - 1]
                at -= 1
            env.pairs[at] = pair
            count += 1
    for k in range(count):
        i, j = env.pairs[k] // env.bodies, env.pairs[k] % env.bodies
        if i < env.vehicles:
            _contact(env, ego, row_of(env, i), row_of(env, j), dt)


@kernel
def _collide_all(env, ego, dt):
    """`collide` over every pair, for pile-ups."""
    for a in range(env.vehicles):
        for b in range(a + 1, env.bodies):
            i, j = row_of(env, a), row_of(env, b)
            if nth(ego, i).checks or nth(ego, j).checks:
                _contact(env, ego, i, j, dt)


@kernel
def collide_ego(env, ego, dt):
    """`collide` where only the ego checks, and is first in the list."""
    reach = kinematics.DIAGONAL + abs(ego.speed) * dt + 1e-6
    for j in range(1, env.bodies):
        other = nth(ego, j)
        if abs(other.x - ego.x) <= reach and not _apart(ego, other):
            _contact(env, ego, 0, j, dt)
