"""The configs of the CARLA scenarios. Light: listing scenarios reads this file."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from sim.bounds import Bounds, NonNegative, Number, Positive, Share, Whole, config_dataclass

STEP = 0.05
"""Seconds per frame: coarser steps break CARLA's physics and its reproducibility."""


@config_dataclass
class RoadReward:
    """Weights; the speed term is linear between the two speeds (highway-v0's, without its normalisation)."""

    crash: Number = -1.0
    off_road: Number = -1.0
    arrived: Number = 1.0  # once, at the goal
    speed: Number = 0.4
    speeds: tuple[Number, Number] = (20.0, 30.0)  # m/s
    right_lane: Number = 0.1  # in the rightmost lane, less to the left of it
    lane_change: Number = 0.0  # per commanded lane change
    red_light: Number = -0.5  # per red light passed


@config_dataclass
class RoadConfig:
    """A task on a road. Lengths in m, speeds in m/s, times in s."""

    map: str = "highway"  # a shipped map (see `lgdrl carla-lite --help`), or a town of the server
    # x, y, snapped to the nearest lane; None: a spawn point drawn per episode
    start: tuple[Number, Number] | None = None
    turns: tuple[Literal["left", "straight", "right"], ...] = ()  # at the junctions in order, then straight on
    along: Literal["road", "lane"] = "road"  # the route follows the road's leftmost lane, or the lane of the start
    start_speed: NonNegative = 25.0
    goal_distance: Positive | None = None  # distance that counts as success; None: success at the time limit
    goal_lane: Whole | None = None  # lane of the goal shown to experts, from the left
    duration: Positive = 40.0
    policy_frequency: Annotated[float, Bounds(0.1, 1 / STEP)] = 1.0  # decisions per second
    target_speeds: tuple[Number, ...] = (20.0, 25.0, 30.0)  # set-points of FASTER and SLOWER
    action: Literal["meta", "continuous"] = "meta"  # continuous: pedal and steering in [-1, 1]
    observed_vehicles: Annotated[int, Bounds(1, 1000)] = 5  # rows of the observation, the ego's included
    traffic: Literal["idm", "tm", "none"] = "idm"  # scripted drivers, CARLA's Traffic Manager, no traffic
    vehicles_count: Annotated[int, Bounds(0, 1000)] = 20
    density: Positive = 1.0  # of scripted drivers, as vehicles_density of highway-env
    traffic_speed: tuple[NonNegative, NonNegative] = (21.0, 24.0)  # of scripted drivers
    traffic_behind: Share = 0.0  # share of the scripted drivers that start behind the ego
    vehicle: str = "vehicle.tesla.model3"
    reward: RoadReward = field(default_factory=RoadReward)

    def __post_init__(self) -> None:
        if abs(1 / self.policy_frequency / STEP - round(1 / self.policy_frequency / STEP)) > 1e-9:
            raise ValueError(
                f"policy_frequency = {self.policy_frequency:g}: a decision must take whole frames of {STEP} s"
            )
        if len(self.target_speeds) < 2 or list(self.target_speeds) != sorted(set(self.target_speeds)):
            raise ValueError(f"target_speeds = {list(self.target_speeds)}: give at least 2 in ascending order")
