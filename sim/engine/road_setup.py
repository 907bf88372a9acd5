"""The parameters of environments on compiled roads: a resolved highway-env config as one record for the kernels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.actions import FULL
from sim.engine.ego_actions import ego_kind, meta_actions, speed_range
from sim.engine.observe import observer_fields
from sim.engine.records import Field
from sim.engine.roads import lane_keys
from sim.sizes import CAR_LENGTH
from sim.view import NO_GOAL

DEFAULT_SPEEDS = (20.0, 25.0, 30.0)
"""Set-points of highway-env's `MDPVehicle`, m/s."""
MOST_SPEEDS = 32
COMFORT_ACC_MAX, COMFORT_ACC_MIN = 3.0, -5.0
"""Of highway-env's `IDMVehicle`, m/s2."""
DISTANCE_WANTED = 5.0 + CAR_LENGTH
MOST_ROUTES = 16
ROUTE_STEPS = 8
NO_ROUTES = np.full((MOST_ROUTES, ROUTE_STEPS, 2), -1)


@dataclass(frozen=True)
class Setup:
    """What a family makes its parameters from."""

    kind: str
    """Name of the highway-env environment."""
    config: Any
    """Its resolved config."""
    network: Any
    """Its highway-env `RoadNetwork`."""

    def lane(self, start: str, end: str, n: int) -> int:
        """Number of a lane in the compiled table; -1 where the network has no such lane."""
        keys = lane_keys(self.network)
        return keys.index((start, end, n)) if (start, end, n) in keys else -1


def two_root_ab(acceleration: float, braking: float) -> float:
    """The IDM's 2 sqrt(a b); `braking` is negative. m/s2."""
    return 2 * math.sqrt(-acceleration * braking)


def padded(values: Any, length: int) -> np.ndarray:
    """float64 (length,): the values, then zeros."""
    filled = np.zeros(length)
    filled[: len(values)] = values
    return filled


def road_fields(setup: Setup) -> dict[str, Field]:
    """The parameters that the kernels of all families read, with defaults for those that a family may set."""
    config = setup.config
    actions = meta_actions(config.action)
    speeds = config.action.get("target_speeds") if actions else None
    speeds = speeds or DEFAULT_SPEEDS
    slowest, fastest = speed_range(config.action)
    return {
        "ego_kind": ("i8", ego_kind(config.action)),
        "ego_slowest": ("f8", slowest),  # m/s beyond which an ego with controls is not accelerated
        "ego_fastest": ("f8", fastest),
        "actions": ("i8", len(actions)),  # meta-actions
        "meanings": ("i8", padded(actions, len(FULL)), len(FULL)),
        "set_points": ("i8", len(speeds)),
        "speeds": ("f8", padded(speeds, MOST_SPEEDS), MOST_SPEEDS),
        "substeps": ("i8", int(config.simulation_frequency // config.policy_frequency)),
        "dt": ("f8", 1 / config.simulation_frequency),
        "period": ("f8", 1 / config.policy_frequency),
        "comfort_acc_max": ("f8", COMFORT_ACC_MAX),  # of IDM traffic, m/s2; with the comfortable braking b ...
        "two_root_ab": ("f8", two_root_ab(COMFORT_ACC_MAX, COMFORT_ACC_MIN)),  # ... 2 sqrt(a b)
        "distance_wanted": ("f8", DISTANCE_WANTED),  # between centres in a jam, m
        "regulation": ("i8", 0),  # simulation steps from one regulation of right of way to the next; 0: none
        "renewed": ("i8", False),  # traffic comes and goes after decisions, with which the TTC waits
        "only_ego_checks": ("i8", False),  # only contacts of the ego count
        "routes": ("i8", NO_ROUTES, NO_ROUTES.shape),  # see `roads.next_lane`
        "ego_frames": ("i8", np.zeros((MOST_ROUTES, ROUTE_STEPS)), (MOST_ROUTES, ROUTE_STEPS)),  # see `frames.frame_of`
        "goal_lane": ("i8", NO_GOAL),  # the lane to reach, by its number on the ego's road ...
        "goal_x": ("f8", -np.inf),  # ... until the ego passes this x
        "obs_lane": ("i8", -1),  # the lane along which ExitObservation measures
        **observer_fields(config.observation, config.policy_frequency),
    }
