"""Marks on the road: goal, red lights, unsafe lane changes, the ego's trail and target, the gap to the car ahead."""

from __future__ import annotations

import math

import numpy as np
import pygame

from sim.actions import MetaAction
from sim.render.canvas import Brush, tint
from sim.render.frame import FrameContext
from sim.render.ground import LINE
from sim.render.palette import Theme
from sim.render.panels import TTC_WARNING
from sim.render.road import Polyline

STOP_LINE = 0.7
"""Width of the bar of a red light, m."""
UNSAFE_REACH = 8.0
"""Metres ahead of and behind the ego that are hatched where a lane change is unsafe."""
HATCH, HATCH_PERIOD, HATCH_SLANT = 0.5, 1.5, 2.2
"""Metres along the lane: length of a stripe, from one stripe to the next, and its slant over the lane's width."""
CHEQUER = 0.8
"""Size of a square of the finish line, m."""


def draw_marks(picture: pygame.Surface, frame: FrameContext, theme: Theme) -> None:
    """Draw all marks, later ones on top.

    Args:
        picture: Receives them; the ground is there already.
        frame: What is drawn.
        theme: The colours.
    """
    brush = Brush(picture, frame.camera)
    for draw in (_goal, _stop_lines, _unsafe_changes, _trail, _target, _finish, _gap):
        draw(brush, frame, theme)
        brush.flush()


def _goal(brush: Brush, frame: FrameContext, theme: Theme) -> None:
    """The lane to be in, tinted up to the finish, between its painted lines."""
    scene, goal, road = frame.scene, frame.scene.goal, frame.road
    if road.is_lot:
        for spot in frame.goal_spots():
            lane, half = road.lanes[spot], road.widths[spot] / 2 - LINE / 2
            brush.fill(tint(theme.goal, 0.45), lane.strip(-half, half, 0.0, lane.length))
        return
    if goal is None or goal.lane is None or scene.num_lanes < 2:
        return
    behind = 60.0 if road.is_corridor else 0.0
    ahead = 200.0 if goal.remaining is None else min(max(goal.remaining, -behind), 200.0)
    path = frame.lane_path(goal.lane, ahead, behind)
    if path is not None and path.length > 0.1:
        half = scene.lane_width / 2 - LINE / 2
        brush.fill(tint(theme.goal, 0.26), path.strip(-half, half, 0.0, path.length))


def _stop_lines(brush: Brush, frame: FrameContext, theme: Theme) -> None:
    """A bar across the lane where a light is red; scenes represent it by a car of length 0."""
    cars = frame.scene.vehicles
    for k in np.flatnonzero(cars.length == 0.0):
        along = np.array([math.cos(cars.heading[k]), math.sin(cars.heading[k])]) * STOP_LINE / 2
        across = np.array([-along[1], along[0]]) * (cars.width[k] / STOP_LINE)
        corners = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
        middle = np.array([cars.x[k], cars.y[k]])
        brush.fill(tint(theme.crash), np.array([middle + a * along + b * across for a, b in corners]))


def _unsafe_changes(brush: Brush, frame: FrameContext, theme: Theme) -> None:
    """Hatching beside the ego in lanes to which a change is unsafe now."""
    scene, ego, overlay = frame.scene, frame.scene.ego, frame.overlay
    if overlay is None or overlay.unsafe is None or ego.crashed or frame.road.is_lot:
        return
    half, reach = scene.lane_width / 2 - 0.3, ego.length / 2 + UNSAFE_REACH
    for action, unsafe in zip(scene.meanings, overlay.unsafe, strict=False):
        side = {MetaAction.LANE_LEFT: -1, MetaAction.LANE_RIGHT: 1}.get(action, 0)
        lane = ego.target_lane + side
        if not (unsafe and side and 0 <= lane < scene.num_lanes):
            continue
        path = frame.lane_path(lane, reach, reach)
        if path is not None and path.length > 2.0:
            _hatch(brush, theme, path, half, side)


def _hatch(brush: Brush, theme: Theme, path: Polyline, half: float, side: int) -> None:
    """A stretch of lane in slanted stripes that lean away from the ego, with an edge on the ego's side."""
    colour, length = theme.crash, path.length
    brush.fill(tint(colour, 0.13), path.strip(-half, half, 0.0, length))
    stripes = []
    for begin in np.arange(-HATCH_SLANT, length, HATCH_PERIOD).tolist():
        # Corners as arc length and share of the lane's width, counted from the ego's side.
        tip = begin + HATCH_SLANT
        corners = [(begin, 0.0), (begin + HATCH, 0.0), (tip + HATCH, 1.0), (tip, 1.0)]
        if begin < 0.0 or tip + HATCH > length:
            corners = _between(corners, 0.0, length)
        if len(corners) >= 3:
            stripes.append(corners)
    s, share = np.concatenate(stripes).T
    points, normals = path.at(s)
    points += normals * (side * half * (2.0 * share - 1.0))[:, None]
    for stripe in np.split(points, np.cumsum([len(corners) for corners in stripes])[:-1]):
        brush.fill(tint(colour, 0.42), stripe)
    edge = sorted((-side * half, -side * (half - 0.14)))
    brush.fill(tint(colour, 0.75), path.strip(edge[0], edge[1], 0.0, length))


