"""Roads of an OpenDRIVE map in CARLA's frame: where lanes lie, what they lead to, where lights stand, what is paved.

CARLA's frame has x forward, y to the right (OpenDRIVE's y negated) and yaw clockwise in degrees. Shapes of lanes agree
with those of CARLA's client (`tests/sim/carla_lite/test_lite_roads.py` asks it); trigger boxes of lights are those of
CARLA's server (half as wide as the lane, 3 m long, 1.5 m before the place where the light applies).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, zip_longest

import numpy as np

from sim.carla_lite import opendrive, surface
from sim.carla_lite.opendrive import Connection, LaneRecord, Link, Mark, OpenDrive, Reference, Road, SignalRecord
from sim.errors import UsageError

CHORD_ERROR = 0.005
"""Metres between a curve and its samples."""
LONGEST_STEP = 25.0
"""Metres between samples of a straight road of constant width."""
BENT_STEP = 1.0
"""Metres between samples where widths or heights change."""
SHORTEST_STEP = 0.02
WIDEST = 1000.0
"""Metres from the reference line to a border; more is a mistake in the file."""

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
"""Types of lanes that a car can stand on; beside them is off the road."""

TRAFFIC_LIGHT = "1000001"
"""CARLA's type of a signal that is a traffic light."""
SIGNAL_AHEAD = 0.25
"""Metres that CARLA's client moves all signals along their yaw."""
BOX_LENGTH, BOX_HEIGHT, BOX_GAP = 1.5, 1.0, 1.5
"""Half length, half height of a trigger box, and its distance from the place where the light applies, m."""

SPAWN_SPACING = 40.0
SPAWN_MARGIN = 10.0
"""Metres to the start and the end of a lane."""
SPAWN_WIDTH = 2.5
"""Metres; cars are not put on narrower lanes."""
SPAWN_DEAD_END = 100.0
"""Metres before the end of a lane that leads nowhere."""


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
    """Indices into `RoadMap.lanes`: what traffic can go on with, lane changes apart."""


@dataclass(frozen=True)
class Border:
    """A lane border to draw."""

    points: np.ndarray
    """(P, 2)"""
    kind: str
    """OpenDRIVE's type of road mark: solid, broken, none, ..."""
    colour: str


@dataclass(frozen=True)
class Box:
    x: float
    y: float
    z: float
    yaw: float
    extent: tuple[float, float, float]
    """Half sizes along, across and up."""

    def contains(self, xy: np.ndarray) -> np.ndarray:
        """Points (N, 2) -> bool (N,), seen from above."""
        yaw = math.radians(self.yaw)
        ahead, aside = np.array([math.cos(yaw), math.sin(yaw)]), np.array([-math.sin(yaw), math.cos(yaw)])
        offset = xy - (self.x, self.y)
        return (np.abs(offset @ ahead) <= self.extent[0]) & (np.abs(offset @ aside) <= self.extent[1])

    def overlaps(self, xy: np.ndarray, yaw: np.ndarray, extent: np.ndarray) -> np.ndarray:
        """Boxes with middles (N, 2), yaws (N,) in degrees and half sizes (N, 2) -> bool (N,), seen from above.

        Two rectangles are apart if and only if they are along an axis of one of them.
        """
        offset = xy - (self.x, self.y)
        own, other = np.radians(self.yaw), np.radians(yaw)
        cos, sin = np.abs(np.cos(other - own)), np.abs(np.sin(other - own))
        (long, wide), (length, width) = self.extent[:2], extent.T
        apart = np.zeros(len(xy), dtype=bool)
        for axis, reach in (
            (own, long + length * cos + width * sin),
            (own + np.pi / 2, wide + length * sin + width * cos),
            (other, length + long * cos + wide * sin),
            (other + np.pi / 2, width + long * sin + wide * cos),
        ):
            apart |= np.abs(offset[:, 0] * np.cos(axis) + offset[:, 1] * np.sin(axis)) > reach
        return ~apart


@dataclass(frozen=True)
class Stop:
    """Where a signal applies to one lane: the stop line's middle, facing as the traffic does."""

    road: str
    lane: int
    s: float
    x: float
    y: float
    z: float
    yaw: float
    width: float
    box: Box
    """A car in it is at the light."""


