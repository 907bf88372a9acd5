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
from sim.engine import roads
from sim.engine.bodies import OBSTACLE_SIZE
from sim.engine.records import nth
from sim.engine.routes import ROUTE_STEPS
from sim.sizes import CAR_LENGTH, LANE_MARGIN
from sim.view import NO_GOAL, look, set_speeds

MOST_SEGMENTS = 48

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


def compile_frames(network: Any, routes: np.ndarray) -> np.ndarray:
    """The frames of egos in every lane of a highway-env `RoadNetwork`, without a route and at every step of one.

    Args:
        network: The network.
        routes: Of egos, int (R, `ROUTE_STEPS`, 2), see `sim.engine.routes`.
    Returns:
        `FRAME` ((1 + R * `ROUTE_STEPS`) * L,), in the order in which `frame_of` counts them.
    """
    keys = roads.lane_keys(network)
    plain = _frames(network, keys, None)
    parts = [plain]
    for steps in routes.reshape(-1, ROUTE_STEPS, 2):
        ways = [[keys[first] for first, _ in steps[k:] if first >= 0] for k in range(ROUTE_STEPS)]
        parts += [_frames(network, keys, way) if way else plain for way in ways]
    return np.concatenate(parts)


def _frames(network: Any, keys: list[tuple[str, str, int]], route: Any) -> np.ndarray:
    """`FRAME` (L,) of egos with a route in highway-env's form, or with none."""
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
def frame_of(frames, lanes, ego):
    """The frame of an ego; `frames` is the first one."""
    row = 1 + ego.route * ROUTE_STEPS + ego.route_step if ego.route >= 0 else 0
    return nth(frames, row * lanes.lanes + ego.lane)


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
def _centers(frame, lanes, ego):
    """d of the centres of the lanes of the ego's road, beside the ego."""
    own = nth(lanes, ego.lane)
    centers = np.empty(own.count)
    for n in range(own.count):
        lane = nth(lanes, own.first + n)
        x, y = roads.position(lane, roads.along(lane, ego.x, ego.y), 0.0)
        centers[n] = _in_frame(frame, lanes, 0, x, y)[1]
    return centers


@kernel
def place_in_frame(ego, lanes, frames):
    """(s, d) of an ego in its frame."""
    return _in_frame(frame_of(frames, lanes, ego), lanes, 0, ego.x, ego.y)


@kernel
def gap_ttc_ahead(env, ego, lanes, frames, n):
    """Bumper gap (m) and time-to-collision (s) to the body ahead of the ego in lane n of its road, as `Scene` has them.

    Lanes go on along the ego's route. Both are inf on a free lane.
    """
    own, frame = nth(lanes, ego.lane), frame_of(frames, lanes, ego)
    centers = _centers(frame, lanes, ego)
    s = _in_frame(frame, lanes, 0, ego.x, ego.y)[0]
    best, best_s = -1, math.inf
    for j in range(1, env.bodies):
        s_j, d = _locate(frame, lanes, centers, own.width, nth(ego, j))
        if s <= s_j <= best_s and abs(d - centers[n - own.first]) <= own.width / 2 + LANE_MARGIN:
            best, best_s = j, s_j
    if best < 0:
        return math.inf, math.inf
    body = nth(ego, best)
    length = CAR_LENGTH if best < env.vehicles else OBSTACLE_SIZE
    gap = best_s - s - (length + CAR_LENGTH) / 2
    closing = ego.speed - (body.speed if math.cos(body.heading - ego.heading) >= 0.0 else -body.speed)
    return gap, (max(gap, 0.0) / closing if closing > 0 else math.inf)


@kernel
def watch(envs, bodies, lanes, frames, rows):
    """Put the time-to-collision of the environments `rows` into their statistics."""
    for i in rows:
        env, ego = envs[i], bodies[i, 0]
        env.min_ttc = min(env.min_ttc, gap_ttc_ahead(env, ego, lanes[0], frames[0], ego.lane)[1])


@kernel
def see(view, env, ego, lanes, frames, p, set_points, target, columns):
    """Fill one view.

    Args:
        view: `VIEW` record to fill.
        env: As in `sim.engine.bodies`, and so are `ego`, `lanes` and `p`.
        ego: The ego.
        lanes: First lane.
        frames: First `FRAME`.
        p: Parameters.
        set_points: float64 (K,) m/s; empty where the actions have none.
        target: The lane of the ego's road that it steers to.
        columns: Scratch, float64 (5, B).
    """
    own, frame = nth(lanes, ego.lane), frame_of(frames, lanes, ego)
    centers = _centers(frame, lanes, ego)
    for j in range(1, env.bodies):
        body = nth(ego, j)
        columns[0, j], columns[1, j] = _locate(frame, lanes, centers, own.width, body)
        columns[2, j], columns[3, j] = body.speed, body.heading
        columns[4, j] = CAR_LENGTH if j < env.vehicles else OBSTACLE_SIZE
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
