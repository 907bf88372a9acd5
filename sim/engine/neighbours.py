"""Which bodies are ahead of and behind which, by highway-env's rules (highway-env 1.12, `road/road.py`).

One sweep over the bodies in the order of x answers most questions of a simulation step; the rest is searched nearby, or
over all bodies where lanes bend. All three give the same bits. Kernel arguments as in `sim.engine.bodies`.
"""

from __future__ import annotations

import math

import numpy as np

from sim.compiled import kernel
from sim.engine import roads
from sim.engine.bodies import MOST_SWEPT_LANES, UNKNOWN, listed, note_change, row_of
from sim.engine.records import nth
from sim.sizes import CAR_LENGTH, LANE_MARGIN

LEVEL = 1e-9
"""m of difference in x up to which rounding along a lane may make two bodies level."""


@kernel
def find_fronts(env, ego, lanes):
    """Find the body ahead of each one in its own lane and in those beside, by one sweep from the foremost to the last.

    Covers lanes that run along x; level bodies and other lanes are left UNKNOWN. Lists the vehicles that are changing
    lane on the way.
    """
    env.changers = 0
    if lanes.lanes > MOST_SWEPT_LANES or not lanes.sweeps:
        for i in range(env.bodies):
            body = nth(ego, i)
            body.front = body.front_left = body.front_right = UNKNOWN
            note_change(env, ego, i)
        return
    for n in range(lanes.lanes):
        env.ahead[n] = -1
    last = ego
    for k in range(env.bodies - 1, -1, -1):
        i = nth(ego, k).order
        body = nth(ego, i)
        lane = nth(lanes, body.lane)
        note_change(env, ego, i)
        body.front = body.front_left = body.front_right = UNKNOWN
        if lane.swept:
            n = body.lane
            body.front = env.ahead[n]
            body.front_left = env.ahead[max(n - 1, lane.first)]
            body.front_right = env.ahead[min(n + 1, lane.first + lane.count - 1)]
        seen = i
        if last.x - body.x <= LEVEL and k < env.bodies - 1:  # which of the two counts depends on the list
            body.front = body.front_left = body.front_right = UNKNOWN
            last.front = last.front_left = last.front_right = seen = UNKNOWN
        last = body
        s, lateral = roads.project(lane, body.x, body.y)
        alone = lane.clear - 1.5 * abs(lateral) > lane.width / 2 + LANE_MARGIN
        if alone and roads.END_ZONE < s < lane.length - roads.END_ZONE:
            env.ahead[body.lane] = seen
            continue
        for n in range(lanes.lanes):
            other = nth(lanes, n)
            s, lateral = roads.project(other, body.x, body.y)
            if roads.holds(other, s, lateral, LANE_MARGIN):
                env.ahead[n] = seen


@kernel
def front_in(env, ego, lanes, i, n):
    """`front_of`, from the result of the sweep where that is known."""
    body = nth(ego, i)
    front = UNKNOWN
    if n == body.lane:
        front = body.front
    elif n == body.lane - 1 and nth(lanes, body.lane).id > 0:
        front = body.front_left
    elif n == body.lane + 1 and nth(lanes, body.lane).id < nth(lanes, body.lane).count - 1:
        front = body.front_right
    return np.int64(front) if front != UNKNOWN else front_of(env, ego, lanes, i, n)


@kernel
def front_of(env, ego, lanes, i, n):
    """The nearest body at or ahead of body i along lane n, of equals the last in the list; -1 without one."""
    lane, body = nth(lanes, n), nth(ego, i)
    if lane.axis == 0 or lane.reach > 1:
        return _search(env, ego, lanes, i, n)[0]
    s = roads.along(lane, body.x, body.y)
    step, q, count = lane.axis, np.int64(body.rank), env.bodies
    while 0 <= q - step < count:  # others that are level with it
        other = nth(ego, nth(ego, q - step).order)
        if roads.along(lane, other.x, other.y) < s:
            break
        q -= step
    best, best_s = -1, math.inf
    half, end = lane.width / 2 + LANE_MARGIN, lane.length + CAR_LENGTH
    while 0 <= q < count:
        j = nth(ego, q).order
        q += step
        if j == i:
            continue
        other = nth(ego, j)
        s_j, lateral = roads.project(lane, other.x, other.y)
        if s_j > best_s or s_j >= end:
            break
        if abs(lateral) <= half and s_j >= -CAR_LENGTH and (s_j < best_s or listed(env, j) > listed(env, best)):
            best, best_s = j, s_j
    return best


@kernel
def rear_of(env, ego, lanes, i, n):
    """The nearest body strictly behind body i along lane n, of equals the first in the list; -1 without one."""
    lane, body = nth(lanes, n), nth(ego, i)
    if lane.axis == 0 or lane.reach > 1:
        return _search(env, ego, lanes, i, n)[1]
    s = roads.along(lane, body.x, body.y)
    step, q, count = -lane.axis, np.int64(body.rank), env.bodies
    best, best_s = -1, -math.inf
    half, end = lane.width / 2 + LANE_MARGIN, lane.length + CAR_LENGTH
    while 0 <= q < count:
        j = nth(ego, q).order
        q += step
        other = nth(ego, j)
        s_j, lateral = roads.project(lane, other.x, other.y)
        if s_j >= s:
            continue
        if s_j < best_s or s_j < -CAR_LENGTH:
            break
        if abs(lateral) <= half and s_j < end and (s_j > best_s or listed(env, j) < listed(env, best)):
            best, best_s = j, s_j
    return best


@kernel
def _search(env, ego, lanes, i, n):
    """(front, rear) of body i along lane n and the lanes joined to it: highway-env's own loop over all bodies."""
    own, body = nth(lanes, n), nth(ego, i)
    s = roads.along(own, body.x, body.y)
    front, rear, front_s, rear_s = -1, -1, math.inf, -math.inf
    for q in range(env.bodies):
        j = row_of(env, q)
        if j == i:
            continue
        other = nth(ego, j)
        for k in range(own.reach):
            lane = nth(lanes, own.reach_lanes[k])
            if roads.beside(lane, other.x, other.y):
                continue
            s_j, lateral = roads.project(lane, other.x, other.y)
            if not roads.holds(lane, s_j, lateral, LANE_MARGIN):
                continue
            s_j += own.reach_offsets[k]
            if s <= s_j and s_j <= front_s:
                front, front_s = j, s_j
            if s_j < s and s_j > rear_s:
                rear, rear_s = j, s_j
            break  # found on this lane: the others do not matter
    return front, rear
