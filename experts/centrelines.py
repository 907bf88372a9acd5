"""Centre lines of a scene's lanes: where a car is on them, and the point some metres ahead that it steers to.

Lanes are polylines (`sim.scene.LaneShape`). One that ends is continued by the one that begins where it ends; of
several, by the one that turns least on the whole, which is the way straight on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sim.scene import LaneShape

JOINT = 2.0
"""m between the end of a lane and the start of one that continues it; lanes beside each other are farther apart."""
MISALIGNED = 5.0
"""m of distance that count as much as 1 rad between a lane's direction and the car's, where lanes cross."""


class Place(NamedTuple):
    """A place on a lane."""

    lane: int
    """Index of the lane."""
    along: float
    """m from the start of its centre line."""
    offset: float
    """m to the right of its centre line."""


@dataclass(frozen=True)
class Centreline:
    """One lane's centre line as P - 1 straight pieces."""

    starts: np.ndarray
    """m, float64 (P - 1, 2)."""
    directions: np.ndarray
    """Unit vectors, float64 (P - 1, 2)."""
    lengths: np.ndarray
    """m, float64 (P - 1,)."""
    along: np.ndarray
    """m from the start of the line to the start of each piece, float64 (P - 1,)."""

    @property
    def length(self) -> float:
        """m."""
        return float(self.along[-1] + self.lengths[-1])

    @property
    def turn(self) -> float:
        """rad by which the end points away from the start, in [0, pi]."""
        return _between(self.directions[0], self.directions[-1])

    def point(self, along: float, offset: float) -> np.ndarray:
        """A point beside the line, float64 (2,); before its start and after its end it goes on straight.

        Args:
            along: m from its start.
            offset: m to the right.
        """
        i = max(int(np.searchsorted(self.along, along, side="right")) - 1, 0)
        direction = self.directions[i]
        right = np.array([-direction[1], direction[0]])
        return self.starts[i] + (along - self.along[i]) * direction + offset * right


class Centrelines:
    """The centre lines of all lanes.

    Args:
        shapes: The lanes, at least one.
    """

    def __init__(self, shapes: Sequence[LaneShape]) -> None:
        self.lines = [_line(shape.center) for shape in shapes]
        self._starts = np.concatenate([line.starts for line in self.lines])
        self._directions = np.concatenate([line.directions for line in self.lines])
        self._lengths = np.concatenate([line.lengths for line in self.lines])
        self._along = np.concatenate([line.along for line in self.lines])
        self._lane = np.repeat(np.arange(len(self.lines)), [len(line.lengths) for line in self.lines])
        self._next = [self._successor(line) for line in self.lines]

    def _successor(self, line: Centreline) -> int | None:
        end, heading = line.point(line.length, 0.0), line.directions[-1]
        found = [
            (_between(heading, other.directions[0]) + other.turn, i)
            for i, other in enumerate(self.lines)
            if other is not line and math.dist(other.starts[0], end) <= JOINT
        ]
        return min(found)[1] if found else None

    def locate(self, position: np.ndarray, heading: float) -> Place:
        """The lane that a car is on: the nearest one that leads where it heads.

        Args:
            position: m, float (2,).
            heading: rad.
        """
        away = position - self._starts
        along = (away * self._directions).sum(axis=1)
        inside = np.clip(along, 0.0, self._lengths)
        distance = np.hypot(*(away - inside[:, None] * self._directions).T)
        towards = self._directions @ np.array([math.cos(heading), math.sin(heading)])
        best = int(np.argmin(distance + MISALIGNED * np.arccos(np.clip(towards, -1, 1))))
        direction = self._directions[best]
        offset = direction[0] * away[best, 1] - direction[1] * away[best, 0]
        return Place(int(self._lane[best]), float(self._along[best] + along[best]), float(offset))

    def ahead(self, place: Place, distance: float, offset: float) -> np.ndarray:
        """The point on the way ahead, beside the centre line.

        Args:
            place: Where the way begins.
            distance: m along the centre lines.
            offset: m to the right of them.

        Returns:
            m, float64 (2,).
        """
        lane, along, passed = place.lane, place.along + distance, {place.lane}
        while along > self.lines[lane].length:
            following = self._next[lane]
            if following is None or following in passed:
                break
            along -= self.lines[lane].length
            lane = following
            passed.add(lane)
        return self.lines[lane].point(along, offset)


def pursuit_steering(position: np.ndarray, heading: float, target: np.ndarray, length: float) -> float:
    """Steering angle whose arc leads a car through a point (pure pursuit).

    Coulter, "Implementation of the pure pursuit path tracking algorithm", CMU-RI-TR-92-01, for the kinematic bicycle of
    highway-env: its centre moves at the slip angle b from its heading, tan b = tan(steering) / 2, on an arc of
    curvature sin b / (length / 2). The arc passes through a point at the distance r and the angle a from the heading
    where tan b = sin a / (r / length + cos a).

    Args:
        position: Of the car's centre, m, float (2,).
        heading: Of the car, rad.
        target: The point, m, float (2,).
        length: Of the car, m.

    Returns:
        rad, positive to the right, within a right angle.
    """
    dx, dy = target - position
    angle = math.atan2(dy, dx) - heading
    return math.atan(2 * math.sin(angle) / max(math.hypot(dx, dy) / length + math.cos(angle), 0.1))


def _line(center: np.ndarray) -> Centreline:
    steps = np.diff(center, axis=0)
    lengths = np.hypot(*steps.T)
    kept = lengths > 0
    steps, lengths, starts = steps[kept], lengths[kept], center[:-1][kept]
    along = np.concatenate([[0.0], np.cumsum(lengths)[:-1]])
    return Centreline(starts, steps / lengths[:, None], lengths, along)


def _between(one: np.ndarray, other: np.ndarray) -> float:
    """Angle between two unit vectors, rad, in [0, pi]."""
    return math.acos(min(max(float(one @ other), -1.0), 1.0))
