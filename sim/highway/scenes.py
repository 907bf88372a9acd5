"""Scenes from highway-env environments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from highway_env.envs.common.action import DiscreteMetaAction
from highway_env.road.lane import AbstractLane, LineType, StraightLane
from highway_env.vehicle.objects import Landmark

from sim.conflicts import Tracks, find, new_paths
from sim.highway.frame import AreaFrame, Frame, RoadFrame
from sim.highway.kinds import EnvKind
from sim.scene import CONFLICT, MOST_CONFLICTS, Ego, LaneShape, Scene, Vehicles

EGO_ID = 0
CURVE_STEP = 2.0
"""Metres between the points of a curved lane's polyline."""
BORDERS = {
    LineType.NONE: "none",
    LineType.STRIPED: "broken",
    LineType.CONTINUOUS: "solid",
    LineType.CONTINUOUS_LINE: "solid",
}


def number_bodies(inner: Any) -> None:
    """Give every body of the road an id that it keeps for the episode: 0 is the ego, new bodies follow in road order.

    The id is stored on the body, so that copies and pickles of the environment keep it.

    Args:
        inner: The highway-env environment.
    """
    road = inner.road
    inner.vehicle.scene_id = EGO_ID
    for body in (*road.vehicles, *road.objects):
        if not hasattr(body, "scene_id"):
            road.last_scene_id = body.scene_id = getattr(road, "last_scene_id", EGO_ID) + 1


def frame_at_ego(inner: Any, kind: EnvKind) -> Frame:
    """The coordinate frame of the ego's road, or of the open area that it is in."""
    if kind.area_width is not None:
        return AreaFrame(kind.area_width)
    return RoadFrame(inner.road.network, inner.vehicle)


def legal_actions(inner: Any) -> np.ndarray:
    """highway-env's available meta-actions.

    Args:
        inner: The highway-env environment.
    Returns:
        bool (A,); all True for other action types (A = axes where they are continuous).
    """
    space = inner.action_space
    if not isinstance(inner.action_type, DiscreteMetaAction):
        return np.ones(int(space.n) if hasattr(space, "n") else int(np.prod(space.shape)), dtype=bool)
    mask = np.zeros(int(space.n), dtype=bool)
    mask[inner.get_available_actions()] = True
    return mask


def set_points(inner: Any) -> tuple[float, ...]:
    """Speeds that FASTER and SLOWER step through.

    Args:
        inner: The highway-env environment.
    Returns:
        m/s, ascending; empty where the actions have no set-points.
    """
    actions = inner.action_type
    if not isinstance(actions, DiscreteMetaAction) or not actions.longitudinal:
        return ()
    return tuple(float(speed) for speed in inner.vehicle.target_speeds)


def build_scene(
    inner: Any,
    kind: EnvKind,
    scenario: str,
    time: float,
    shapes: tuple[LaneShape, ...] = (),
    tracks: Tracks | None = None,
) -> Scene:
    """The present scene.

    Args:
        inner: The highway-env environment, its bodies numbered.
        kind: How to read it.
        scenario: Registry name.
        time: Seconds into the episode.
        shapes: Lanes to draw.
        tracks: Lanes to find conflicts on; None: no conflicts are looked for.
    Returns:
        The scene.
    """
    frame = frame_at_ego(inner, kind)
    return Scene(
        scenario=scenario,
        time=time,
        decision_period=1 / inner.config["policy_frequency"],
        ego=_ego(inner, frame),
        vehicles=_vehicles(inner, frame),
        lane_centers=frame.centers,
        lane_width=frame.width,
        set_points=set_points(inner),
        legal=legal_actions(inner),
        goal=kind.goal(inner, frame),
        shapes=shapes,
        conflicts=find_conflicts(inner, tracks) if tracks and len(tracks.lanes) else np.zeros(0, CONFLICT),
    )