@dataclass(frozen=True)
class Signal:
    id: str
    name: str
    type: str
    x: float
    y: float
    z: float
    yaw: float
    """Of the road (plus the signal's own turn), as CARLA's landmarks have it."""
    stops: tuple[Stop, ...]
    trigger: Box | None
    """Around the boxes of its stops; None where it governs no lane."""
    controller: str | None
    junction: str | None

    @property
    def actor_yaw(self) -> float:
        """Of CARLA's traffic light actor, whose x axis points across the road, to the right of the traffic."""
        return math.remainder(self.yaw + 90.0, 360.0)

    @property
    def volume(self) -> Box | None:
        """The trigger relative to that actor, as `carla.TrafficLight.trigger_volume` has it: x across the road."""
        if self.trigger is None:
            return None
        box, yaw = self.trigger, math.radians(self.actor_yaw)
        x, y = box.x - self.x, box.y - self.y
        along, across, up = box.extent
        return Box(
            x=x * math.cos(yaw) + y * math.sin(yaw),
            y=y * math.cos(yaw) - x * math.sin(yaw),
            z=box.z - self.z,
            yaw=math.remainder(box.yaw + 90.0 - self.actor_yaw, 360.0),
            extent=(across, along, up),
        )


@dataclass(frozen=True)
class RoadMap:
    """See the module. Build it with `RoadMap.parse`."""

    drive: OpenDrive
    lanes: tuple[Lane, ...]
    signals: tuple[Signal, ...]
    """Traffic lights."""
    signs: tuple[Signal, ...]
    """All other signals: yield, stop, ..."""

    @staticmethod
    def parse(text: str) -> RoadMap:
        """Reads OpenDRIVE text. UsageError in one line for broken XML, no roads, unsupported geometry."""
        drive = opendrive.parse(text)
        lanes = _lanes(drive)
        signals = _signals(drive, lanes)
        return RoadMap(
            drive,
            lanes,
            tuple(s for s in signals if s.type == TRAFFIC_LIGHT),
            tuple(s for s in signals if s.type != TRAFFIC_LIGHT),
        )

    @property
    def name(self) -> str:
        return self.drive.name

    def pose(self, road: str, lane: int, s: float) -> tuple[float, float, float, float]:
        """x, y, z in m and yaw in degrees of the middle of a lane, s metres along its road."""
        record = self.drive.roads.get(road)
        if record is None:
            raise UsageError(f"map {self.name!r} has no road {road!r}")
        return _pose(record, lane, s)

    def spawn_points(self, spacing: float = SPAWN_SPACING) -> list[tuple[float, float, float, float]]:
        """x, y, z, yaw of places for cars on the road's surface, lane by lane, `spacing` metres apart."""
        found = []
        for lane in self.lanes:
            if lane.type != DRIVING or lane.junction is not None:
                continue
            road = self.drive.roads[lane.road]
            length = abs(lane.s[-1] - lane.s[0])
            last = length - (SPAWN_MARGIN if lane.successors else SPAWN_DEAD_END)
            for along in np.arange(SPAWN_MARGIN, last + 1e-6, spacing):
                s = lane.s[0] + (along if lane.id < 0 else -along)
                if np.interp(s, np.sort(lane.s), lane.width[np.argsort(lane.s)]) >= SPAWN_WIDTH:
                    found.append(_pose(road, lane.id, s))
        return found

    def on_road(self, xy: np.ndarray) -> np.ndarray:
        """Points (N, 2) -> bool (N,): on a lane of a `PAVED` type."""
        return self._surface.contains(np.asarray(xy, dtype=float))

    def height(self, xy: np.ndarray, near: np.ndarray | None = None) -> np.ndarray:
        """Points (N, 2) -> z (N,) of the road there; beside all roads that of the closest lane's middle.

        Where roads lie above each other the highest counts, or the one closest to the heights `near` (N,).
        """
        xy = np.asarray(xy, dtype=float)
        if self._level is not None:
            return np.full(len(xy), self._level)
        z = self._surface.at(xy, near)[1]
        beside = np.flatnonzero(np.isnan(z))
        places, heights = self._middles
        for k in beside:
            z[k] = heights[np.argmin(((places - xy[k]) ** 2).sum(axis=1))]
        return z

    def speed_limit(self, xy: np.ndarray) -> np.ndarray:
        """Points (N, 2) -> km/h (N,); NaN beside all roads and where the map says nothing."""
        return self._limits[self._surface.at(np.asarray(xy, dtype=float))[0]]

    def lane_polygons(self) -> list[np.ndarray]:
        """Outlines (P, 2) of the paved lanes, to draw."""
        return [np.concatenate([lane.left, lane.right[::-1]]) for lane in self.lanes if lane.type in PAVED]

    def borders(self) -> list[Border]:
        """Lane borders with their paint, to draw."""
        found: list[Border] = []
        for lane in self.lanes:
            section = self.drive.roads[lane.road].sections[lane.section]
            found += _painted(lane.s, lane.right, section.lanes[lane.id].marks)
            if lane.id == -1 or (lane.id == 1 and -1 not in section.lanes):
                found += _painted(lane.s, lane.left, section.lanes[0].marks if 0 in section.lanes else ())
        return found

    @cached_property
    def _paved(self) -> list[Lane]:
        return [lane for lane in self.lanes if lane.type in PAVED]

    @cached_property
    def _surface(self) -> surface.Surface:
        """Quadrangles whose owners index `_limits`."""
        paved = self._paved
        corners = [np.stack([lane.left[:-1], lane.left[1:], lane.right[1:], lane.right[:-1]], axis=1) for lane in paved]
        z = [np.stack([lane.z[:-1], lane.z[1:]], axis=1) for lane in paved]
        owner = np.repeat(np.arange(len(paved)), [len(c) for c in corners])
        return surface.build(
            np.concatenate([np.zeros((0, 4, 2)), *corners]), np.concatenate([np.zeros((0, 2)), *z]), owner
        )

    @cached_property
    def _limits(self) -> np.ndarray:
        """km/h of each paved lane; NaN for the last row, which is no lane."""
        limits = [_limit(self.drive.roads[lane.road], float(lane.s.min())) for lane in self._paved]
        return np.array([*limits, math.nan])

    @cached_property
    def _level(self) -> float | None:
        """The height of all roads, if they share one."""
        heights = self._middles[1]
        return float(heights[0]) if np.ptp(heights) < 1e-9 else None

    @cached_property
    def _middles(self) -> tuple[np.ndarray, np.ndarray]:
        lanes = self._paved or self.lanes
        return np.concatenate([lane.center for lane in lanes]), np.concatenate([lane.z for lane in lanes])


