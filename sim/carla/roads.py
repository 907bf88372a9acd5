"""Driving on a road of a CARLA map: highway, merge, curve, intersection, roundabout, or any town of a real server.

The observation is highway-env's (`observe`: the Kinematics observation of highway-v0, along the road instead of along
x), so a policy of one simulator can drive on the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from sim.actions import NUM_ACTIONS
from sim.carla.config import STEP, RoadConfig
from sim.carla.control import Gains
from sim.carla.routes import Route, lay, leftmost
from sim.carla.task import (
    LATERAL_JITTER,
    CarlaTask,
    DecisionResult,
    EpisodeStart,
    Idm,
    VehicleStart,
    place_waypoint,
)
from sim.outcome import Outcome
from sim.scene import Goal, Scene

PERCEPTION = 200.0
"""Range of the observation, m (highway-env's)."""
SEEN_BEHIND = 10.0
"""Metres behind the ego in which a car counts as beside it (highway-env's)."""
SPEED_RANGE = 80.0
"""m/s that become 1 in an observation (highway-env's)."""
LANE_WIDTH = 4.0
"""Metres per lane by which d is scaled (highway-env's)."""
ROUTE_BEHIND = 150.0
"""Metres of route before the start, so that cars behind the ego are on it."""
CLEAR = 15.0
"""Metres around the ego's start where no managed car is placed."""


class RoadTask(CarlaTask):
    """Drive until the time limit, or as far as a goal, among scripted or managed traffic."""

    gains = Gains()
    idm = Idm()
    others = (
        "vehicle.tesla.model3",
        "vehicle.audi.tt",
        "vehicle.lincoln.mkz_2020",
        "vehicle.mercedes.coupe_2020",
        "vehicle.nissan.patrol_2021",
    )

    def __init__(self, config: RoadConfig) -> None:
        self.config = config
        self.map, self.traffic, self.vehicle = config.map, config.traffic, config.vehicle
        self.substeps = round(1 / config.policy_frequency / STEP)
        self.speeds = np.array(config.target_speeds)
        self.observation_space = spaces.Box(-1.0, 1.0, (config.observed_vehicles, 5), np.float32)
        meta = config.action == "meta"
        self.action_space: spaces.Space = (
            spaces.Discrete(NUM_ACTIONS) if meta else spaces.Box(-1.0, 1.0, (2,), np.float32)
        )
        self._goal_s: float | None = None

    def start(self, world_map: Any, rng: np.random.Generator) -> EpisodeStart:
        config = self.config
        here = self._start_waypoint(world_map, rng)
        reach = config.goal_distance or config.duration * max(config.target_speeds)
        first, across = leftmost(here) if config.along == "road" else (here, 0.0)
        route = lay(first, ahead=reach + PERCEPTION, behind=ROUTE_BEHIND, turns=config.turns)
        self._goal_s = config.goal_distance
        ego = VehicleStart(0.0, across, config.start_speed, config.start_speed)
        lane = int(np.argmin(np.abs(np.subtract(route.centers_at(0.0), across))))
        cars = self._cars(route, rng) if config.traffic == "idm" else []
        places = self._places(world_map, here, rng) if config.traffic == "tm" else []
        return EpisodeStart(route, ego, cars, lane, places)

    def _start_waypoint(self, world_map: Any, rng: np.random.Generator) -> Any:
        if self.config.start is not None:
            return place_waypoint(world_map, *self.config.start)
        points = world_map.get_spawn_points()
        return world_map.get_waypoint(points[rng.integers(len(points))].location)

    def _cars(self, route: Route, rng: np.random.Generator) -> list[VehicleStart]:
        """Random lanes, one car after the other with highway-env's spacing, ahead of the ego and behind it."""
        config = self.config
        behind = round(config.traffic_behind * config.vehicles_count)
        cars = []
        for count, direction in ((config.vehicles_count - behind, 1.0), (behind, -1.0)):
            s = 0.0
            for _ in range(count):
                speed = rng.uniform(*config.traffic_speed)
                centers = route.centers_at(s)
                spacing = (12.0 + speed) * np.exp(-5 / 40 * len(centers)) / config.density
                s += direction * spacing * rng.uniform(0.9, 1.1)
                if not route.s[0] + speed < s < route.end - speed:
                    break
                centers = route.centers_at(s)
                line = centers[rng.integers(len(centers))]
                cars.append(VehicleStart(s, line + rng.uniform(-LATERAL_JITTER, LATERAL_JITTER), speed, speed))
        return cars

    def _places(self, world_map: Any, here: Any, rng: np.random.Generator) -> list[Any]:
        """Spawn points in random order, none next to the ego."""
        center = here.transform.location
        points = [point for point in world_map.get_spawn_points() if point.location.distance(center) > CLEAR]
        return [points[k] for k in rng.permutation(len(points))[: self.config.vehicles_count]]

    def goal(self, scene_s: float) -> Goal | None:
        if self._goal_s is None:
            return None
        return Goal(self.config.goal_lane, self._goal_s, max(self._goal_s - scene_s, 0.0))

    def observe(self, scene: Scene, along: float) -> np.ndarray:
        return observe(scene, along, self.config.observed_vehicles)

    def evaluate(self, result: DecisionResult) -> tuple[dict[str, float], Outcome, bool]:
        config, weights, ego = self.config, self.config.reward, result.after.ego
        arrived = self._goal_s is not None and ego.s >= self._goal_s
        outcome, timed_out = Outcome.RUNNING, False
        if result.crashed:
            outcome = Outcome.CRASH
        elif result.off_road and not arrived:
            outcome = Outcome.MISSED
        elif arrived:
            outcome = Outcome.SUCCESS
        elif result.steps >= config.duration * config.policy_frequency - 1e-9:
            outcome, timed_out = Outcome.MISSED if self._goal_s is not None else Outcome.SUCCESS, True
        low, high = weights.speeds
        last = result.after.num_lanes - 1
        terms = {
            "crash": weights.crash * (outcome == Outcome.CRASH),
            "off_road": weights.off_road * (result.off_road and not arrived),
            "arrived": weights.arrived * (arrived and outcome == Outcome.SUCCESS),
            "speed": weights.speed * float(np.clip((ego.speed - low) / (high - low), 0.0, 1.0)),
            "right_lane": weights.right_lane * (ego.lane / last if last > 0 else 1.0),
            "lane_change": weights.lane_change * result.lane_changed,
            "red_light": weights.red_light * result.passed_red,
        }
        return terms, outcome, timed_out


def observe(scene: Scene, along: float, rows: int) -> np.ndarray:
    """highway-env's Kinematics observation with its default options, in road coordinates: x is s, y is d.

    Args:
        scene: The present scene.
        along: Heading of the road at the ego, rad.
        rows: Of the observation, the ego's included.

    Returns:
        float32 (rows, 5): presence, x, y, vx, vy of the ego; then, relative to it, of the nearest cars ahead and
            beside.
    """
    ego, cars = scene.ego, scene.vehicles
    scale = np.array([1.0, PERCEPTION, LANE_WIDTH * scene.num_lanes, SPEED_RANGE, SPEED_RANGE])
    found = np.zeros((rows, 5))
    own = np.array([ego.s, ego.d, ego.speed * np.cos(ego.heading - along), ego.speed * np.sin(ego.heading - along)])
    found[0] = 1.0, *own
    dx = cars.s - ego.s
    with np.errstate(invalid="ignore"):
        near = (np.hypot(cars.x - ego.x, cars.y - ego.y) < PERCEPTION) & (dx > -SEEN_BEHIND)
    seen = np.flatnonzero(near)
    seen = seen[np.argsort(np.abs(dx[seen]), kind="stable")][: rows - 1]
    for row, k in enumerate(seen, start=1):
        heading, speed = cars.heading[k] - along, cars.speed[k]
        car = np.array([cars.s[k], cars.d[k], speed * np.cos(heading), speed * np.sin(heading)])
        found[row] = 1.0, *(car - own)
    return np.clip(found / scale, -1.0, 1.0).astype(np.float32)
