"""The mandatory lane change (`sim.lane_change`) on CARLA: same road, traffic draws, observation, reward and end.

The car differs: pedals and a steering wheel take time to reach speeds and lanes, where the engine's servos do not, so a
policy trained on the engine meets a transfer gap here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from sim import lane_change as task
from sim.actions import NUM_ACTIONS
from sim.carla.control import LANE_CHANGE_GAINS, Gains
from sim.carla.routes import Route, lay
from sim.carla.task import (
    LATERAL_JITTER,
    CarlaTask,
    DecisionResult,
    EpisodeStart,
    Idm,
    VehicleStart,
    place_waypoint,
)
from sim.lane_change import LaneChangeConfig
from sim.outcome import Outcome
from sim.scene import Goal, Scene
from sim.sizes import LANE_WIDTH

ROAD_END = 3000.0
"""Metres: how far the shipped road reaches, with room to stop."""


class LaneChangeTask(CarlaTask):
    """On the shipped road, with the engine's own traffic draws."""

    map = "lane_change"
    traffic = "idm"
    gains: Gains = LANE_CHANGE_GAINS
    idm = Idm(task.IDM_DECELERATION, task.IDM_JAM_DISTANCE, task.TRAFFIC_ACCELERATION_LIMIT)
    vehicle = "vehicle.tesla.model3"
    others: Sequence[str] = ("vehicle.tesla.model3", "vehicle.audi.tt", "vehicle.lincoln.mkz_2020")

    def __init__(self, config: LaneChangeConfig) -> None:
        self.config = config
        self.substeps = config.substeps
        self.speeds = config.speeds
        self.observation_space = spaces.Box(-1.0, 1.0, (task.OBSERVATION_SIZE,), np.float32)
        self.action_space = spaces.Discrete(NUM_ACTIONS)
        self._route: Route | None = None

    def start(self, world_map: Any, rng: np.random.Generator) -> EpisodeStart:
        config = self.config
        if self._route is None:
            first = place_waypoint(world_map, config.start_x, 0.0)
            reach = ROAD_END - config.start_x
            self._route = lay(first, ahead=reach, behind=config.start_x - 2.0, s0=config.start_x)
        traffic = task.draw_traffic(config, rng)
        beside = rng.uniform(-LATERAL_JITTER, LATERAL_JITTER, traffic.x.shape)
        cars = [
            VehicleStart(x, lane * LANE_WIDTH + d, speed, speed, acceleration, headway)
            for lane in range(config.lanes)
            for x, d, speed, acceleration, headway in zip(
                *(v[lane] for v in (traffic.x, beside, traffic.speed, traffic.acceleration, traffic.headway)),
                strict=True,
            )
        ]
        line = config.start_lane * LANE_WIDTH
        ego = VehicleStart(config.start_x, line, config.start_speed, config.start_speed)
        return EpisodeStart(self._route, ego, cars, config.start_lane)

    def goal(self, scene_s: float) -> Goal:
        return Goal(self.config.goal_lane, self.config.goal_x, self.config.goal_x - scene_s)

    def observe(self, scene: Scene, along: float) -> np.ndarray:
        return observe(self.config, scene)

    def evaluate(self, result: DecisionResult) -> tuple[dict[str, float], Outcome, bool]:
        outcome = self._outcome(result)
        return reward_terms(self.config, result.before, result.after, result.lane_changed, outcome), outcome, False

    def _outcome(self, result: DecisionResult) -> Outcome:
        config, ego = self.config, result.after.ego
        if result.crashed:
            return Outcome.CRASH
        if ego.s >= config.goal_x:
            return Outcome.SUCCESS if ego.lane == config.goal_lane else Outcome.MISSED
        return Outcome.MISSED if result.off_road or result.steps >= config.time_limit else Outcome.RUNNING


def observe(config: LaneChangeConfig, scene: Scene) -> np.ndarray:
    """The observation that `sim.lane_change` defines, from a scene of any simulator.

    Args:
        config: Of the task.
        scene: The present scene.

    Returns:
        float32 (29,).
    """
    ego = scene.ego
    neighbours = [
        None if car is None else (car.dx, car.speed, car.acceleration)
        for lane in (ego.lane, ego.lane - 1, ego.lane + 1)
        for car in (scene.front(lane), scene.rear(lane))
    ]
    return task.observation(config, ego.lane, ego.s, ego.speed, ego.speed_index, neighbours)


def reward_terms(
    config: LaneChangeConfig, before: Scene, after: Scene, lane_changed: bool, outcome: Outcome
) -> dict[str, float]:
    """The reward that `sim.lane_change` defines, from the scenes before and after a decision.

    Args:
        config: Of the task.
        before: The scene before the decision.
        after: The scene after it.
        lane_changed: Whether the decision changed the target lane.
        outcome: RUNNING while the episode goes on.

    Returns:
        Weighted terms by name; the reward is their sum.
    """
    front = after.front(after.ego.lane)
    return task.reward_terms(
        config,
        lanes=(before.ego.lane, after.ego.lane),
        target_changed=lane_changed,
        speed=after.ego.speed,
        ttc=np.inf if front is None else front.ttc,
        outcome=outcome,
    )
