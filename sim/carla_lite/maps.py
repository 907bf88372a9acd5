"""The maps that are shipped in `assets/maps/`, and how they are made.

`python -m sim.carla_lite.maps` writes them again. All but `lane_change` are closed: every lane has a successor, or can
be left for one that has (the acceleration lane of `merge`), so that traffic drives for ever. Closing parts, such as
the far loops of `intersection`, are ordinary roads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

from sim import assets
from sim.carla_lite.curves import Arc, Curve, Line, Spiral
from sim.carla_lite.plan import (
    CrossSection,
    Paint,
    Phases,
    Piece,
    Plan,
    PlannedLane,
    PlannedRoad,
    Pose,
    Sign,
    chain,
    connection,
    one_way,
    split,
    two_way,
)
from sim.carla_lite.plan_writer import write
from sim.carla_lite.signals import TRAFFIC_LIGHT
from sim.errors import unknown
from sim.files import write_atomically
from sim.sizes import LANE_WIDTH

FOLDER = "maps"
"""Of the maps, in the assets."""
YIELD = "205"
"""CARLA's type of a yield sign."""
WIDTH = 3.5
"""Metres of a lane where nothing else is said."""
NO_PAINT = Paint("none")


def straight() -> Plan:
    """Two lanes per direction along y = 0 for 1 km, with a turning loop at each end."""
    profile, length = two_way(2), 1000.0
    roads = chain(1, Pose(0, 0, 0), split(Line(length), 5), profile, 60)
    ends = (turnaround(100, 1000, Pose(length, 0, 0), 2), turnaround(200, 1001, Pose(0, 0, math.pi), 2))
    return Plan("straight", (*roads, *ends[0], *ends[1]))


def turnaround(first_id: int, junction: int, end: Pose, lanes: int) -> tuple[PlannedRoad, ...]:
    """A drop-shaped loop that leads the traffic of a two-way road back.

    Three arcs of one radius: 60 degrees to the right, 300 to the left, 60 to the right. The junction between road and
    loop has one way in and one way out, so that no car has to wait.
    """
    radius, gap, profile, limit = 20.0, 10.0, one_way(lanes), 30
    begin = end.ahead(gap)
    sixty = Arc(radius * math.pi / 3, -1 / radius)
    loop = chain(first_id + 2, begin, [sixty, Arc(radius * math.pi * 5 / 3, 1 / radius), sixty], profile, limit)
    return (
        connection(first_id, junction, end, begin, profile, limit),
        connection(first_id + 1, junction, begin.turned(math.pi), end.turned(math.pi), profile, limit),
        *loop,
    )


def highway() -> Plan:
    """One way, four lanes, 4.7 km round: a straight, a gentle right and left bend, a wide turn; and the same again."""
    bend = swerve(80.0, 100.0, 800.0)
    turn = half_turn(100.0, 300.0)
    half: list[Piece] = [*split(Line(600.0), 3), bend(-1), bend(1), Line(200.0), turn]
    return Plan("highway", chain(1, Pose(0, 0, 0), half * 2, one_way(4, shoulders=(1.0, 2.5)), 110))


def swerve(spiral: float, arc: float, radius: float) -> Callable[[int], list[Curve]]:
    """A bend to the left (1) or right (-1) that begins and ends straight."""
    return lambda way: [
        Spiral(spiral, 0.0, way / radius),
        Arc(arc, way / radius),
        Spiral(spiral, way / radius, 0.0),
    ]


def half_turn(spiral: float, radius: float) -> list[Curve]:
    """180 degrees to the left; each spiral turns by half of its length over the radius."""
    return swerve(spiral, math.pi * radius - spiral, radius)(1)


def lane_change() -> Plan:
    """The road of `sim.lane_change`: one way along +x, four lanes, the leftmost one along y = 0. Open ends."""
    start = Pose(0, LANE_WIDTH / 2, 0)
    return Plan("lane_change", chain(1, start, split(Line(3200.0), 8), one_way(4, LANE_WIDTH), 110))


def curve() -> Plan:
    """A closed oval, one way to the left, three lanes."""
    half: list[Piece] = [*split(Line(200.0), 2), Arc(60 * math.pi, 1 / 60)]
    return Plan("curve", chain(1, Pose(0, 0, 0), half * 2, one_way(3, shoulders=(1.0, 1.0)), 50))


