"""Road networks as tables: what highway-env keeps in lane objects and a dictionary, in the form that kernels read.

`compile_road` turns any highway-env `RoadNetwork` of straight, sine and circular lanes into a `Road`. Lanes and roads are
numbered in the network's own order, on which its tie rules rest. The geometry below repeats highway-env's arithmetic
operation by operation (highway-env 1.12, `road/lane.py`, `road/road.py`). Lengths in m, angles in rad.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from sim.engine import physics
from sim.errors import UsageError

STRAIGHT, SINE, ARC = range(3)
VEHICLE_LENGTH = 5.0
"""Slack at both ends of a lane."""
CONNECTION_DEPTH = 3
"""Roads that many crossings ahead count as connected (`compute_ttc_grid`)."""

LANE = np.dtype(
    [
        ("x", "f8"),  # start; centre of an arc
        ("y", "f8"),
        ("ux", "f8"),  # direction; 0 on an arc
        ("uy", "f8"),
        ("heading", "f8"),
        ("length", "f8"),
        ("width", "f8"),
        ("speed_limit", "f8"),
        ("amplitude", "f8"),  # sine; radius of an arc
        ("pulsation", "f8"),  # sine; start angle of an arc
        ("phase", "f8"),  # sine
        ("turn", "f8"),  # arc: 1 clockwise (on a map with y down), -1 else
        ("kind", "i8"),
        ("axis", "i8"),  # +-1 where the coordinate along the lane grows with +-x, 0 else
        ("forbidden", "i8"),
        ("road", "i8"),
        ("id", "i8"),  # position within its road, 0 leftmost
        ("first", "i8"),  # lane 0 of its road
        ("count", "i8"),  # lanes of its road
        ("next_first", "i8"),  # range in `Road.successors` of the roads that its road leads to
        ("next_count", "i8"),
    ],
    align=True,
)
"""One lane."""


class Road(NamedTuple):
    """A network, as compiled functions take it. L lanes, R roads (edges of the network's graph)."""

    lanes: np.ndarray
    """`LANE` (L,)"""
    successors: np.ndarray
    """int64: first lanes of the roads that follow, listed per road"""
    reach_lanes: np.ndarray
    """int64 (L, K): lanes on which a neighbour search along a lane looks, the lane itself first, -1 where fewer"""
    reach_offsets: np.ndarray
    """float64 (L, K): what brings their coordinate into the lane's"""
    connected: np.ndarray
    """bool (R, R): is the second road ahead of the first, within `CONNECTION_DEPTH` crossings?"""
    routes: np.ndarray
    """int64 (P, S, 2): planned routes, each step the first lane of a road and a lane id (-1: any); -1 past the end"""


def lane_keys(network: Any) -> list[tuple[str, str, int]]:
    """highway-env's lane indexes in the order of `Road.lanes`."""
    return [(a, b, i) for a, ends in network.graph.items() for b, lanes in ends.items() for i in range(len(lanes))]


def compile_road(network: Any, connected_lanes: bool = False, routes: list[list[tuple]] | None = None) -> Road:
    """Table of a highway-env `RoadNetwork`.

    Args: the network; whether neighbours are searched across segment borders; routes as lists of lane indexes.
    Raises: UsageError for a kind of lane that the table does not know.
    """
    from highway_env.road.lane import CircularLane, SineLane, StraightLane

    keys = lane_keys(network)
    number = {key: n for n, key in enumerate(keys)}
    roads = list(dict.fromkeys(key[:2] for key in keys))
    lanes = np.zeros(len(keys), LANE)
    successors: list[int] = []
    following: dict[tuple, tuple[int, int]] = {}
    for road in roads:
        ends = network.graph.get(road[1], {})
        following[road] = (len(successors), len(ends))
        successors += [number[(road[1], end, 0)] for end in ends]
    for n, key in enumerate(keys):
        lane, record = network.get_lane(key), lanes[n]
        road = key[:2]
        record["length"], record["width"] = lane.length, lane.width
        record["speed_limit"] = math.inf if lane.speed_limit is None else lane.speed_limit
        record["forbidden"], record["id"], record["road"] = lane.forbidden, key[2], roads.index(road)
        record["first"], record["count"] = number[(*road, 0)], len(network.graph[road[0]][road[1]])
        record["next_first"], record["next_count"] = following[road]
        if type(lane) in (StraightLane, SineLane):
            record["x"], record["y"] = lane.start
            record["ux"], record["uy"] = lane.direction
            record["heading"] = lane.heading
            record["axis"] = int(record["ux"]) if abs(record["ux"]) == 1 and record["uy"] == 0 else 0
            if type(lane) is SineLane:
                record["kind"] = SINE
                record["amplitude"], record["pulsation"], record["phase"] = lane.amplitude, lane.pulsation, lane.phase
        elif type(lane) is CircularLane:
            record["kind"], record["turn"] = ARC, lane.direction
            record["x"], record["y"] = lane.center
            record["amplitude"], record["pulsation"] = lane.radius, lane.start_phase
        else:
            raise UsageError(f"lane {key} is a {type(lane).__name__}: the engine knows straight, sine and arc lanes")
    reach = [_reach(network, key, connected_lanes) for key in keys]
    width = max(len(row) for row in reach)
    reach_lanes, reach_offsets = np.full((len(keys), width), -1, np.int64), np.zeros((len(keys), width))
    for n, row in enumerate(reach):
        for k, (key, offset) in enumerate(row):
            reach_lanes[n, k], reach_offsets[n, k] = number[key], offset
    connected = [
        [network.is_connected_road((*a, 0), (*b, 0), depth=CONNECTION_DEPTH) for b in roads] for a in roads
    ]
    planned = routes or []
    steps = np.full((max(len(planned), 1), max((len(route) for route in planned), default=1), 2), -1, np.int64)
    for r, route in enumerate(planned):
        for k, (start, end, lane_id) in enumerate(route):
            steps[r, k] = number[(start, end, 0)], -1 if lane_id is None else lane_id
    return Road(lanes, np.array(successors, np.int64), reach_lanes, reach_offsets, np.array(connected), steps)


def _reach(network: Any, key: tuple[str, str, int], connected_lanes: bool) -> list[tuple[tuple, float]]:
    """Lanes that `Road.neighbour_vehicles` of highway-env searches along lane `key`, with their offsets, in its order."""
    found: list[tuple[tuple, float]] = [(key, 0.0)]
    if not connected_lanes:
        return found
    start, end, n = key
    for after, lanes in network.graph.get(end, {}).items():
        found.append(((end, after, n if n < len(lanes) else 0), network.get_lane(key).length))
    for before, ends in network.graph.items():
        if start in ends:
            previous = (before, start, n if n < len(ends[start]) else 0)
            found.append((previous, -network.get_lane(previous).length))
    return found


# --- geometry --------------------------------------------------------------------------------------------------------


@njit(cache=True, error_model="numpy")
def project(lane, x, y):
    """(s along the lane, lateral offset to its right) of a point."""
    dx, dy = x - lane.x, y - lane.y
    if lane.kind == ARC:
        start = lane.pulsation
        phi = start + physics.wrap_to_pi(math.atan2(dy, dx) - start)
        return lane.turn * (phi - start) * lane.amplitude, lane.turn * (
            lane.amplitude - math.sqrt(dx * dx + dy * dy)
        )
    s = dx * lane.ux + dy * lane.uy
    lateral = dx * -lane.uy + dy * lane.ux
    if lane.kind == SINE:
        lateral -= lane.amplitude * math.sin(lane.pulsation * s + lane.phase)
    return s, lateral


@njit(cache=True, error_model="numpy")
def along(lane, x, y):
    """The first of `project`."""
    if lane.kind == ARC:
        return project(lane, x, y)[0]
    return (x - lane.x) * lane.ux + (y - lane.y) * lane.uy


@njit(cache=True, error_model="numpy")
def position(lane, s, lateral):
    """(x, y) of a point given along the lane."""
    if lane.kind == ARC:
        phi = lane.turn * s / lane.amplitude + lane.pulsation
        radius = lane.amplitude - lateral * lane.turn
        return lane.x + radius * math.cos(phi), lane.y + radius * math.sin(phi)
    if lane.kind == SINE:
        lateral = lateral + lane.amplitude * math.sin(lane.pulsation * s + lane.phase)
    return lane.x + s * lane.ux + lateral * -lane.uy, lane.y + s * lane.uy + lateral * lane.ux


@njit(cache=True, error_model="numpy")
def heading_at(lane, s):
    """Heading of the lane's centre line."""
    if lane.kind == STRAIGHT:
        return lane.heading
    if lane.kind == SINE:
        return lane.heading + math.atan(
            lane.amplitude * lane.pulsation * math.cos(lane.pulsation * s + lane.phase)
        )
    return lane.turn * s / lane.amplitude + lane.pulsation + math.pi / 2 * lane.turn


@njit(cache=True, error_model="numpy")
def holds(lane, s, lateral, margin):
    """highway-env's `on_lane`."""
    return abs(lateral) <= lane.width / 2 + margin and -VEHICLE_LENGTH <= s < lane.length + VEHICLE_LENGTH


@njit(cache=True, error_model="numpy")
def reachable(lane, x, y):
    """Whether a vehicle at a point may change to the lane (`is_reachable_from`)."""
    if lane.forbidden:
        return False
    s, lateral = project(lane, x, y)
    return abs(lateral) <= 2 * lane.width and 0 <= s < lane.length + VEHICLE_LENGTH


@njit(cache=True, error_model="numpy")
def distance(lane, x, y):
    """L1 distance of a point to the lane."""
    s, lateral = project(lane, x, y)
    return abs(lateral) + max(s - lane.length, 0.0) + max(0.0 - s, 0.0)


@njit(cache=True, error_model="numpy")
def closest_lane(lanes, x, y, heading):
    """Number of the lane that is closest in position and heading (1 m per rad); the first of equals."""
    best, best_distance = 0, math.inf
    straight_heading, straight_angle = math.nan, 0.0
    for n in range(lanes.size):
        lane = lanes[n]
        s, lateral = project(lane, x, y)
        total = abs(lateral) + max(s - lane.length, 0.0) + max(0.0 - s, 0.0)
        if total >= best_distance:
            continue  # the angle only adds
        if lane.kind == STRAIGHT:
            if lane.heading != straight_heading:
                straight_heading = lane.heading
                straight_angle = abs(physics.wrap_to_pi(heading - straight_heading))
            angle = straight_angle
        else:
            angle = abs(physics.wrap_to_pi(heading - heading_at(lane, s)))
        total += 1.0 * angle
        if total < best_distance:
            best, best_distance = n, total
    return best


@njit(cache=True, error_model="numpy")
def next_lane(road, current, route, step, x, y):
    """The lane to follow after the end of lane `current`, and the route step reached (`RoadNetwork.next_lane`).

    Args: route number (-1: none) and its present step; position. The lane itself where no road follows.
    """
    lanes = road.lanes
    lane = lanes[current]
    s, _ = project(lane, x, y)
    px, py = position(lane, s, 0.0)
    if route >= 0:
        if step < road.routes.shape[1] and road.routes[route, step, 0] == lane.first:
            step += 1  # the first step of the route is done
        if step < road.routes.shape[1]:
            first, wanted = road.routes[route, step, 0], road.routes[route, step, 1]
            if first >= 0:
                for k in range(lane.next_count):
                    if road.successors[lane.next_first + k] == first:
                        return _lane_of(lanes, lane, first, wanted, px, py)[0], step
    best, best_distance = current, math.inf
    for k in range(lane.next_count):
        candidate, far = _lane_of(lanes, lane, road.successors[lane.next_first + k], -1, px, py)
        if far < best_distance:
            best, best_distance = candidate, far
    return best, step


@njit(cache=True, error_model="numpy")
def _lane_of(lanes, lane, first, wanted, x, y):
    """Which lane of the road starting at `first` continues `lane`: the same one if it has as many, else the closest."""
    if lanes[first].count == lane.count:
        chosen = first + (lane.id if wanted < 0 else wanted)
        return chosen, distance(lanes[chosen], x, y)
    best, best_distance = first, math.inf
    for n in range(first, first + lanes[first].count):
        far = distance(lanes[n], x, y)
        if far < best_distance:
            best, best_distance = n, far
    return best, best_distance
