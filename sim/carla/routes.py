"""Routes: a road as one coordinate frame, s along it and d to the right, with the centres of its lanes everywhere.

A route is laid through a `carla.Map` from a start, with turns chosen at junctions, and is then plain arrays; the server
is not needed. Its reference line follows the lane that it starts in; where that lane ends, the line goes on beside the
remaining lanes, so that d never jumps.

CARLA's frame is left-handed (x forward, y right, yaw clockwise), which is highway-env's frame as well: y grows to the
right of x there too. Nothing is mirrored; `tests/sim/carla/test_routes.py` checks it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.spatial import KDTree

from sim.sizes import LANE_MARGIN

SPACING = 2.0
"""Metres between the samples of a route."""
MAX_LANES = 12
"""Per sample; further lanes are ignored."""
LEVEL = 4.0
"""Metres of height within which two roads are the same road."""
DRIVABLE = ("Driving", "Entry", "Exit", "OnRamp", "OffRamp")
"""Lane types that traffic uses."""
STRAIGHT = math.radians(30)
"""A branch of a junction that turns by less counts as straight on."""


@dataclass(frozen=True)
class Route:
    """Samples of a road, `SPACING` apart. `centers` is padded with NaN where there are fewer lanes."""

    points: np.ndarray
    """(P, 2) reference line, m"""
    z: np.ndarray
    """(P,) height, m"""
    headings: np.ndarray
    """(P,) rad, unwrapped"""
    s: np.ndarray
    """(P,) m along the reference line"""
    centers: np.ndarray
    """(P, L) d of the lane centres, leftmost first"""
    counts: np.ndarray
    """(P,) lanes"""
    width: np.ndarray
    """(P,) m, of the lane that the route follows"""
    junction: np.ndarray
    """(P,) bool"""
    curvatures: np.ndarray = field(init=False)
    """(P,) 1/m, positive to the right"""
    _tree: KDTree = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tree", KDTree(self.points))
        object.__setattr__(self, "curvatures", np.gradient(self.headings, self.s))

    def project(self, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Route coordinates of world positions.

        Args:
            xy: (N, 2), m.

        Returns:
            s (N,) and d (N,), m, and the index (N,) of the sample before.
        """
        nearest = self._tree.query(xy)[1]
        forward = np.stack([np.cos(self.headings[nearest]), np.sin(self.headings[nearest])], axis=1)
        behind = ((xy - self.points[nearest]) * forward).sum(axis=1) < 0
        index = np.clip(nearest - behind, 0, len(self.points) - 2)
        start, chord = self.points[index], self.points[index + 1] - self.points[index]
        length = np.hypot(*chord.T)
        chord = chord / length[:, None]
        offset = xy - start
        along = (offset * chord).sum(axis=1)
        across = offset[:, 1] * chord[:, 0] - offset[:, 0] * chord[:, 1]
        return self.s[index] + along * (self.s[index + 1] - self.s[index]) / length, across, index

    def locate(self, xy: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Route coordinates and lanes of vehicles.

        Args:
            xy: (N, 2), m.
            z: (N,), m.

        Returns:
            s (N,), d (N,), lane (N,); NaN, NaN and -1 for positions that are not on this road.
        """
        if not len(xy):
            return np.zeros(0), np.zeros(0), np.zeros(0, dtype=int)
        s, d, index = self.project(xy)
        lane = self.lane_at(d, index)
        far = (s < self.s[0]) | (s > self.s[-1]) | (np.abs(z - self.z[index]) > LEVEL)
        lane = np.where(far, -1, lane)
        off = lane < 0
        return np.where(off, np.nan, s), np.where(off, np.nan, d), lane

    def lane_at(self, d: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Lanes at lateral positions.

        Args:
            d: (N,), m.
            index: Samples (N,) to look at.

        Returns:
            Lanes (N,) from the left; -1 beside the road.
        """
        distance = np.abs(self.centers[index] - d[:, None])
        lane = np.nanargmin(distance, axis=1)
        reach = self.width[index] / 2 + LANE_MARGIN
        return np.where(distance[np.arange(len(d)), lane] <= reach, lane, -1)

    def sample(self, s: float) -> int:
        """Index of the sample at or before s."""
        return int(np.clip(np.searchsorted(self.s, s, side="right") - 1, 0, len(self.s) - 1))

    def centers_at(self, s: float) -> tuple[float, ...]:
        """d of the lane centres at s, leftmost first."""
        index = self.sample(s)
        return tuple(float(d) for d in self.centers[index, : self.counts[index]])

    def pose(self, s: float, d: float) -> tuple[float, float, float, float]:
        """The world pose of a place on the route.

        Args:
            s: m.
            d: m.

        Returns:
            x, y, z in m, heading in rad.
        """
        index = self.sample(s)
        here = s - self.s[index]
        heading = float(np.interp(s, self.s, self.headings))
        x, y = self.points[index] + here * np.array([math.cos(self.headings[index]), math.sin(self.headings[index])])
        return x - d * math.sin(heading), y + d * math.cos(heading), float(np.interp(s, self.s, self.z)), heading

    @property
    def end(self) -> float:
        return float(self.s[-1])


def lay(start: Any, ahead: float, behind: float = 0.0, turns: Sequence[str] = (), s0: float = 0.0) -> Route:
    """Lay a route through a map.

    Args:
        start: The `carla.Waypoint` to begin at.
        ahead: Metres after the start.
        behind: Metres before the start.
        turns: left | straight | right, one per junction; straight after the last.
        s0: s at the start, m.

    Returns:
        The route; shorter where the road ends.
    """
    forward = _walk(start, ahead, list(turns))
    backward = _walk_back(start, behind)
    rows = [*reversed(backward), *forward]
    points = np.array([row[0] for row in rows])
    chords = np.diff(points, axis=0)
    s = np.concatenate([[0.0], np.cumsum(np.hypot(*chords.T))])
    centers = np.full((len(rows), MAX_LANES), np.nan)
    for k, row in enumerate(rows):
        centers[k, : len(row[3])] = row[3][:MAX_LANES]
    return Route(
        points=points,
        z=np.array([row[1] for row in rows]),
        headings=np.unwrap([row[2] for row in rows]),
        s=s - s[len(backward)] + s0,
        centers=centers[:, : max(len(row[3]) for row in rows)],
        counts=np.array([min(len(row[3]), MAX_LANES) for row in rows]),
        width=np.array([row[4] for row in rows]),
        junction=np.array([row[5] for row in rows]),
    )


Row = tuple[tuple[float, float], float, float, list[float], float, bool]
"""Reference point, z, heading, lane centres, lane width, in a junction."""


def leftmost(waypoint: Any) -> tuple[Any, float]:
    """The leftmost lane of a waypoint's road and direction.

    Args:
        waypoint: A `carla.Waypoint`.

    Returns:
        The waypoint beside it in that lane, and its distance to the right of that lane's centre, m.
    """
    across = 0.0
    while (side := _beside(waypoint, "get_left_lane")) is not None:
        across += (waypoint.lane_width + side.lane_width) / 2
        waypoint = side
    return waypoint, across


def _walk(start: Any, length: float, turns: list[str]) -> list[Row]:
    here, offset, rows = start, 0.0, [_row(start, 0.0)]
    while len(rows) * SPACING < length + SPACING:
        following = here.next(SPACING)
        if not following:  # the lane ends: go on beside it
            side, shift = _neighbour(here)
            following = side.next(SPACING) if side is not None else []
            offset += shift
        if not following:
            break
        here = following[0]
        if len(following) > 1:
            here = _choose(following, turns.pop(0) if turns else "straight")
        rows.append(_row(here, offset))
    return rows


def _walk_back(start: Any, length: float) -> list[Row]:
    """Samples before the start, nearest first."""
    here = start
    rows: list[Row] = []
    while len(rows) * SPACING < length:
        before = here.previous(SPACING)
        if not before:
            break
        here = min(before, key=lambda option: abs(_angle(option, here)))
        rows.append(_row(here, 0.0))
    return rows


def _row(waypoint: Any, offset: float) -> Row:
    """A sample at a waypoint whose centre lies `offset` to the right of the reference line."""
    transform = waypoint.transform
    place, heading = transform.location, math.radians(transform.rotation.yaw)
    point = place.x + offset * math.sin(heading), place.y - offset * math.cos(heading)
    centers = [offset]
    for step, direction in (("get_left_lane", -1.0), ("get_right_lane", 1.0)):
        last, d = waypoint, offset
        while (side := _beside(last, step)) is not None and len(centers) < MAX_LANES:
            d += direction * (last.lane_width + side.lane_width) / 2
            centers.append(d)
            last = side
    return point, place.z, heading, sorted(centers), waypoint.lane_width, waypoint.is_junction


def _beside(waypoint: Any, step: str) -> Any | None:
    """The lane on that side, if traffic drives there in the same direction."""
    side = getattr(waypoint, step)()
    if side is None or side.lane_type.name not in DRIVABLE or side.lane_id * waypoint.lane_id < 0:
        return None
    return side


def _neighbour(waypoint: Any) -> tuple[Any | None, float]:
    """The lane to go on beside, and how far to the right its centre is."""
    for step, direction in (("get_left_lane", -1.0), ("get_right_lane", 1.0)):
        side = _beside(waypoint, step)
        if side is not None:
            return side, direction * (waypoint.lane_width + side.lane_width) / 2
    return None, 0.0


def _choose(options: Sequence[Any], turn: str) -> Any:
    """The branch that turns that way; the straightest one where none does."""
    angles = [_turn(option) for option in options]
    if turn == "left":
        best = int(np.argmin(angles))
        if angles[best] < -STRAIGHT:
            return options[best]
    if turn == "right":
        best = int(np.argmax(angles))
        if angles[best] > STRAIGHT:
            return options[best]
    return options[int(np.argmin(np.abs(angles)))]


def _turn(waypoint: Any) -> float:
    """Radians by which a branch turns to the right until it ends."""
    return _angle(waypoint, until_lane_end(waypoint)[-1])


def until_lane_end(waypoint: Any) -> list[Any]:
    """The rest of a waypoint's lane.

    Args:
        waypoint: A `carla.Waypoint`.

    Returns:
        The waypoint and those that follow in its lane, `SPACING` apart.
    """
    try:
        return [waypoint, *waypoint.next_until_lane_end(SPACING)]
    except RuntimeError:  # raised by the client at the very end of a lane
        return [waypoint]


def _angle(before: Any, after: Any) -> float:
    """Radians by which the lane has turned to the right from one waypoint to the other."""
    return math.remainder(math.radians(after.transform.rotation.yaw - before.transform.rotation.yaw), 2 * math.pi)
