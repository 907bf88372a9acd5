"""The OpenDRIVE text of a `plan.Plan`.

Links are found from where lanes end: a lane continues in any lane that begins at the same place, in the same direction,
with the same width.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from sim.carla_lite.curves import Arc, Line, Spiral
from sim.carla_lite.plan import CrossSection, Paint, Plan, PlannedRoad, Pose, Sign
from sim.errors import UsageError

TOUCHING = 0.01
"""Metres within which places, and widths, are the same."""
ALIGNED = math.radians(0.1)
GEO_REFERENCE = "+proj=tmerc +lat_0=0 +lon_0=0 +k=1 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs"


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
