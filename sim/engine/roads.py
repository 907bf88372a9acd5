"""Road networks as tables: what highway-env keeps in lane objects and a dictionary, in the form that kernels read.

`compile_road` turns a highway-env `RoadNetwork` of straight, sine and circular lanes into an array of `LANE` records.
Lanes and roads are numbered in the network's own order, on which its tie rules rest. The geometry below repeats
highway-env's arithmetic operation by operation (highway-env 1.12, `road/lane.py`, `road/road.py`). Lengths in m, angles
in rad.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sim import kinematics
from sim.compiled import kernel
from sim.engine.records import nth
from sim.errors import UsageError
from sim.sizes import CAR_LENGTH, LANE_MARGIN

STRAIGHT, SINE, ARC = range(3)
CONNECTION_DEPTH = 3
"""Roads that many crossings ahead count as connected (`compute_ttc_grid`)."""
END_ZONE = 6.0
"""m at both ends of a lane where others may join it."""
OUT_OF_REACH = 5.5
"""m beyond the end of a lane from which no body counts as on it (`CAR_LENGTH` and a margin)."""
CLEARANCE_STEP = 0.25
MOST_ROADS = 8
"""Roads that may meet at a node."""
STRETCHES = 32
"""Equal parts into which a lane is divided to look up the lanes near it."""
MOST_MASKED = 64
"""Lanes of a network whose nearness is kept, as bits."""
NEAR = 3.5
"""m within which other lanes count as near a stretch: less than from one lane of a road to the next."""
ROUNDING = 1e-6
"""m by which comparisons that replace exact ones stay on the safe side."""
ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
ONE = np.uint64(1)

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
        ("priority", "f8"),  # of two vehicles in conflict the one in the lane with less of it yields
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
        ("lanes", "i8"),  # lanes of the whole network
        ("roads", "i8"),  # roads that its road leads to ...
        ("next", "i8", MOST_ROADS),  # ... each named by its lane 0
        ("reach", "i8"),  # lanes on which a neighbour search along it looks, itself first ...
        ("reach_lanes", "i8", MOST_ROADS),
        ("reach_offsets", "f8", MOST_ROADS),  # ... and what brings their coordinate into its own
        ("swept", "i8"),  # it and the lanes beside it run along x, and searches along them stay on them
        ("clear", "f8"),  # m to the nearest other lane, away from the ends; 0 unless straight (`_clearance`)
        ("sweeps", "i8"),  # whether so many lanes of the network are swept that a sweep pays
        ("connected", "u8"),  # bit r: road r lies ahead within `CONNECTION_DEPTH` crossings
        ("joined", "u8"),  # bit r: road r is its own or leads to it
        ("low_x", "f8"),  # box outside of which no body counts as on it, `LANE_MARGIN` included
        ("high_x", "f8"),
        ("low_y", "f8"),
        ("high_y", "f8"),
        ("bend", "f8"),  # the most metres of its centre line per metre of the coordinate along it
        ("stretch", "f8"),  # m, length of its stretches
        ("near", "u8", STRETCHES),  # bit n: lane n comes within `NEAR` of the stretch; 0 where that is not known
        ("clearance", "f8", STRETCHES),  # m from the stretch to the nearest other lane, a lower bound
    ],
    align=True,
)
"""One lane, and all that highway-env's graph holds about it."""


def lane_keys(network: Any) -> list[tuple[str, str, int]]:
    """highway-env's lane indexes in the order in which `compile_road` lists them."""
    return [(a, b, i) for a, ends in network.graph.items() for b, lanes in ends.items() for i in range(len(lanes))]


