"""Views (`sim.view`) of egos on compiled roads: the frame of their road as a table, and the kernel that reads it.

The frame is that of the scenes (`sim.highway.frame`): the ego's road, with the roads before and behind it laid end to
end with it.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np

from sim.compiled import kernel
from sim.conflicts import find
from sim.engine import roads
from sim.engine.bodies import OBSTACLE_SIZE
from sim.engine.records import nth
from sim.sizes import CAR_LENGTH, LANE_MARGIN
from sim.view import NO_GOAL, look, set_speeds

MOST_SEGMENTS = 16

FRAME = np.dtype(
    [
        ("aligned", "?"),  # on its own road, s and d are plain projections of the world position
        ("count", "i8"),
        ("reference", "i8", MOST_SEGMENTS),  # lane 0 of each road, the ego's own first ...
        ("s0", "f8", MOST_SEGMENTS),  # ... and the frame's coordinates of its start
        ("d0", "f8", MOST_SEGMENTS),
    ],
    align=True,
)
"""The frame of an ego in one lane."""


def compile_frames(network: Any) -> np.ndarray:
    """`FRAME` (L,) of a highway-env `RoadNetwork`, for each lane in the order of `roads.lane_keys`."""
    from sim.highway.frame import RoadFrame

    keys = roads.lane_keys(network)
    frames = np.zeros(len(keys), FRAME)
    for key, record in zip(keys, frames, strict=True):
        start = network.get_lane(key).position(0.0, 0.0)
        frame = RoadFrame(network, SimpleNamespace(lane_index=key, position=start, route=None))
        segments = frame.segments[:MOST_SEGMENTS]
        record["aligned"], record["count"] = frame.own.world_aligned, len(segments)
        for k, segment in enumerate(segments):
            record["reference"][k] = keys.index((*segment.key, 0))
            record["s0"][k], record["d0"][k] = segment.s0, segment.d0
    return frames


@kernel
def _in_frame(frame, lanes, k, x, y):
    """(s, d) of a point by the frame's k-th road."""
    reference = nth(lanes, frame.reference[k])
    if k == 0 and frame.aligned:
        return x * reference.ux + y * reference.uy, x * -reference.uy + y * reference.ux
    s, d = roads.project(reference, x, y)
    return s + frame.s0[k], d + frame.d0[k]


@kernel
def _locate(frame, lanes, centers, width, body):
    """(s, d) of a body, NaN where it is not on the ego's road or a continuation of it."""
    if nth(lanes, body.lane).first == frame.reference[0]:
        return _in_frame(frame, lanes, 0, body.x, body.y)
    for k in range(frame.count):
        s, d = _in_frame(frame, lanes, k, body.x, body.y)
        length = nth(lanes, frame.reference[k]).length
        if frame.s0[k] - CAR_LENGTH <= s < frame.s0[k] + length + CAR_LENGTH:
            for center in centers:
                if abs(center - d) <= width / 2 + LANE_MARGIN:
                    return s, d
    return math.nan, math.nan


@kernel
def see(view, env, ego, lanes, frames, p, set_points, target, columns):
    """Fill one view.

    Args:
        view: `VIEW` record to fill, its conflicts already filled.
        env: As in `sim.engine.bodies`, and so are `ego`, `lanes` and `p`.
        ego: The ego.
        lanes: First lane.
        frames: First `FRAME`; the others by lane.
        p: Parameters.
        set_points: float64 (K,) m/s; empty where the actions have none.
        target: The lane of the ego's road that it steers to.
        columns: Scratch, float64 (5, B).
    """
    own, frame = nth(lanes, ego.lane), nth(frames, ego.lane)
    centers = np.empty(own.count)
    for n in range(own.count):
        lane = nth(lanes, own.first + n)
        x, y = roads.position(lane, roads.along(lane, ego.x, ego.y), 0.0)
        centers[n] = _in_frame(frame, lanes, 0, x, y)[1]
    for j in range(1, env.bodies):
        body = nth(ego, j)
        columns[0, j], columns[1, j] = _locate(frame, lanes, centers, own.width, body)
        columns[2, j], columns[3, j] = body.speed, body.heading
        columns[4, j] = CAR_LENGTH if j < env.vehicles else OBSTACLE_SIZE
    for k in range(view.conflict_count):
        if not view.conflicts[k].joins:
            columns[0, view.conflicts[k].vehicle + 1] = math.nan
    s, d = _in_frame(frame, lanes, 0, ego.x, ego.y)
    cars = columns[:, 1 : env.bodies]
    look(
        view,
        (s, d, ego.speed, ego.heading, CAR_LENGTH),
        (own.id, nth(lanes, target).id, p.goal_lane if ego.x < p.goal_x else NO_GOAL),
        centers,
        own.width,
        cars[0],
        cars[1],
        cars[2],
        cars[3],
        cars[4],
    )
    set_speeds(view, env.speed_index, set_points, p.period)


@kernel
def see_conflicts(view, env, ego, tracks, points, p, motion, places, paths):
    """Fill the conflicts of one view.

    Args:
        view: As in `see`, and so are `env`, `ego` and `p`.
        env: The environment.
        ego: The ego.
        tracks: `Tracks.lanes`.
        points: `Tracks.points`.
        p: Parameters.
        motion: Scratch, float64 (4, B).
        places: Scratch, int64 (3, B).
        paths: Scratch, see `find`.
    """
    for j in range(env.bodies):
        body, drives = nth(ego, j), j < env.vehicles
        motion[0, j], motion[1, j], motion[2, j], motion[3, j] = body.x, body.y, body.heading, body.speed
        places[0, j] = body.target if drives else body.lane
        places[1, j], places[2, j] = (body.route if drives else -1), body.route_step
    b = env.bodies
    view.conflict_count = find(view.conflicts, tracks, points, p.routes, motion[:, :b], places[:, :b], paths)
