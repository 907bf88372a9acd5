"""What an environment is about, apart from the simulator: the start, the observation, the reward, the end.

`CarlaTask` is what `sim.carla.env` needs to know of a scenario. Observations, rewards and ends are read from scenes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from sim.carla.control import Gains
from sim.carla.routes import Route
from sim.outcome import Outcome
from sim.scene import Goal, Scene

LATERAL_JITTER = 0.05
"""Metres that scripted cars are placed beside their lane's centre: CARLA's agents do not see a car exactly in line."""


@dataclass(frozen=True)
class VehicleStart:
    """A vehicle at the start of an episode, on the route. SI units."""

    s: float
    d: float
    speed: float
    desired_speed: float
    acceleration: float = 3.0  # IDM a
    headway: float = 1.5  # IDM T


@dataclass(frozen=True)
class EpisodeStart:
    """How an episode begins."""

    route: Route
    ego: VehicleStart
    cars: Sequence[VehicleStart]
    lane: int
    """The lane that the ego is in and steers to."""
    places: Sequence[Any] = ()
    """`carla.Transform`s where the Traffic Manager's cars begin."""


@dataclass(frozen=True)
class Idm:
    """What all scripted drivers share; highway-env's defaults."""

    deceleration: float = 5.0  # b, m/s2
    jam_distance: float = 10.0  # centre to centre for cars of 5 m, m
    limit: float = 6.0  # of accelerations, m/s2


@dataclass(frozen=True)
class DecisionResult:
    """What happened in one decision, for reward and end."""

    before: Scene
    after: Scene
    steps: int
    """Decisions in this episode, this one included."""
    crashed: bool
    off_road: bool
    lane_changed: bool
    """Whether the decision changed the lane that the ego steers to."""
    passed_red: bool
    """Whether the ego drove over a stop line whose light was red."""


class CarlaTask(ABC):
    """One scenario of `sim.carla.env`."""

    map: str
    """A shipped map, or a town of the server."""
    traffic: str
    """idm | tm | none"""
    substeps: int
    """Frames per decision."""
    speeds: np.ndarray
    """Set-points of FASTER and SLOWER, m/s, ascending."""
    gains: Gains
    idm: Idm
    vehicle: str
    """The ego's blueprint."""
    others: Sequence[str]
    """Blueprints of the traffic, drawn from per car."""
    observation_space: spaces.Box
    action_space: spaces.Space

    @property
    def discrete(self) -> bool:
        """Whether actions are meta-actions; else they are pedal and steering."""
        return isinstance(self.action_space, spaces.Discrete)

    @abstractmethod
    def start(self, world_map: Any, rng: np.random.Generator) -> EpisodeStart:
        """Draw the start of an episode.

        Args:
            world_map: The `carla.Map`.
            rng: The environment's generator.

        Returns:
            Route, ego and traffic.
        """

    @abstractmethod
    def goal(self, scene_s: float) -> Goal | None:
        """What the ego has to reach.

        Args:
            scene_s: Position of the ego along the route, m.

        Returns:
            The goal; None where the task has none.
        """

    @abstractmethod
    def observe(self, scene: Scene, along: float) -> np.ndarray:
        """The learner's observation.

        Args:
            scene: The present scene.
            along: Heading of the road at the ego, rad.

        Returns:
            float32 of `observation_space`.
        """

    @abstractmethod
    def evaluate(self, result: DecisionResult) -> tuple[dict[str, float], Outcome, bool]:
        """Reward and end of a decision.

        Args:
            result: What happened.

        Returns:
            Weighted reward terms, the outcome (RUNNING while the episode goes on), and whether the end is a time limit.
        """


def place_waypoint(world_map: Any, x: float, y: float) -> Any:
    """The waypoint of the nearest lane.

    Args:
        world_map: A `carla.Map`.
        x: m.
        y: m.

    Returns:
        A `carla.Waypoint`.

    Raises:
        ValueError: There is no lane nearby.
    """
    import carla

    found = world_map.get_waypoint(carla.Location(x, y, 0.0), project_to_road=True)
    if found is None:
        raise ValueError(f"there is no lane near ({x:g}, {y:g})")
    return found
