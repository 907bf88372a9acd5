"""The ego's road as one coordinate frame, as in scenes (`sim.highway.frame`): a table, and the kernels that read it.

The frame is the ego's road with the roads ahead, along its route if it has one, and those behind laid end to end with
it. It depends on the lane that the ego is in and on what is left of its route.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from sim.compiled import kernel
from sim.engine import roads
from sim.engine.bodies import OBSTACLE_SIZE
from sim.engine.records import nth
from sim.sizes import CAR_LENGTH, LANE_MARGIN

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


def compile_frames(network: Any, routes: np.ndarray, ego_routes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Frames of all lanes of a highway-env `RoadNetwork`, for an ego without a route and for each rest of a route.

    Args:
        network: The network.
        routes: int (P, S, 2), see `roads.next_lane`.
        ego_routes: Those that egos may have.
    Returns:
        `FRAME` (F,): for each rest of a route the lanes in the order of `roads.lane_keys`; and int (P, S): the first
        frame for route p from step s on.
    """
    keys = roads.lane_keys(network)
    tables = [_frames(network, keys, [])]
    first = np.zeros(routes.shape[:2], np.int64)
    for route in ego_routes:
        steps = [keys[n] for n in routes[route, :, 0] if n >= 0]
        for step in range(len(steps)):
            first[route, step] = len(tables) * len(keys)
            tables.append(_frames(network, keys, steps[step:]))
    return np.concatenate(tables), first


def _frames(network: Any, keys: list[tuple[str, str, int]], route: list[tuple[str, str, int]]) -> np.ndarray:
    """Frames of all lanes for an ego with this route left."""
    from sim.highway.frame import RoadFrame

    frames = np.zeros(len(keys), FRAME)
    for key, record in zip(keys, frames, strict=True):
        start = network.get_lane(key).position(0.0, 0.0)
        frame = RoadFrame(network, SimpleNamespace(lane_index=key, position=start, route=route))
        segments = frame.segments[:MOST_SEGMENTS]
        record["aligned"], record["count"] = frame.own.world_aligned, len(segments)
        for k, segment in enumerate(segments):
            record["reference"][k] = keys.index((*segment.key, 0))
            record["s0"][k], record["d0"][k] = segment.s0, segment.d0
    return frames


@kernel
def frame_of(ego, frames, p):
    """The ego's frame; `frames` is the first one."""
    first = p.ego_frames[ego.route, ego.route_step] if ego.route >= 0 else 0
    return nth(frames, first + ego.lane)


@kernel
def in_frame(frame, lanes, k, x, y):
    """(s, d) of a point by the frame's k-th road."""
    reference = nth(lanes, frame.reference[k])
    if k == 0 and frame.aligned:
        return x * reference.ux + y * reference.uy, x * -reference.uy + y * reference.ux
    s, d = roads.project(reference, x, y)
    return s + frame.s0[k], d + frame.d0[k]


@kernel
def centers_of(frame, ego, lanes):
    """d of the centres of the lanes of the ego's road beside it, float64 (L,)."""
    own = nth(lanes, ego.lane)
    centers = np.empty(own.count)
    for n in range(own.count):
        lane = nth(lanes, own.first + n)
        x, y = roads.position(lane, roads.along(lane, ego.x, ego.y), 0.0)
        centers[n] = in_frame(frame, lanes, 0, x, y)[1]
    return centers


@kernel
def locate(frame, lanes, centers, width, body):
    """(s, d) of a body, NaN where it is not on the ego's road or a continuation of it."""
    if nth(lanes, body.lane).first == frame.reference[0]:
        return in_frame(frame, lanes, 0, body.x, body.y)
    for k in range(frame.count):
        s, d = in_frame(frame, lanes, k, body.x, body.y)
        length = nth(lanes, frame.reference[k]).length
        if frame.s0[k] - CAR_LENGTH <= s < frame.s0[k] + length + CAR_LENGTH:
            for center in centers:
                if abs(center - d) <= width / 2 + LANE_MARGIN:
                    return s, d
    return math.nan, math.nan


@kernel
def front_gap_ttc(env, ego, lanes, frames, p, n):
    """Bumper gap (m) and time-to-collision (s) to the body ahead of the ego in lane n of its road, as `Scene` has them.

    Both are inf on a free lane.
    """
    own, frame = nth(lanes, ego.lane), frame_of(ego, frames, p)
    centers = centers_of(frame, ego, lanes)
    s = in_frame(frame, lanes, 0, ego.x, ego.y)[0]
    center = centers[n - own.first]
    best, best_dx = -1, math.inf
    for j in range(1, env.bodies):
        s_j, d_j = locate(frame, lanes, centers, own.width, nth(ego, j))
        if abs(d_j - center) <= own.width / 2 + LANE_MARGIN and 0 <= s_j - s <= best_dx:
            best, best_dx = j, s_j - s
    if best < 0:
        return math.inf, math.inf
    length = CAR_LENGTH if best < env.vehicles else OBSTACLE_SIZE
    gap = best_dx - (length + CAR_LENGTH) / 2
    body = nth(ego, best)
    same_way = body.cos * ego.cos + body.sin * ego.sin >= 0
    closing = ego.speed - (body.speed if same_way else -body.speed)
    return gap, (max(gap, 0.0) / closing if closing > 0 else math.inf)
