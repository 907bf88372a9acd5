"""Signals of an OpenDRIVE map in CARLA's frame: where traffic lights and signs stand, and which lanes they apply to.

Trigger boxes of lights are those of CARLA's server: half as wide as the lane, 3 m long, 1.5 m before the place where
the light applies.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sim.carla_lite.boxes import Box
from sim.carla_lite.lanes import DRIVING, Lane, beside_line, lane_pose, reference_line, section_at
from sim.carla_lite.opendrive import OpenDrive, Reference, RoadRecord, SignalRecord

TRAFFIC_LIGHT = "1000001"
"""CARLA's type of a signal that is a traffic light."""
SIGNAL_AHEAD = 0.25
"""Metres by which CARLA's client moves all signals along their yaw."""
BOX_LENGTH, BOX_HEIGHT, BOX_GAP = 1.5, 1.0, 1.5
"""Half length, half height of a trigger box, and its distance from the place where the light applies, m."""


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
    """A car that overlaps it is at the light."""


@dataclass(frozen=True)
class Signal:
    """A traffic light or a sign."""

    id: str
    name: str
    type: str
    x: float
    y: float
    z: float
    yaw: float
    """Of the road plus the signal's own heading, as in CARLA's landmarks."""
    stops: tuple[Stop, ...]
    trigger: Box | None
    """Box around the boxes of its stops; None where it applies to no lane."""
    controller: str | None
    junction: str | None

    @property
    def actor_yaw(self) -> float:
        """Yaw of CARLA's traffic light actor, whose x axis points across the road, to the right of the traffic."""
        return math.remainder(self.yaw + 90.0, 360.0)

    @property
    def volume(self) -> Box | None:
        """The trigger relative to that actor, as in `carla.TrafficLight.trigger_volume`: x across the road."""
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


def build_signals(drive: OpenDrive, lanes: Sequence[Lane]) -> list[Signal]:
    """All signals of a map.

    Args:
        drive: Records of the map.
        lanes: Its lanes.

    Returns:
        Signals by road and order in the file.
    """
    applies: dict[str, list[tuple[RoadRecord, Reference]]] = {}
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
    road: RoadRecord,
    record: SignalRecord,
    applies: Iterable[tuple[RoadRecord, Reference]],
    controller: str | None,
    lanes: Sequence[Lane],
    before: dict[tuple[str, int], list[Lane]],
) -> Signal:
    s = np.array([record.s])
    x, y, heading = reference_line(road, s)
    yaw = -float(heading[0] + record.heading)
    place = beside_line(x, y, heading, np.array([record.t]))[0] + SIGNAL_AHEAD * np.array(
        [math.cos(yaw), math.sin(yaw)]
    )
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
    drive: OpenDrive, applies: Iterable[tuple[RoadRecord, Reference]], before: dict[tuple[str, int], list[Lane]]
) -> Iterable[Stop]:
    """One per lane. Inside a junction the place is moved back to the end of the lane that leads there."""
    for road, reference in applies:
        section = road.sections[section_at(road, reference.s)]
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


def _stop(road: RoadRecord, lane: int, s: float) -> Stop:
    section = road.sections[section_at(road, s)]
    x, y, z, yaw = lane_pose(road, lane, s)
    width = float(section.lanes[lane].width.value(np.array([s]))[0])
    back = s + (BOX_LENGTH + BOX_GAP) * (-1 if lane < 0 else 1)
    box_x, box_y, box_z, box_yaw = lane_pose(road, lane, min(max(back, section.s), section.end - 1e-5))
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


def _junction_of(drive: OpenDrive, road: RoadRecord, controller: str | None, stops: Sequence[Stop]) -> str | None:
    """The junction that has its controller, else the one behind its stops."""
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
