"""The shipped maps and the blocks they are built of, seen through CARLA's client and through the reader."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from matplotlib.path import Path as Outline

from sim import assets
from sim.carla_lite import maps
from sim.carla_lite.curves import Line
from sim.carla_lite.draw import picture
from sim.carla_lite.lanes import DRIVING, Lane
from sim.carla_lite.plan import CrossSection, Paint, Plan, Pose, chain, connect, one_way, two_way
from sim.carla_lite.plan_writer import write
from sim.carla_lite.roads import RoadMap
from sim.errors import UsageError

ENDS = {"lane_change": {("8", 0, lane) for lane in (-1, -2, -3, -4)}, "merge": {("2", 1, -4)}}
"""(road, section, lane) of lanes that lead nowhere, on purpose."""
LIMITS = {
    "straight": {30, 60},
    "highway": {110},
    "lane_change": {110},
    "curve": {50},
    "merge": {80, 100},
    "intersection": {40},
    "roundabout": {30, 50},
}
MAPS = {name: RoadMap.parse(maps.read(name)) for name in maps.available()}


def client(name: str) -> Any:
    carla = pytest.importorskip("carla")
    return carla.Map(name, maps.read(name))


def driving(name: str) -> list[Lane]:
    return [lane for lane in MAPS[name].lanes if lane.type == DRIVING]


@pytest.mark.parametrize("name", maps.available())
def test_the_shipped_file_is_what_the_writer_makes_and_small(name: str) -> None:
    text = write(maps.PLANS[name]())
    assert maps.read(name) == text
    assert len(text) < 60_000
    assert MAPS[name].name == name


def test_every_file_in_the_folder_is_an_available_map() -> None:
    folder = assets.folder() / maps.FOLDER
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{name}.xodr" for name in maps.available())


@pytest.mark.parametrize("name", maps.available())
def test_every_lane_leads_somewhere_or_is_a_declared_end(name: str) -> None:
    ends = {(lane.road, lane.section, lane.id) for lane in driving(name) if not lane.successors}
    assert ends == ENDS.get(name, set())


@pytest.mark.parametrize("name", sorted(set(maps.available()) - {"lane_change"}))
def test_traffic_gets_from_everywhere_to_everywhere_but_back_onto_the_ramp(name: str) -> None:
    lanes = driving(name)
    index = {(lane.road, lane.section, lane.id): k for k, lane in enumerate(lanes)}
    reach = np.eye(len(lanes), dtype=bool)
    for k, lane in enumerate(lanes):
        for j in lane.successors:
            after = MAPS[name].lanes[j]
            reach[k, index[after.road, after.section, after.id]] = True
        for side in (lane.id - 1, lane.id + 1):
            if side * lane.id > 0 and (beside := index.get((lane.road, lane.section, side))) is not None:
                reach[k, beside] = True
    for _ in range(len(lanes).bit_length()):
        reach = (reach.astype(int) @ reach.astype(int)) > 0
    ramp = [k for k, lane in enumerate(lanes) if name == "merge" and lane.road in ("50", "51")]
    around = [k for k in range(len(lanes)) if k not in ramp]
    assert reach[:, around].all()
    assert not reach[np.ix_(around, ramp)].any()


@pytest.mark.parametrize("name", maps.available())
def test_lanes_go_on_without_a_jump_in_place_or_heading(name: str) -> None:
    road_map = MAPS[name]
    for lane in driving(name):
        for following in (road_map.lanes[k] for k in lane.successors):
            here = road_map.pose(lane.road, lane.id, end_of(lane))
            there = road_map.pose(following.road, following.id, float(following.s[0]))
            assert math.dist(here[:3], there[:3]) < 0.001
            assert abs(math.remainder(here[3] - there[3], 360)) < 0.01
            assert lane.width[-1] == pytest.approx(following.width[0], abs=0.01)


def end_of(lane: Lane) -> float:
    """The last s that is still in its section."""
    return float(lane.s[-1]) - 1e-6 if lane.id < 0 else float(lane.s[-1])


@pytest.mark.parametrize("name", maps.available())
def test_a_step_of_the_client_is_a_step_along_the_lane(name: str) -> None:
    sharpest = 1 / 11.0  # the right turns of the intersection
    for waypoint in client(name).generate_waypoints(4.0):
        here = waypoint.transform
        for following in waypoint.next(0.25):
            there = following.transform
            assert here.location.distance(there.location) < 0.25 + 0.1
            assert abs(math.remainder(there.rotation.yaw - here.rotation.yaw, 360)) < math.degrees(0.25 * sharpest) + 1


@pytest.mark.parametrize("name", maps.available())
def test_roads_overlap_nowhere_but_in_junctions(name: str) -> None:
    lanes = [lane for lane in MAPS[name].lanes if lane.junction is None]
    outlines = [Outline(np.concatenate([lane.left, lane.right[::-1]])) for lane in lanes]
    for lane in lanes:
        inner = (lane.center[1:-1], (lane.center + 0.8 * (lane.left - lane.center))[1:-1])
        points = np.concatenate([p[lane.width[1:-1] > 0.1] for p in inner])
        others = [outline for other, outline in zip(lanes, outlines, strict=True) if other is not lane]
        assert not any(outline.contains_points(points).any() for outline in others if len(points))


@pytest.mark.parametrize("name", maps.available())
def test_a_line_may_be_crossed_where_it_is_broken_and_only_there(name: str) -> None:
    carla = pytest.importorskip("carla")
    crossable = 0
    for waypoint in client(name).generate_waypoints(5.0):
        for side, marking, neighbour in (
            (carla.LaneChange.Left, waypoint.left_lane_marking, waypoint.get_left_lane()),
            (carla.LaneChange.Right, waypoint.right_lane_marking, waypoint.get_right_lane()),
        ):
            allowed = bool(int(waypoint.lane_change) & int(side))
            assert allowed == (marking.type == carla.LaneMarkingType.Broken)
            if allowed:
                crossable += 1
                assert neighbour.lane_type == carla.LaneType.Driving
                assert neighbour.lane_id * waypoint.lane_id > 0
            elif neighbour is not None and neighbour.lane_type == carla.LaneType.Driving:
                # between lanes of one direction only the last metres before a junction are closed
                assert neighbour.lane_id * waypoint.lane_id < 0 or name == "intersection"
    assert crossable > 10


def test_lanes_are_kept_on_the_last_30_m_before_the_lights() -> None:
    carla = pytest.importorskip("carla")
    intersection = client("intersection")
    for arm in (1, 2, 3, 4):
        for lane in (-1, -2):
            assert intersection.get_waypoint_xodr(arm, lane, 121.0).lane_change == carla.LaneChange.NONE
            assert intersection.get_waypoint_xodr(arm, lane, 119.0).lane_change != carla.LaneChange.NONE


@pytest.mark.parametrize("name", maps.available())
def test_every_place_on_a_map_has_its_speed_limit(name: str) -> None:
    limits = MAPS[name].speed_limit(np.concatenate([lane.center for lane in driving(name)]))
    assert set(np.round(limits, 6)) == LIMITS[name]


def test_the_lane_change_map_is_the_road_of_the_published_task() -> None:
    carla = pytest.importorskip("carla")
    world = client("lane_change")
    for x in (0.5, 500.0, 1599.0, 2999.0):
        for lane, y in enumerate((0.0, 4.0, 8.0, 12.0)):
            waypoint = world.get_waypoint(carla.Location(x, y + 0.3, 0.0), project_to_road=False)
            place, yaw = waypoint.transform.location, waypoint.transform.rotation.yaw
            assert (place.x, place.y, place.z, yaw) == pytest.approx((x, y, 0.0, 0.0), abs=1e-3)
            assert waypoint.lane_width == pytest.approx(4.0)
            sides = {0: carla.LaneChange.Right, 3: carla.LaneChange.Left}
            assert waypoint.lane_change == sides.get(lane, carla.LaneChange.Both)
    assert world.get_waypoint(carla.Location(1.0, 0.0, 0.0)).next(2998.0)


def test_the_highway_has_four_lanes_all_round_and_straights_as_well_as_bends() -> None:
    lanes = driving("highway")
    per_road = {road: sum(lane.road == road for lane in lanes) for road in {lane.road for lane in lanes}}
    assert set(per_road.values()) == {4}
    assert {round(float(w), 6) for lane in lanes for w in lane.width} == {3.5}
    length = sum(abs(lane.s[-1] - lane.s[0]) for lane in lanes if lane.id == -1)
    assert length > 2000
    assert (
        sum(abs(lane.s[-1] - lane.s[0]) for lane in lanes if lane.id == -1 and np.ptp(lane.center[:, 1]) < 1e-6) > 1000
    )


def test_the_ramp_goes_on_in_a_lane_that_can_be_left_before_it_ends() -> None:
    carla = pytest.importorskip("carla")
    waypoint = client("merge").get_waypoint_xodr(51, -1, 1.0)
    seen = [waypoint]
    while following := seen[-1].next(5.0):
        assert len(following) == 1
        seen += following
    beside = [w for w in seen if w.road_id == 2]
    assert sum(w.lane_width > 3.4 for w in beside) * 5.0 > 240
    assert all(w.lane_change == carla.LaneChange.Left and not w.is_junction for w in beside)
    assert seen[-1].lane_width < 0.5
    assert seen[-1].get_left_lane().next(100.0)


@pytest.mark.parametrize(
    ("name", "road", "lane", "turns"),
    [(name, road, lane, turns) for road in (1, 2, 3, 4) for name, lane, turns in (
        ("intersection", -1, ["left", "straight"]),
        ("intersection", -2, ["right", "straight"]),
    )],
)  # fmt: skip
def test_every_arm_has_ways_to_the_left_straight_on_and_to_the_right(
    name: str, road: int, lane: int, turns: list[str]
) -> None:
    last = client(name).get_waypoint_xodr(road, lane, 149.9)
    found = []
    for entered in last.next(1.0):
        assert entered.is_junction
        exit_ = entered.next_until_lane_end(0.5)[-1].next(1.0)[0]
        assert not exit_.is_junction
        angle = math.remainder(exit_.transform.rotation.yaw - last.transform.rotation.yaw, 360)
        found.append({-90: "left", 0: "straight", 90: "right"}[round(angle)])
    assert sorted(found) == turns


def test_the_lights_stop_each_approach_before_the_junction_in_two_phases() -> None:
    road_map = MAPS["intersection"]
    assert [(light.id, light.controller, light.junction) for light in road_map.signals] == [
        ("1", "10000", "1000"),
        ("2", "10001", "1000"),
        ("3", "10000", "1000"),
        ("4", "10001", "1000"),
    ]
    for light in road_map.signals:
        assert {stop.lane for stop in light.stops} == {-1, -2}
        toward = [math.hypot(stop.x, stop.y) for stop in light.stops]
        assert all(18 < distance < 30 for distance in toward)
        assert not road_map.on_road(np.array([[light.x, light.y]])).any()


def test_traffic_that_enters_the_roundabout_can_leave_by_every_arm() -> None:
    entries = client("roundabout")
    for arm in (1, 2, 3, 4):
        frontier, left = entries.get_waypoint_xodr(arm, -1, 119.0).next(2.0), set()
        for _ in range(300):
            frontier = list({w.id: w for here in frontier for w in here.next(2.0)}.values())
            left |= {w.road_id for w in frontier if w.road_id in (1, 2, 3, 4)}
            frontier = [w for w in frontier if w.road_id not in (1, 2, 3, 4)]
        assert left == {1, 2, 3, 4}


def test_a_map_that_is_not_shipped_or_not_installed_is_refused_with_advice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="unknown map 'higway': did you mean 'highway'"):
        maps.read("higway")
    monkeypatch.setattr(assets, "folder", lambda: tmp_path)
    with pytest.raises(UsageError, match=r"assets/maps/highway\.xodr is missing .* install lgdrl again"):
        maps.read("highway")


poses = st.builds(Pose, st.floats(-100, 100), st.floats(-100, 100), st.floats(-math.pi, math.pi))


@given(poses, st.floats(0.1, 80), st.floats(0.1, 80), st.floats(-2.8, 2.8))
def test_a_connection_ends_where_it_should(start: Pose, before: float, behind: float, turn: float) -> None:
    assume(abs(turn) > 0.01)
    end = start.ahead(before).turned(turn).ahead(behind)
    curves = connect(start, end)
    reached = start.after(curves)
    assert math.dist((reached.x, reached.y), (end.x, end.y)) < 1e-6
    assert abs(math.remainder(reached.heading - end.heading, 2 * math.pi)) < 1e-9
    assert sum(isinstance(curve, Line) for curve in curves) <= 1


@given(poses, st.floats(-3, 3), st.floats(0.1, 50))
def test_places_that_no_single_bend_joins_are_refused(start: Pose, turn: float, distance: float) -> None:
    assume(abs(turn) > 0.1)
    with pytest.raises(UsageError, match="no single bend"):
        connect(start, start.ahead(-distance).turned(turn).ahead(-distance))


@given(st.integers(1, 4), st.floats(2.5, 5.0), st.floats(50, 400), st.booleans(), poses)
def test_what_is_written_is_read_back(lanes: int, width: float, length: float, changes: bool, start: Pose) -> None:
    plan = Plan("test", chain(1, start, [Line(length)] * 3, two_way(lanes, width, 1.0, changes), 70))
    road_map = RoadMap.parse(write(plan))
    found = [lane for lane in road_map.lanes if lane.type == DRIVING]
    assert len(found) == 3 * 2 * lanes
    assert sum(bool(lane.successors) for lane in found) == 2 * 2 * lanes
    assert all(lane.width == pytest.approx(width) for lane in found)
    kinds = {border.kind for border in road_map.borders()}
    assert ("broken" in kinds) == (changes and lanes > 1)
    begin = road_map.pose("1", -1, 0.0)
    beside = start.aside(-width / 2)
    assert begin[:2] == pytest.approx((beside.x, -beside.y), abs=1e-6)
    assert abs(math.remainder(begin[3] + math.degrees(start.heading), 360)) < 1e-6


def test_roads_and_junctions_with_the_same_id_are_refused() -> None:
    twice = chain(1, Pose(0, 0, 0), [Line(10.0)], one_way(1), 50) * 2
    with pytest.raises(UsageError, match="must all differ"):
        write(Plan("test", twice))


def test_lanes_of_different_width_or_direction_are_not_linked() -> None:
    first = chain(1, Pose(0, 0, 0), [Line(50.0)], one_way(1, 3.5), 50)
    wider = chain(2, Pose(50, 0, 0), [Line(50.0)], one_way(1, 4.0), 50)
    against = chain(3, Pose(50, 0, 0), [Line(50.0)], CrossSection((), one_way(1, 3.5).right, Paint("none")), 50)
    for second in (wider, against):
        assert not any(lane.successors for lane in RoadMap.parse(write(Plan("test", (*first, *second)))).lanes)


def test_a_map_can_be_drawn(tmp_path: Path) -> None:
    figure, axes = picture(MAPS["intersection"], (4.0, 4.0))
    figure.savefig(tmp_path / "map.png", dpi=50)
    assert (tmp_path / "map.png").stat().st_size > 5000
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # y to the right of x, seen from above
