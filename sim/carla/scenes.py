"""Scenes from CARLA: the one place where its poses become ours.

Degrees become radians and boxes' half extents become lengths. The axes need no flip (see `routes`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.carla.lights import StopLine
from sim.carla.routes import STEP
from sim.scene import Ego, Goal, LaneShape, Scene, Vehicles

if TYPE_CHECKING:
    from sim.carla.env import CarlaEpisode

STOP_LINE_WIDTH = 3.0
"""Metres: a stop line as it is drawn."""
PAINT = {"Solid": "solid", "SolidSolid": "solid", "Broken": "broken", "BrokenBroken": "broken", "NONE": "none"}


def build_scene(
    scenario: str,
    episode: CarlaEpisode,
    place: tuple[float, float],
    lanes: tuple[int, int],
    centers: tuple[float, ...],
    width: float,
    time: float,
    period: float,
    set_points: tuple[float, ...],
    legal: np.ndarray,
    goal: Goal | None,
    shapes: tuple[LaneShape, ...],
) -> Scene:
    """The present scene. Vehicle ids are the ranks of the cars at the start, from 1; the ego has none."""
    own, (length, breadth) = episode.own[0], episode.ego_size
    stops = episode.lights.closed(place[0] + length / 2, float(own["speed"]))
    return Scene(
        scenario=scenario,
        time=time,
        decision_period=period,
        ego=Ego(
            x=float(own["x"]),
            y=float(own["y"]),
            heading=float(own["yaw"]),
            speed=float(own["speed"]),
            s=place[0],
            d=place[1],
            lane=lanes[0],
            target_lane=lanes[1],
            speed_index=episode.speed_index if set_points else -1,
            acceleration=float(own["acceleration"]),
            length=length,
            width=breadth,
            crashed=episode.crashed,
        ),
        vehicles=_vehicles(episode, stops),
        lane_centers=centers,
        lane_width=width,
        set_points=set_points,
        legal=legal,
        goal=goal,
        shapes=shapes,
    )


def _vehicles(episode: CarlaEpisode, stops: list[StopLine]) -> Vehicles:
    """The cars, then the stop lines of closed lights as cars of no length (ids below 0)."""
    route, cars = episode.route, episode.state
    here = np.flatnonzero(np.isfinite(cars["x"]))
    cars = cars[here]
    s, d, lane = route.locate(np.stack([cars["x"], cars["y"]], axis=1), cars["z"])
    poses = np.array([route.pose(line.s, line.d) for line in stops]).reshape(-1, 4)
    line_s, line_d = np.array([line.s for line in stops]), np.array([line.d for line in stops])
    line_lane = [route.lane_at(np.array([line.d]), np.array([route.sample(line.s)]))[0] for line in stops]
    none = np.zeros(len(stops))
    return Vehicles(
        ids=np.concatenate([here + 1, -1 - np.arange(len(stops))]),
        x=np.concatenate([cars["x"], poses[:, 0]]),
        y=np.concatenate([cars["y"], poses[:, 1]]),
        heading=np.concatenate([cars["yaw"], poses[:, 3]]),
        speed=np.concatenate([cars["speed"], none]),
        acceleration=np.concatenate([cars["acceleration"], none]),
        s=np.concatenate([s, line_s]),
        d=np.concatenate([d, line_d]),
        lane=np.concatenate([lane, np.array(line_lane, dtype=int)]),
        length=np.concatenate([episode.sizes[here, 0], none]),
        width=np.concatenate([episode.sizes[here, 1], none + STOP_LINE_WIDTH]),
        crashed=np.zeros(len(here) + len(stops), dtype=bool),
    )


def nearest_gap(episode: CarlaEpisode) -> float:
    """Metres between the ego's box and that of the nearest car, both taken as turned like the ego."""
    cars, own = episode.state, episode.own[0]
    if not len(cars):
        return np.inf
    dx, dy, yaw = cars["x"] - own["x"], cars["y"] - own["y"], own["yaw"]
    along = np.abs(dx * np.cos(yaw) + dy * np.sin(yaw)) - (episode.sizes[:, 0] + episode.ego_size[0]) / 2
    across = np.abs(dy * np.cos(yaw) - dx * np.sin(yaw)) - (episode.sizes[:, 1] + episode.ego_size[1]) / 2
    return float(np.nanmin(np.maximum(along, across)))


def lane_shapes(world_map: Any) -> tuple[LaneShape, ...]:
    """All lanes of a map, to draw."""
    lanes: dict[tuple[int, int, int], list[Any]] = {}
    for waypoint in world_map.generate_waypoints(STEP):
        lanes.setdefault((waypoint.road_id, waypoint.section_id, waypoint.lane_id), []).append(waypoint)
    shapes = []
    for waypoints in lanes.values():
        waypoints.sort(key=lambda waypoint: waypoint.s)
        places = [waypoint.transform.location for waypoint in waypoints]
        center = _to_the_ends(np.array([[place.x, place.y] for place in places]))
        if len(center) > 1:
            middle = waypoints[len(waypoints) // 2]
            marks = middle.left_lane_marking, middle.right_lane_marking
            left, right = (PAINT.get(mark.type.name, "broken") for mark in marks)
            if (
                middle.lane_id > 0
            ):  # s counts against the traffic there, so that the sides of the drawn line are swapped
                left, right = right, left
            shapes.append(LaneShape(center=center, width=middle.lane_width, left=left, right=right))
    return tuple(shapes)


def _to_the_ends(center: np.ndarray) -> np.ndarray:
    """Half a step more at both ends: a lane is sampled from its start, and its last sample lies short of its end."""
    if len(center) < 2:
        return center
    first, last = center[0] - center[1], center[-1] - center[-2]
    return np.concatenate([[center[0] + first / 4], center, [center[-1] + last / 2]])
