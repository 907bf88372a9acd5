"""The lane-change task on highway-env's own objects: the reference that the engine has to equal bit for bit.

All motion is highway-env's code; this file sets the measured constants, draws the traffic, and reads observation,
reward and outcome as `sim.lane_change` defines them. It runs a few decisions per second.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from highway_env.envs.common.abstract import AbstractEnv
from highway_env.envs.common.action import DiscreteMetaAction
from highway_env.road.road import Road, RoadNetwork
from highway_env.vehicle.behavior import IDMVehicle
from highway_env.vehicle.controller import MDPVehicle
from highway_env.vehicle.kinematics import Vehicle

from sim import lane_change as task
from sim.errors import UsageError
from sim.highway.env import HighwayDrivingEnv
from sim.highway.kinds import EnvKind
from sim.highway.schema import checked, inner_observation
from sim.highway.upstream import construct
from sim.kinematics import speed_index
from sim.lane_change import LaneChangeConfig
from sim.outcome import Outcome
from sim.scene import Goal
from sim.vec import DrivingEnvs

if TYPE_CHECKING:
    from sim.scenarios import Scenario


META = "DiscreteMetaAction"


class LaneChangeEgo(MDPVehicle):
    """The ego with the servo gains measured from the published episode."""

    KP_A = task.KP_SPEED
    KP_LATERAL = task.KP_LATERAL
    KP_HEADING = task.KP_HEADING


class LaneKeepingVehicle(IDMVehicle):
    """IDM traffic that keeps its lane, with its own a and T and accelerations within +-2 m/s2.

    The free-road term (v / v*)^4 is computed by two squarings, so that traffic rounds alike on every CPU.
    """

    ACC_MAX = task.TRAFFIC_ACCELERATION_LIMIT
    COMFORT_ACC_MIN = -task.IDM_DECELERATION
    DISTANCE_WANTED = task.IDM_JAM_DISTANCE

    def __init__(self, road: Road, position: Any, speed: float, acceleration: float, headway: float) -> None:
        super().__init__(road, position, heading=0.0, speed=speed, enable_lane_change=False)
        self.COMFORT_ACC_MAX = acceleration
        self.TIME_WANTED = headway
        self.check_collisions = False  # only pairs with the ego are checked, as in highway-fast-v0

    def acceleration(
        self, ego_vehicle: Vehicle, front_vehicle: Vehicle | None = None, rear_vehicle: Vehicle | None = None
    ) -> float:
        """IDM of `ego_vehicle` (always this vehicle) behind `front_vehicle`, m/s2, not yet clipped."""
        ratio = max(self.speed, 0) / self.target_speed
        acceleration = self.COMFORT_ACC_MAX * (1 - (ratio * ratio) * (ratio * ratio))
        if front_vehicle:
            distance = self.lane_distance_to(front_vehicle)
            distance = distance if abs(distance) > 1e-2 else (1e-2 if distance >= 0 else -1e-2)
            closeness = self.desired_gap(self, front_vehicle) / distance
            acceleration -= self.COMFORT_ACC_MAX * (closeness * closeness)
        return acceleration


class LaneChangeEnv(AbstractEnv):
    """highway-env environment of the task. `info["outcome"]` is success | crash | missed at the end, else None.

    `config["task"]` carries the typed config; the rest are highway-env's own keys.
    """

    @classmethod
    def default_config(cls) -> dict:
        config = super().default_config()
        config.update(
            simulation_frequency=int(1 / task.SIMULATION_STEP),
            task=LaneChangeConfig(),
            screen_width=900,
            screen_height=120,
            scaling=5.0,
            centering_position=[0.35, 0.5],
        )
        return config

    @property
    def task(self) -> LaneChangeConfig:
        return self.config["task"]

    def configure(self, config: dict | None) -> None:
        super().configure(config)
        self.config["policy_frequency"] = self.task.decision_frequency
        self.config["action"] = {"type": META, **(self.task.action or {})}
        if self.config["action"]["type"] == META and not self.config["action"].get("target_speeds"):
            self.config["action"]["target_speeds"] = self.task.speeds
        if self.task.observation:
            self.config["observation"] = inner_observation(self.task.observation)

    def define_spaces(self) -> None:
        super().define_spaces()
        if self.task.observation is None:
            self.observation_space = spaces.Box(-1.0, 1.0, (task.OBSERVATION_SIZE,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        obs, info = super().reset(seed=seed, options=options)
        return (self.observe() if self.task.observation is None else obs), info

    def _reset(self) -> None:
        config = self.task
        self.road = Road(
            RoadNetwork.straight_road_network(config.lanes, length=10_000.0, speed_limit=30),
            np_random=self.np_random,
            record_history=self.config["show_trajectories"],
        )
        lane = self.road.network.get_lane(("0", "1", config.start_lane))
        ego = self._ego_class()(self.road, lane.position(config.start_x, 0), heading=0.0, speed=config.start_speed)
        self.controlled_vehicles = [ego]
        self.road.vehicles.append(ego)
        traffic = task.draw_traffic(config, self.np_random)
        for index in range(config.lanes):
            lane = self.road.network.get_lane(("0", "1", index))
            cars = zip(
                traffic.x[index], traffic.speed[index], traffic.acceleration[index], traffic.headway[index], strict=True
            )
            for x, speed, acceleration, headway in cars:
                position = lane.position(x, 0)
                self.road.vehicles.append(LaneKeepingVehicle(self.road, position, speed, acceleration, headway))
        self.decisions = 0
        self.outcome = Outcome.RUNNING

    def _ego_class(self) -> Any:
        """What builds the ego: with meta-actions it has the measured controllers, else highway-env's vehicle."""
        actions = self.action_type
        if isinstance(actions, DiscreteMetaAction):
            return functools.partial(LaneChangeEgo, target_speeds=actions.target_speeds)
        return actions.vehicle_class

    def _target_lane(self) -> int:
        """The lane that the ego steers to; without a lane controller, the lane that it is in."""
        return getattr(self.vehicle, "target_lane_index", self.vehicle.lane_index)[2]

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        lane, target = self.vehicle.lane_index[2], self._target_lane()
        self.time += self.task.decision_period
        self._simulate(action)
        self.decisions += 1
        self.outcome = self._read_outcome()
        obs = self.observe() if self.task.observation is None else self.observation_type.observe()
        terms = self._rewards_of(lane, target)
        info = {
            "speed": float(self.vehicle.speed),
            "crashed": bool(self.vehicle.crashed),
            "action": action,
            "rewards": terms,
            "outcome": None if self.outcome == Outcome.RUNNING else self.outcome.name.lower(),
        }
        if self.render_mode == "human":
            self.render()
        return obs, sum(terms.values()), self.outcome != Outcome.RUNNING, False, info

    def _read_outcome(self) -> Outcome:
        if self.vehicle.crashed:
            return Outcome.CRASH
        if self.vehicle.position[0] >= self.task.goal_x:
            return Outcome.SUCCESS if self.vehicle.lane_index[2] == self.task.goal_lane else Outcome.MISSED
        return Outcome.MISSED if self.decisions >= self.task.time_limit else Outcome.RUNNING

    def _rewards_of(self, old_lane: int, old_target: int) -> dict[str, float]:
        """`sim.lane_change.reward_terms` of the decision just made."""
        front, _ = self.road.neighbour_vehicles(self.vehicle, self.vehicle.lane_index)
        ttc = np.inf
        if front is not None:
            gap = front.position[0] - self.vehicle.position[0] - Vehicle.LENGTH
            closing = self.vehicle.speed - front.speed
            ttc = max(gap, 0.0) / closing if closing > 0 else np.inf
        return task.reward_terms(
            self.task,
            lanes=(old_lane, self.vehicle.lane_index[2]),
            target_changed=hasattr(self.vehicle, "target_lane_index") and self._target_lane() != old_target,
            speed=self.vehicle.speed,
            ttc=ttc,
            outcome=self.outcome,
        )

    def observe(self) -> np.ndarray:
        """float32 (29,), as `sim.lane_change.observation` defines it.

        A speed index is that of the set-point nearest to the present speed where the actions have no set-points.
        """
        ego, lane = self.vehicle, self.vehicle.lane_index[2]
        neighbours: list[tuple[float, float, float] | None] = []
        for side in (lane, lane - 1, lane + 1):
            pair: tuple[Vehicle | None, Vehicle | None] = (None, None)
            if 0 <= side < self.task.lanes:
                pair = self.road.neighbour_vehicles(ego, ("0", "1", side))
            for car in pair:
                if car is None:
                    neighbours.append(None)
                else:
                    dx = car.position[0] - ego.position[0]
                    neighbours.append((dx, car.speed, car.action["acceleration"]))
        index = ego.speed_index if hasattr(ego, "speed_index") else speed_index(ego.speed, self.task.speeds)
        return task.observation(self.task, lane, ego.position[0], ego.speed, index, neighbours)

    def _info(self, obs: np.ndarray, action: Any = None) -> dict:
        return {"speed": float(self.vehicle.speed), "crashed": False, "outcome": None}

    def _reward(self, action: int) -> float:
        raise NotImplementedError("step() computes the reward from the decision as a whole")

    def _is_terminated(self) -> bool:
        return self.outcome != Outcome.RUNNING

    def _is_truncated(self) -> bool:
        return False


