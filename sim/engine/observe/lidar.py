"""LidarObservation: distance and relative speed of the nearest body in each of some directions (highway-env 1.12)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces
from numba import prange

from sim import kinematics
from sim.compiled import kernel
from sim.engine.observe.observer import Observer, Settings
from sim.engine.records import Field, nth

CELLS, RANGE = 16, 60.0
"""highway-env's own number of directions, and range in m."""
BESIDE = 1e-6
"""m by which a ray must pass a rectangle to be left out without the exact test."""


def _angle(settings: Settings) -> float:
    return 2 * np.pi / settings.get("cells", CELLS)


def _space(config: Any) -> spaces.Box:
    """(directions, 2): distance and speed."""
    high = 1 if config.observation.get("normalize", True) else config.observation.get("maximum_range", RANGE)
    return spaces.Box(-high, high, (config.observation.get("cells", CELLS), 2), np.float32)


def _fields(config: Any) -> dict[str, Field]:
    return {
        "cells": ("i8", config.observation.get("cells", CELLS)),
        "angle": ("f8", _angle(config.observation)),  # between two directions, rad
        "range": ("f8", config.observation.get("maximum_range", RANGE)),  # m
        "normalize": ("i8", config.observation.get("normalize", True)),
    }


def _table(config: Any) -> np.ndarray:
    """Cosine and sine of every direction."""
    angle = _angle(config.observation)
    return np.array([[math.cos(k * angle), math.sin(k * angle)] for k in range(config.observation.get("cells", CELLS))])


@kernel
def _index(g, angle):
    """The cell that an angle falls into."""
    return math.floor(angle / g.angle) % g.cells


@kernel
def _enter(out, k, distance, dvx, dvy, directions):
    """Note a body in cell k, unless a nearer one has been seen there."""
    if distance <= out[k, 0]:
        out[k, 0] = distance
        out[k, 1] = dvx * directions[k, 0] + dvy * directions[k, 1]


@kernel
def _passes(xs, ys, dx, dy):
    """A cheap test that implies that a ray misses a rectangle, whose corners are given relative to its origin."""
    left = right = behind = 0
    for k in range(4):
        across = dx * ys[k] - dy * xs[k]
        left += across > BESIDE
        right += across < -BESIDE
        behind += dx * xs[k] + dy * ys[k] < -BESIDE
    return left == 4 or right == 4 or behind == 4


@kernel
def _crossing(ax, ay, bx, by, ox, oy, qx, qy):
    """Shares of the ray at which it crosses the two sides of a strip, and the strip's direction in the ray's.

    The strip is bounded by the perpendiculars to the edge a-b in its ends.
    """
    ux, uy = bx - ax, by - ay
    norm = math.sqrt(ux * ux + uy * uy)
    ux, uy = ux / norm, uy / norm
    along = qx * ux + qy * uy
    first = ((ax - ox) * ux + (ay - oy) * uy) / along
    second = ((bx - ox) * ux + (by - oy) * uy) / along
    return (first, second) if along >= 0 else (second, first)


@kernel
def _apart(low_a, high_a, low_b, high_b):
    """Whether two intervals do not meet; true for NaN too, which a ray along an edge gives."""
    return not (low_b - high_a if low_a < low_b else low_a - high_b) <= 0


@kernel
def _ray_length(xs, ys, ox, oy, dx, dy, reach):
    """highway-env's `distance_to_rect`: length of the ray up to the rectangle, inf where it misses."""
    qx, qy = (ox + reach * dx) - ox, (oy + reach * dy) - oy
    low_1, high_1 = _crossing(xs[0], ys[0], xs[1], ys[1], ox, oy, qx, qy)
    low_2, high_2 = _crossing(xs[0], ys[0], xs[3], ys[3], ox, oy, qx, qy)
    if _apart(low_1, high_1, low_2, high_2) or _apart(0.0, 1.0, low_1, high_1) or _apart(0.0, 1.0, low_2, high_2):
        return math.inf
    return (low_2 if low_2 > low_1 else low_1) * math.sqrt(qx * qx + qy * qy)


@kernel
def _trace_body(ego, body, g, directions, out):
    """Note one body in the cell of its centre, and in those whose rays meet it."""
    rx, ry = body.x - ego.x, body.y - ego.y
    far = math.sqrt(rx * rx + ry * ry)
    if far > g.range:
        return
    dvx, dvy = body.vx - ego.vx, body.vy - ego.vy
    half = g.angle / 2
    _enter(out, _index(g, math.atan2(ry, rx) + half), far - body.width / 2, dvx, dvy, directions)
    xs, ys = kinematics.corners(body.x, body.y, body.cos, body.sin, body.length / 2, body.width / 2)
    rel_x = (xs[0] - ego.x, xs[1] - ego.x, xs[2] - ego.x, xs[3] - ego.x)
    rel_y = (ys[0] - ego.y, ys[1] - ego.y, ys[2] - ego.y, ys[3] - ego.y)
    low = high = math.atan2(rel_y[0], rel_x[0]) + half
    for k in range(1, 4):
        angle = math.atan2(rel_y[k], rel_x[k]) + half
        low, high = min(low, angle), max(high, angle)
    if low < -math.pi / 2 < math.pi / 2 < high:  # the body lies behind, across the border at +-pi
        low, high = high, low + 2 * math.pi
    start, end = _index(g, low), _index(g, high)
    count = end - start + 1 if start < end else g.cells - start + end + 1
    for k in range(min(count, g.cells)):
        cell = (start + k) % g.cells
        dx, dy = directions[cell, 0], directions[cell, 1]
        if not _passes(rel_x, rel_y, dx, dy):
            _enter(out, cell, _ray_length(xs, ys, ego.x, ego.y, dx, dy, g.range), dvx, dvy, directions)


@kernel
def _observe(env, ego, p, g, directions, out):
    out[:] = g.range
    for j in range(1, env.bodies):
        if not env.vehicles <= j < env.vehicles + p.landmarks:
            _trace_body(ego, nth(ego, j), g, directions, out)
    if g.normalize:
        for k in range(g.cells):
            out[k, 0] /= np.float32(g.range)
            out[k, 1] /= np.float32(g.range)


@kernel
def _serial(envs, bodies, lanes, params, own, table, rows, out):
    for i in rows:
        _observe(envs[i], bodies[i, 0], params[0], own[0], table, out[i])


@kernel(parallel=True)
def _parallel(envs, bodies, lanes, params, own, table, rows, out):
    for k in prange(rows.size):
        i = rows[k]
        _observe(envs[i], bodies[i, 0], params[0], own[0], table, out[i])


OBSERVER = Observer("LidarObservation", _space, _fields, serial=_serial, parallel=_parallel, table=_table)
