"""The ego's road as one coordinate frame: s forward, d to the right, over the segments that continue each other.

highway-env divides roads into segments with lane coordinates of their own, so that cars across a border are not seen.
Here the ego's segment gives the frame, and the segments before and behind it are laid end to end with it. On a straight
road along x the frame is the world's: s = x and d = y, exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from highway_env.road.lane import AbstractLane, StraightLane

from sim.sizes import LANE_MARGIN

AHEAD = 200.0
"""Metres of road ahead of the ego's segment that belong to the frame (highway-env's own perception distance)."""
BEHIND = 100.0
"""Metres of road behind the ego's segment that belong to the frame."""

SegmentKey = tuple[str, str]


class Frame(Protocol):
    """A coordinate frame at the ego."""

    centers: tuple[float, ...]
    width: float

    def project(self, position: np.ndarray) -> tuple[float, float]:
        """World position (2,) -> (s, d) in metres."""
        ...

    def locate(self, bodies: Sequence[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Road objects -> s (V,), d (V,) and lane (V,); NaN, NaN and -1 for those that are not on the ego's road."""
        ...


@dataclass(frozen=True, slots=True)
class Segment:
    """One road segment in the frame: its lanes, and the frame's coordinates of the start of its lane 0."""

    key: SegmentKey
    lanes: Sequence[AbstractLane]
    s0: float
    d0: float
    world_aligned: bool = False
    """s and d are plain projections of the world position, free of rounding (straight segment of the ego only)."""

    @property
    def reference(self) -> AbstractLane:
        return self.lanes[0]

    def project(self, position: np.ndarray) -> tuple[float, float]:
        if self.world_aligned:
            return (
                float(np.dot(position, self.reference.direction)),
                float(np.dot(position, self.reference.direction_lateral)),
            )
        s, d = self.reference.local_coordinates(position)
        return float(s + self.s0), float(d + self.d0)

    def covers(self, s: float) -> bool:
        """Whether s is between the segment's ends or at most a vehicle's length beyond (highway-env's `on_lane`)."""
        slack = AbstractLane.VEHICLE_LENGTH
        return self.s0 - slack <= s < self.s0 + self.reference.length + slack


class RoadFrame:
    """Frame of a vehicle on a road network, see the module's text."""

    def __init__(self, network: Any, vehicle: Any) -> None:
        self.own = _own_segment(network, vehicle.lane_index[:2])
        self.segments = [self.own, *_ahead(network, self.own, vehicle), *_behind(network, self.own)]
        position = vehicle.position
        points = [lane.position(lane.local_coordinates(position)[0], 0) for lane in self.own.lanes]
        self.centers = tuple(self.own.project(point)[1] for point in points)
        lane = self.own.lanes[vehicle.lane_index[2]]
        self.width = float(lane.width_at(lane.local_coordinates(position)[0]))

    @property
    def key(self) -> SegmentKey:
        return self.own.key

    def project(self, position: np.ndarray) -> tuple[float, float]:
        return self.own.project(position)

    def locate(self, bodies: Sequence[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        s, d = np.full(len(bodies), np.nan), np.full(len(bodies), np.nan)
        lane = np.full(len(bodies), -1)
        for i, body in enumerate(bodies):
            if body.lane_index[:2] == self.own.key:
                s[i], d[i] = self.own.project(body.position)
                lane[i] = body.lane_index[2]
            else:
                s[i], d[i], lane[i] = self._elsewhere(body.position)
        return s, d, lane

    def lane_at(self, d: float) -> int:
        """Index of the lane at d, with highway-env's margin; -1 beside the road."""
        distance = np.abs(np.subtract(self.centers, d))
        nearest = int(np.argmin(distance))
        return nearest if distance[nearest] <= self.width / 2 + LANE_MARGIN else -1

    def _elsewhere(self, position: np.ndarray) -> tuple[float, float, int]:
        """A body of another segment: it counts where it stands on a lane of the ego's road or of its continuation."""
        for segment in self.segments:
            s, d = segment.project(position)
            if segment.covers(s) and (lane := self.lane_at(d)) >= 0:
                return s, d, lane
        return np.nan, np.nan, -1


class AreaFrame:
    """Frame of an open area without lanes (parking): s = x, d = y, and one "lane" along x."""

    def __init__(self, width: float) -> None:
        self.centers: tuple[float, ...] = (0.0,)
        self.width = width

    def project(self, position: np.ndarray) -> tuple[float, float]:
        return float(position[0]), float(position[1])

    def locate(self, bodies: Sequence[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        xy = np.array([body.position for body in bodies], dtype=float).reshape(-1, 2)
        return xy[:, 0], xy[:, 1], np.where(np.abs(xy[:, 1]) <= self.width / 2, 0, -1)


def _own_segment(network: Any, key: SegmentKey) -> Segment:
    lanes = network.graph[key[0]][key[1]]
    reference = lanes[0]
    if type(reference) is StraightLane:
        s0 = float(np.dot(reference.start, reference.direction))
        d0 = float(np.dot(reference.start, reference.direction_lateral))
        return Segment(key, lanes, s0, d0, world_aligned=True)
    return Segment(key, lanes, 0.0, 0.0)


def _ahead(network: Any, own: Segment, vehicle: Any) -> Iterator[Segment]:
    """Segments that the ego will reach: along its route, else the one that its lane runs into."""
    planned = {step[0]: step[1] for step in getattr(vehicle, "route", None) or ()}
    segment, seen, reach = own, {own.key}, 0.0
    while reach < AHEAD:
        node = segment.key[1]
        choices = network.graph.get(node, {})
        if not choices:
            return
        end = segment.lanes[min(vehicle.lane_index[2], len(segment.lanes) - 1)]
        end_point = end.position(end.length, 0)
        to = planned.get(node, "")
        if to not in choices:
            to = min(choices, key=lambda name: min(lane.distance(end_point) for lane in choices[name]))
        key = (node, to)
        if key in seen:
            return
        lanes = choices[to]
        offset = segment.reference.local_coordinates(lanes[0].position(0, 0))[1]
        segment = Segment(key, lanes, segment.s0 + segment.reference.length, segment.d0 + offset)
        seen.add(key)
        reach += segment.reference.length
        yield segment


def _behind(network: Any, own: Segment) -> Iterator[Segment]:
    """Segments that lead to the ego's one, nearest first."""
    queue, seen = [own], {own.key}
    while queue:
        after = queue.pop(0)
        for start, ends in network.graph.items():
            key = (start, after.key[0])
            if after.key[0] not in ends or key in seen:
                continue
            lanes = ends[after.key[0]]
            offset = lanes[0].local_coordinates(after.reference.position(0, 0))[1]
            segment = Segment(key, lanes, after.s0 - lanes[0].length, after.d0 - offset)
            seen.add(key)
            yield segment
            if own.s0 - segment.s0 < BEHIND:
                queue.append(segment)