def _goal(inner: LaneChangeEnv, frame: Any) -> Goal:
    config = inner.task
    return Goal(config.goal_lane, config.goal_x, config.goal_x - float(inner.vehicle.position[0]))


def _outcome(inner: LaneChangeEnv, terminated: bool, truncated: bool) -> str | None:
    return None if inner.outcome == Outcome.RUNNING else inner.outcome.name.lower()


KIND = EnvKind("lane-change", "sim.highway.lane_change:LaneChangeEnv", outcome=_outcome, goal=_goal)


def make_env(scenario: Scenario, config: LaneChangeConfig, render_mode: str | None = None) -> HighwayDrivingEnv:
    """One lane-change environment on highway-env; `config` is resolved.

    Raises:
        UsageError: highway-env has no such observation or action settings.
    """
    for part in ("observation", "action"):
        value = getattr(config, part)
        try:
            values: Any = {} if value is None else {part: checked(part, value)}
            config = replace(config, **values)
        except ValueError as error:
            raise UsageError(f"{scenario.name}.{part}: {error}") from None
    return HighwayDrivingEnv(scenario.name, config, construct(LaneChangeEnv, {"task": config}), KIND, render_mode)


def make_vec(
    scenario: Scenario,
    config: LaneChangeConfig,
    num_envs: int,
    seed: int | None,
    workers: int,
    render_mode: str | None = None,
) -> DrivingEnvs:
    """`num_envs` of them, environment i starting from seed + i; `workers` > 0 uses processes."""
    return DrivingEnvs([functools.partial(make_env, scenario, config, render_mode)] * num_envs, seed, workers)