def _lanes(drive: OpenDrive) -> tuple[Lane, ...]:
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


def _lane(road: Road, section: int, lane: LaneRecord, s: np.ndarray, successors: tuple[int, ...]) -> Lane:
    s = s if lane.id < 0 else s[::-1]
    inner, outer, _ = _laterals(road, section, lane.id, s)
    x, y, heading = _reference_line(road, s)
    left, center, right = (_beside(x, y, heading, t) for t in (inner, (inner + outer) / 2, outer))
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


def _stations(road: Road, section: int) -> np.ndarray:
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


def _reference_line(road: Road, s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and heading (N,) in OpenDRIVE's frame."""
    x, y, heading = np.empty_like(s), np.empty_like(s), np.empty_like(s)
    which = _geometry_at(road, s)
    for k in np.unique(which):
        rows, geometry = which == k, road.geometries[k]
        u, v, turn = geometry.curve.at(s[rows] - geometry.s)
        cos, sin = math.cos(geometry.heading), math.sin(geometry.heading)
        x[rows], y[rows] = geometry.x + u * cos - v * sin, geometry.y + u * sin + v * cos
        heading[rows] = geometry.heading + turn
    return x, y, heading


def _geometry_at(road: Road, s: np.ndarray) -> np.ndarray:
    starts = [geometry.s for geometry in road.geometries]
    return np.clip(np.searchsorted(starts, s, side="right") - 1, 0, len(starts) - 1)


def _laterals(road: Road, section: int, lane: int, s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """t (N,) of a lane's inner and outer border, and the slope (N,) of its middle. t counts to the left."""
    lanes = road.sections[section].lanes
    side = -1 if lane < 0 else 1
    inner, slope = road.offset.value(s), road.offset.slope(s)
    for k in range(side, lane, side):
        if k in lanes:
            inner, slope = inner + side * lanes[k].width.value(s), slope + side * lanes[k].width.slope(s)
    width = lanes[lane].width
    return inner, inner + side * np.maximum(width.value(s), 0.0), slope + side * width.slope(s) / 2


def _beside(x: np.ndarray, y: np.ndarray, heading: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Points (N, 2) in CARLA's frame, t to the left of a line in OpenDRIVE's."""
    return np.stack([x - t * np.sin(heading), -(y + t * np.cos(heading))], axis=1)


def _pose(road: Road, lane: int, s: float) -> tuple[float, float, float, float]:
    section = _section_at(road, s)
    if lane not in road.sections[section].lanes or not lane:
        raise UsageError(f"road {road.id!r} has no lane {lane} at s = {s:g} m")
    at = np.array([s], dtype=float)
    inner, outer, slope = _laterals(road, section, lane, at)
    x, y, heading = _reference_line(road, at)
    place = _beside(x, y, heading, (inner + outer) / 2)[0]
    yaw = -math.degrees(heading[0] + math.atan(slope[0])) + (180.0 if lane > 0 else 0.0)
    return float(place[0]), float(place[1]), float(road.elevation.value(at)[0]), math.remainder(yaw, 360.0)


def _section_at(road: Road, s: float) -> int:
    return max(sum(section.s <= s for section in road.sections) - 1, 0)


def _limit(road: Road, s: float) -> float:
    return next((limit for start, limit in reversed(road.limits) if start <= s + 1e-6), math.nan)


Keys = dict[tuple[str, int, int], int]
"""(road, section, lane) -> index of the lane."""


def _successors(drive: OpenDrive, index: Keys, road_id: str, section: int, lane: LaneRecord) -> tuple[int, ...]:
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


def _painted(s: np.ndarray, points: np.ndarray, marks: Sequence[Mark]) -> Iterable[Border]:
    """A border (P, 2) at s (P,), cut where its paint changes."""
    if s[0] > s[-1]:
        s, points = s[::-1], points[::-1]
    for mark, until in zip_longest(marks, [later.s for later in marks[1:]], fillvalue=s[-1]):
        low, high = max(mark.s, s[0]), min(until, s[-1])
        if high > low:
            at = np.concatenate([[low], s[(s > low) & (s < high)], [high]])
            line = np.stack([np.interp(at, s, points[:, 0]), np.interp(at, s, points[:, 1])], axis=1)
            yield Border(line, mark.kind, mark.colour)
    if not marks:
        yield Border(points, "none", "standard")


def _signals(drive: OpenDrive, lanes: Sequence[Lane]) -> list[Signal]:
    applies: dict[str, list[tuple[Road, Reference]]] = {}
    for road in drive.roads.values():
        for reference in road.references:
            applies.setdefault(reference.signal, []).append((road, reference))
    controllers = {signal: controller.id for controller in drive.controllers.values() for signal in controller.signals}
    before = _predecessors(lanes)
    return [
        _signal(drive, road, record, applies[record.id], controllers.get(record.id), lanes, before)
        for road in drive.roads.values()
        for record in road.signals
    ]


def _signal(
    drive: OpenDrive,
    road: Road,
    record: SignalRecord,
    applies: Iterable[tuple[Road, Reference]],
    controller: str | None,
    lanes: Sequence[Lane],
    before: dict[tuple[str, int], list[Lane]],
) -> Signal:
    s = np.array([record.s])
    x, y, heading = _reference_line(road, s)
    yaw = -float(heading[0] + record.heading)
    place = _beside(x, y, heading, np.array([record.t]))[0] + SIGNAL_AHEAD * np.array([math.cos(yaw), math.sin(yaw)])
    stops = list({(stop.road, stop.lane): stop for stop in _stops(drive, applies, before)}.values())
    return Signal(
        id=record.id,
        name=record.name,
        type=record.type,
        x=float(place[0]),
        y=float(place[1]),
        z=float(road.elevation.value(s)[0] + record.z),
        yaw=math.remainder(math.degrees(yaw), 360.0),
        stops=tuple(stops),
        trigger=_around([stop for stop in stops if stop.road == stops[0].road]) if stops else None,
        controller=controller,
        junction=_junction_of(drive, road, controller, stops),
    )


def _stops(
    drive: OpenDrive, applies: Iterable[tuple[Road, Reference]], before: dict[tuple[str, int], list[Lane]]
) -> Iterable[Stop]:
    """One per lane. Inside a junction the place is moved back to the end of the lane that leads there."""
    for road, reference in applies:
        section = road.sections[_section_at(road, reference.s)]
        for number in _governed(reference, section.lanes):
            lane = section.lanes.get(number)
            if lane is None or lane.type != DRIVING:
                continue
            leading = before.get((road.id, number), []) if road.junction is not None else []
            if len(leading) == 1 and leading[0].junction is None:
                yield _stop(drive.roads[leading[0].road], leading[0].id, float(leading[0].s[-1]))
            else:
                yield _stop(road, number, reference.s)


def _governed(reference: Reference, lanes: Iterable[int]) -> Iterable[int]:
    if reference.lanes is not None:
        return reference.lanes
    return [k for k in lanes if (k < 0 and reference.orientation != "-") or (k > 0 and reference.orientation != "+")]


def _stop(road: Road, lane: int, s: float) -> Stop:
    section = road.sections[_section_at(road, s)]
    x, y, z, yaw = _pose(road, lane, s)
    width = float(section.lanes[lane].width.value(np.array([s]))[0])
    back = s + (BOX_LENGTH + BOX_GAP) * (-1 if lane < 0 else 1)
    box_x, box_y, box_z, box_yaw = _pose(road, lane, min(max(back, section.s), section.end - 1e-5))
    box = Box(box_x, box_y, box_z, box_yaw, (BOX_LENGTH, max(width / 4, 0.01), BOX_HEIGHT))
    return Stop(road.id, lane, s, x, y, z, yaw, width, box)


def _around(stops: Sequence[Stop]) -> Box:
    """The smallest box with the first stop's yaw around the boxes of all."""
    first = stops[0].box
    yaw = math.radians(first.yaw)
    ahead, aside = np.array([math.cos(yaw), math.sin(yaw)]), np.array([-math.sin(yaw), math.cos(yaw)])
    middles = np.array([(stop.box.x, stop.box.y) for stop in stops])
    sizes = np.array([stop.box.extent[:2] for stop in stops])
    u, v = middles @ ahead, middles @ aside
    low = np.array([(u - sizes[:, 0]).min(), (v - sizes[:, 1]).min()])
    high = np.array([(u + sizes[:, 0]).max(), (v + sizes[:, 1]).max()])
    x, y = (low + high) / 2 @ np.array([ahead, aside])
    along, across = (high - low) / 2
    return Box(float(x), float(y), first.z, first.yaw, (float(along), float(across), BOX_HEIGHT))


def _junction_of(drive: OpenDrive, road: Road, controller: str | None, stops: Sequence[Stop]) -> str | None:
    """The junction that has its controller, else the one that the traffic comes to after its stops."""
    for junction in drive.junctions.values():
        if controller is not None and controller in junction.controllers:
            return junction.id
    if road.junction is not None:
        return road.junction
    for stop in stops:
        governed = drive.roads[stop.road]
        link = governed.successor if stop.lane < 0 else governed.predecessor
        if link is not None and link.type == "junction":
            return link.id
    return None


def _predecessors(lanes: Sequence[Lane]) -> dict[tuple[str, int], list[Lane]]:
    """Lanes that lead into a road, by the road and its lane there."""
    found: dict[tuple[str, int], list[Lane]] = {}
    for lane in lanes:
        for k in lane.successors:
            if lanes[k].road != lane.road:
                found.setdefault((lanes[k].road, lanes[k].id), []).append(lane)
    return found
