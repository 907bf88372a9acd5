"""highway-env's observations of a compiled road: kinematics, the exit's variant, and time-to-collision grids.

`Observer` holds the resolved settings as arrays; the kernels fill float32 buffers with what highway-env's
`KinematicObservation`, `ExitObservation` and `TimeToCollisionObservation` return (highway-env 1.12,
`envs/common/observation.py`, `finite_mdp.py`), to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numba import njit

from sim.engine import physics, roads
from sim.engine.traffic import LANE, TARGET, VX, VY, C, H, S, V, X, Y

KINEMATICS, EXIT, TTC = range(3)
KINDS = {"Kinematics": KINEMATICS, "ExitObservation": EXIT, "TimeToCollision": TTC}
FEATURES = ("presence", "x", "y", "vx", "vy", "heading", "cos_h", "sin_h", "cos_d", "sin_d")
PRESENCE, FX, FY, FVX, FVY, FHEADING, FCOS, FSIN, FCOS_D, FSIN_D = range(10)
OF_VEHICLES = ("heading",)
"""Features that an obstacle lacks."""
PERCEPTION_DISTANCE = 5.0 * physics.MAX_SPEED
NEIGHBOURING = 3
"""Lanes and speeds that a time-to-collision grid shows around the ego's own."""


class Observer(NamedTuple):
    """Settings of an observation, as compiled functions take them. F features."""

    flags: np.ndarray
    """int64: kind, rows, absolute, clip, see_behind, obstacles, normalize, times, default ranges"""
    features: np.ndarray
    """int64 (F,)"""
    low: np.ndarray
    """float64 (F,) lower end of the range that is mapped to [-1, 1]; NaN: not mapped"""
    high: np.ndarray
    """float64 (F,)"""


def make_observer(settings: Mapping[str, Any], decision_frequency: float) -> Observer:
    """From the `observation` part of a resolved highway-env config."""
    kind = KINDS[settings["type"]]
    horizon = settings.get("horizon", 10)
    features = settings.get("features") or list(FEATURES[:5])
    ranges = settings.get("features_range")
    default = not ranges
    top = 2 * physics.MAX_SPEED
    ranges = ranges or {"x": [-PERCEPTION_DISTANCE, PERCEPTION_DISTANCE], "vx": [-top, top], "vy": [-top, top]}
    low, high = np.full(len(features), math.nan), np.full(len(features), math.nan)
    for k, name in enumerate(features):
        if name in ranges:
            low[k], high[k] = ranges[name]
    flags = [
        kind,
        settings.get("vehicles_count", 5),
        settings.get("absolute", False),
        settings.get("clip", True),
        settings.get("see_behind", False),
        settings.get("include_obstacles", True) and kind == KINEMATICS,
        settings.get("normalize", True),
        int(horizon / (1 / decision_frequency)),
        default,
    ]
    return Observer(np.array(flags, np.int64), np.array([FEATURES.index(n) for n in features], np.int64), low, high)


def uncovered(settings: Mapping[str, Any], obstacles: bool) -> str | None:
    """Why the engine does not make this observation, or None."""
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
    for name in settings.get("features") or ():
        if name not in known:
            return f"observation feature {name}"
    return None


def space_of(observer: Observer, set_points: int) -> spaces.Box:
    """The observation space that highway-env declares."""
    if observer.flags[0] == TTC:
        shape = (NEIGHBOURING, NEIGHBOURING, int(observer.flags[7]))
        return spaces.Box(0.0, 1.0, shape, np.float32)
    return spaces.Box(-np.inf, np.inf, (int(observer.flags[1]), observer.features.size), np.float32)


@njit(cache=True, error_model="numpy")
def observe(w, cars, tags, road, set_points, observer, p, out):
    """Fill `out`, float32 of the observation's shape flattened to (rows, columns)."""
    if observer.flags[0] == TTC:
        _time_to_collision(w, cars, tags, road, set_points, observer.flags[7], p.period, out)
    else:
        _kinematics(w, cars, tags, road, observer, p.exit_lane, out)


