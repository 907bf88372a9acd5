"""Lanes of an OpenDRIVE map in CARLA's frame: where they lie, what they lead to, and the paint on their borders.

CARLA's frame has x forward, y to the right (OpenDRIVE's y negated) and yaw clockwise in degrees. Shapes of lanes agree
with those of CARLA's client, which `tests/sim/carla_lite/test_lite_roads.py` compares.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest

import numpy as np

from sim.carla_lite.opendrive import Connection, LaneRecord, Link, Mark, OpenDrive, RoadRecord
from sim.errors import UsageError

CHORD_ERROR = 0.005
"""Metres between a curve and its samples."""
LONGEST_STEP = 25.0
"""Metres between samples of a straight road of constant width."""
BENT_STEP = 1.0
"""Metres between samples where widths or heights change."""
SHORTEST_STEP = 0.02
"""Metres between samples of the sharpest bend."""
WIDEST = 1000.0
"""Metres from the reference line to a border; a larger distance is an error in the file."""

DRIVING = "driving"
PAVED = frozenset(
    (
        "driving",
        "shoulder",
        "stop",
        "parking",
        "biking",
        "bidirectional",
        "entry",
        "exit",
        "onRamp",
        "offRamp",
        "connectingRamp",
        "mwyEntry",
        "mwyExit",
        "special1",
        "special2",
        "special3",
        "roadWorks",
        "tram",
        "HOV",
        "bus",
        "taxi",
        "slipLane",
    )
)
"""Types of lanes that count as road; anything else is off the road."""


@dataclass(frozen=True)
class Lane:
    """One lane of one lane section, sampled in the direction of travel. Metres and degrees, CARLA's frame."""

    road: str
    section: int
    id: int
    type: str
    junction: str | None
    s: np.ndarray
    """(P,) along the road; descending in lanes with positive id"""
    center: np.ndarray
    """(P, 2)"""
    left: np.ndarray
    """(P, 2) border to the left of the traffic in this lane"""
    right: np.ndarray
    """(P, 2)"""
    z: np.ndarray
    """(P,)"""
    width: np.ndarray
    """(P,)"""
    successors: tuple[int, ...]
    """Indices into `RoadMap.lanes`: where traffic can continue without a lane change."""


@dataclass(frozen=True)
class LaneBorder:
    """A lane border to draw."""

    points: np.ndarray
    """(P, 2)"""
    kind: str
    """OpenDRIVE's type of road mark: solid, broken, none, ..."""
    colour: str


def build_lanes(drive: OpenDrive) -> tuple[Lane, ...]:
    """All lanes of a map.

    Args:
        drive: Records of the map.

    Returns:
        Lanes by road, section and order in the file.

    Raises:
        UsageError: A lane is implausibly far from its reference line.
    """
    keys = {
        (road.id, section, lane.id): lane
        for road in drive.roads.values()
        for section in range(len(road.sections))
        for lane in road.sections[section].lanes.values()
        if lane.id
    }
    index = {key: k for k, key in enumerate(keys)}
    samples = {
        (road.id, section): _stations(road, section)
        for road in drive.roads.values()
        for section in range(len(road.sections))
    }
    return tuple(
        _lane(drive.roads[road], section, lane, samples[road, section], _successors(drive, index, road, section, lane))
        for (road, section, _), lane in keys.items()
    )


def _lane(road: RoadRecord, section: int, lane: LaneRecord, s: np.ndarray, successors: tuple[int, ...]) -> Lane:
    s = s if lane.id < 0 else s[::-1]
    inner, outer, _ = _laterals(road, section, lane.id, s)
    x, y, heading = reference_line(road, s)
    left, center, right = (beside_line(x, y, heading, t) for t in (inner, (inner + outer) / 2, outer))
    return Lane(
        road=road.id,
        section=section,
        id=lane.id,
        type=lane.type,
        junction=road.junction,
        s=s,
        center=center,
        left=left,
        right=right,
        z=road.elevation.value(s),
        width=np.abs(outer - inner),
        successors=successors,
    )


def _stations(road: RoadRecord, section: int) -> np.ndarray:
    """Where a section is sampled so that chords stay within `CHORD_ERROR` of its curves."""
    start, end = road.sections[section].s, road.sections[section].end
    lanes = [lane for lane in road.sections[section].lanes.values() if lane.id]
    shapes = [road.offset, road.elevation, *(lane.width for lane in lanes)]
    breaks = np.concatenate([[start, end], [g.s for g in road.geometries], *(shape.starts for shape in shapes)])
    breaks = np.unique(np.clip(breaks, start, end))
    reach = max((np.abs(_laterals(road, section, lane.id, breaks)[1]).max() for lane in lanes), default=0.0)
    if reach > WIDEST:
        raise UsageError(f"road {road.id!r}: lanes reach {reach:g} m to the side, expected at most {WIDEST:g}")
    longest = LONGEST_STEP if all(shape.straight for shape in shapes) else BENT_STEP
    pieces = [breaks[:1]]
    for low, high in pairwise(breaks):
        bend = road.geometries[_geometry_at(road, np.array([low]))[0]].curve.bend()
        # the outer border of a bend is longer than its reference line by this factor
        wanted = longest if bend == 0 else math.sqrt(8 * CHORD_ERROR / bend / (1 + bend * reach))
        step = min(max(wanted, SHORTEST_STEP), longest)
        pieces.append(np.linspace(low, high, max(1, math.ceil((high - low) / step)) + 1)[1:])
    return np.concatenate(pieces)


