"""Scenes between two decisions, so that decisions at 2 Hz become a smooth film."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from sim.scene import Ego, Goal, Scene, Vehicles

TELEPORT = 8.0
"""Metres that a body may be off the path that its speeds explain; beyond that it is moved in a straight line."""


def interpolate(scene_a: Scene, scene_b: Scene, share: float) -> Scene:
    """A scene between two scenes.

    Bodies are matched by id and follow the cubic that has their positions and velocities at both ends. A body that is
    only in one of the scenes moves at constant velocity in the half next to that scene. The targets of the ego's
    controllers are those of the later scene; a crash shows in the later scene only. Where the ego's road changes,
    places along it are those of the nearer scene, moved on at its speeds. Scenes of different episodes give the nearer
    one.

    Args:
        scene_a: The earlier scene.
        scene_b: The later scene.
        share: Of the time from `scene_a` to `scene_b`, in [0, 1].

    Returns:
        The scene at that time; `scene_a` or `scene_b` itself at the ends.
    """
    if share <= 0.0:
        return scene_a
    if share >= 1.0:
        return scene_b
    near = scene_a if share < 0.5 else scene_b
    span = scene_b.time - scene_a.time
    if scene_a.scenario != scene_b.scenario or span <= 0.0:
        return near
    same_road = _same_road(scene_a, scene_b, span)
    away = share * span if near is scene_a else (share - 1.0) * span
    vehicles = _vehicles(scene_a.vehicles, scene_b.vehicles, share, span)
    if not same_road:
        vehicles = _along_road(vehicles, near, away)
    return dataclasses.replace(
        near,
        time=scene_a.time + share * span,
        ego=_ego(scene_a, scene_b, near, share, span, same_road),
        vehicles=vehicles,
        goal=_goal(scene_a.goal, scene_b.goal, near.goal, share),
    )


def in_between(scene_a: Scene, scene_b: Scene, fps: float) -> Iterator[Scene]:
    """The scenes between two scenes of an episode, without the two.

    Args:
        scene_a: The earlier scene.
        scene_b: The later scene.
        fps: Frames per second of simulated time.

    Yields:
        Scenes at equal distances in time; none where both are less than two frames apart.
    """
    count = max(round((scene_b.time - scene_a.time) * fps), 1)
    for step in range(1, count):
        yield interpolate(scene_a, scene_b, step / count)


def smooth(scenes: Iterable[Scene], fps: float) -> Iterator[Scene]:
    """All scenes of an episode, with scenes in between.

    Args:
        scenes: Scenes of one episode in order.
        fps: Frames per second of simulated time.

    Yields:
        Scenes about 1 / `fps` seconds apart.
    """
    last: Scene | None = None
    for scene in scenes:
        if last is not None and last.scenario == scene.scenario and scene.time > last.time:
            yield from in_between(last, scene, fps)
        yield scene
        last = scene


def _same_road(a: Scene, b: Scene, span: float) -> bool:
    """Whether places along the ego's road mean the same in both scenes."""
    driven = (a.ego.speed + b.ego.speed) / 2 * span
    return a.lane_centers == b.lane_centers and abs(b.ego.s - a.ego.s - driven) < TELEPORT


def _along_road(between: Vehicles, near: Scene, away: float) -> Vehicles:
    """Places along the road of the nearer scene, for vehicles of both scenes.

    Args:
        between: The vehicles at the moment that is shown.
        near: The nearer scene.
        away: s from `near` to that moment; negative where it is earlier.
    """
    cars = near.vehicles
    along = np.cos(cars.heading - near.ego.heading) * cars.speed
    row = {int(number): k for k, number in enumerate(cars.ids)}
    rows = [row.get(int(number), -1) for number in between.ids]
    known = np.array([k >= 0 for k in rows], bool)
    s = np.where(known, np.append(cars.s + away * along, np.nan)[rows], np.nan)
    d = np.where(known, np.append(cars.d, np.nan)[rows], np.nan)
    lane = np.where(known, np.append(cars.lane, -1)[rows], -1)
    return dataclasses.replace(between, s=s, d=d, lane=lane)


def _ego(a: Scene, b: Scene, near: Scene, share: float, span: float, same_road: bool) -> Ego:
    old, new = a.ego, b.ego
    x, y = _hermite(
        _state(old),
        _state(new),
        share,
        span,
    )
    if same_road:
        s, d = _line(old.s, new.s, share), _line(old.d, new.d, share)
    else:
        away = share * span if near is a else (share - 1.0) * span
        s, d = near.ego.s + away * near.ego.speed, near.ego.d
    target = new.target_lane if same_road else near.ego.target_lane
    return dataclasses.replace(
        new,
        x=float(x[0]),
        y=float(y[0]),
        heading=float(_angle(old.heading, new.heading, share)),
        speed=_line(old.speed, new.speed, share),
        s=s,
        d=d,
        lane=near.ego.lane,
        target_lane=target,
        crashed=old.crashed,
    )


