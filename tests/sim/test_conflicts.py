"""Conflicts of paths against plain geometry, on small networks; and where there are none."""

import numpy as np
import pytest
from highway_env.road.lane import StraightLane
from highway_env.road.road import RoadNetwork

import sim
from sim.conflicts import compile_tracks, find, new_paths
from sim.scene import CONFLICT, MOST_CONFLICTS
from sim.sizes import CAR_LENGTH, CAR_WIDTH

EAST, SOUTH = 0.0, np.pi / 2


def crossing(angle=90.0, priorities=(0, 0)):
    """Two roads of 100 m that cross at the origin: the ego's along x, the other one at an angle to it."""
    network = RoadNetwork()
    way = 50 * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    network.add_lane("a", "b", StraightLane([-50, 0], [50, 0], priority=priorities[0]))
    network.add_lane("c", "d", StraightLane(-way, way, priority=priorities[1]))
    return network


def joining():
    """Two roads that go on in the one lane of a third."""
    network = RoadNetwork()
    network.add_lane("a", "b", StraightLane([-60, 0], [0, 0]))
    network.add_lane("c", "b", StraightLane([-60, -16], [0, 0]))
    network.add_lane("b", "d", StraightLane([0, 0], [100, 0]))
    return network


def conflicts(network, cars, routes=None):
    """Of cars as (x, y, heading, speed, lane), the ego first."""
    tracks = compile_tracks(network)
    rows = np.array([car[:4] for car in cars], float)
    places = np.array([[tracks.numbers[car[4]] for car in cars], [-1] * len(cars), [0] * len(cars)])
    found = np.zeros(MOST_CONFLICTS, CONFLICT)
    none = np.full((1, 1, 2), -1)
    count = find(found, tracks.lanes, tracks.points, none, rows.T.copy(), places, new_paths())
    return found[:count]


def half_extent(angle):
    """m before and after a crossing over which a car touches the strip that cars on the other road sweep."""
    sine, cosine = abs(np.sin(np.radians(angle))), abs(np.cos(np.radians(angle)))
    return (CAR_LENGTH / 2 * sine + CAR_WIDTH / 2 * (cosine + 1)) / sine


@pytest.mark.parametrize("angle", [90, -90, 60, -60, 120])
def test_a_crossing_is_where_rectangles_overlap(angle):
    way = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    x, y = -35.0 * way
    cars = [(-30.0, 0.0, EAST, 8.0, ("a", "b", 0)), (x, y, np.radians(angle), 7.0, ("c", "d", 0))]
    (found,) = conflicts(crossing(angle), cars)
    half = pytest.approx(half_extent(angle), abs=1.1)  # a step of the paths
    assert (30.0 - found["begin"], found["end"] - 30.0) == (half, half)
    assert (35.0 - found["near"], found["far"] - 35.0) == (half, half)
    assert found["enter"] == found["near"] / 7.0
    assert found["leave"] == found["far"] / 7.0
    assert not found["joins"]
    assert found["side"] == (-1 if y < 0 else 1)


def test_cars_that_have_passed_do_not_conflict():
    other = (0.0, -30.0, SOUTH, 8.0, ("c", "d", 0))
    assert len(conflicts(crossing(), [(-20.0, 0.0, EAST, 8.0, ("a", "b", 0)), other])) == 1
    assert len(conflicts(crossing(), [(5.0, 0.0, EAST, 8.0, ("a", "b", 0)), other])) == 0
    passed = (0.0, 5.0, SOUTH, 8.0, ("c", "d", 0))
    assert len(conflicts(crossing(), [(-20.0, 0.0, EAST, 8.0, ("a", "b", 0)), passed])) == 0


def test_a_standing_car_never_enters_and_inside_never_leaves():
    ego = (-20.0, 0.0, EAST, 8.0, ("a", "b", 0))
    (before,) = conflicts(crossing(), [ego, (0.0, -10.0, SOUTH, 0.0, ("c", "d", 0))])
    (inside,) = conflicts(crossing(), [ego, (0.0, -1.0, SOUTH, 0.0, ("c", "d", 0))])
    assert (before["enter"], before["leave"]) == (np.inf, np.inf)
    assert (inside["enter"], inside["leave"]) == (0.0, np.inf)


@pytest.mark.parametrize("priorities", [(1, 3), (3, 1), (2, 2)])
def test_who_has_the_right_of_way(priorities):
    cars = [(-20.0, 0.0, EAST, 8.0, ("a", "b", 0)), (0.0, -20.0, SOUTH, 8.0, ("c", "d", 0))]
    assert conflicts(crossing(90, priorities), cars)["priority"] == np.sign(priorities[0] - priorities[1])


def test_joining_paths_are_measured_along_each_other():
    heading = np.arctan2(16, 60)
    cars = [(-30.0, 0.0, EAST, 8.0, ("a", "b", 0)), (-60.0, -16.0, heading, 9.0, ("c", "b", 0))]
    (found,) = conflicts(joining(), cars)
    assert found["joins"]
    assert found["shift"] == pytest.approx(np.hypot(60, 16) - 30.0, abs=1.0)
    assert found["begin"] < 30.0 < found["end"]


def test_cars_of_one_road_do_not_conflict():
    cars = [(-30.0, 0.0, EAST, 8.0, ("a", "b", 0)), (-10.0, 0.0, EAST, 2.0, ("a", "b", 0))]
    cars += [(-45.0, 0.0, EAST, 12.0, ("a", "b", 0)), (20.0, 0.0, EAST, 2.0, ("b", "d", 0))]
    assert len(conflicts(joining(), cars)) == 0


def test_the_nearest_are_kept_in_order():
    network = RoadNetwork()
    network.add_lane("a", "b", StraightLane([-60, 0], [60, 0]))
    for k in range(MOST_CONFLICTS + 3):
        network.add_lane(f"c{k}", f"d{k}", StraightLane([5.0 * k - 50, -40], [5.0 * k - 50, 40]))
    order = np.random.default_rng(0).permutation(MOST_CONFLICTS + 3)
    others = [(5.0 * k - 50, -20.0, SOUTH, 5.0, (f"c{k}", f"d{k}", 0)) for k in order]
    found = conflicts(network, [(-59.0, 0.0, EAST, 8.0, ("a", "b", 0)), *others])
    assert order[found["vehicle"]].tolist() == list(range(MOST_CONFLICTS))


@pytest.mark.parametrize("name", ["highway-v0", "merge-v1", "merge-generic-v1", "exit-v1", "two-way-v0", "u-turn-v0"])
def test_roads_that_neither_cross_nor_join_cost_nothing(name):
    env = sim.make_driving(name, backend="highway-env")
    env.reset(seed=0)
    assert len(compile_tracks(env.inner.road.network).lanes) == 0
    assert len(env.scene().conflicts) == 0


def test_entries_of_a_roundabout_join_it():
    env = sim.make_driving("roundabout-v0", backend="highway-env")
    env.reset(seed=10004)
    found = env.scene().conflicts
    assert len(found) > 0
    assert found["joins"][0]
    assert found["side"][0] == -1
