"""Building blocks of road maps, and the OpenDRIVE text of a map built with them.

Roads are placed; their links are found from where their lanes end: a lane continues in any lane that begins at the same
place, in the same direction, with the same width. Roads with a `junction` connect others within it. The
frame is OpenDRIVE's: y and lane offsets to the left, headings counter-clockwise. Traffic keeps to the right.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from sim.carla_lite.curves import Arc, Curve, Line, Spiral
from sim.errors import UsageError

TOUCHING = 0.01
"""Metres within which places, and widths, are the same."""
ALIGNED = math.radians(0.1)
SHORTEST = 1e-6
"""Metres; shorter pieces of a curve are left out."""
GEO_REFERENCE = "+proj=tmerc +lat_0=0 +lon_0=0 +k=1 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs"


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


class LaneEnd(NamedTuple):
    """Where a lane begins or ends."""

    road: int
    end: Literal["start", "end"]
    lane: int
    place: Pose
    """Heading in the direction of its traffic."""
    width: float
    type: str


Joint = tuple[LaneEnd, LaneEnd]
"""The end of one lane and the beginning of the next."""


def joints(roads: Sequence[PlannedRoad]) -> list[Joint]:
    """All pairs of lanes of different roads where one continues in the other."""
    exits = [end for road in roads for end in _lane_ends(road, leaving=True)]
    entries = [end for road in roads for end in _lane_ends(road, leaving=False)]
    return [(a, b) for a in exits for b in entries if a.road != b.road and _touch(a, b)]


def write(plan: Plan) -> str:
    """The OpenDRIVE 1.4 text of a map.

    Args:
        plan: The map.

    Returns:
        Content of an .xodr file.

    Raises:
        UsageError: Two ids are equal.
    """
    found = joints(plan.roads)
    junctions = {road.junction for road in plan.roads} - {None}
    if junctions & {road.id for road in plan.roads} or len({road.id for road in plan.roads}) < len(plan.roads):
        raise UsageError(f"map {plan.name!r}: ids of roads and junctions must all differ")
    root = ET.Element("OpenDRIVE")
    header = _add(root, "header", revMajor=1, revMinor=4, name=plan.name, version="1.00", **_extent(plan.roads))
    _add(header, "geoReference").text = GEO_REFERENCE
    by_id = {road.id: road for road in plan.roads}
    for road in plan.roads:
        _write_road(root, road, found, by_id)
    controllers = [
        (phases.junction, f"{phases.junction}{k}", signs)
        for phases in plan.phases
        for k, signs in enumerate(phases.signs)
    ]
    for sequence, (_, number, signs) in enumerate(controllers):
        controller = _add(root, "controller", id=number, name=f"phase{number}", sequence=sequence)
        for sign in signs:
            _add(controller, "control", signalId=sign, type=0)
    for junction in sorted(k for k in junctions if k is not None):
        _write_junction(root, junction, found, by_id, [number for j, number, _ in controllers if j == junction])
    ET.indent(root, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _lane_ends(road: PlannedRoad, leaving: bool) -> Iterable[LaneEnd]:
    """Where lanes end (`leaving`) or begin. Lanes with positive ids run from the end of the road to its start."""
    (_, first), (last_s, last) = road.sections[0], road.sections[-1]
    for where, place, profile, ds in (
        ("start", road.start, first, 0.0),
        ("end", road.end, last, road.length - last_s),
    ):
        for number, lane in profile.lanes.items():
            if (number < 0) == ((where == "end") == leaving):
                t = profile.middle(number, ds)
                facing = place.aside(t).turned(0.0 if number < 0 else math.pi)
                yield LaneEnd(road.id, where, number, facing, lane.width_at(ds), lane.type)  # type: ignore[arg-type]


def _touch(a: LaneEnd, b: LaneEnd) -> bool:
    return (
        math.hypot(a.place.x - b.place.x, a.place.y - b.place.y) < TOUCHING
        and abs(math.remainder(a.place.heading - b.place.heading, 2 * math.pi)) < ALIGNED
        and abs(a.width - b.width) < TOUCHING
        and a.type == b.type
    )


def _neighbours(road: PlannedRoad, end: str, found: Iterable[Joint]) -> list[tuple[LaneEnd, LaneEnd]]:
    """(lane end of this road, lane end of the other) at one end of a road."""
    pairs = [(a, b) for a, b in found if a.road == road.id and a.end == end]
    return pairs + [(b, a) for a, b in found if b.road == road.id and b.end == end]


def _write_road(root: ET.Element, road: PlannedRoad, found: Sequence[Joint], by_id: dict[int, PlannedRoad]) -> None:
    node = _add(root, "road", name="", length=road.length, id=road.id, junction=road.junction or -1)
    link = _add(node, "link")
    lane_links: dict[str, dict[int, int]] = {}
    for end, tag in (("start", "predecessor"), ("end", "successor")):
        lane_links[tag] = _write_link(link, tag, road, _neighbours(road, end, found), by_id)
    kind = _add(node, "type", s=0, type="motorway" if road.limit > 80 else "town")
    _add(kind, "speed", max=road.limit, unit="km/h")
    _write_curves(_add(node, "planView"), road)
    lanes = _add(node, "lanes")
    for k, (s, profile) in enumerate(road.sections):
        before = lane_links["predecessor"] if k == 0 else _within(road, k - 1, backwards=True)
        after = lane_links["successor"] if k == len(road.sections) - 1 else _within(road, k)
        _write_section(lanes, s, profile, before, after)
    if road.signs:
        signals = _add(node, "signals")
        for sign in road.signs:
            _write_sign(signals, sign)


def _write_link(
    link: ET.Element,
    tag: str,
    road: PlannedRoad,
    pairs: Sequence[tuple[LaneEnd, LaneEnd]],
    by_id: dict[int, PlannedRoad],
) -> dict[int, int]:
    """Write the next road or junction; returns the lane there in which each lane continues."""
    if not pairs:
        return {}
    junctions = {by_id[other.road].junction for _, other in pairs}
    if road.junction is None and junctions != {None}:
        (junction,) = junctions  # a road leads into one junction, or into roads: the builder's duty
        _add(link, tag, elementType="junction", elementId=junction)
        return {}
    # where a ramp joins, the road that shares more lanes is what comes before; the ramp alone knows about its link
    (chosen, end), _ = Counter((other.road, other.end) for _, other in pairs).most_common(1)[0]
    _add(link, tag, elementType="road", elementId=chosen, contactPoint=end)
    return {own.lane: other.lane for own, other in pairs if (other.road, other.end) == (chosen, end)}


def _within(road: PlannedRoad, k: int, backwards: bool = False) -> dict[int, int]:
    """Lanes of section k -> lanes of the next one that go on at the same place; or the other way round."""
    (s, here), (end, following) = road.sections[k], road.sections[k + 1]
    links = {
        a: b
        for a, lane in here.lanes.items()
        for b, other in following.lanes.items()
        if lane.type == other.type
        and a * b > 0
        and abs(here.middle(a, end - s) - following.middle(b, 0.0)) < TOUCHING
        and abs(lane.width_at(end - s) - other.width) < TOUCHING
    }
    return {b: a for a, b in links.items()} if backwards else links


def _write_curves(plan_view: ET.Element, road: PlannedRoad) -> None:
    s, pose = 0.0, road.start
    for curve in road.curves:
        heading = math.remainder(pose.heading, 2 * math.pi)
        node = _add(plan_view, "geometry", s=s, x=pose.x, y=pose.y, hdg=heading, length=curve.length)
        if isinstance(curve, Line):
            _add(node, "line")
        elif isinstance(curve, Arc):
            _add(node, "arc", curvature=curve.curvature)
        elif isinstance(curve, Spiral):
            _add(node, "spiral", curvStart=curve.start, curvEnd=curve.end)
        else:
            raise UsageError(f"road {road.id}: a {type(curve).__name__} cannot be written, use lines, arcs and spirals")
        s, pose = s + curve.length, pose.after([curve])


def _write_section(
    lanes: ET.Element, s: float, profile: CrossSection, before: dict[int, int], after: dict[int, int]
) -> None:
    section = _add(lanes, "laneSection", s=s)
    for tag, sign in (("left", 1), ("center", 0), ("right", -1)):
        if tag == "center":
            lane_node = _add(_add(section, tag), "lane", id=0, type="none", level="false")
            _write_paint(lane_node, profile.centre)
            continue
        numbers = {number: lane for number, lane in profile.lanes.items() if number * sign > 0}
        group = _add(section, tag) if numbers else section
        for number, lane in numbers.items():
            node = _add(group, "lane", id=number, type=lane.type, level="false")
            link = _add(node, "link")
            if number in before:
                _add(link, "predecessor", id=before[number])
            if number in after:
                _add(link, "successor", id=after[number])
            b, c, d = lane.widening
            _add(node, "width", sOffset=0, a=lane.width, b=b, c=c, d=d)
            _write_paint(node, lane.paint)


def _write_paint(lane: ET.Element, paint: Paint) -> None:
    _add(
        lane,
        "roadMark",
        sOffset=0,
        type=paint.kind,
        weight="standard",
        color=paint.colour,
        width=0.15,
        laneChange=paint.change,
    )


def _write_sign(signals: ET.Element, sign: Sign) -> None:
    node = _add(
        signals,
        "signal",
        s=sign.s,
        t=sign.t,
        id=sign.id,
        name=sign.name,
        dynamic="yes" if sign.dynamic else "no",
        orientation="+" if sign.lanes[0] < 0 else "-",
        zOffset=sign.z,
        country="OpenDRIVE",
        type=sign.type,
        subtype=-1,
        value=-1,
        hOffset=0,
        pitch=0,
        roll=0,
    )
    _add(node, "validity", fromLane=sign.lanes[0], toLane=sign.lanes[1])


def _write_junction(
    root: ET.Element, junction: int, found: Sequence[Joint], by_id: dict[int, PlannedRoad], controllers: Sequence[str]
) -> None:
    node = _add(root, "junction", id=junction, name=f"junction{junction}")
    entering = [(a, b) for a, b in found if by_id[b.road].junction == junction]
    pairs = sorted({(a.road, b.road, b.end) for a, b in entering})
    for k, (incoming, connecting, contact) in enumerate(pairs):
        item = _add(node, "connection", id=k, incomingRoad=incoming, connectingRoad=connecting, contactPoint=contact)
        for a, b in entering:
            if (a.road, b.road, b.end) == (incoming, connecting, contact):
                _add(item, "laneLink", **{"from": a.lane, "to": b.lane})
    for number in controllers:
        _add(node, "controller", id=number, type=0)


def _extent(roads: Iterable[PlannedRoad]) -> dict[str, float]:
    """The header's box around the reference lines."""
    poses = [road.start.after(road.curves[:k]) for road in roads for k in range(len(road.curves) + 1)]
    x, y = [pose.x for pose in poses], [pose.y for pose in poses]
    return {"north": max(y), "south": min(y), "east": max(x), "west": min(x)}


def _add(parent: ET.Element, tag: str, **attributes: object) -> ET.Element:
    return ET.SubElement(parent, tag, {key: _text(value) for key, value in attributes.items()})


def _text(value: object) -> str:
    """Numbers are rounded to 1e-10, so that texts have no rounding noise."""
    if isinstance(value, float):
        return f"{round(value, 10) + 0.0:.12g}"
    return str(value)
