"""Building blocks of road maps.

Roads are placed; `plan_writer` finds their links. Roads with a `junction` connect others within it. The frame is
OpenDRIVE's: y and lane offsets to the left, headings counter-clockwise. Traffic keeps to the right.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from sim.carla_lite.curves import Arc, Curve, Line
from sim.errors import UsageError

SHORTEST = 1e-6
"""Metres; shorter pieces of a curve are left out."""


@dataclass(frozen=True)
class Pose:
    """Metres and radians, OpenDRIVE's frame."""

    x: float
    y: float
    heading: float

    def ahead(self, distance: float) -> Pose:
        """Moved forward by a distance, m."""
        return replace(self, x=self.x + distance * math.cos(self.heading), y=self.y + distance * math.sin(self.heading))

    def aside(self, t: float) -> Pose:
        """Moved to the left by t metres."""
        return replace(self, x=self.x - t * math.sin(self.heading), y=self.y + t * math.cos(self.heading))

    def turned(self, angle: float) -> Pose:
        """Turned to the left by an angle, rad."""
        return replace(self, heading=self.heading + angle)

    def after(self, curves: Iterable[Curve]) -> Pose:
        """Where curves that begin here end."""
        pose = self
        for curve in curves:
            x, y, turn = (float(v[0]) for v in curve.at(np.array([curve.length])))
            pose = pose.ahead(x).aside(y).turned(turn)
        return pose


@dataclass(frozen=True)
class Paint:
    """A line on the road and the direction of lane changes across it, in OpenDRIVE's terms."""

    kind: Literal["solid", "broken", "solid solid", "none"]
    change: Literal["none", "increase", "decrease", "both"] = "none"
    colour: Literal["standard", "yellow"] = "standard"


SOLID = Paint("solid")
BROKEN = Paint("broken", "both")
DOUBLE = Paint("solid solid", colour="yellow")


@dataclass(frozen=True)
class PlannedLane:
    """A lane of a cross-section."""

    width: float
    type: Literal["driving", "shoulder"] = "driving"
    paint: Paint = SOLID
    """On its outer border."""
    widening: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """The width is width + b ds + c ds2 + d ds3; ds counts from the start of the section."""

    def width_at(self, ds: float) -> float:
        """Width at ds metres from the start of the section, m."""
        b, c, d = self.widening
        return self.width + ds * (b + ds * (c + ds * d))


@dataclass(frozen=True)
class CrossSection:
    """Lanes across a road, from its reference line outwards."""

    right: tuple[PlannedLane, ...]
    left: tuple[PlannedLane, ...] = ()
    centre: Paint = SOLID

    @property
    def lanes(self) -> dict[int, PlannedLane]:
        """By OpenDRIVE's ids, leftmost first."""
        left = {k + 1: lane for k, lane in enumerate(self.left)}
        return dict(reversed(left.items())) | {-k - 1: lane for k, lane in enumerate(self.right)}

    def middle(self, lane: int, ds: float) -> float:
        """t of the middle of a lane at ds metres from the start of the section."""
        side = self.right if lane < 0 else self.left
        inner = sum(other.width_at(ds) for other in side[: abs(lane) - 1])
        return math.copysign(inner + side[abs(lane) - 1].width_at(ds) / 2, lane)


def side(lanes: int, width: float, shoulder: float = 0.0, changes: bool = True) -> tuple[PlannedLane, ...]:
    """The lanes of one direction, from the middle of the road outwards.

    Args:
        lanes: Number of driving lanes.
        width: Of each, m.
        shoulder: Width of the shoulder, m; 0 for none.
        changes: Whether lines between the lanes may be crossed.
    """
    between = BROKEN if changes else SOLID
    driving = [PlannedLane(width, paint=between)] * (lanes - 1) + [PlannedLane(width)]
    return (*driving, PlannedLane(shoulder, "shoulder", Paint("none"))) if shoulder else tuple(driving)


def one_way(
    lanes: int, width: float = 3.5, shoulders: tuple[float, float] = (0.0, 0.0), changes: bool = True
) -> CrossSection:
    """The cross-section of a one-way road.

    Args:
        lanes: Number of driving lanes.
        width: Of each, m.
        shoulders: Widths to the left and to the right of the traffic, m.
        changes: Whether lines between the lanes may be crossed.
    """
    left = (PlannedLane(shoulders[0], "shoulder", Paint("none")),) if shoulders[0] else ()
    return CrossSection(side(lanes, width, shoulders[1], changes), left)


