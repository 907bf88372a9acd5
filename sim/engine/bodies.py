"""State of one environment on a compiled road: a record of its own, and one record per body.

Row 0 is the ego; the other vehicles and then the obstacles follow in highway-env's list order. In that list the ego comes
after `ENV.place` of the others: the order decides between equals, and in which order contacts are taken. Beside it the
bodies are kept sorted by x, so that neighbours and contacts are searched nearby.

Kernel arguments here and in the modules that build on this one: `env` is the environment's record, `ego` its first
`BODY`, `lanes` the first `roads.LANE`, `p` the parameters of the road (`sim.engine.road`). All are rows; the others are
reached by `nth`.
"""

from __future__ import annotations

import math

import numpy as np

from sim import kinematics
from sim.compiled import kernel
from sim.engine import roads
from sim.engine.episode import FIELDS
from sim.engine.records import assign, nth

MOST_SWEPT_LANES = 64
"""Lanes of a network beyond which every leader is searched."""
MOST_PAIRS = 64
"""Near pairs of bodies beyond which all pairs are gone through."""
UNKNOWN = -2
LANE_CHANGE_DELAY = 1.0
"""Seconds between two considerations of a lane change (highway-env's `LANE_CHANGE_DELAY`)."""
OBSTACLE_SIZE = 2.0
"""Length and width of an obstacle, m."""

ENV = np.dtype(
    [
        *FIELDS,
        ("time", "f8"),
        ("range_y", "f8"),  # lateral range of the observation, fixed at reset
        ("fastest", "f8"),  # largest |speed| of the last simulation step
        ("place", "i8"),  # how many others come before the ego in highway-env's list
        ("last_id", "i8"),  # the largest `BODY.id` so far
        ("road_steps", "i8"),  # simulation steps of the road, those before the first decision included
        ("vehicles", "i8"),
        ("bodies", "i8"),  # vehicles and obstacles
        ("speed_index", "i8"),  # of an ego with meta-actions
        ("lateral_speed", "f8"),  # m/s and rad/s of an ego with tyre slip (`sim.engine.bicycle`)
        ("yaw_rate", "f8"),
        ("changers", "i8"),  # length of the list in `BODY.changer`; more than `bodies`: it did not fit
        ("ahead", "i4", MOST_SWEPT_LANES),  # scratch of `neighbours.find_fronts`
        ("pairs", "i8", MOST_PAIRS),  # scratch of `contacts.collide`
    ],
    align=True,
)
"""One environment but for its bodies."""

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
        ("timer", "f8"),  # seconds since it last considered a lane change
        ("push_x", "f8"),  # displacement that the next simulation step adds after a contact
        ("push_y", "f8"),
        ("lane", "i4"),
        ("target", "i4"),
        ("order", "i4"),  # row k holds the body that is k-th in x ...
        ("rank", "i4"),  # ... and this is its inverse
        ("front", "i4"),  # the body ahead of it in its lane, -1: none, UNKNOWN: to be searched ...
        ("front_left", "i4"),  # ... and in the lanes beside
        ("front_right", "i4"),
        ("changer", "i4"),  # row k holds the k-th of the vehicles that aim at another lane
        ("crashed", "i4"),
        ("pushed", "i4"),
        ("checks", "i4"),  # looks for contacts of its own
        ("changes", "i4"),  # considers lane changes
        ("route", "i4"),
        ("route_step", "i4"),
        ("yielding", "i4"),  # stops for another vehicle (`sim.engine.regulation`)
        ("id", "i4"),  # its `Scene` id: it stays with the body while rows move
    ],
    align=True,
)
"""One body. Obstacles have speed 0 and use neither targets nor timer."""


@kernel
def place(body, lanes, x, y, heading, speed):
    """A body as highway-env constructs an IDMVehicle there."""
    body.x, body.y, body.heading, body.speed = x, y, heading, speed
    body.cos, body.sin = math.cos(heading), math.sin(heading)
    body.vx, body.vy = speed * body.cos, speed * body.sin
    body.target_speed = speed
    body.delta = 4.0
    body.steering = body.acceleration = body.push_x = body.push_y = 0.0
    body.timer = kinematics.modulo((x + y) * math.pi, LANE_CHANGE_DELAY)
    body.lane = body.target = roads.closest_lane(lanes, x, y, heading, 0)
    body.crashed = body.pushed = 0
    body.checks = body.changes = 1
    body.route, body.route_step = -1, 0
    body.yielding = 0


@kernel
def listed(env, i):
    """Position of body i in highway-env's list."""
    if i == 0:
        return env.place
    return np.int64(i - 1 if i <= env.place else i)


@kernel
def row_of(env, k):
    """Row of the body that is k-th in highway-env's list: the inverse of `listed`."""
    if k == env.place:
        return np.int64(0)
    return np.int64(k + 1 if k < env.place else k)


@kernel
def settle(env, ego):
    """Sort and number the bodies after all have been placed."""
    arrange(env, ego)
    for i in range(env.bodies):
        nth(ego, i).id = i
    env.last_id = env.bodies - 1
    env.fastest = 0.0


@kernel
def arrange(env, ego):
    """Sort the bodies anew, after some came or went."""
    for i in range(env.bodies):
        nth(ego, i).order = i
    sort(env, ego)
    for k in range(env.bodies):
        nth(ego, nth(ego, k).order).rank = k


@kernel
def remove(env, ego, i):
    """Take vehicle i, which is not the ego, off the road; `arrange` is due then."""
    for k in range(i, env.bodies - 1):
        assign(nth(ego, k), nth(ego, k + 1))
    env.vehicles -= 1
    env.bodies -= 1
    if i <= env.place:
        env.place -= 1


@kernel
def sort(env, ego):
    """Insertion sort by x: nearly linear, because overtaking is rare."""
    moved = False
    last_x = nth(ego, ego.order).x
    for k in range(1, env.bodies):
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
        for k in range(env.bodies):
            nth(ego, nth(ego, k).order).rank = k


@kernel
def note_change(env, ego, i):
    """List vehicle i if it aims at another lane than its own; listing it twice does no harm."""
    body = nth(ego, i)
    if body.lane != body.target and i < env.vehicles:
        if env.changers < env.bodies:
            nth(ego, env.changers).changer = i
        env.changers += 1
