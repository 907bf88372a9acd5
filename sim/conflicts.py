"""Conflicts: where the paths of other road users cross or join the ego's, and when they are there.

Every road user is taken to follow its lane, then its route, then the lane that goes on most directly, at its present
speed. A conflict is a stretch over which the centre lines of two such paths are less than a car's width apart. Roads
that follow one another, or part from one another, are not in conflict: cars there are ahead, behind or beside.

`compile_tracks` turns a road network of highway-env into polylines, and `find` compares paths on them. Where no two
roads of a network cross or join (highway, merge, exit, two-way, u-turn) the polylines are left out, and there are no
conflicts. Units are SI, angles in rad.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from sim.compiled import kernel
from sim.sizes import CAR_LENGTH, CAR_WIDTH

STEP = 1.0
"""m between the points of a track."""
REACH = 60.0
"""m of the ego's path that are looked at: beyond the braking distance from any speed that crossings allow."""
HORIZON = 8.0
"""s of the other paths ..."""
LEAST_SPEED = 4.0
"""m/s ... at no less than this speed, so that cars that wait are seen where they will go."""
MOST_STEPS = 128
"""Points of a path, at most."""
STANDING = 0.1
"""m/s under which a car stands."""
JOINING = math.cos(math.radians(45.0))
"""Paths whose directions differ by less at the end of a conflict join there; others cross."""
MOST_ROADS = 62
"""Roads of a network that `TRACK.crosses` can hold; one with more has no conflicts."""
MOST_EXITS = 8

TRACK = np.dtype(
    [
        ("start", "i8"),  # its first point in `Tracks.points`
        ("count", "i8"),  # of its points
        ("length", "f8"),
        ("priority", "i8"),  # right of way, as the network has it
        ("road", "i8"),
        ("first", "i8"),  # lane 0 of its road
        ("width", "i8"),  # lanes of its road
        ("crosses", "i8"),  # bit r: road r crosses or joins it
        ("exits", "i8"),  # roads that its road leads to ...
        ("next", "i8", MOST_EXITS),  # ... each named by its lane 0 ...
        ("onto", "i8", MOST_EXITS),  # ... and the lane of it that goes on from here
        ("nearest", "i8"),  # which of them goes on most directly
    ],
    align=True,
)
"""One lane as a path."""


class Tracks(NamedTuple):
    """The lanes of a network as paths; empty where nothing crosses."""

    lanes: np.ndarray
    """`TRACK` (L,)"""
    points: np.ndarray
    """float64 (P, 4): x, y, heading every `STEP` metres of every lane and at its end, and whether a car of a crossing
    or joining road would touch one there (0 or 1)."""
    numbers: dict[tuple[str, str, int], int]
    """Rows of `lanes` by highway-env's lane index."""


def no_tracks() -> Tracks:
    """Of a network without crossings."""
    return Tracks(np.zeros(0, TRACK), np.zeros((0, 4)), {})


def compile_tracks(network: Any) -> Tracks:
    """Compile a highway-env `RoadNetwork`.

    Args:
        network: The network.
    Returns:
        Its tracks, in the order in which the network lists its lanes.
    """
    keys = [(a, b, n) for a, ends in network.graph.items() for b, lanes in ends.items() for n in range(len(lanes))]
    roads = list(dict.fromkeys(key[:2] for key in keys))
    apart = [(a, b) for i, a in enumerate(roads) for b in roads[:i] if a[0] != b[0] and a[1] != b[0] and b[1] != a[0]]
    if not apart or len(roads) > MOST_ROADS:
        return no_tracks()
    numbers = {key: n for n, key in enumerate(keys)}
    polylines = [_points(network.get_lane(key)) for key in keys]
    lanes, start = np.zeros(len(keys), TRACK), 0
    for key, record, points in zip(keys, lanes, polylines, strict=True):
        record["start"], record["count"] = start, len(points)
        record["road"], record["first"] = roads.index(key[:2]), numbers[(*key[:2], 0)]
        record["width"] = len(network.graph[key[0]][key[1]])
        _add_exits(record, network, key, numbers)
        start += len(points)
    for a, b in apart:
        _add_crossing(lanes, polylines, roads.index(a), roads.index(b))
    if not lanes["crosses"].any():
        return no_tracks()
    return Tracks(lanes, np.concatenate(polylines), numbers)