def compile_road(network: Any, connected_lanes: bool = False) -> np.ndarray:
    """Compile a highway-env `RoadNetwork`.

    Args:
        network: The network.
        connected_lanes: Whether neighbours are searched across segment borders.
    Returns:
        `LANE` (L,), in the order of `lane_keys`.
    Raises:
        UsageError: The table cannot hold the network.
    """
    keys = lane_keys(network)
    number = {key: n for n, key in enumerate(keys)}
    roads = list(dict.fromkeys(key[:2] for key in keys))
    if len(roads) > 64:
        raise UsageError(f"a network of {len(roads)} roads: the engine's table holds 64")
    lanes = np.zeros(len(keys), LANE)
    for key, record in zip(keys, lanes, strict=True):
        road, lane = key[:2], network.get_lane(key)
        _shape(record, lane, key)
        record["length"], record["width"], record["forbidden"] = lane.length, lane.width, lane.forbidden
        record["speed_limit"] = math.inf if lane.speed_limit is None else lane.speed_limit
        record["priority"] = lane.priority
        record["road"], record["id"], record["first"] = roads.index(road), key[2], number[(*road, 0)]
        record["count"], record["lanes"] = len(network.graph[road[0]][road[1]]), len(keys)
        following = [number[(road[1], end, 0)] for end in network.graph.get(road[1], {})]
        reach = _reach(network, key, connected_lanes)
        if max(len(following), len(reach)) > MOST_ROADS:
            raise UsageError(f"{len(reach)} roads meet at lane {key}: the engine's table holds {MOST_ROADS}")
        record["roads"], record["reach"] = len(following), len(reach)
        record["next"][: len(following)] = following
        record["reach_lanes"][: len(reach)] = [number[other] for other, _ in reach]
        record["reach_offsets"][: len(reach)] = [offset for _, offset in reach]
        record["connected"] = sum(
            1 << r
            for r, other in enumerate(roads)
            if network.is_connected_road(key, (*other, 0), depth=CONNECTION_DEPTH)
        )
        record["joined"] = sum(1 << r for r, other in enumerate(roads) if other == road or other[1] == road[0])
    for n in range(len(lanes)):
        beside = lanes[max(n - 1, lanes[n]["first"]) : min(n + 2, lanes[n]["first"] + lanes[n]["count"])]
        lanes[n]["swept"] = ((beside["axis"] == 1) & (beside["reach"] == 1)).all()
        lanes[n]["clear"] = _clearance(lanes, n)
    lanes["sweeps"] = 2 * lanes["swept"].sum() >= len(lanes)
    _measure(lanes)
    return lanes


def _shape(record: Any, lane: Any, key: tuple[str, str, int]) -> None:
    """Kind and geometry of one lane."""
    from highway_env.road.lane import CircularLane, SineLane, StraightLane

    if type(lane) is CircularLane:
        record["kind"], record["turn"] = ARC, lane.direction
        record["x"], record["y"] = lane.center
        record["amplitude"], record["pulsation"] = lane.radius, lane.start_phase
        record["bend"] = 1.0
        return
    if type(lane) not in (StraightLane, SineLane):
        raise UsageError(f"lane {key} is a {type(lane).__name__}: the engine knows straight, sine and arc lanes")
    record["x"], record["y"] = lane.start
    record["ux"], record["uy"] = lane.direction
    record["heading"] = lane.heading
    record["axis"] = int(record["ux"]) if abs(record["ux"]) == 1 and record["uy"] == 0 else 0
    record["bend"] = 1.0
    if type(lane) is SineLane:
        record["kind"] = SINE
        record["amplitude"], record["pulsation"], record["phase"] = lane.amplitude, lane.pulsation, lane.phase
        record["bend"] = math.hypot(1.0, lane.amplitude * lane.pulsation)


def _reach(network: Any, key: tuple[str, str, int], connected_lanes: bool) -> list[tuple[tuple, float]]:
    """Lanes that highway-env's `Road.neighbour_vehicles` searches along lane `key`, with offsets, in its order."""
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


@kernel
def polar(lane, x, y):
    """(angle, radius) of a point around the centre of an arc."""
    dx, dy = x - lane.x, y - lane.y
    return math.atan2(dy, dx), math.sqrt(dx * dx + dy * dy)


@kernel
def unrolled(lane, angle, radius):
    """`project` onto an arc of a point given by `polar`."""
    start = lane.pulsation
    phi = start + kinematics.wrap_to_pi(angle - start)
    return lane.turn * (phi - start) * lane.amplitude, lane.turn * (lane.amplitude - radius)


