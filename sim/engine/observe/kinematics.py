"""Kinematics and ExitObservation: one row of features for the ego, and one for each of its nearest bodies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from sim import kinematics
from sim.compiled import kernel
from sim.engine import roads
from sim.engine.observe.features import (
    DEFAULT,
    FASTEST,
    FEATURES,
    MOST_FEATURES,
    Y,
    clipped,
    codes_of,
    feature_of,
    motion_of,
    to_unit,
    unusable,
)
from sim.engine.observe.observer import Settings
from sim.engine.records import Field, nth
from sim.engine.rng import next_up_to
from sim.sizes import CAR_LENGTH

PERCEPTION_DISTANCE = 5.0 * kinematics.MAX_SPEED


def table_fields(settings: Settings) -> dict[str, Field]:
    """The shared parameters that describe a table of bodies; those of other types are unused."""
    features = settings.get("features") or DEFAULT
    ranges = settings.get("features_range")
    default = {
        "x": [-PERCEPTION_DISTANCE, PERCEPTION_DISTANCE],
        "vx": [-FASTEST, FASTEST],
        "vy": [-FASTEST, FASTEST],
    }
    low, high = ranges_of(features, ranges or default)
    return {
        "obs_rows": ("i8", settings.get("vehicles_count", 5)),
        "obs_absolute": ("i8", settings.get("absolute", False)),
        "obs_clip": ("i8", settings.get("clip", True)),
        "obs_behind": ("i8", settings.get("see_behind", False)),
        "obs_sorted": ("i8", settings.get("order", "sorted") == "sorted"),
        "obs_shuffled": ("i8", settings.get("order", "sorted") == "shuffled"),
        "obs_intentions": ("i8", settings.get("observe_intentions", False)),
        "obs_obstacles": ("i8", settings.get("include_obstacles", True)),
        "obs_normalize": ("i8", settings.get("normalize", True)),
        "obs_own_range_y": ("i8", not ranges),
        "obs_count": ("i8", len(features)),
        "obs_features": ("i8", codes_of(features), MOST_FEATURES),
        "obs_low": ("f8", low, MOST_FEATURES),
        "obs_high": ("f8", high, MOST_FEATURES),
    }


def fields(config: Any) -> dict[str, Field]:
    return table_fields(config.observation)


def exit_fields(config: Any) -> dict[str, Field]:
    """Those of ExitObservation, which takes the nearest vehicles whatever the order, and no obstacles."""
    return fields(config) | {"obs_sorted": ("i8", True), "obs_obstacles": ("i8", False)}


def ranges_of(names: Sequence[str], ranges: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest values of features, float64 (MOST_FEATURES,) each; NaN where a feature has no range."""
    low, high = np.full(MOST_FEATURES, math.nan), np.full(MOST_FEATURES, math.nan)
    for k, name in enumerate(names):
        if name in ranges:
            low[k], high[k] = ranges[name]
    return low, high


def space(config: Any) -> spaces.Box:
    """Unbounded, (rows, features)."""
    settings = config.observation
    shape = settings.get("vehicles_count", 5), len(settings.get("features") or DEFAULT)
    return spaces.Box(-np.inf, np.inf, shape, np.float32)


def uncovered(settings: Settings) -> str | None:
    return unusable(settings.get("features") or (), FEATURES)


@kernel
def kinematic_table(env, ego, lanes, p, x, out):
    """Fill `out`; `x` is what the row of the ego shows as its x."""
    out[:] = 0.0
    _row(env, ego, lanes, p, 0, (x, ego.y, ego.vx, ego.vy), True, out[0])
    nearest = np.empty(p.obs_rows, np.int64)
    close, count = _find_close(env, ego, lanes, p, nearest)
    for k in range(count):
        motion = motion_of(nth(ego, nearest[k]), ego, p.obs_absolute)
        _row(env, ego, lanes, p, nearest[k], motion, p.obs_intentions, out[k + 1])
    if p.obs_shuffled:
        _shuffle(env.stream, close if p.obs_rows == 1 else p.obs_rows - 1, out[1:])


@kernel
def _find_close(env, ego, lanes, p, nearest):
    """Put the bodies to show into `nearest`, by distance along the lane or in the order of the list.

    Returns:
        Bodies within sight, and how many of them are shown.
    """
    lane = nth(lanes, ego.lane)
    s = roads.along(lane, ego.x, ego.y)
    far = np.empty(p.obs_rows)
    close, count, wanted = 0, 0, p.obs_rows - 1
    for j in range(1, env.bodies if p.obs_obstacles else env.vehicles):
        body = nth(ego, j)
        dx, dy = body.x - ego.x, body.y - ego.y
        if not math.sqrt(dx * dx + dy * dy) < PERCEPTION_DISTANCE:
            continue
        ahead = roads.along(lane, body.x, body.y) - s
        if not ((p.obs_behind and j < env.vehicles) or ahead > -2 * CAR_LENGTH):
            continue
        close += 1
        key = abs(ahead) if p.obs_sorted else 0.0
        if count == wanted and (count == 0 or key >= far[count - 1]):
            continue  # equal ones keep the order of the list
        at = count if count < wanted else count - 1
        while at > 0 and far[at - 1] > key:
            far[at], nearest[at] = far[at - 1], nearest[at - 1]
            at -= 1
        far[at], nearest[at] = key, j
        count = min(count + 1, wanted)
    return close, count


@kernel
def _row(env, ego, lanes, p, j, motion, intentions, out):
    """Features of body j; a range is mapped to [-1, 1]."""
    for k in range(p.obs_count):
        feature = p.obs_features[k]
        value = feature_of(feature, env, ego, lanes, p, j, motion, intentions)
        if p.obs_normalize:
            low, high = p.obs_low[k], p.obs_high[k]
            if feature == Y and p.obs_own_range_y:
                low, high = -env.range_y, env.range_y
            if not math.isnan(low):
                value = to_unit(value, low, high)
                if p.obs_clip:
                    value = clipped(value)
        out[k] = value


@kernel
def _shuffle(stream, count, rows):
    """`Generator.shuffle` of `count` rows. highway-env shuffles all bodies in sight where it shows the ego alone."""
    for i in range(count - 1, 0, -1):
        j = next_up_to(stream, i)
        if rows.shape[0] and j != i:
            for k in range(rows.shape[1]):
                rows[i, k], rows[j, k] = rows[j, k], rows[i, k]
