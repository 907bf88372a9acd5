"""Views (`sim.view`) of egos on compiled roads, in the frame of their road (`sim.engine.frames`)."""

from __future__ import annotations

import math

from sim.compiled import kernel
from sim.conflicts import find
from sim.engine.frames import centers_of, frame_of, in_frame, locate
from sim.engine.records import nth
from sim.sizes import CAR_LENGTH
from sim.view import NO_GOAL, look, set_speeds


@kernel
def see(view, env, ego, lanes, frames, p, set_points, target, columns):
    """Fill one view.

    Args:
        view: `VIEW` record to fill, its conflicts already filled.
        env: As in `sim.engine.bodies`, and so are `ego`, `lanes` and `p`.
        ego: The ego.
        lanes: First lane.
        frames: First `FRAME`.
        p: Parameters.
        set_points: float64 (K,) m/s; empty where the actions have none.
        target: The lane of the ego's road that it steers to.
        columns: Scratch, float64 (5, B).
    """
    own, frame = nth(lanes, ego.lane), frame_of(ego, lanes, frames)
    centers = centers_of(frame, ego, lanes)
    for j in range(1, env.bodies):
        body = nth(ego, j)
        columns[0, j], columns[1, j] = locate(frame, lanes, centers, own.width, body)
        columns[2, j], columns[3, j] = body.speed, body.heading
        columns[4, j] = body.length
    for k in range(view.conflict_count):
        if not view.conflicts[k].joins:
            columns[0, view.conflicts[k].vehicle + 1] = math.nan
    s, d = in_frame(frame, lanes, 0, ego.x, ego.y)
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
