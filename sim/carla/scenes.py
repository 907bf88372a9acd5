"""Scenes from CARLA: the one place where its poses are converted.

Degrees become radians and boxes' half extents become lengths. The axes need no flip (see `routes`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.actions import legal_mask
from sim.carla.episode import CarlaEpisode
from sim.carla.lights import StopLine
from sim.carla.routes import SPACING
from sim.carla.task import CarlaTask
from sim.scene import Ego, LaneShape, Scene, Vehicles

STOP_LINE_WIDTH = 3.0
"""Width of a stop line as it is drawn, m."""
PAINT = {"Solid": "solid", "SolidSolid": "solid", "Broken": "broken", "BrokenBroken": "broken", "NONE": "none"}


def build_scene(
    scenario: str, task: CarlaTask, episode: CarlaEpisode, period: float, shapes: tuple[LaneShape, ...]
) -> Scene:
    """The scene of the last frame.

    Args:
        scenario: Registry name.
        task: The scenario.
        episode: The running episode.
        period: Seconds per decision.
        shapes: Lanes of the map, to draw.

    Returns:
        The scene. Vehicle ids are the ranks of the cars at the start, from 1; the ego has none.
    """
    own, (length, width) = episode.own[0], episode.ego_size
    s, d, index = episode.place()
    centers = episode.route.centers_at(s)
    lane = int(np.argmin(np.abs(np.subtract(centers, d))))
    target = int(np.argmin(np.abs(np.subtract(centers, episode.line))))
    legal = np.ones(2, dtype=bool)
    if task.discrete:
        legal = legal_mask(lane, len(centers), episode.speed_index, len(task.speeds))
    stops = episode.lights.closed(s + length / 2, float(own["speed"]))
    return Scene(
        scenario=scenario,
        time=episode.steps * period,
        decision_period=period,
        ego=Ego(
            x=float(own["x"]),
            y=float(own["y"]),
            heading=float(own["yaw"]),
            speed=float(own["speed"]),
            s=s,
            d=d,
            lane=lane,
            target_lane=target,
            speed_index=episode.speed_index if task.discrete else -1,
            acceleration=float(own["acceleration"]),
            length=length,
            width=width,
            crashed=episode.crashed,
        ),
        vehicles=_vehicles(episode, stops),
        lane_centers=centers,
        lane_width=float(episode.route.width[index]),
        set_points=tuple(task.speeds.tolist()) if task.discrete else (),
        legal=legal,
        goal=task.goal(s),
        shapes=shapes,
    )


def _vehicles(episode: CarlaEpisode, stops: list[StopLine]) -> Vehicles:
    """The cars, then the stop lines of closed lights as cars of length 0 (ids below 0)."""
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


def lane_shapes(world_map: Any) -> tuple[LaneShape, ...]:
    """All lanes of a map, to draw.

    Args:
        world_map: A `carla.Map`.

    Returns:
        One shape per lane of a lane section.
    """
    lanes: dict[tuple[int, int, int], list[Any]] = {}
    for waypoint in world_map.generate_waypoints(SPACING):
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
            if middle.lane_id > 0:
                # s counts against the traffic there, so that the sides of the drawn line are swapped
                left, right = right, left
            shapes.append(LaneShape(center=center, width=middle.lane_width, left=left, right=right))
    return tuple(shapes)


def _to_the_ends(center: np.ndarray) -> np.ndarray:
    """Extend a centre line at both ends, because a lane's last sample lies short of its end."""
    if len(center) < 2:
        return center
    first, last = center[0] - center[1], center[-1] - center[-2]
    return np.concatenate([[center[0] + first / 4], center, [center[-1] + last / 2]])