@kernel
def project(lane, x, y):
    """(s along the lane, lateral offset to its right) of a point."""
    if lane.kind == ARC:
        angle, radius = polar(lane, x, y)
        return unrolled(lane, angle, radius)
    dx, dy = x - lane.x, y - lane.y
    s = dx * lane.ux + dy * lane.uy
    lateral = dx * -lane.uy + dy * lane.ux
    if lane.kind == SINE:
        lateral -= lane.amplitude * math.sin(lane.pulsation * s + lane.phase)
    return s, lateral


@kernel
def along(lane, x, y):
    """The first of `project`."""
    if lane.kind == ARC:
        return project(lane, x, y)[0]
    return (x - lane.x) * lane.ux + (y - lane.y) * lane.uy


@kernel
def position(lane, s, lateral):
    """(x, y) of a point given along the lane."""
    if lane.kind == ARC:
        phi = lane.turn * s / lane.amplitude + lane.pulsation
        radius = lane.amplitude - lateral * lane.turn
        return lane.x + radius * math.cos(phi), lane.y + radius * math.sin(phi)
    if lane.kind == SINE:
        lateral = lateral + lane.amplitude * math.sin(lane.pulsation * s + lane.phase)
    return lane.x + s * lane.ux + lateral * -lane.uy, lane.y + s * lane.uy + lateral * lane.ux


@kernel
def heading_at(lane, s):
    """Heading of the lane's centre line."""
    if lane.kind == STRAIGHT:
        return lane.heading
    if lane.kind == SINE:
        return lane.heading + math.atan(lane.amplitude * lane.pulsation * math.cos(lane.pulsation * s + lane.phase))
    return lane.turn * s / lane.amplitude + lane.pulsation + math.pi / 2 * lane.turn


@kernel
def holds(lane, s, lateral, margin):
    """highway-env's `on_lane`."""
    return abs(lateral) <= lane.width / 2 + margin and -CAR_LENGTH <= s < lane.length + CAR_LENGTH


@kernel
def reachable(lane, x, y):
    """Whether a vehicle at a point may change to the lane (`is_reachable_from`)."""
    if lane.forbidden:
        return False
    s, lateral = project(lane, x, y)
    return abs(lateral) <= 2 * lane.width and 0 <= s < lane.length + CAR_LENGTH


@kernel
def distance(lane, x, y):
    """L1 distance of a point to the lane."""
    s, lateral = project(lane, x, y)
    return abs(lateral) + max(s - lane.length, 0.0) + max(0.0 - s, 0.0)


@kernel
def on_road(body, lanes):
    """Whether a body is on its lane (highway-env's `on_road`)."""
    s, lateral = coordinates(body, lanes, body.lane)
    return holds(nth(lanes, body.lane), s, lateral, 0.0)


@kernel
def may_hold(lane, x, y):
    """A cheap test that every point passes which `holds` with `LANE_MARGIN`."""
    return lane.low_x <= x <= lane.high_x and lane.low_y <= y <= lane.high_y


@kernel
def coordinates(body, lanes, n):
    """`project` of a body onto lane n, computed once for each lane and position where it takes trigonometry."""
    lane = nth(lanes, n)
    if lane.kind == STRAIGHT:
        return project(lane, body.x, body.y)
    if body.known_lane != n + 1 or body.known_x != body.x or body.known_y != body.y:
        body.known_s, body.known_lateral = project(lane, body.x, body.y)
        body.known_lane, body.known_x, body.known_y = n + 1, body.x, body.y
    return body.known_s, body.known_lateral


@kernel
def progress(body, lanes, n):
    """`along` lane n of a body, as `coordinates` has it."""
    lane = nth(lanes, n)
    return coordinates(body, lanes, n)[0] if lane.kind == ARC else along(lane, body.x, body.y)


# --- the closest lane ------------------------------------------------------------------------------------------------


@kernel
def closest_lane(lanes, x, y, heading):
    """Number of the lane that is closest in position and heading (1 m per rad); the first of equals."""
    return _closest_of(lanes, ALL, x, y, heading)