def reference_line(road: RoadRecord, s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points on a road's reference line.

    Args:
        road: The road.
        s: (N,), m.

    Returns:
        x, y in m and heading in rad, (N,) each, in OpenDRIVE's frame.
    """
    x, y, heading = np.empty_like(s), np.empty_like(s), np.empty_like(s)
    which = _geometry_at(road, s)
    for k in np.unique(which):
        rows, geometry = which == k, road.geometries[k]
        u, v, turn = geometry.curve.at(s[rows] - geometry.s)
        cos, sin = math.cos(geometry.heading), math.sin(geometry.heading)
        x[rows], y[rows] = geometry.x + u * cos - v * sin, geometry.y + u * sin + v * cos
        heading[rows] = geometry.heading + turn
    return x, y, heading


def _geometry_at(road: RoadRecord, s: np.ndarray) -> np.ndarray:
    starts = [geometry.s for geometry in road.geometries]
    return np.clip(np.searchsorted(starts, s, side="right") - 1, 0, len(starts) - 1)


def _laterals(road: RoadRecord, section: int, lane: int, s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """t (N,) of a lane's inner and outer border, and the slope (N,) of its middle. t counts to the left."""
    lanes = road.sections[section].lanes
    side = -1 if lane < 0 else 1
    inner, slope = road.offset.value(s), road.offset.slope(s)
    for k in range(side, lane, side):
        if k in lanes:
            inner, slope = inner + side * lanes[k].width.value(s), slope + side * lanes[k].width.slope(s)
    width = lanes[lane].width
    return inner, inner + side * np.maximum(width.value(s), 0.0), slope + side * width.slope(s) / 2


def beside_line(x: np.ndarray, y: np.ndarray, heading: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Points beside a line, converted to CARLA's frame.

    Args:
        x: (N,) of the line in OpenDRIVE's frame, m.
        y: (N,), m.
        heading: (N,), rad.
        t: (N,) distance to the left, m.

    Returns:
        (N, 2) in CARLA's frame.
    """
    return np.stack([x - t * np.sin(heading), -(y + t * np.cos(heading))], axis=1)


def lane_pose(road: RoadRecord, lane: int, s: float) -> tuple[float, float, float, float]:
    """The pose of the middle of a lane in CARLA's frame.

    Args:
        road: The road.
        lane: Id of the lane.
        s: Metres along the road.

    Returns:
        x, y, z in m, yaw in degrees.

    Raises:
        UsageError: The road has no such lane there.
    """
    section = section_at(road, s)
    if lane not in road.sections[section].lanes or not lane:
        raise UsageError(f"road {road.id!r} has no lane {lane} at s = {s:g} m")
    at = np.array([s], dtype=float)
    inner, outer, slope = _laterals(road, section, lane, at)
    x, y, heading = reference_line(road, at)
    place = beside_line(x, y, heading, (inner + outer) / 2)[0]
    yaw = -math.degrees(heading[0] + math.atan(slope[0])) + (180.0 if lane > 0 else 0.0)
    return float(place[0]), float(place[1]), float(road.elevation.value(at)[0]), math.remainder(yaw, 360.0)


def section_at(road: RoadRecord, s: float) -> int:
    """Index of the lane section at s (m)."""
    return max(sum(section.s <= s for section in road.sections) - 1, 0)


def speed_limit_at(road: RoadRecord, s: float) -> float:
    """Speed limit at s (m), km/h; NaN where the road has none."""
    return next((limit for start, limit in reversed(road.limits) if start <= s + 1e-6), math.nan)


LaneKeys = dict[tuple[str, int, int], int]
"""(road, section, lane) -> index of the lane."""


def _successors(drive: OpenDrive, index: LaneKeys, road_id: str, section: int, lane: LaneRecord) -> tuple[int, ...]:
    road = drive.roads[road_id]
    ahead = section + (1 if lane.id < 0 else -1)
    link, following = (road.successor, lane.successor) if lane.id < 0 else (road.predecessor, lane.predecessor)
    if 0 <= ahead < len(road.sections):
        keys = [] if following is None else [(road_id, ahead, following)]
    elif link is None:
        keys = []
    elif link.type == "junction":
        junction = drive.junctions.get(link.id)
        connections = () if junction is None else junction.connections
        keys = [key for c in connections if c.incoming == road_id for key in _enter(drive, c, lane.id)]
    else:
        keys = [] if following is None else list(_edge(drive, link, following))
    return tuple(index[key] for key in keys if key in index)


def _enter(drive: OpenDrive, connection: Connection, lane: int) -> Iterable[tuple[str, int, int]]:
    if lane in connection.links:
        yield from _edge(drive, Link("road", connection.connecting, connection.contact), connection.links[lane])


def _edge(drive: OpenDrive, link: Link, lane: int) -> Iterable[tuple[str, int, int]]:
    if link.id in drive.roads:
        yield link.id, 0 if link.contact == "start" else len(drive.roads[link.id].sections) - 1, lane


def painted_borders(s: np.ndarray, points: np.ndarray, marks: Sequence[Mark]) -> Iterable[LaneBorder]:
    """A border, cut where its paint changes.

    Args:
        s: (P,), m.
        points: (P, 2) of the border.
        marks: Its paint, ascending in s.

    Yields:
        One border per mark; one of kind "none" where there is no mark.
    """
    if s[0] > s[-1]:
        s, points = s[::-1], points[::-1]
    for mark, until in zip_longest(marks, [later.s for later in marks[1:]], fillvalue=s[-1]):
        low, high = max(mark.s, s[0]), min(until, s[-1])
        if high > low:
            at = np.concatenate([[low], s[(s > low) & (s < high)], [high]])
            line = np.stack([np.interp(at, s, points[:, 0]), np.interp(at, s, points[:, 1])], axis=1)
            yield LaneBorder(line, mark.kind, mark.colour)
    if not marks:
        yield LaneBorder(points, "none", "standard")
