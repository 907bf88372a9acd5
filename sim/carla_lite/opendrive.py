"""An OpenDRIVE file (ASAM OpenDRIVE 1.4, what CARLA's towns use) as plain records, in OpenDRIVE's own frame.

What CARLA's client ignores is ignored here too: superelevation, lane heights, objects, crosswalks, railroads.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sim.carla_lite.curves import Arc, Curve, Line, ParamPoly3, Poly3, Spiral
from sim.errors import UsageError

GEOMETRIES = ("line", "arc", "spiral", "poly3", "paramPoly3")
KMH = {"km/h": 1.0, "mph": 1.609344, "m/s": 3.6, "": 3.6}
"""OpenDRIVE's units of speed in km/h; no unit means m/s."""
LONGEST = 1e5
"""Metres of a road."""

Contact = Literal["start", "end"]


@dataclass(frozen=True)
class Cubics:
    """A piecewise cubic function of s: `rows` (K, 5) hold start, a, b, c, d; zero before the first piece."""

    rows: np.ndarray

    def value(self, s: np.ndarray) -> np.ndarray:
        """Values (N,) at s (N,)."""
        ds, (a, b, c, d) = self._piece(s)
        return a + ds * (b + ds * (c + ds * d))

    def slope(self, s: np.ndarray) -> np.ndarray:
        """Derivatives (N,) at s (N,)."""
        ds, (_, b, c, d) = self._piece(s)
        return b + ds * (2 * c + ds * 3 * d)

    @property
    def starts(self) -> np.ndarray:
        return self.rows[:, 0]

    @property
    def straight(self) -> bool:
        """Whether every piece is a straight line."""
        return not self.rows[:, 3:].any()

    def _piece(self, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not len(self.rows):
            return np.zeros_like(s), np.zeros((4, *s.shape))
        k = np.searchsorted(self.starts, s, side="right") - 1
        rows = np.where((k < 0)[:, None], 0.0, self.rows[np.maximum(k, 0)])
        return s - rows[:, 0], rows[:, 1:].T


@dataclass(frozen=True)
class Mark:
    """The paint on the outer border of a lane (on the centre line for lane 0), from s along the road."""

    s: float
    kind: str
    colour: str
    change: str
    width: float


@dataclass(frozen=True)
class LaneRecord:
    """A lane of a lane section."""

    id: int
    """Negative to the right of the reference line, with traffic in its direction; positive to the left; 0: no width."""
    type: str
    width: Cubics
    """Of s along the road."""
    marks: tuple[Mark, ...]
    predecessor: int | None
    successor: int | None


@dataclass(frozen=True)
class Section:
    """A lane section."""

    s: float
    end: float
    lanes: dict[int, LaneRecord]


@dataclass(frozen=True)
class Geometry:
    """A piece of a reference line: where its curve begins."""

    s: float
    x: float
    y: float
    heading: float
    curve: Curve


@dataclass(frozen=True)
class Link:
    """What a road leads to."""

    type: Literal["road", "junction"]
    id: str
    contact: Contact


@dataclass(frozen=True)
class SignalRecord:
    """A signal beside a road."""

    id: str
    name: str
    type: str
    s: float
    t: float
    z: float
    heading: float
    """Radians, relative to the road."""
    dynamic: bool


@dataclass(frozen=True)
class Reference:
    """A place where a signal applies: on `lanes` of a road, at s."""

    signal: str
    s: float
    lanes: tuple[int, ...] | None
    """None where the file does not name them: `orientation` decides."""
    orientation: str


@dataclass(frozen=True)
class RoadRecord:
    """A road."""

    id: str
    name: str
    length: float
    junction: str | None
    predecessor: Link | None
    successor: Link | None
    geometries: tuple[Geometry, ...]
    elevation: Cubics
    offset: Cubics
    sections: tuple[Section, ...]
    limits: tuple[tuple[float, float], ...]
    """(s, km/h), ascending; empty where the file has none."""
    signals: tuple[SignalRecord, ...]
    references: tuple[Reference, ...]
    """The places of its own signals among them."""


@dataclass(frozen=True)
class Connection:
    """A connecting road of a junction; `links` maps lanes of the incoming road to its own."""

    incoming: str
    connecting: str
    contact: Contact
    """The end of the connecting road that touches the incoming road."""
    links: dict[int, int]


@dataclass(frozen=True)
class Junction:
    """A junction."""

    id: str
    connections: tuple[Connection, ...]
    controllers: tuple[str, ...]


@dataclass(frozen=True)
class Controller:
    """A group of signals that change together."""

    id: str
    sequence: int
    signals: tuple[str, ...]


@dataclass(frozen=True)
class OpenDrive:
    """A map by the ids of its parts."""

    name: str
    roads: dict[str, RoadRecord]
    junctions: dict[str, Junction]
    controllers: dict[str, Controller]


def parse(text: str) -> OpenDrive:
    """Read OpenDRIVE text.

    Args:
        text: Content of an .xodr file.

    Returns:
        Its records.

    Raises:
        UsageError: Broken XML, no roads, unsupported geometry, or missing numbers, in one line.
    """
    try:
        root = ET.fromstring(text)
    except (ET.ParseError, ValueError) as error:
        raise UsageError(f"this is not OpenDRIVE: broken XML ({error})") from None
    if root.tag != "OpenDRIVE":
        raise UsageError(f"this is not OpenDRIVE: the root element is <{root.tag}>, expected <OpenDRIVE>")
    roads = {road.id: road for road in map(_road, root.iterfind("road"))}
    if not roads:
        raise UsageError("this OpenDRIVE map has no roads: a map needs at least one <road>")
    junctions = {junction.id: junction for junction in map(_junction, root.iterfind("junction"))}
    controllers = {controller.id: controller for controller in map(_controller, root.iterfind("controller"))}
    header = root.find("header")
    return OpenDrive("" if header is None else header.get("name", ""), roads, junctions, controllers)


def _road(node: ET.Element) -> RoadRecord:
    where = f"road {node.get('id')!r}"
    length = _number(node, "length", where)
    if not 0 < length <= LONGEST:
        raise UsageError(f"{where}: length = {length:g} m, expected more than 0 and at most {LONGEST:g}")
    lanes = node.find("lanes")
    sections = [] if lanes is None else lanes.findall("laneSection")
    geometries = tuple(_geometry(g, where) for g in node.iterfind("planView/geometry"))
    if not geometries or not sections:
        raise UsageError(f"{where} has no {'lanes' if geometries else 'geometry'}: it cannot be driven on")
    starts = [_number(section, "s", where) for section in sections]
    junction = node.get("junction", "-1")
    return RoadRecord(
        id=node.get("id", ""),
        name=node.get("name", ""),
        length=length,
        junction=None if junction in ("-1", "") else junction,
        predecessor=_link(node, "predecessor"),
        successor=_link(node, "successor"),
        geometries=tuple(sorted(geometries, key=lambda g: g.s)),
        elevation=_cubics(node.iterfind("elevationProfile/elevation"), where),
        offset=_cubics(node.iterfind("lanes/laneOffset"), where),
        sections=tuple(
            _section(section, start, end, where)
            for section, start, end in zip(sections, starts, [*starts[1:], length], strict=True)
        ),
        limits=_limits(node, where),
        signals=tuple(_signal(s, where) for s in node.iterfind("signals/signal")),
        references=tuple(
            _reference(r, where) for tag in ("signal", "signalReference") for r in node.iterfind(f"signals/{tag}")
        ),
    )


def _geometry(node: ET.Element, where: str) -> Geometry:
    where = f"{where}, geometry at s = {node.get('s')}"
    s, x, y, heading, length = (_number(node, key, where) for key in ("s", "x", "y", "hdg", "length"))
    if length <= 0:
        raise UsageError(f"{where}: length = {length:g} m, expected more than 0")
    shape = next((child for child in node if child.tag != "userData"), None)
    if shape is None or shape.tag not in GEOMETRIES:
        found = "nothing" if shape is None else f"<{shape.tag}>"
        raise UsageError(f"{where}: unsupported geometry {found} (supported: {', '.join(GEOMETRIES)})")
    return Geometry(s, x, y, heading, _curve(shape, length, where))


def _curve(shape: ET.Element, length: float, where: str) -> Curve:
    if shape.tag == "line":
        return Line(length)
    if shape.tag == "arc":
        return Arc(length, _number(shape, "curvature", where))
    if shape.tag == "spiral":
        return Spiral(length, _number(shape, "curvStart", where), _number(shape, "curvEnd", where))
    if shape.tag == "poly3":
        return Poly3(length, _cubic(shape, where))
    end = length if shape.get("pRange") == "arcLength" else 1.0
    curve = ParamPoly3(length, _cubic(shape, where, "U"), _cubic(shape, where, "V"), end)
    if not (any(curve.x[1:]) or any(curve.y[1:])):
        raise UsageError(f"{where}: a paramPoly3 of a single point, expected a curve")
    return curve


def _section(node: ET.Element, start: float, end: float, where: str) -> Section:
    if end <= start:
        raise UsageError(f"{where}: the lane section at s = {start:g} ends at {end:g}, expected ascending s")
    lanes = [
        _lane(lane, start, f"{where}, section at s = {start:g}")
        for side in ("left", "center", "right")
        for lane in node.iterfind(f"{side}/lane")
    ]
    return Section(start, end, {lane.id: lane for lane in lanes})


def _lane(node: ET.Element, start: float, where: str) -> LaneRecord:
    where = f"{where}, lane {node.get('id')}"
    number = _integer(node, "id", where)
    width = _cubics(node.iterfind("width"), where, start, "sOffset")
    if number and not len(width.rows):
        raise UsageError(f"{where} has no <width> (lanes given by <border> are not supported)")
    return LaneRecord(
        id=number,
        type=node.get("type", "none"),
        width=width,
        marks=tuple(sorted((_mark(m, start, where) for m in node.iterfind("roadMark")), key=lambda mark: mark.s)),
        predecessor=_lane_link(node, "predecessor", where),
        successor=_lane_link(node, "successor", where),
    )


def _mark(node: ET.Element, start: float, where: str) -> Mark:
    return Mark(
        s=start + _number(node, "sOffset", where, 0.0),
        kind=node.get("type", "none"),
        colour=node.get("color", "standard"),
        change=node.get("laneChange", "none"),
        width=_number(node, "width", where, 0.12),
    )


def _lane_link(node: ET.Element, which: str, where: str) -> int | None:
    link = node.find(f"link/{which}")
    return None if link is None else _integer(link, "id", where)


def _link(node: ET.Element, which: str) -> Link | None:
    link = node.find(f"link/{which}")
    if link is None:
        return None
    contact: Contact = "end" if link.get("contactPoint") == "end" else "start"
    return Link("junction" if link.get("elementType") == "junction" else "road", link.get("elementId", ""), contact)


def _limits(node: ET.Element, where: str) -> tuple[tuple[float, float], ...]:
    limits = []
    for kind in node.iterfind("type"):
        speed = kind.find("speed")
        if speed is not None and speed.get("max") not in (None, "no limit", "undefined"):
            unit = speed.get("unit", "")
            if unit not in KMH:
                raise UsageError(f"{where}: unit of speed {unit!r}, expected km/h, mph or m/s")
            limits.append((_number(kind, "s", where, 0.0), _number(speed, "max", where) * KMH[unit]))
    return tuple(sorted(limits))


def _signal(node: ET.Element, where: str) -> SignalRecord:
    where = f"{where}, signal {node.get('id')!r}"
    return SignalRecord(
        id=node.get("id", ""),
        name=node.get("name", ""),
        type=node.get("type", ""),
        s=_number(node, "s", where),
        t=_number(node, "t", where),
        z=_number(node, "zOffset", where, 0.0),
        heading=_number(node, "hOffset", where, 0.0),
        dynamic=node.get("dynamic") == "yes",
    )


def _reference(node: ET.Element, where: str) -> Reference:
    where = f"{where}, signal {node.get('id')!r}"
    ranges = [
        (_integer(validity, "fromLane", where), _integer(validity, "toLane", where))
        for validity in node.iterfind("validity")
    ]
    lanes = tuple(lane for pair in ranges for lane in range(min(pair), max(pair) + 1) if lane)
    return Reference(
        signal=node.get("id", ""),
        s=_number(node, "s", where),
        lanes=lanes if ranges else None,
        orientation=node.get("orientation", "none"),
    )


def _junction(node: ET.Element) -> Junction:
    where = f"junction {node.get('id')!r}"
    return Junction(
        id=node.get("id", ""),
        connections=tuple(
            Connection(
                incoming=connection.get("incomingRoad", ""),
                connecting=connection.get("connectingRoad", ""),
                contact="end" if connection.get("contactPoint") == "end" else "start",
                links={
                    _integer(link, "from", where): _integer(link, "to", where)
                    for link in connection.iterfind("laneLink")
                },
            )
            for connection in node.iterfind("connection")
        ),
        controllers=tuple(controller.get("id", "") for controller in node.iterfind("controller")),
    )


def _controller(node: ET.Element) -> Controller:
    number = node.get("id", "")
    return Controller(
        id=number,
        sequence=int(_number(node, "sequence", f"controller {number!r}", 0.0)),
        signals=tuple(control.get("signalId", "") for control in node.iterfind("control")),
    )


def _cubics(nodes: Iterable[ET.Element], where: str, offset: float = 0.0, key: str = "s") -> Cubics:
    rows = [(offset + _number(node, key, where, 0.0), *_cubic(node, where)) for node in nodes]
    return Cubics(np.array(sorted(rows), dtype=float).reshape(len(rows), 5))


def _cubic(node: ET.Element, where: str, suffix: str = "") -> tuple[float, float, float, float]:
    a, b, c, d = (_number(node, key + suffix, where, 0.0) for key in "abcd")
    return a, b, c, d


def _number(node: ET.Element, key: str, where: str, default: float | None = None) -> float:
    text = node.get(key)
    if text is None and default is not None:
        return default
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{where}: <{node.tag}> has {key} = {text!r}, expected a number")
    return value


def _integer(node: ET.Element, key: str, where: str) -> int:
    text = node.get(key)
    try:
        return int(text or "")
    except ValueError:
        raise UsageError(f"{where}: <{node.tag}> has {key} = {text!r}, expected a whole number") from None