@kernel
def _closest_of(lanes, among, x, y, heading):
    """`closest_lane` among those whose bits are set; lanes from `MOST_MASKED` on have none and are all among them."""
    best, best_distance = 0, math.inf
    straight_heading, straight_angle = math.nan, 0.0
    center_x, center_y, around, radius = math.nan, math.nan, 0.0, 0.0
    for n in range(lanes.lanes):
        if n < MOST_MASKED and not (among >> np.uint64(n)) & ONE:
            continue
        lane = nth(lanes, n)
        if lane.kind == ARC:
            if lane.x != center_x or lane.y != center_y:  # arcs of a roundabout share their centre
                center_x, center_y = lane.x, lane.y
                around, radius = polar(lane, x, y)
            s, lateral = unrolled(lane, around, radius)
        else:
            s, lateral = project(lane, x, y)
        total = abs(lateral) + max(s - lane.length, 0.0) + max(0.0 - s, 0.0)
        if total >= best_distance:
            continue  # the angle only adds
        if lane.kind == STRAIGHT:
            if lane.heading != straight_heading:
                straight_heading = lane.heading
                straight_angle = abs(kinematics.wrap_to_pi(heading - straight_heading))
            angle = straight_angle
        else:
            angle = abs(kinematics.wrap_to_pi(heading - heading_at(lane, s)))
        total += 1.0 * angle
        if total < best_distance:
            best, best_distance = n, total
    return best


@kernel
def lane_after(body, lanes):
    """`closest_lane` of a body that has moved on from its last one: most of the time plainly that lane.

    A body `off` metres from a point of its lane's centre line has `off` + angle for its distance to that lane; its
    distance to another one is at least that of the point to the other's centre line, less `off`.
    """
    n = np.int64(body.lane)
    lane = nth(lanes, n)
    if lane.clear > 0.0 and well_inside(lane, body.x, body.y, body.heading):
        return n
    s, lateral = coordinates(body, lanes, n)
    off = abs(lateral) + (max(s - lane.length, 0.0) + max(0.0 - s, 0.0)) * lane.bend
    needed = 2 * off + abs(kinematics.wrap_to_pi(body.heading - heading_at(lane, s))) + ROUNDING
    if not needed < NEAR:
        return closest_lane(lanes, body.x, body.y, body.heading)
    k = min(max(int(s / lane.stretch), 0), STRETCHES - 1)
    if needed < lane.clearance[k]:
        return n
    near = lane.near[k]
    return _closest_of(lanes, near if near else ALL, body.x, body.y, body.heading)


@kernel
def _measure(lanes):
    """Fill box, stretches and what is near them, of all lanes."""
    for n in range(lanes.size):
        own = lanes[n]
        _box(own)
        own.stretch = own.length / STRETCHES
        samples = min(int(own.stretch / CLEARANCE_STEP) + 1, STRETCHES)
        slack = own.bend * own.stretch / samples / 2 + ROUNDING  # from any of its points to the nearest sample
        for k in range(STRETCHES):
            near, clearance = np.uint64(0), math.inf
            for m in range(lanes.size):
                nearest = math.inf if m != n else 0.0
                for i in range(samples + 1 if m != n else 0):
                    x, y = position(own, own.stretch * (k + i / samples), 0.0)
                    nearest = min(nearest, (_from_center_line(lanes[m], x, y) - slack) / lanes[m].bend)
                if m != n:
                    clearance = min(clearance, nearest)
                if nearest < NEAR and lanes.size <= MOST_MASKED:
                    near |= ONE << np.uint64(m)
            own.near[k], own.clearance[k] = near, clearance


@kernel
def _from_center_line(lane, x, y):
    """Distance of a point to the centre line of a lane, a lower bound."""
    s, lateral = project(lane, x, y)
    if lane.kind == SINE:
        count = int(lane.length / CLEARANCE_STEP) + 1
        nearest = math.inf
        for k in range(count + 1):
            px, py = position(lane, lane.length * k / count, 0.0)
            nearest = min(nearest, math.sqrt((px - x) ** 2 + (py - y) ** 2))
        return nearest - lane.bend * lane.length / count / 2
    beyond = max(s - lane.length, 0.0) + max(0.0 - s, 0.0)
    if lane.kind == STRAIGHT:
        return math.sqrt(lateral**2 + beyond**2)
    if beyond == 0.0 or lane.length > 3.0 * lane.amplitude:  # a long arc may end where its coordinate starts again
        return abs(lateral)
    nearest = math.inf
    for end in (0.0, lane.length):
        px, py = position(lane, end, 0.0)
        nearest = min(nearest, math.sqrt((px - x) ** 2 + (py - y) ** 2))
    return nearest


