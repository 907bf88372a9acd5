"""The parameters of environments on compiled roads: a resolved highway-env config as one record for the kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.actions import FULL, LATERAL, LONGITUDINAL, MetaAction
from sim.engine.observe import observer_fields
from sim.engine.records import Field
from sim.engine.roads import lane_keys
from sim.engine.routes import NO_ROUTES
from sim.view import NO_GOAL

DEFAULT_SPEEDS = (20.0, 25.0, 30.0)
"""Set-points of highway-env's `MDPVehicle`, m/s."""
MOST_SPEEDS = 32


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


def actions_of(settings: Mapping[str, Any]) -> tuple[MetaAction, ...]:
    """What the action ids of a highway-env DiscreteMetaAction mean."""
    longitudinal, lateral = settings.get("longitudinal", True), settings.get("lateral", True)
    return FULL if longitudinal and lateral else LONGITUDINAL if longitudinal else LATERAL


def padded(values: Any, length: int) -> np.ndarray:
    """float64 (length,): the values, then zeros."""
    filled = np.zeros(length)
    filled[: len(values)] = values
    return filled


def road_fields(setup: Setup) -> dict[str, Field]:
    """The parameters that the kernels of all families read, with defaults for those that a family may set."""
    config = setup.config
    actions = actions_of(config.action)
    speeds = config.action.get("target_speeds") or DEFAULT_SPEEDS
    return {
        "actions": ("i8", len(actions)),
        "meanings": ("i8", padded(actions, len(FULL)), len(FULL)),
        "set_points": ("i8", len(speeds)),
        "speeds": ("f8", padded(speeds, MOST_SPEEDS), MOST_SPEEDS),
        "substeps": ("i8", int(config.simulation_frequency // config.policy_frequency)),
        "dt": ("f8", 1 / config.simulation_frequency),
        "period": ("f8", 1 / config.policy_frequency),
        "only_ego_checks": ("i8", False),  # only contacts of the ego count
        "routes": ("i2", NO_ROUTES, NO_ROUTES.shape),  # see `sim.engine.routes`
        "ego_routes": ("i8", 0),  # the first so many are those that egos may have
        "winding": ("i8", False),  # what is ahead of the ego is seen along its route (`views.watch`), not its own lane
        "goal_lane": ("i8", NO_GOAL),  # the lane to reach, by its number on the ego's road ...
        "goal_x": ("f8", -np.inf),  # ... until the ego passes this x
        "obs_lane": ("i8", -1),  # the lane along which ExitObservation measures
        **observer_fields(config.observation, config.policy_frequency),
    }