def merge() -> Plan:
    """A closed three-lane highway, and a ramp from the right whose lane runs beside it for 250 m and then ends.

    The ramp's lane continues in the highway's fourth lane, without a junction: traffic on the highway is not affected,
    and the Traffic Manager changes lanes where the fourth one ends.
    """
    before, beside, taper, round_ = 300.0, 250.0, 80.0, 250.0
    lanes, shoulder, bend, limit = 3, 2.5, 200.0, 100
    profile = one_way(lanes, shoulders=(1.0, shoulder))
    narrowing = math.sqrt(2 * bend * shoulder)  # where the ramp is closer than the shoulder is wide
    verge = PlannedLane(shoulder, "shoulder", NO_PAINT, (-narrowing / bend, 1 / (2 * bend), 0.0))
    start, join = Pose(0, 0, 0), Pose(before, 0, 0)
    arriving = PlannedRoad(
        1,
        start,
        (Line(before),),
        ((0.0, profile), (before - narrowing, replace(profile, right=(*profile.right[:-1], verge)))),
        limit,
    )
    both = one_way(lanes + 1, shoulders=(1.0, shoulder))
    ending = replace(both.right[lanes], widening=(0.0, -3 * WIDTH / taper**2, 2 * WIDTH / taper**3))
    closing = replace(both, right=(*both.right[:lanes], ending, both.right[lanes + 1]))
    merging = PlannedRoad(2, join, (Line(beside + taper),), ((0.0, both), (beside, closing)), limit)
    rest = [Line(800.0 - before - beside - taper), *turn_in_halves(round_), *split(Line(800.0), 2)]
    around = chain(3, merging.end, [*rest, *turn_in_halves(round_)], profile, limit)
    angle = math.radians(20)
    ramp_end = join.aside(-lanes * WIDTH)
    ramp_bend = Arc(bend * angle, -1 / bend)
    ramp_start = back(ramp_end, [Line(150.0), ramp_bend])
    ramp = chain(50, ramp_start, [Line(150.0), ramp_bend], one_way(1, shoulders=(0.0, shoulder)), 80)
    return Plan("merge", (arriving, merging, *around, *ramp))


def turn_in_halves(radius: float) -> list[Curve]:
    """180 degrees to the left, as two quarter circles."""
    return [Arc(radius * math.pi / 2, 1 / radius)] * 2


def back(end: Pose, curves: list[Curve]) -> Pose:
    """Where curves have to begin so that they end at a pose."""
    reached = Pose(0, 0, 0).after(curves)
    turned = Pose(end.x, end.y, end.heading - reached.heading)
    return turned.ahead(-reached.x).aside(-reached.y)


def intersection() -> Plan:
    """Four ways with two lanes per direction and lights in two phases; far loops join two arms each.

    The inner lane goes straight or left, the outer one straight or right. Lanes must be kept on the last 30 m.
    """
    junction, middle, length, solid, limit = 1000, 18.0, 150.0, 30.0, 40
    profile = two_way(2)
    sections = ((0.0, profile), (length - solid, two_way(2, changes=False)))
    arms = {}
    for k in range(4):  # east, north, west, south; each from its far end to the junction
        far = Pose(0, 0, k * math.pi / 2).ahead(middle + length).turned(math.pi)
        light = Sign(k + 1, TRAFFIC_LIGHT, length - 4.0, -2 * WIDTH - 2.0, 5.0, (-2, -1), f"light{k + 1}", dynamic=True)
        arms[k] = PlannedRoad(k + 1, far, (Line(length),), sections, limit, signs=(light,))
    lane = one_way(1, changes=False)
    ids = count(100)
    across = [
        connection(next(ids), junction, *ways(arms[k], arms[(k + turn) % 4], number), lane, limit)
        for k in range(4)
        for turn, number in ((3, 0), (2, 0), (2, 1), (1, 1))  # left, straight, straight, right; lane 0 is the inner one
    ]
    plan = (*arms.values(), *unmarked(across), *far_loops(arms, profile, limit))
    return Plan("intersection", plan, (Phases(junction, ((1, 3), (2, 4))),))