@njit(cache=True, error_model="numpy")
def _kinematics(w, cars, tags, road, observer, exit_lane, out):
    rows, see_behind, obstacles = observer.flags[1], observer.flags[4], observer.flags[5]
    out[:] = 0.0
    x0 = cars[X, 0]
    if observer.flags[0] == EXIT:
        x0 = roads.along(road.lanes[exit_lane], cars[X, 0], cars[Y, 0])
    _row(w, cars, 0, x0, cars[Y, 0], cars[VX, 0], cars[VY, 0], observer, out[0])
    lane = road.lanes[tags[LANE, 0]]
    s = roads.along(lane, cars[X, 0], cars[Y, 0])
    nearest, far = np.empty(rows, np.int64), np.empty(rows)
    count, wanted = 0, rows - 1
    for j in range(1, w.bodies):
        if j >= w.vehicles and not obstacles:
            break
        dx, dy = cars[X, j] - cars[X, 0], cars[Y, j] - cars[Y, 0]
        if not math.sqrt(dx * dx + dy * dy) < PERCEPTION_DISTANCE:
            continue
        ahead = roads.along(lane, cars[X, j], cars[Y, j]) - s
        if not ((see_behind and j < w.vehicles) or -2 * physics.LENGTH < ahead):
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
        j = nearest[k]
        x, y, vx, vy = cars[X, j], cars[Y, j], cars[VX, j], cars[VY, j]
        if not observer.flags[2]:
            x, y, vx, vy = x - cars[X, 0], y - cars[Y, 0], vx - cars[VX, 0], vy - cars[VY, 0]
        _row(w, cars, j, x, y, vx, vy, observer, out[k + 1])


@njit(cache=True, error_model="numpy")
def _row(w, cars, j, x, y, vx, vy, observer, out):
    """Features of one body; a range is mapped to [-1, 1]."""
    for k in range(observer.features.size):
        feature = observer.features[k]
        value = 0.0
        if feature == PRESENCE:
            value = 1.0
        elif feature == FX:
            value = x
        elif feature == FY:
            value = y
        elif feature == FVX:
            value = vx
        elif feature == FVY:
            value = vy
        elif feature == FHEADING:
            value = cars[H, j]
        elif feature == FCOS:
            value = cars[C, j]
        elif feature == FSIN:
            value = cars[S, j]
        if observer.flags[6]:
            low, high = observer.low[k], observer.high[k]
            if feature == FY and observer.flags[8]:
                low, high = -w.range_y, w.range_y
            if not math.isnan(low):
                value = -1.0 + (value - low) * 2 / (high - low)
                if observer.flags[3]:
                    value = min(max(value, -1.0), 1.0)
        out[k] = value


@njit(cache=True, error_model="numpy")
def _time_to_collision(w, cars, tags, road, set_points, times, quantum, out):
    """`out` is (9, T): speeds and lanes around the ego's own, speed by speed; outside of the road is 1."""
    lane = road.lanes[tags[LANE, 0]]
    out[:] = 0.0
    for a in range(NEIGHBOURING):
        for b in range(NEIGHBOURING):
            if not 0 <= lane.id - 1 + b < lane.count:
                out[a * NEIGHBOURING + b] = 1.0
    s = roads.along(lane, cars[X, 0], cars[Y, 0])
    for a in range(NEIGHBOURING):
        ego_speed = set_points[min(max(w.speed_index - 1 + a, 0), set_points.size - 1)]
        for j in range(1, w.vehicles):
            if ego_speed == cars[V, j]:
                continue
            other = road.lanes[tags[LANE, j]]
            if not road.connected[lane.road, other.road]:
                continue
            gap = roads.along(lane, cars[X, j], cars[Y, j]) - s
            projected = cars[V, j] * (cars[C, j] * cars[C, 0] + cars[S, j] * cars[S, 0])
            closing = physics.not_zero(ego_speed - projected)
            for point in range(3):
                margin = 0.0 if point == 0 else (-physics.LENGTH if point == 1 else physics.LENGTH)
                cost = 1.0 if point == 0 else 0.5
                ttc = (gap + margin) / closing
                if ttc < 0:
                    continue
                first = other.id if other.count == lane.count else 0
                last = other.id if other.count == lane.count else lane.count - 1
                for time in (math.floor(ttc / quantum), math.ceil(ttc / quantum)):
                    if not 0 <= time < times:
                        continue
                    for n in range(first, last + 1):
                        b = n - lane.id + 1
                        if 0 <= b < NEIGHBOURING:
                            row = a * NEIGHBOURING + b
                            out[row, int(time)] = max(out[row, int(time)], np.float32(cost))
