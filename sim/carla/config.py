"""The configs of the CARLA scenarios. Light: listing scenarios reads this file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

STEP = 0.05
"""Seconds per frame: coarser steps break CARLA's physics and its reproducibility."""


@dataclass(frozen=True)
class RoadReward:
    """Weights; the speed term is linear between the two speeds (highway-v0's, without its normalisation)."""

    crash: float = -1.0
    off_road: float = -1.0
    arrived: float = 1.0  # once, at the goal
    speed: float = 0.4
    speeds: tuple[float, float] = (20.0, 30.0)  # m/s
    right_lane: float = 0.1  # in the rightmost lane, less to the left of it
    lane_change: float = 0.0  # per commanded lane change
    red_light: float = -0.5  # per red light passed


@dataclass(frozen=True)
class RoadConfig:
    """A task on a road. Lengths in m, speeds in m/s, times in s."""

    map: str = "highway"  # a shipped map (see `lgdrl carla-lite --help`), or a town of the server
    start: tuple[float, float] | None = None  # x, y, snapped to the nearest lane; None: a spawn point drawn per episode
    turns: tuple[Literal["left", "straight", "right"], ...] = ()  # at the junctions in order, then straight on
    along: Literal["road", "lane"] = "road"  # the route follows the road's leftmost lane, or the lane of the start
    start_speed: float = 25.0
    goal_distance: float | None = None  # distance that counts as success; None: success at the time limit
    goal_lane: int | None = None  # lane of the goal shown to experts, from the left
    duration: float = 40.0
    policy_frequency: float = 1.0  # decisions per second
    target_speeds: tuple[float, ...] = (20.0, 25.0, 30.0)  # set-points of FASTER and SLOWER
    action: Literal["meta", "continuous"] = "meta"  # continuous: pedal and steering in [-1, 1]
    observed_vehicles: int = 5  # rows of the observation, the ego's included
    traffic: Literal["idm", "tm", "none"] = "idm"  # scripted drivers, CARLA's Traffic Manager, no traffic
    vehicles_count: int = 20
    density: float = 1.0  # of scripted drivers, as vehicles_density of highway-env
    traffic_speed: tuple[float, float] = (21.0, 24.0)  # of scripted drivers
    traffic_behind: float = 0.0  # share of the scripted drivers that start behind the ego
    vehicle: str = "vehicle.tesla.model3"
    reward: RoadReward = field(default_factory=RoadReward)

    def __post_init__(self) -> None:
        if not (self.duration > 0 and 0.1 <= self.policy_frequency <= 1 / STEP):
            raise ValueError(f"choose duration > 0 and policy_frequency within [0.1, {1 / STEP:g}]")
        if abs(1 / self.policy_frequency / STEP - round(1 / self.policy_frequency / STEP)) > 1e-9:
            raise ValueError(
                f"policy_frequency = {self.policy_frequency:g}: a decision must take whole frames of {STEP} s"
            )
        if len(self.target_speeds) < 2 or list(self.target_speeds) != sorted(set(self.target_speeds)):
            raise ValueError(f"target_speeds = {list(self.target_speeds)}: give at least 2 in ascending order")
        if not (self.vehicles_count >= 0 and self.density > 0 and 0 <= self.traffic_behind <= 1):
            raise ValueError("choose vehicles_count >= 0, density > 0 and traffic_behind within [0, 1]")
        if self.observed_vehicles < 1:
            raise ValueError(f"observed_vehicles = {self.observed_vehicles}: the ego itself is the first")