def _between(polygon: list[tuple[float, float]], low: float, high: float) -> list[tuple[float, float]]:
    """The part of a convex polygon whose first coordinate lies within limits."""
    for sign, limit in ((1.0, low), (-1.0, -high)):
        kept: list[tuple[float, float]] = []
        for (s0, d0), (s1, d1) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            inside0, inside1 = sign * s0 >= limit, sign * s1 >= limit
            if inside0:
                kept.append((s0, d0))
            if inside0 != inside1:
                share = (sign * limit - s0) / (s1 - s0)
                kept.append((sign * limit, d0 + share * (d1 - d0)))
        polygon = kept
        if not polygon:
            break
    return polygon


def _trail(brush: Brush, frame: FrameContext, theme: Theme) -> None:
    """Where the ego came from, fading."""
    camera, points = frame.camera, frame.trail
    near = np.flatnonzero(np.abs(points - (camera.x, camera.y)).max(axis=1) < camera.radius)
    if len(points) < 3 or near.size == 0:
        return
    count, begin = len(points) - 1, max(int(near[0]) - 1, 0)
    path = Polyline.through(points[begin:])
    if len(path.points) < 3:
        return
    low, high = path.points - 0.28 * path.normals, path.points + 0.28 * path.normals
    quads = np.stack([low[:-1], low[1:], high[1:], high[:-1]], axis=1)
    first = count - len(quads)
    shares = [0.1 + 0.6 * (first + number + 1) / count for number in range(len(quads))]
    brush.fill_all([tint(theme.ego, share) for share in shares], quads)


def _target(brush: Brush, frame: FrameContext, theme: Theme) -> None:
    """An arrow along the way into the lane that the ego steers to."""
    ego, offset = frame.scene.ego, frame.target_offset
    if ego.target_lane == ego.lane and abs(offset) < 0.6:
        return
    path = frame.lane_path(ego.target_lane, max(16.0, 1.1 * ego.speed))
    if path is None or path.length < 8.0 or ego.crashed:
        return
    s = np.linspace(0.0, path.length, 24)
    points, normals = path.at(s)
    share = np.clip(s / (0.75 * path.length), 0.0, 1.0)
    points = points - normals * (offset * (1.0 - share**2 * (3.0 - 2.0 * share)))[:, None]
    line = Polyline.through(points)
    colour = tint(theme.ego, 0.8)
    start = min(ego.length / 2 + 0.6, line.length / 3)
    half = max(0.11, frame.metres(0.9) / 2)
    brush.fill(colour, line.strip(-half, half, start, line.length - 0.8))
    tip, normal = line.points[-1], line.normals[-1]
    along = np.array([normal[1], -normal[0]])
    brush.fill(
        colour, np.array([tip + along * 0.6, tip - along * 1.0 + normal * 0.75, tip - along * 1.0 - normal * 0.75])
    )


def _finish(brush: Brush, frame: FrameContext, theme: Theme) -> None:
    """A chequered line across the road."""
    if frame.finish is None:
        return
    point, normal, low, high = frame.finish
    along = np.array([normal[1], -normal[0]])
    count = max(round((high - low) / CHEQUER), 1)
    edges = point + np.linspace(low, high, count + 1)[:, None] * normal
    colours, corners = [], []
    for column in range(2):
        a, b = CHEQUER * (column - 1) * along, CHEQUER * column * along
        corners.append(np.stack([edges[:-1] + a, edges[:-1] + b, edges[1:] + b, edges[1:] + a], axis=1))
        colours += [tint(theme.glass if (row + column) % 2 else (255, 255, 255)) for row in range(count)]
    brush.fill_all(colours, np.concatenate(corners))


def _gap(brush: Brush, frame: FrameContext, theme: Theme) -> None:
    """A dimension line from bumper to bumper."""
    front, ends = frame.front, frame.gap_ends
    if ends is None or front is None:
        return
    colour = tint(theme.brake if front.ttc < TTC_WARNING else theme.ink, 0.75)
    path = Polyline.through(ends)
    inset = min(0.4, path.length / 6)
    half = frame.metres(1.2) / 2
    brush.fill(colour, path.strip(-half, half, inset, path.length - inset))
    for s in (inset, path.length - inset):
        brush.fill(colour, path.strip(-0.7, 0.7, s - half, s + half))
