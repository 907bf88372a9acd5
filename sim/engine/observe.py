"""highway-env's observations of a compiled road: kinematics, the exit's variant, and time-to-collision grids.

`observer_fields` puts the resolved settings into the parameter record; the kernels fill float32 buffers with what
highway-env's `KinematicObservation`, `ExitObservation` and `TimeToCollisionObservation` return (highway-env 1.12,
`envs/common/observation.py`, `finite_mdp.py`), to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from sim import kinematics
from sim.compiled import kernel
from sim.engine import roads
from sim.engine.records import nth
from sim.engine.routes import connected_roads
from sim.sizes import CAR_LENGTH

KINEMATICS, EXIT, TTC = range(3)
KINDS = {"Kinematics": KINEMATICS, "ExitObservation": EXIT, "TimeToCollision": TTC}
FEATURES = ("presence", "x", "y", "vx", "vy", "heading", "cos_h", "sin_h", "cos_d", "sin_d")
PRESENCE, X, Y, VX, VY, HEADING, COS, SIN, COS_D, SIN_D = range(10)
MOST_FEATURES = 16
OF_VEHICLES = ("heading",)
"""Features that an obstacle lacks."""
PERCEPTION_DISTANCE = 5.0 * kinematics.MAX_SPEED
NEIGHBOURING = 3
"""Lanes and speeds that a time-to-collision grid shows around the ego's own."""


def observer_fields(settings: Mapping[str, Any], decision_frequency: float) -> dict[str, tuple[Any, ...]]:
    """Fields of the parameter record that describe the observation.

    Args:
        settings: `observation` of a resolved highway-env config.
        decision_frequency: Hz.
    Returns:
        Fields for `records.record`.
    """
    horizon = settings.get("horizon", 10)
    features = settings.get("features") or list(FEATURES[:5])
    ranges = settings.get("features_range")
    top = 2 * kinematics.MAX_SPEED
    default = {"x": [-PERCEPTION_DISTANCE, PERCEPTION_DISTANCE], "vx": [-top, top], "vy": [-top, top]}
    chosen = ranges or default
    low, high = np.full(MOST_FEATURES, math.nan), np.full(MOST_FEATURES, math.nan)
    codes = np.zeros(MOST_FEATURES, np.int64)
    for k, name in enumerate(features):
        codes[k] = FEATURES.index(name)
        if name in chosen:
            low[k], high[k] = chosen[name]
    kind = KINDS[settings["type"]]
    return {
        "obs_kind": ("i8", kind),
        "obs_rows": ("i8", settings.get("vehicles_count", 5)),
        "obs_absolute": ("i8", settings.get("absolute", False)),
        "obs_clip": ("i8", settings.get("clip", True)),
        "obs_behind": ("i8", settings.get("see_behind", False)),
        "obs_obstacles": ("i8", settings.get("include_obstacles", True) and kind == KINEMATICS),
        "obs_normalize": ("i8", settings.get("normalize", True)),
        "obs_own_range_y": ("i8", not ranges),
        "obs_times": ("i8", int(horizon / (1 / decision_frequency))),
        "obs_count": ("i8", len(features)),
        "obs_features": ("i8", codes, MOST_FEATURES),
        "obs_low": ("f8", low, MOST_FEATURES),
        "obs_high": ("f8", high, MOST_FEATURES),
    }


def uncovered(settings: Mapping[str, Any], obstacles: bool) -> str | None:
    """What of an observation the engine does not cover.

    Args:
        settings: `observation` of a resolved highway-env config.
        obstacles: Whether obstacles may be observed.
    Returns:
        The reason; None: it covers the observation.
    """
    kind = settings["type"]
    if kind not in KINDS:
        return f"observation type {kind}"
    if settings.get("order", "sorted") != "sorted":
        return f"observation order {settings['order']}"
    if settings.get("observe_intentions"):
        return "observation of intentions"
    if settings.get("vehicles_count", 5) < 2:
        return "an observation of the ego alone"
    known: Sequence[str] = [name for name in FEATURES if not (obstacles and name in OF_VEHICLES)]
    if len(settings.get("features") or ()) > MOST_FEATURES:
        return f"more than {MOST_FEATURES} observation features"
    for name in settings.get("features") or ():
        if name not in known:
            return f"observation feature {name}"
    return None


