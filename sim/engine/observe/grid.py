"""OccupancyGrid: layers of cells around the ego that show vehicles and road (highway-env 1.12)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces
from numba import prange

from sim.compiled import kernel
from sim.engine import roads
from sim.engine.bodies import row_of
from sim.engine.observe.features import (
    FASTEST,
    FEATURES,
    MOST_FEATURES,
    clipped,
    codes_of,
    feature_of,
    motion_of,
    to_unit,
    unusable,
)
from sim.engine.observe.kinematics import ranges_of
from sim.engine.observe.observer import Observer, Settings
from sim.engine.records import Field, nth

DEFAULT = ("presence", "vx", "vy", "on_road")
SIZE = [[-27.5, 27.5], [-27.5, 27.5]]
STEP = [5.0, 5.0]
ROAD_DISTANCE = 100.0
"""Lanes are drawn so far along either way, m."""


def _layers(settings: Settings) -> list[str]:
    return list(settings.get("features", DEFAULT))


def _cells(settings: Settings) -> tuple[int, int]:
    size, step = (np.array(settings.get(key, value)) for key, value in (("grid_size", SIZE), ("grid_step", STEP)))
    across = np.floor((size[:, 1] - size[:, 0]) / step)
    return int(across[0]), int(across[1])


def _space(config: Any) -> spaces.Box:
    """(layers, cells along x, cells along y): unbounded, or a picture."""
    shape = (len(_layers(config.observation)), *_cells(config.observation))
    if config.observation.get("as_image", False):
        return spaces.Box(0, 255, shape, np.uint8)
    return spaces.Box(-np.inf, np.inf, shape, np.float32)


def _fields(config: Any) -> dict[str, Field]:
    layers, (columns, rows) = _layers(config.observation), _cells(config.observation)
    size, step = np.array(config.observation.get("grid_size", SIZE)), config.observation.get("grid_step", STEP)
    ranges = config.observation.get("features_range") or {"vx": [-FASTEST, FASTEST], "vy": [-FASTEST, FASTEST]}
    low, high = ranges_of(layers, ranges)
    (x_low, x_high), (y_low, y_high) = (ranges.get(axis, (math.nan, math.nan)) for axis in "xy")
    return {
        "layers": ("i8", len(layers)),
        "road_layer": ("i8", layers.index("on_road") if "on_road" in layers else -1),
        "features": ("i8", codes_of(layers), MOST_FEATURES),
        "low": ("f8", low, MOST_FEATURES),
        "high": ("f8", high, MOST_FEATURES),
        "x_low": ("f8", x_low),  # positions are found again from their share of this range; NaN: it has none
        "x_high": ("f8", x_high),
        "y_low": ("f8", y_low),
        "y_high": ("f8", y_high),
        "columns": ("i8", columns),
        "rows": ("i8", rows),
        "x_min": ("f8", size[0, 0]),
        "y_min": ("f8", size[1, 0]),
        "x_step": ("f8", step[0]),
        "y_step": ("f8", step[1]),
        "spacing": ("f8", min(step)),  # of the points that draw a lane
        "reach": ("f8", math.hypot(*np.abs(size).max(axis=1)) + 1.0),  # m from the ego, beyond all cells
        "aligned": ("i8", config.observation.get("align_to_vehicle_axes", False)),
        "clip": ("i8", config.observation.get("clip", True)),
        "image": ("i8", config.observation.get("as_image", False)),
    }


def _uncovered(settings: Settings) -> str | None:
    if settings.get("absolute", False):
        return "an absolute occupancy grid"
    if not _layers(settings) or min(_cells(settings)) < 1:
        return "an occupancy grid without cells"
    return unusable(_layers(settings), (*FEATURES, "on_road"))


@kernel
def _cell(g, ego, x, y):
    """Column and row of a point given relative to the ego; outside the grid they are out of range."""
    if g.aligned:
        x, y = ego.cos * x + ego.sin * y, -ego.sin * x + ego.cos * y
    return math.floor((x - g.x_min) / g.x_step), math.floor((y - g.y_min) / g.y_step)


@kernel
def _write(g, out, layer, column, row, value):
    """Set one cell; a picture shows [-1, 1] as 0 to 255."""
    if g.clip or g.image:
        value = clipped(value)
    if g.image:
        value = (value + 1) / 2 * 255
    out[layer * g.columns + column, row] = value


@kernel
def _there_and_back(value, low, high):
    """A coordinate after highway-env has mapped it to [-1, 1] and back: rounding may take it to another cell."""
    return value if math.isnan(low) else low + (to_unit(value, low, high) - -1) * (high - low) / (1 - -1)


@kernel
def _draw_vehicles(env, ego, lanes, p, g, out):
    """Vehicles cell by cell; in a shared cell the first one of the list counts."""
    for k in range(env.vehicles - 1, -1, -1):
        j = row_of(env, k)
        motion = motion_of(nth(ego, j), ego, False)
        x, y = _there_and_back(motion[0], g.x_low, g.x_high), _there_and_back(motion[1], g.y_low, g.y_high)
        column, row = _cell(g, ego, x, y)
        if not (0 <= column < g.columns and 0 <= row < g.rows):
            continue
        for layer in range(g.layers):
            if layer != g.road_layer:
                value = feature_of(g.features[layer], env, ego, lanes, p, j, motion, True)
                _write(g, out, layer, int(column), int(row), to_unit(value, g.low[layer], g.high[layer]))


@kernel
def _draw_road(ego, lanes, g, out):
    """Every lane by points along its centre line."""
    for n in range(lanes.lanes):
        lane = nth(lanes, n)
        origin, lateral = roads.project(lane, ego.x, ego.y)
        swing = 2 * lane.amplitude if lane.kind == roads.SINE else 0.0
        if abs(lateral) > g.reach + swing:
            continue
        start = origin - ROAD_DISTANCE
        step, last = (start + g.spacing) - start, math.nan  # as numpy.arange adds its steps
        for k in range(math.ceil((origin + ROAD_DISTANCE - start) / g.spacing)):
            s = start + k * step if k != 1 else start + g.spacing
            s = min(max(s, 0.0), lane.length)
            if s == last or (lane.kind == roads.STRAIGHT and abs(s - origin) > g.reach):
                continue
            last = s
            x, y = roads.position(lane, s, 0.0)
            column, row = _cell(g, ego, x - ego.x, y - ego.y)
            if 0 <= column < g.columns and 0 <= row < g.rows:
                _write(g, out, g.road_layer, int(column), int(row), 1.0)


@kernel
def _observe(env, ego, lanes, p, g, out):
    out[:] = 0
    _draw_vehicles(env, ego, lanes, p, g, out)
    if g.road_layer >= 0:
        _draw_road(ego, lanes, g, out)


@kernel
def _serial(envs, bodies, lanes, params, own, table, rows, out):
    for i in rows:
        _observe(envs[i], bodies[i, 0], lanes[0], params[0], own[0], out[i])


@kernel(parallel=True)
def _parallel(envs, bodies, lanes, params, own, table, rows, out):
    for k in prange(rows.size):
        i = rows[k]
        _observe(envs[i], bodies[i, 0], lanes[0], params[0], own[0], out[i])


OBSERVER = Observer("OccupancyGrid", _space, _fields, _uncovered, _serial, _parallel)
