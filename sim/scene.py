"""Scene: one immutable snapshot of a traffic scene, the same on every simulator.

It is all that an LLM prompt, a rule or a person sees of an environment. Positions are given twice: in the world frame
(x, y, heading; for drawing) and along the ego's road (s forward, d to the right; for deciding). Units are SI and
radians. Lanes are numbered from the left, 0 being the leftmost; d grows with the lane index.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sim.actions import FULL, LATERAL, LONGITUDINAL, NUM_ACTIONS, MetaAction
from sim.by_value import ByValue
from sim.sizes import CAR_LENGTH, CAR_WIDTH, LANE_MARGIN


@dataclass(frozen=True, slots=True)
class Ego:
    """The controlled vehicle. `target_lane` and `speed_index` are what its controllers are steering to."""

    x: float
    y: float
    heading: float
    speed: float
    s: float
    d: float
    lane: int
    target_lane: int
    speed_index: int
    acceleration: float = 0.0
    length: float = CAR_LENGTH
    width: float = CAR_WIDTH
    crashed: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Vehicles(ByValue):
    """All other road users as arrays of shape (V,), in a stable order; `ids` identify them for the whole episode.

    A vehicle that is not on the ego's road has `s` and `d` NaN and `lane` -1.
    """

    ids: np.ndarray
    x: np.ndarray
    y: np.ndarray
    heading: np.ndarray
    speed: np.ndarray
    acceleration: np.ndarray
    s: np.ndarray
    d: np.ndarray
    lane: np.ndarray
    length: np.ndarray
    width: np.ndarray
    crashed: np.ndarray

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A vehicle seen from the ego along a lane: `dx` > 0 is ahead, centre to centre."""

    id: int
    dx: float
    speed: float
    acceleration: float
    gap: float
    """Bumper to bumper, metres; negative when overlapping."""
    closing: float
    """Speed at which the gap shrinks, m/s; negative when it opens."""

    @property
    def ttc(self) -> float:
        """Seconds until the bumpers meet at present speeds; infinite when the gap does not shrink."""
        if self.closing <= 0:
            return float("inf")
        return max(self.gap, 0.0) / self.closing


@dataclass(frozen=True, slots=True, eq=False)
class LaneShape(ByValue):
    """A lane to draw: centre line as (P, 2) points, width in metres, and the kind of its two borders."""

    center: np.ndarray
    width: float
    left: str = "broken"
    right: str = "broken"


@dataclass(frozen=True, slots=True)
class Goal:
    """Be in `lane` when passing `s`; `remaining` metres are left. Either may be absent."""

    lane: int | None = None
    s: float | None = None
    remaining: float | None = None


CONFLICT = np.dtype(
    (
        np.record,
        [
            ("vehicle", "i8"),  # its row in `Scene.vehicles`
            ("begin", "f8"),  # m that the ego has to go until its front bumper enters; negative inside
            ("end", "f8"),  # m until its rear bumper has left
            ("box_begin", "f8"),  # the same two of the stretch around it that crossing roads share: no place to stop
            ("box_end", "f8"),
            ("near", "f8"),  # the first two of the other car ...
            ("far", "f8"),
            ("speed", "f8"),  # ... at this speed, m/s
            ("enter", "f8"),  # s until it enters at that speed: 0 inside, inf where it stands before ...
            ("leave", "f8"),  # ... and until it has left
            ("shift", "f8"),  # where paths join: m that the other's path is longer than the ego's to one place, else 0
            ("joins", "?"),  # the paths join, so that one car may follow the other; else they cross
            ("priority", "i8"),  # 1: the ego has the right of way, -1: the other has, 0: the road has none
            ("side", "i8"),  # -1: the other car is to the left of the ego, 1: to the right
        ],
    )
)
"""A stretch that the ego's path shares with that of a car on another road, see `sim.conflicts`."""
MOST_CONFLICTS = 8
"""Conflicts that are kept of a scene: the nearest along the ego's path."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene(ByValue):
    """A traffic scene from the ego's point of view. Scenes of equal values are equal."""

    scenario: str
    time: float
    decision_period: float
    ego: Ego
    vehicles: Vehicles
    lane_centers: tuple[float, ...]
    """d of each lane centre of the ego's road at the ego, leftmost first."""
    lane_width: float
    set_points: tuple[float, ...]
    """Speeds that FASTER and SLOWER step through, m/s, ascending."""
    legal: np.ndarray
    """bool (A,): actions that are available now."""
    goal: Goal | None = None
    shapes: tuple[LaneShape, ...] = field(default=(), repr=False)
    conflicts: np.ndarray = field(default_factory=lambda: np.zeros(0, CONFLICT), repr=False)
    """`CONFLICT` (C,), the nearest first; none on roads that neither cross nor join."""

    @property
    def num_lanes(self) -> int:
        return len(self.lane_centers)

    @property
    def meanings(self) -> tuple[MetaAction, ...]:
        """What the action ids mean; empty where they are not meta-actions (continuous control)."""
        if len(self.legal) == NUM_ACTIONS:
            return FULL
        if len(self.legal) == len(LONGITUDINAL):
            return LONGITUDINAL if self.set_points else LATERAL
        return ()

    def front(self, lane: int) -> Neighbour | None:
        """The nearest vehicle at or ahead of the ego.

        Args:
            lane: Lane index.
        Returns:
            The vehicle; None where there is none, also on a lane that does not exist.
        """
        index = self._nearest(lane, ahead=True)
        return None if index is None else self.neighbour(index)

    def rear(self, lane: int) -> Neighbour | None:
        """The nearest vehicle strictly behind the ego.

        Args:
            lane: Lane index.
        Returns:
            As `front`.
        """
        index = self._nearest(lane, ahead=False)
        return None if index is None else self.neighbour(index)

    def _nearest(self, lane: int, ahead: bool) -> int | None:
        if not 0 <= lane < self.num_lanes:
            return None
        cars = self.vehicles
        on_lane = np.abs(cars.d - self.lane_centers[lane]) <= self.lane_width / 2 + LANE_MARGIN
        dx = cars.s - self.ego.s
        candidates = np.flatnonzero(on_lane & ((dx >= 0) if ahead else (dx < 0)))
        if candidates.size == 0:
            return None
        distance = np.abs(dx[candidates])
        # Equal distances: highway-env keeps the last one ahead and the first one behind.
        best = len(distance) - 1 - np.argmin(distance[::-1]) if ahead else np.argmin(distance)
        return int(candidates[best])

    def neighbour(self, index: int) -> Neighbour:
        """One vehicle as seen from the ego.

        Args:
            index: Its row in `vehicles`.
        Returns:
            What the ego sees of it.
        """
        cars, ego = self.vehicles, self.ego
        dx = float(cars.s[index] - ego.s)
        speed = float(cars.speed[index])
        ahead = dx >= 0
        oncoming = np.cos(cars.heading[index] - ego.heading) < 0
        forward = -speed if oncoming else speed
        return Neighbour(
            id=int(cars.ids[index]),
            dx=dx,
            speed=speed,
            acceleration=float(cars.acceleration[index]),
            gap=abs(dx) - (float(cars.length[index]) + ego.length) / 2,
            closing=ego.speed - forward if ahead else forward - ego.speed,
        )
