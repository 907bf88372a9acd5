"""Lane tables of every highway-env network answer as the network itself does."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from sim.engine import roads
from sim.sizes import LANE_MARGIN

KINDS = (
    "highway-v0",
    "merge-v1",
    "merge-generic-v1",
    "exit-v1",
    "two-way-v0",
    "roundabout-v1",
    "roundabout-generic-v1",
    "u-turn-v1",
    "intersection-v2",
    "racetrack-v1",
    "racetrack-large-v1",
    "racetrack-oval-v1",
    "lane-keeping-v0",
    "parking-v0",
)
SHARES = st.floats(-0.2, 1.2)
NO_ROUTES = np.array([(np.full((1, 2, 2), -1),)], dtype=[("routes", "i8", (1, 2, 2))])


@functools.cache
def table(name: str) -> tuple[Any, np.ndarray, list[tuple[str, str, int]]]:
    # Not gym's own: an intersection of those changes the traffic of all other environments.
    env = sim.make(name, "highway-env")
    env.reset(seed=0)
    network = env.inner.road.network
    return network, roads.compile_road(network, connected_lanes=True), roads.lane_keys(network)


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), SHARES, st.floats(-8, 8), st.floats(-3, 3))
def test_geometry_equals_that_of_highway_envs_lanes(name, pick, share, lateral, turn):
    network, lanes, keys = table(name)
    n = pick % len(keys)
    lane, record = network.get_lane(keys[n]), lanes[n]
    s = share * lane.length
    x, y = lane.position(s, lateral)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9)
    close(roads.position(record, s, lateral), (x, y))
    close(roads.heading_at(record, s), lane.heading_at(s))
    point = np.array([x, y])
    close(roads.project(record, x, y), lane.local_coordinates(point))
    close(roads.distance(record, x, y), lane.distance(point))
    heading = lane.heading_at(s) + turn
    best = network.get_lane(network.get_closest_lane_index(point, heading))
    for guess in (0, n, (7 * pick) % len(keys)):
        found = network.get_lane(keys[closest(lanes, x, y, heading, guess)])
        close(found.distance_with_heading(point, heading), best.distance_with_heading(point, heading))
    for other in lanes:
        assert not (roads.beside(other, x, y) and roads.holds(other, *roads.project(other, x, y), LANE_MARGIN))


def closest(lanes: np.ndarray, x: float, y: float, heading: float, guess: int = 0) -> int:
    return roads.closest_lane(lanes[0], x, y, heading, guess)


@pytest.mark.parametrize("name", KINDS)
def test_lanes_go_on_as_in_the_graph(name):
    network, lanes, keys = table(name)
    for n, key in enumerate(keys):
        lane = network.get_lane(key)
        for lateral in (0.0, 1.5):
            x, y = lane.position(lane.length - 1.0, lateral)
            found, _ = roads.next_lane(lanes[0], NO_ROUTES[0], n, -1, 0, x, y)
            assert keys[found] == network.next_lane(key, None, np.array([x, y]))


@pytest.mark.parametrize("name", KINDS)
def test_a_lane_that_is_well_clear_of_others_is_the_closest(name):
    """The shortcut is allowed to say no, never to be wrong."""
    _, lanes, keys = table(name)
    rng, shortcuts = np.random.default_rng(0), 0
    for _ in range(2000):
        n = int(rng.integers(len(keys)))
        x, y = roads.position(lanes[n], rng.uniform(0, min(lanes[n]["length"], 300)), rng.normal())
        heading = roads.heading_at(lanes[n], 0.0) + rng.normal() * 0.5
        if roads.well_inside(lanes[n], x, y, heading):
            shortcuts += 1
            assert closest(lanes, x, y, heading) == n
    if name == "highway-v0":
        assert shortcuts > 500


def test_a_network_that_the_table_cannot_hold_is_refused():
    from highway_env.road.lane import PolyLane
    from highway_env.road.road import RoadNetwork

    from sim.errors import UsageError

    network = RoadNetwork()
    points = [(0.0, 0.0), (50.0, 0.0), (100.0, 5.0)]
    network.add_lane("a", "b", PolyLane(points, [(x, y - 2) for x, y in points], [(x, y + 2) for x, y in points]))
    with pytest.raises(UsageError, match="PolyLane: the engine knows straight, sine and arc lanes"):
        roads.compile_road(network)