def _points(lane: Any) -> np.ndarray:
    """float64 (P, 4) of one lane, which nothing crosses yet."""
    s = np.append(np.arange(0.0, lane.length, STEP), lane.length)
    return np.array([(*lane.position(at, 0.0), lane.heading_at(at), 0.0) for at in s], np.float64)


def _add_exits(record: Any, network: Any, key: tuple[str, str, int], numbers: dict[tuple[str, str, int], int]) -> None:
    """Where one lane goes on, by highway-env's rule: in the same lane of a road with as many, else in the closest."""
    lane = network.get_lane(key)
    end = lane.position(lane.length, 0.0)
    record["length"], record["priority"] = lane.length, getattr(lane, "priority", 0)
    best = math.inf
    for k, (after, lanes) in enumerate(list(network.graph.get(key[1], {}).items())[:MOST_EXITS]):
        distances = [other.distance(end) for other in lanes]
        chosen = key[2] if len(lanes) == record["width"] else int(np.argmin(distances))
        record["exits"] = k + 1
        record["next"][k], record["onto"][k] = numbers[(key[1], after, 0)], numbers[(key[1], after, chosen)]
        if distances[chosen] < best:
            best, record["nearest"] = distances[chosen], k


def _add_crossing(lanes: np.ndarray, polylines: list[np.ndarray], a: int, b: int) -> None:
    """Note which lanes of two roads cross or join the other road; lanes that go on in one lane join."""
    for m in np.flatnonzero(lanes["road"] == a):
        for n in np.flatnonzero(lanes["road"] == b):
            joins = bool(set(lanes["onto"][m, : lanes["exits"][m]]) & set(lanes["onto"][n, : lanes["exits"][n]]))
            if joins:
                polylines[m][-1, 3] = polylines[n][-1, 3] = 1.0
            if _mark(polylines[m], polylines[n]) or joins:
                lanes["crosses"][m] |= 1 << b
                lanes["crosses"][n] |= 1 << a


@kernel
def _reach(angle):
    """m between two centre lines at an angle that cars on them need: a width side by side, half of one across."""
    return CAR_WIDTH / 2 * (1.0 + abs(math.cos(angle)))


@kernel
def _mark(a, b):
    """Mark the points of two polylines at which cars on them would touch; returns whether there are any."""
    found, i = False, 0
    while i < len(a):
        bound, k = math.inf, 0
        while k < len(b):
            distance = math.hypot(a[i, 0] - b[k, 0], a[i, 1] - b[k, 1])
            skip = _skip(distance)
            bound = min(bound, distance - (skip - 1) * STEP)
            if distance < CAR_WIDTH and distance < _reach(a[i, 2] - b[k, 2]):
                a[i, 3] = b[k, 3] = 1.0
                found = True
            k += skip
        i += max(int((bound - CAR_WIDTH) / STEP), 1)
    return found


@kernel
def _skip(distance):
    """Points of a path to go on by, when one is this far away: half of what may be skipped, so that a bound is left."""
    return max(int((distance - CAR_WIDTH) / (2 * STEP)), 1)


# --- paths -----------------------------------------------------------------------------------------------------------

X, Y, HEADING, SHARED, METRES, LANE = range(6)
"""Columns of a path: those of `Tracks.points`, m from the road user, and the lane."""
CENTRE = 1
"""The point of a path at which its road user is; the one before is its rear bumper."""


@kernel
def _nearest_point(tracks, points, lane, x, y):
    """m along a lane of the place that is nearest to a point."""
    track = tracks[lane]
    best, best_distance = 0, math.inf
    for k in range(track.count):
        dx, dy = x - points[track.start + k, 0], y - points[track.start + k, 1]
        if dx * dx + dy * dy < best_distance:
            best, best_distance = k, dx * dx + dy * dy
    k = track.start + best
    heading = points[k, 2]
    beyond = (x - points[k, 0]) * math.cos(heading) + (y - points[k, 1]) * math.sin(heading)
    return min(best * STEP, track.length) + beyond


@kernel
def _next(tracks, routes, lane, route, step):
    """The lane after a lane, -1 where the road ends; and the step of the route that comes next."""
    track = tracks[lane]
    if track.exits == 0:
        return -1, step
    if route >= 0:
        steps = routes.shape[1]
        for later in range(step, steps):
            if routes[route, later, 0] == track.first:
                step = later + 1
                break
        for k in range(track.exits if step < steps else 0):
            if track.next[k] == routes[route, step, 0]:
                wanted = routes[route, step, 1]
                asked = wanted >= 0 and tracks[track.next[k]].width == track.width
                return (track.next[k] + wanted if asked else track.onto[k]), step
    return track.onto[track.nearest], step