@kernel
def _box(lane):
    """Fill the box of a lane."""
    lane.low_x = lane.low_y = math.inf
    lane.high_x = lane.high_y = -math.inf
    length = lane.length + 2 * CAR_LENGTH
    count = 1 if lane.kind == STRAIGHT else int(length / CLEARANCE_STEP) + 1
    slack = 0.0 if lane.kind == STRAIGHT else lane.bend * length / count / 2
    slack += lane.width / 2 + LANE_MARGIN + ROUNDING
    for k in range(count + 1):
        x, y = position(lane, length * k / count - CAR_LENGTH, 0.0)
        lane.low_x, lane.high_x = min(lane.low_x, x - slack), max(lane.high_x, x + slack)
        lane.low_y, lane.high_y = min(lane.low_y, y - slack), max(lane.high_y, y + slack)


@kernel
def _clearance(lanes, n):
    """How far other lanes stay from the centre line of lane n, more than `END_ZONE` from its ends: a lower bound.

    A lane that ends more than `OUT_OF_REACH` before a point counts as that far from it.
    """
    own = lanes[n]
    if own.kind != STRAIGHT:
        return 0.0
    steps = max(int((own.length - 2 * END_ZONE) / CLEARANCE_STEP) + 1, 2)
    nearest = OUT_OF_REACH
    for m in range(lanes.size):
        other = lanes[m]
        slack = 0.0 if other.kind == STRAIGHT and other.ux * own.uy == other.uy * own.ux else CLEARANCE_STEP
        for k in range(steps if m != n else 0):
            x, y = position(own, END_ZONE + (own.length - 2 * END_ZONE) * k / (steps - 1), 0.0)
            s, lateral = project(other, x, y)
            if -OUT_OF_REACH <= s <= other.length + OUT_OF_REACH:
                nearest = min(nearest, abs(lateral) - slack)
    return max(nearest, 0.0)


@kernel
def well_inside(lane, x, y, heading):
    """A cheap test that implies that a straight lane is the closest one to a vehicle."""
    s, lateral = project(lane, x, y)
    angle = abs(heading - lane.heading)
    if angle > math.pi:
        angle = abs(angle - 2 * math.pi)
    off = 2.5 * abs(lateral) + angle + 1e-6  # other lanes come nearer by 1.5 |lateral| at most
    return off < lane.clear and END_ZONE < s < lane.length - END_ZONE


@kernel
def next_lane(lanes, p, current, route, step, x, y):
    """The lane to follow after the end of a lane (`RoadNetwork.next_lane`).

    Args:
        lanes: First lane.
        p: Parameters with `routes`.
        current: The lane.
        route: Route number; -1: none.
        step: Present step of the route.
        x: Position.
        y: Position.
    Returns:
        The next lane, or the same one where no road follows; and the route step reached.
    """
    lane = nth(lanes, current)
    px, py = position(lane, along(lane, x, y), 0.0)
    if route >= 0:
        if p.routes[route, step, 0] == lane.first:
            step += 1  # the first step of the route is done
        first, wanted = p.routes[route, step, 0], p.routes[route, step, 1]
        for k in range(lane.roads):
            if lane.next[k] == first:
                return _lane_of(lanes, lane, first, wanted, px, py)[0], step
    best, best_distance = current, math.inf
    for k in range(lane.roads):
        candidate, far = _lane_of(lanes, lane, lane.next[k], -1, px, py)
        if far < best_distance:
            best, best_distance = candidate, far
    return best, step


@kernel
def _lane_of(lanes, lane, first, wanted, x, y):
    """Which lane of the road starting at `first` continues `lane`: the same one if it has as many, else the closest."""
    count = nth(lanes, first).count
    if count == lane.count:
        chosen = first + (lane.id if wanted < 0 else wanted)
        return chosen, distance(nth(lanes, chosen), x, y)
    best, best_distance = first, math.inf
    for n in range(first, first + count):
        far = distance(nth(lanes, n), x, y)
        if far < best_distance:
            best, best_distance = n, far
    return best, best_distance