def space_of(p: np.ndarray) -> spaces.Box:
    """The observation space that highway-env declares.

    Args:
        p: Parameters, a record with `observer_fields`.
    Returns:
        The space.
    """
    if p["obs_kind"] == TTC:
        return spaces.Box(0.0, 1.0, (NEIGHBOURING, NEIGHBOURING, int(p["obs_times"])), np.float32)
    return spaces.Box(-np.inf, np.inf, (int(p["obs_rows"]), int(p["obs_count"])), np.float32)


@kernel
def observe(env, ego, lanes, p, out):
    """Fill `out`, float32 of the observation's shape flattened to (rows, columns)."""
    if p.obs_kind == TTC:
        _time_to_collision(env, ego, lanes, p, out)
    else:
        _kinematics(env, ego, lanes, p, out)


@kernel
def _kinematics(env, ego, lanes, p, out):
    out[:] = 0.0
    x = ego.x
    if p.obs_kind == EXIT:
        x = roads.along(nth(lanes, p.obs_lane), ego.x, ego.y)
    _row(env, ego, x, ego.y, ego.vx, ego.vy, p, out[0])
    lane = nth(lanes, ego.lane)
    s = roads.along(lane, ego.x, ego.y)
    nearest, far = np.empty(p.obs_rows, np.int64), np.empty(p.obs_rows)
    count, wanted = 0, p.obs_rows - 1
    for j in range(1, env.bodies if p.obs_obstacles else env.vehicles):
        body = nth(ego, j)
        dx, dy = body.x - ego.x, body.y - ego.y
        if not math.sqrt(dx * dx + dy * dy) < PERCEPTION_DISTANCE:
            continue
        ahead = roads.along(lane, body.x, body.y) - s
        if not ((p.obs_behind and j < env.vehicles) or ahead > -2 * CAR_LENGTH):
            continue
        key = abs(ahead)
        if count == wanted and key >= far[count - 1]:
            continue  # equal ones keep the order of the list
        at = count if count < wanted else count - 1
        while at > 0 and far[at - 1] > key:
            far[at], nearest[at] = far[at - 1], nearest[at - 1]
            at -= 1
        far[at], nearest[at] = key, j
        count = min(count + 1, wanted)
    for k in range(count):
        body = nth(ego, nearest[k])
        x, y, vx, vy = body.x, body.y, body.vx, body.vy
        if not p.obs_absolute:
            x, y, vx, vy = x - ego.x, y - ego.y, vx - ego.vx, vy - ego.vy
        _row(env, body, x, y, vx, vy, p, out[k + 1])


@kernel
def _row(env, body, x, y, vx, vy, p, out):
    """Features of one body; a range is mapped to [-1, 1]."""
    for k in range(p.obs_count):
        feature = p.obs_features[k]
        value = 0.0
        if feature == PRESENCE:
            value = 1.0
        elif feature == X:
            value = x
        elif feature == Y:
            value = y
        elif feature == VX:
            value = vx
        elif feature == VY:
            value = vy
        elif feature == HEADING:
            value = body.heading
        elif feature == COS:
            value = body.cos
        elif feature == SIN:
            value = body.sin
        if p.obs_normalize:
            low, high = p.obs_low[k], p.obs_high[k]
            if feature == Y and p.obs_own_range_y:
                low, high = -env.range_y, env.range_y
            if not math.isnan(low):
                value = -1.0 + (value - low) * 2 / (high - low)
                if p.obs_clip:
                    value = min(max(value, -1.0), 1.0)
        out[k] = value


@kernel
def _time_to_collision(env, ego, lanes, p, out):
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
