"""The geometry of one picture: where the ego is on the road, the car ahead, the finish, the gap, the path of a lane."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from sim.render.camera import Camera
from sim.render.overlay import Overlay
from sim.render.road import Polyline, RoadGeometry
from sim.scene import Neighbour, Scene

OPEN_AREA = 8.0
"""Metres: where lanes are at least this wide, as in a parking lot, there is no car ahead in a lane."""


def car_ahead(scene: Scene) -> Neighbour | None:
    """The car ahead in the ego's lane; None where there is none, and in open areas.

    Args:
        scene: The scene of one moment.
    """
    return scene.front(scene.ego.lane) if scene.lane_width < OPEN_AREA else None


class Finish(NamedTuple):
    """Where the ego's lane meets the goal."""

    point: np.ndarray
    """(2,)"""
    normal: np.ndarray
    """(2,) to the right"""
    low: float
    """Offset of the road's left edge along the normal, m."""
    high: float
    """Offset of the road's right edge, m."""


@dataclass(frozen=True)
class FrameContext:
    """One scene as it is drawn: what every part of the picture reads."""

    scene: Scene
    overlay: Overlay | None
    road: RoadGeometry
    camera: Camera
    trail: np.ndarray
    """(P, 2) positions of the ego up to now, m."""

    @cached_property
    def here(self) -> tuple[int, float, np.ndarray] | None:
        """Lane, arc length and tangent at the ego; None beside all lanes."""
        ego = self.scene.ego
        return self.road.lane_at(ego.x, ego.y, ego.heading)

    @cached_property
    def front(self) -> Neighbour | None:
        """The car ahead in the ego's lane; None in open areas."""
        return car_ahead(self.scene)

    def metres(self, pixels: float) -> float:
        """The length that a number of pixels shows, m."""
        return pixels / self.camera.zoom

    @property
    def target_offset(self) -> float:
        """Metres from the ego to the centre of its target lane, to the right."""
        scene = self.scene
        target = min(max(scene.ego.target_lane, 0), scene.num_lanes - 1)
        return scene.lane_centers[target] - scene.ego.d if scene.num_lanes else 0.0

    def lane_path(self, lane: int, distance: float, behind: float = 0.0) -> Polyline | None:
        """The centre line of one of the ego's lanes, as far as it is unambiguous.

        Args:
            lane: Index of the lane, from the left.
            distance: Metres ahead of the ego.
            behind: Metres behind the ego.

        Returns:
            The path; None where there is no such lane.
        """
        scene, ego = self.scene, self.scene.ego
        if not 0 <= lane < scene.num_lanes:
            return None
        if self.here is None:
            return None
        tangent = self.here[2]
        normal = np.array([-tangent[1], tangent[0]])
        start = np.array([ego.x, ego.y]) + normal * (scene.lane_centers[lane] - ego.d)
        heading = math.atan2(tangent[1], tangent[0])
        back = start - behind * tangent
        if behind and (path := self.road.follow(back[0], back[1], heading, distance + behind)) is not None:
            return path
        return self.road.follow(start[0], start[1], heading, distance)

    @cached_property
    def finish(self) -> Finish | None:
        """Where the ego's lane meets the goal; None where the way there is ambiguous."""
        scene = self.scene
        goal = scene.goal
        if goal is None or goal.s is None or goal.remaining is None or self.road.is_lot:
            return None
        if goal.remaining > 0.0:
            path = self.lane_path(scene.ego.lane, goal.remaining)
            if path is None or path.length < goal.remaining - 1.0:
                return None
            point, normal = path.points[-1], path.normals[-1]
        elif self.here is not None and self.road.is_corridor:  # passed
            along = self.here[2]
            point = np.array([scene.ego.x, scene.ego.y]) + goal.remaining * along
            normal = np.array([-along[1], along[0]])
        else:
            return None
        return Finish(point, normal, *self.road.cross_section(point[0], point[1], normal))

    @cached_property
    def gap_ends(self) -> np.ndarray | None:
        """World points (2, 2) at the bumpers of the ego and the car ahead, where a straight line can join them."""
        front = self.front
        if front is None or front.gap < 1.0:
            return None
        ego, cars = self.scene.ego, self.scene.vehicles
        index = int(np.flatnonzero(cars.ids == front.id)[0])
        heading = float(cars.heading[index])
        if math.cos(heading - ego.heading) < 0.94:
            return None
        # The road's own direction there: what turns (s, d) of the other car into its place in the world.
        seen = math.atan2(cars.y[index] - ego.y, cars.x[index] - ego.x)
        road = seen - math.atan2(cars.d[index] - ego.d, cars.s[index] - ego.s)
        along = np.array([math.cos(road), math.sin(road)])
        tail = np.array([cars.x[index], cars.y[index]]) - cars.length[index] / 2 * along
        to_ego = float((tail - (ego.x, ego.y)) @ along) - ego.length / 2
        return np.stack([tail - max(to_ego, 0.0) * along, tail]) if to_ego > 0.5 else None

    def goal_spots(self) -> list[int]:
        """The spots of a parking lot that fit the goal's s (x there) and distance: one, or two that are mirrored."""
        goal, ego = self.scene.goal, self.scene.ego
        if goal is None or goal.s is None or goal.remaining is None:
            return []
        middles = np.array([lane.at(np.array([lane.length / 2]))[0][0] for lane in self.road.lanes])
        distance = np.hypot(middles[:, 0] - ego.x, middles[:, 1] - ego.y)
        fits = (np.abs(middles[:, 0] - goal.s) < 0.5) & (np.abs(distance - goal.remaining) < 0.1)
        return np.flatnonzero(fits).tolist()