def _vehicles(a: Vehicles, b: Vehicles, share: float, span: float) -> Vehicles:
    if np.array_equal(a.ids, b.ids):
        return _same_vehicles(a, b, share, span)
    _, i, j = np.intersect1d(a.ids, b.ids, return_indices=True)
    order = np.argsort(i, kind="stable")
    i, j = i[order], j[order]
    start, end = (a.x[i], a.y[i], a.heading[i], a.speed[i]), (b.x[j], b.y[j], b.heading[j], b.speed[j])
    x, y = _hermite(start, end, share, span)
    lone, away = (a, share * span) if share < 0.5 else (b, (share - 1.0) * span)
    k = np.flatnonzero(~np.isin(lone.ids, a.ids[i]))
    near, n = (a, i) if share < 0.5 else (b, j)
    along_a = np.where(np.isnan(a.s[i] + b.s[j]), near.s[n], _line(a.s[i], b.s[j], share))
    across = np.where(np.isnan(a.d[i] + b.d[j]), near.d[n], _line(a.d[i], b.d[j], share))

    def join(both: np.ndarray, alone: np.ndarray) -> np.ndarray:
        return np.concatenate([both, alone])

    return Vehicles(
        ids=join(a.ids[i], lone.ids[k]),
        x=join(x, lone.x[k] + away * lone.speed[k] * np.cos(lone.heading[k])),
        y=join(y, lone.y[k] + away * lone.speed[k] * np.sin(lone.heading[k])),
        heading=join(_angle(a.heading[i], b.heading[j], share), lone.heading[k]),
        speed=join(_line(a.speed[i], b.speed[j], share), lone.speed[k]),
        acceleration=join(b.acceleration[j], lone.acceleration[k]),
        s=join(along_a, lone.s[k] + away * lone.speed[k]),
        d=join(across, lone.d[k]),
        lane=join(near.lane[n], lone.lane[k]),
        length=join(near.length[n], lone.length[k]),
        width=join(near.width[n], lone.width[k]),
        crashed=join(a.crashed[i], lone.crashed[k]),
    )


def _same_vehicles(a: Vehicles, b: Vehicles, share: float, span: float) -> Vehicles:
    """Between two scenes that show the same vehicles in the same order, as nearly all do."""
    near = a if share < 0.5 else b
    x, y = _hermite((a.x, a.y, a.heading, a.speed), (b.x, b.y, b.heading, b.speed), share, span)
    s, d = _line(a.s, b.s, share), _line(a.d, b.d, share)
    return dataclasses.replace(
        near,
        x=x,
        y=y,
        heading=_angle(a.heading, b.heading, share),
        speed=_line(a.speed, b.speed, share),
        acceleration=b.acceleration,
        s=np.where(np.isnan(s), near.s, s),
        d=np.where(np.isnan(d), near.d, d),
        crashed=a.crashed,
    )


def _goal(a: Goal | None, b: Goal | None, near: Goal | None, share: float) -> Goal | None:
    if a is None or b is None or near is None or a.remaining is None or b.remaining is None:
        return near
    return dataclasses.replace(near, remaining=_line(a.remaining, b.remaining, share))


def _line(a: Any, b: Any, share: float) -> Any:
    return a + share * (b - a)


def _angle(a: np.ndarray | float, b: np.ndarray | float, share: float) -> np.ndarray:
    """Interpolate along the shorter way round."""
    turn = np.remainder(np.subtract(b, a) + math.pi, 2 * math.pi) - math.pi
    return a + share * turn


BodyState = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _state(ego: Ego) -> BodyState:
    return np.array([ego.x]), np.array([ego.y]), np.array([ego.heading]), np.array([ego.speed])


def _hermite(start: BodyState, end: BodyState, share: float, span: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions between two states of x, y, heading and speed, each (N,), `span` seconds apart.

    They lie on the cubic Hermite curve, or on the chord for a body that was teleported.
    """
    (x0, y0, h0, v0), (x1, y1, h1, v1) = start, end
    u = share
    ease = u * u * (3 - 2 * u)
    lead, tail = u * (1 - u) ** 2 * span, u * u * (u - 1) * span
    step_x0, step_y0, step_x1, step_y1 = v0 * np.cos(h0), v0 * np.sin(h0), v1 * np.cos(h1), v1 * np.sin(h1)
    way_x, way_y = x1 - x0, y1 - y0
    curve_x = x0 + ease * way_x + lead * step_x0 + tail * step_x1
    curve_y = y0 + ease * way_y + lead * step_y0 + tail * step_y1
    off_x = way_x - (step_x0 + step_x1) / 2 * span
    off_y = way_y - (step_y0 + step_y1) / 2 * span
    driven = off_x * off_x + off_y * off_y < TELEPORT**2
    if driven.all():
        return curve_x, curve_y
    return np.where(driven, curve_x, _line(x0, x1, share)), np.where(driven, curve_y, _line(y0, y1, share))