def two_way(lanes: int, width: float = 3.5, shoulder: float = 0.0, changes: bool = True) -> CrossSection:
    """The cross-section of a two-way road.

    Args:
        lanes: Number of driving lanes per direction.
        width: Of each, m.
        shoulder: Width of each shoulder, m; 0 for none.
        changes: Whether lines between the lanes may be crossed.
    """
    both = side(lanes, width, shoulder, changes)
    return CrossSection(both, both, DOUBLE)


@dataclass(frozen=True)
class Sign:
    """A signal at a road, facing the traffic in `lanes`."""

    id: int
    type: str
    s: float
    t: float
    z: float
    lanes: tuple[int, int]
    """From, to."""
    name: str = ""
    dynamic: bool = False


@dataclass(frozen=True)
class PlannedRoad:
    """A road: curves of its reference line, and lanes."""

    id: int
    start: Pose
    curves: tuple[Curve, ...]
    sections: tuple[tuple[float, CrossSection], ...]
    """(start, lanes); the first one starts at 0."""
    limit: float
    """km/h"""
    junction: int | None = None
    signs: tuple[Sign, ...] = ()

    @property
    def length(self) -> float:
        return sum(curve.length for curve in self.curves)

    @property
    def end(self) -> Pose:
        return self.start.after(self.curves)


@dataclass(frozen=True)
class Phases:
    """Traffic lights of a junction: each phase lists the signs that are green together."""

    junction: int
    signs: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Plan:
    """A map. Ids of roads and junctions must all differ, because CARLA's client has no other distinction."""

    name: str
    roads: tuple[PlannedRoad, ...]
    phases: tuple[Phases, ...] = ()


Piece = Curve | Sequence[Curve]


def chain(
    first_id: int, start: Pose, pieces: Iterable[Piece], profile: CrossSection, limit: float
) -> tuple[PlannedRoad, ...]:
    """Consecutive roads of the same lanes.

    Args:
        first_id: Id of the first road; the others count on.
        start: Where the first road begins.
        pieces: The curves of each road: one, or several.
        profile: Lanes of all roads.
        limit: Speed limit, km/h.

    Returns:
        One road per piece.
    """
    roads: list[PlannedRoad] = []
    for piece in pieces:
        curves = tuple(piece) if isinstance(piece, Sequence) else (piece,)
        road = PlannedRoad(first_id + len(roads), start, curves, ((0.0, profile),), limit)
        roads.append(road)
        start = road.end
    return tuple(roads)


def split(curve: Line, pieces: int) -> list[Line]:
    """A line as several equal ones."""
    return [Line(curve.length / pieces)] * pieces


def connect(start: Pose, end: Pose) -> tuple[Curve, ...]:
    """A line, or the widest arc with a line before or behind it, between two poses.

    Args:
        start: Where the curves begin.
        end: Where they end.

    Returns:
        One or two curves.

    Raises:
        UsageError: No such curves join the poses.
    """
    dx, dy = end.x - start.x, end.y - start.y
    along = dx * math.cos(start.heading) + dy * math.sin(start.heading)
    across = dy * math.cos(start.heading) - dx * math.sin(start.heading)
    turn = math.remainder(end.heading - start.heading, 2 * math.pi)
    if abs(turn) < 1e-9 and abs(across) < 1e-9 and along > 0:
        return (Line(along),)
    behind = across / math.sin(turn) if abs(math.sin(turn)) > 1e-9 else -1.0
    before = along - behind * math.cos(turn)
    tangent = min(before, behind)
    if tangent <= 0:
        raise UsageError(f"no single bend leads from {start} to {end}: move one of them")
    radius = tangent / math.tan(abs(turn) / 2)
    bend = Arc(radius * abs(turn), math.copysign(1 / radius, turn))
    curves: list[Curve] = [Line(before - tangent), bend, Line(behind - tangent)]
    return tuple(curve for curve in curves if curve.length > SHORTEST)


def connection(road_id: int, junction: int, start: Pose, end: Pose, profile: CrossSection, limit: float) -> PlannedRoad:
    """A road through a junction.

    Args:
        road_id: Its id.
        junction: Id of the junction.
        start: Where it begins, on the left border of its leftmost lane.
        end: Where it ends.
        profile: Its lanes.
        limit: Speed limit, km/h.

    Raises:
        UsageError: No single bend joins start and end.
    """
    return PlannedRoad(road_id, start, connect(start, end), ((0.0, profile),), limit, junction)