@kernel
def _trace(path, tracks, points, routes, body, place, reach):
    """Fill the path of one road user, from its rear bumper on; returns the number of its points."""
    x, y, heading = body[0], body[1], body[2]
    lane, route, step = place[0], place[1], place[2]
    for count in range(2):
        metres = (count - 1) * CAR_LENGTH / 2
        path[count, X], path[count, Y] = x + metres * math.cos(heading), y + metres * math.sin(heading)
        path[count, HEADING], path[count, SHARED], path[count, METRES], path[count, LANE] = heading, 0.0, metres, lane
    count, passed = 2, -_nearest_point(tracks, points, lane, x, y)
    while lane >= 0 and passed < reach:
        track = tracks[lane]
        for k in range(max(math.ceil(-passed / STEP), 0), track.count):
            metres = passed + min(k * STEP, track.length)
            if metres > reach or count == MOST_STEPS:
                return count
            if metres > path[count - 1, METRES] + 0.5 * STEP:
                path[count, :4] = points[track.start + k]
                path[count, METRES], path[count, LANE] = metres, lane
                count += 1
        end = track.start + track.count - 1
        passed += track.length
        lane, step = _next(tracks, routes, lane, route, step)
        if lane >= 0:
            count, passed = _bridge(path, count, passed, points[end], points[tracks[lane].start])
    return count


@kernel
def _bridge(path, count, passed, end, start):
    """Lead a path from the end of a lane to the start of the next one, where they lie apart (ends of entry lanes).

    Returns:
        The number of points, and the m passed.
    """
    dx, dy = start[X] - end[X], start[Y] - end[Y]
    gap = math.hypot(dx, dy)
    if gap < STEP:
        return count, passed
    for k in range(1, int(gap / STEP)):
        if count < MOST_STEPS and passed + k * STEP > path[count - 1, METRES]:
            share = k * STEP / gap
            path[count, X], path[count, Y] = end[X] + share * dx, end[Y] + share * dy
            path[count, HEADING], path[count, SHARED] = math.atan2(dy, dx), max(end[SHARED], start[SHARED])
            path[count, METRES], path[count, LANE] = passed + k * STEP, path[count - 1, LANE]
            count += 1
    return count, passed + gap


@kernel
def _roads(path, count, tracks):
    """Of a path's first `count` points: the roads, and the roads that cross or join them, as bits."""
    roads = crosses = 0
    lane = -1
    for k in range(count):
        if path[k, LANE] != lane:
            lane = int(path[k, LANE])
            roads |= 1 << tracks[lane].road
            crosses |= tracks[lane].crosses
    return roads, crosses


# --- conflicts -------------------------------------------------------------------------------------------------------


@kernel
def _meeting(mine, mine_count, other, other_count):
    """The first stretch over which cars on two paths would touch.

    Distances shrink by at most a step per point of either path, so most points are skipped.

    Returns:
        First and last point of the stretch on one path; first, last and final matching point on the other. The first
        is -1 where there is none.
    """
    begin = end = first = last = match = -1
    i = 0
    while i < mine_count:
        bound, nearest, best, k, meets = math.inf, math.inf, 0, 0, False
        while k < other_count:
            distance = math.hypot(mine[i, X] - other[k, X], mine[i, Y] - other[k, Y])
            if distance < nearest:
                nearest, best = distance, k
            if distance < CAR_WIDTH and distance < _reach(mine[i, HEADING] - other[k, HEADING]):
                first, last, meets = (k if first < 0 else min(first, k)), max(last, k), True
            skip = _skip(distance)
            bound = min(bound, distance - (skip - 1) * STEP)
            k += skip
        if meets:
            begin, end, match = (i if begin < 0 else begin), i, best
        elif begin >= 0:
            break
        i += max(int((bound - CAR_WIDTH) / STEP), 1)
    return begin, end, first, last, match


@kernel
def _box(path, count, begin, end):
    """The stretch around two points of a path that crossing roads share, gaps too short to stop in included."""
    for side in (-1, 1):
        k = last = begin if side < 0 else end
        while 0 <= k < count and abs(path[k, METRES] - path[last, METRES]) <= CAR_LENGTH + STEP:
            if path[k, SHARED] > 0.0:
                last = k
            k += side
        if side < 0:
            begin = last
        else:
            end = last
    return path[begin, METRES] - CAR_LENGTH / 2, path[end, METRES] + CAR_LENGTH / 2