def find_conflicts(inner: Any, tracks: Tracks) -> np.ndarray:
    """Conflicts of the ego's path with those of the others.

    Args:
        inner: The highway-env environment.
        tracks: Of its road network.
    Returns:
        `CONFLICT` (C,)
    """
    bodies = [inner.vehicle, *other_bodies(inner)]
    motion = [[body.position[0], body.position[1], body.heading, body.speed] for body in bodies]
    lanes = [tracks.numbers[tuple(getattr(body, "target_lane_index", None) or body.lane_index)] for body in bodies]
    planned = [getattr(body, "route", None) or () for body in bodies]
    routes = np.full((len(bodies), max(*map(len, planned), 1), 2), -1)
    for row, steps in zip(routes, planned, strict=True):
        for k, (start, end, lane) in enumerate(steps):
            row[k] = tracks.numbers[(start, end, 0)], -1 if lane is None else lane
    places = np.array([lanes, [k if steps else -1 for k, steps in enumerate(planned)], [0] * len(bodies)])
    found = np.zeros(MOST_CONFLICTS, CONFLICT)
    count = find(found, tracks.lanes, tracks.points, routes, np.array(motion).T.copy(), places, new_paths())
    return found[:count]


def lane_shapes(inner: Any) -> tuple[LaneShape, ...]:
    """All lanes of the road network, to draw.

    Args:
        inner: The highway-env environment.
    Returns:
        One shape per lane.
    """
    return tuple(_shape(lane) for lane in inner.road.network.lanes_list())


def _shape(lane: AbstractLane) -> LaneShape:
    points = 2 if type(lane) is StraightLane else int(np.ceil(lane.length / CURVE_STEP)) + 1
    center = np.array([lane.position(s, 0) for s in np.linspace(0, lane.length, points)], dtype=float)
    left, right = (BORDERS[kind] for kind in lane.line_types)
    return LaneShape(center=center, width=float(lane.width_at(0)), left=left, right=right)


def _ego(inner: Any, frame: Frame) -> Ego:
    ego = inner.vehicle
    s, d = frame.project(ego.position)
    lane = 0 if isinstance(frame, AreaFrame) else int(ego.lane_index[2])
    return Ego(
        x=float(ego.position[0]),
        y=float(ego.position[1]),
        heading=float(ego.heading),
        speed=float(ego.speed),
        s=s,
        d=d,
        lane=lane,
        target_lane=lane if isinstance(frame, AreaFrame) else target_lane(inner, frame),
        speed_index=int(ego.speed_index) if set_points(inner) else -1,
        acceleration=float(ego.action["acceleration"]),
        length=float(ego.LENGTH),
        width=float(ego.WIDTH),
        crashed=bool(ego.crashed),
    )


def target_lane(inner: Any, frame: Any) -> int:
    """Lane of the ego's road that the ego is steering to.

    Args:
        inner: The highway-env environment.
        frame: Frame of the ego's road.
    Returns:
        Its index; that of the ego's own lane where the ego has no lane controller.
    """
    ego = inner.vehicle
    target = getattr(ego, "target_lane_index", None)
    if target is None or target[:2] == ego.lane_index[:2]:
        return int((target or ego.lane_index)[2])
    # The controller already follows the next segment: take the lane of this one that leads there.
    start = inner.road.network.get_lane(target).position(0, 0)
    return int(np.argmin(np.abs(np.subtract(frame.centers, frame.project(start)[1]))))


def _vehicles(inner: Any, frame: Frame) -> Vehicles:
    bodies = other_bodies(inner)
    s, d, lane = frame.locate(bodies)

    def column(values: Sequence[Any], dtype: type = float) -> np.ndarray:
        return np.array(values, dtype=dtype)

    return Vehicles(
        ids=column([body.scene_id for body in bodies], int),
        x=column([body.position[0] for body in bodies]),
        y=column([body.position[1] for body in bodies]),
        heading=column([body.heading for body in bodies]),
        speed=column([body.speed for body in bodies]),
        acceleration=column([_acceleration(body) for body in bodies]),
        s=s,
        d=d,
        lane=lane,
        length=column([body.LENGTH for body in bodies]),
        width=column([body.WIDTH for body in bodies]),
        crashed=column([body.crashed for body in bodies], bool),
    )


def other_bodies(inner: Any) -> list[Any]:
    """All that the ego could hit.

    Args:
        inner: The highway-env environment.
    Returns:
        Other vehicles in road order, then obstacles and walls (which count as vehicles at speed 0).
    """
    road = inner.road
    obstacles = [body for body in road.objects if not isinstance(body, Landmark)]
    return [body for body in road.vehicles if body is not inner.vehicle] + obstacles


def _acceleration(body: Any) -> float:
    return float(body.action["acceleration"]) if hasattr(body, "action") else 0.0