def ways(arm: PlannedRoad, other: PlannedRoad, lane: int) -> tuple[Pose, Pose]:
    """From the left border of a lane towards the junction to that of the same lane away from it."""
    return arm.end.aside(-lane * WIDTH), other.end.turned(math.pi).aside(-lane * WIDTH)


def unmarked(roads: list[PlannedRoad]) -> list[PlannedRoad]:
    """The same roads without paint, as crossing ones are."""

    def bare(profile: CrossSection) -> CrossSection:
        return CrossSection(tuple(replace(lane, paint=NO_PAINT) for lane in profile.right), centre=NO_PAINT)

    return [replace(road, sections=tuple((s, bare(profile)) for s, profile in road.sections)) for road in roads]


def far_loops(arms: dict[int, PlannedRoad], profile: CrossSection, limit: float) -> Iterator[PlannedRoad]:
    """Three quarters of a circle from the far end of the east arm to the north one, and from the west to the south."""
    for first_id, arm in ((50, arms[0]), (60, arms[2])):
        begin = arm.start.turned(math.pi)
        radius = math.hypot(begin.x, begin.y)
        yield from chain(first_id, begin, [Arc(radius * math.pi / 2, 1 / radius)] * 3, profile, limit)


def roundabout() -> Plan:
    """A ring of two lanes, four entries and exits of one lane; entering traffic yields. Far loops join two arms."""
    width, inner, middle, length, limit = 4.0, 20.0, 40.0, 120.0, 30
    gate = math.radians(28)  # between an arm and where its traffic is in the ring
    profile, ring, lane = two_way(1, width), one_way(2, width), one_way(1, width, changes=False)
    open_ring = replace(ring, right=(ring.right[0], PlannedLane(width, paint=NO_PAINT)))
    arms: dict[int, PlannedRoad] = {}
    roads: list[PlannedRoad] = []
    ids = count(100)
    for k in range(4):
        angle, junction = k * math.pi / 2, 1000 + k
        far = Pose(0, 0, angle).ahead(middle + length).turned(math.pi)
        sign = Sign(k + 1, YIELD, length - 2.0, -width - 2.0, 2.0, (-1, -1), f"yield{k + 1}")
        arms[k] = PlannedRoad(k + 1, far, (Line(length),), ((0.0, profile),), limit, signs=(sign,))
        leave, enter = on_ring(inner, angle - gate), on_ring(inner, angle + gate)
        through = PlannedRoad(
            next(ids), leave, (Arc(2 * gate * inner, 1 / inner),), ((0.0, open_ring),), limit, junction
        )
        entries = [connection(next(ids), junction, arms[k].end, enter.aside(-t), lane, limit) for t in (0.0, width)]
        exits = [
            connection(next(ids), junction, leave.aside(-t), arms[k].end.turned(math.pi), lane, limit)
            for t in (0.0, width)
        ]
        between = Arc((math.pi / 2 - 2 * gate) * inner, 1 / inner)
        roads += [through, *unmarked([*entries, *exits]), PlannedRoad(10 + k, enter, (between,), ((0.0, ring),), limit)]
    return Plan("roundabout", (*arms.values(), *roads, *far_loops(arms, profile, 50)))


def on_ring(radius: float, angle: float) -> Pose:
    """A pose on a circle about the origin, facing counter-clockwise."""
    return Pose(radius * math.cos(angle), radius * math.sin(angle), angle + math.pi / 2)


PLANS: dict[str, Callable[[], Plan]] = {
    plan.__name__: plan for plan in (straight, highway, lane_change, curve, merge, intersection, roundabout)
}


def available() -> tuple[str, ...]:
    """Names of the shipped maps."""
    return tuple(PLANS)


def read(name: str) -> str:
    """The OpenDRIVE text of a shipped map.

    Args:
        name: One of `available()`.

    Returns:
        Content of its file.

    Raises:
        UsageError: The name is unknown, or the installation lacks the file.
    """
    if name not in PLANS:
        raise unknown("map", name, available())
    return assets.read_text(f"{FOLDER}/{name}.xodr")


def main() -> None:
    """Write all maps."""
    folder = assets.folder() / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, plan in PLANS.items():
        _save(folder / f"{name}.xodr", write(plan()))


def _save(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))


if __name__ == "__main__":
    main()