@kernel
def _describe(found, mine, count, other, meeting, tracks, speed):
    """Fill one conflict."""
    begin, end, first, last, match = meeting
    half = CAR_LENGTH / 2
    found.begin, found.end = mine[begin, METRES] - half, mine[end, METRES] + half
    found.box_begin, found.box_end = _box(mine, count, begin, end)
    found.near, found.far = other[first, METRES] - half, other[last, METRES] + half
    found.speed = speed
    if speed > STANDING:
        found.enter, found.leave = max(found.near, 0.0) / speed, found.far / speed
    else:
        found.enter, found.leave = (0.0 if found.near <= 0.0 else math.inf), math.inf
    found.joins = math.cos(other[match, HEADING] - mine[end, HEADING]) > JOINING
    found.shift = other[match, METRES] - mine[end, METRES] if found.joins else 0.0
    ahead = tracks[int(mine[end, LANE])].priority - tracks[int(other[match, LANE])].priority
    found.priority = (1 if ahead > 0 else 0) - (1 if ahead < 0 else 0)
    dx, dy = other[CENTRE, X] - mine[CENTRE, X], other[CENTRE, Y] - mine[CENTRE, Y]
    right = dy * math.cos(mine[CENTRE, HEADING]) - dx * math.sin(mine[CENTRE, HEADING])
    found.side = 1 if right > 0.0 else -1


@kernel
def _before(a, b):
    """Whether conflict a is nearer to the ego than b."""
    return a.begin < b.begin or (a.begin == b.begin and a.enter < b.enter)


@kernel
def find(found, tracks, points, routes, motion, places, paths):
    """Find the conflicts of one ego, the nearest along its path first.

    Args:
        found: `CONFLICT` (M,) to fill; those beyond the M nearest are left out.
        tracks: `Tracks.lanes`.
        points: `Tracks.points`.
        routes: int64 (R, S, 2): the roads of each route, named by their lane 0, and the lane wanted there; -1: none.
        motion: float64 (4, B): x, y, heading and speed, the ego first.
        places: int64 (3, B): the lane that each steers to, its route (-1: none), and the step that it has reached.
        paths: Scratch, float64 (2, `MOST_STEPS`, 6).

    Returns:
        The number found.
    """
    count = 0
    if tracks.size == 0:
        return count
    mine, other, last = paths[0], paths[1], found.size - 1
    steps = _trace(mine, tracks, points, routes, motion[:, 0], places[:, 0], REACH)
    crosses = _roads(mine, steps, tracks)[1]
    for j in range(1, motion.shape[1] if crosses != 0 else 1):
        speed = max(motion[3, j], 0.0)
        reach = HORIZON * max(speed, LEAST_SPEED)
        there = _trace(other, tracks, points, routes, motion[:, j], places[:, j], reach)
        if _roads(other, there, tracks)[0] & crosses == 0:
            continue
        meeting = _meeting(mine, steps, other, there)
        if meeting[0] < 0:
            continue
        if count > last:  # the farthest gives way, if this one is nearer
            count = last
            if mine[meeting[0], METRES] - CAR_LENGTH / 2 >= found[last].begin:
                count = last + 1
                continue
        _describe(found[count], mine, steps, other, meeting, tracks, speed)
        found[count].vehicle = j - 1
        k = count
        while k > 0 and _before(found[k], found[k - 1]):
            _swap(found, k)
            k -= 1
        count += 1
    return count


@kernel
def _swap(found, k):
    """Exchange two neighbouring conflicts."""
    a, b = found[k - 1], found[k]
    a.begin, b.begin = b.begin, a.begin
    a.end, b.end = b.end, a.end
    a.box_begin, b.box_begin = b.box_begin, a.box_begin
    a.box_end, b.box_end = b.box_end, a.box_end
    a.near, b.near = b.near, a.near
    a.far, b.far = b.far, a.far
    a.speed, b.speed = b.speed, a.speed
    a.enter, b.enter = b.enter, a.enter
    a.leave, b.leave = b.leave, a.leave
    a.shift, b.shift = b.shift, a.shift
    a.vehicle, b.vehicle = b.vehicle, a.vehicle
    a.priority, b.priority = b.priority, a.priority
    a.side, b.side = b.side, a.side
    a.joins, b.joins = b.joins, a.joins


@kernel
def new_paths():
    """Scratch for `find`: float64 (2, `MOST_STEPS`, 6)."""
    return np.empty((2, MOST_STEPS, 6))
