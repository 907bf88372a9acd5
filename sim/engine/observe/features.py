"""Features of bodies, as the `to_dict` methods of highway-env's vehicles and objects name them (highway-env 1.12)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sim import kinematics
from sim.compiled import kernel
from sim.engine import roads
from sim.engine.records import nth

FEATURES = (
    "presence",
    "x",
    "y",
    "vx",
    "vy",
    "heading",
    "cos_h",
    "sin_h",
    "cos_d",
    "sin_d",
    "long_off",
    "lat_off",
    "ang_off",
)
PRESENCE, X, Y, VX, VY, HEADING, COS, SIN, COS_D, SIN_D, LONG_OFF, LAT_OFF, ANG_OFF = range(len(FEATURES))
DEFAULT = FEATURES[:5]
OF_VEHICLES = ("heading", "long_off", "lat_off", "ang_off")
"""Features that other bodies lack."""
MOST_FEATURES = 16
FASTEST = 2 * kinematics.MAX_SPEED
"""m/s: the default ranges of velocities are +- this."""


def codes_of(names: Sequence[str]) -> np.ndarray:
    """int64 (MOST_FEATURES,): numbers of the features, then zeros; -1 for one that bodies do not have."""
    codes = np.zeros(MOST_FEATURES, np.int64)
    codes[: len(names)] = [FEATURES.index(name) if name in FEATURES else -1 for name in names]
    return codes


def unusable(names: Sequence[str], known: Sequence[str]) -> str | None:
    """What of a list of features the engine does not cover: unknown ones, one named twice, too many."""
    for k, name in enumerate(names):
        if name not in known:
            return f"observation feature {name}"
        if name in names[:k]:
            return f"observation feature {name} twice"
    return None if len(names) <= MOST_FEATURES else f"more than {MOST_FEATURES} observation features"


@kernel
def feature_of(feature, env, ego, lanes, p, j, motion, intentions):
    """One feature of body j.

    Args:
        feature: Its code.
        env: As in `sim.engine.bodies`, and so are `ego`, `lanes` and `p`.
        j: The body.
        motion: x, y, vx, vy to report: absolute, or relative to the ego.
        intentions: Whether its destination is known.
    Returns:
        The value; NaN where only vehicles have the feature and the body is none, as in highway-env's tables.
    """
    if feature == PRESENCE:
        return 1.0
    if X <= feature <= VY:
        return motion[feature - X]
    body = nth(ego, j)
    if feature == COS:
        return body.cos
    if feature == SIN:
        return body.sin
    vehicle = j < env.vehicles
    if feature in (COS_D, SIN_D):
        towards_x, towards_y = _destination(body, lanes, p) if vehicle and intentions else (0.0, 0.0)
        return towards_x if feature == COS_D else towards_y
    if not vehicle:
        return math.nan
    if feature == HEADING:
        return body.heading
    lane = nth(lanes, body.lane)
    s, lateral = roads.project(lane, body.x, body.y)
    if feature == LONG_OFF:
        return s
    if feature == LAT_OFF:
        return lateral
    return kinematics.wrap_to_pi(body.heading - roads.heading_at(lane, s))


@kernel
def _destination(body, lanes, p):
    """Direction (x, y) of the end of a vehicle's route; zeros without a route."""
    last = -1
    if body.route >= 0:
        for step in range(body.route_step, p.routes.shape[1]):
            if p.routes[body.route, step, 0] < 0:
                break
            last = step
    if last < 0:
        return 0.0, 0.0
    first, wanted = p.routes[body.route, last, 0], p.routes[body.route, last, 1]
    lane = nth(lanes, first + max(wanted, 0))
    x, y = roads.position(lane, lane.length, 0.0)
    dx, dy = x - body.x, y - body.y
    distance = math.sqrt(dx * dx + dy * dy)
    return (dx / distance, dy / distance) if distance > 0.0 else (0.0, 0.0)


@kernel
def motion_of(body, ego, absolute):
    """x, y, vx, vy of a body, relative to the ego unless `absolute`."""
    if absolute:
        return body.x, body.y, body.vx, body.vy
    return body.x - ego.x, body.y - ego.y, body.vx - ego.vx, body.vy - ego.vy


@kernel
def to_unit(value, low, high):
    """highway-env's `lmap` of [low, high] onto [-1, 1]; the value itself where `low` is NaN."""
    return value if math.isnan(low) else -1.0 + (value - low) * 2 / (high - low)


@kernel
def clipped(value):
    """`numpy.clip` to [-1, 1]: NaN stays NaN."""
    if value < -1.0:
        return -1.0
    return 1.0 if value > 1.0 else value
