"""What a world is about, apart from the simulator: where everybody starts, what the learner sees, what counts.

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
    """That the ego is in and steers to."""
    places: Sequence[Any] = ()
    """`carla.Transform`s where the Traffic Manager's cars begin."""


@dataclass(frozen=True)
class Idm:
    """What all scripted drivers share; highway-env's defaults."""

    deceleration: float = 5.0  # b, m/s2
    jam_distance: float = 10.0  # centre to centre for 5 m cars, m
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
    """The lane that the ego steers to is another one than before."""
    passed_red: bool
    """It drove over a stop line whose light was red."""


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

    @abstractmethod
    def start(self, world_map: Any, rng: np.random.Generator) -> EpisodeStart:
        """The start of an episode on a `carla.Map`."""

    @abstractmethod
    def goal(self, scene_s: float) -> Goal | None:
        """What the ego at s has to reach."""

    @abstractmethod
    def observe(self, scene: Scene, along: float) -> np.ndarray:
        """float32 of `observation_space`; `along` is the heading of the road at the ego, rad."""

    @abstractmethod
    def judge(self, moment: DecisionResult) -> tuple[dict[str, float], Outcome, bool]:
        """Weighted reward terms, the outcome (RUNNING: none yet), and whether the end is a time limit."""


def place_waypoint(world_map: Any, x: float, y: float) -> Any:
    """The waypoint of the lane at (x, y). ValueError beside all roads."""
    import carla

    found = world_map.get_waypoint(carla.Location(x, y, 0.0), project_to_road=True)
    if found is None:
        raise ValueError(f"there is no lane near ({x:g}, {y:g})")
    return found
