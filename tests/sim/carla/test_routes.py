"""Routes through the shipped maps, laid by the real client's map; no server is needed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.carla.routes import Route, lay, leftmost
from sim.carla_lite import maps

carla = pytest.importorskip("carla", reason="the CARLA client is not installed (extra `carla`)")


def the_map(name: str):
    return carla.Map(name, maps.read(name))


def route(name: str, start: tuple[float, float], ahead: float, turns: tuple[str, ...] = (), **about: float) -> Route:
    waypoint = the_map(name).get_waypoint(carla.Location(*start, 0.0))
    return lay(waypoint, ahead, turns=turns, **about)


@pytest.fixture(scope="module")
def straight() -> Route:
    return route("lane_change", (500.0, 0.0), ahead=2500.0, behind=498.0, s0=500.0)


@given(st.floats(10.0, 2900.0), st.floats(-1.9, 13.9))
def test_on_the_lane_change_road_s_and_d_are_x_and_y_as_on_the_other_simulators(straight, x, y):
    s, d, index = straight.project(np.array([[x, y]]))
    assert (s[0], d[0]) == pytest.approx((x, y), abs=1e-3)
    assert straight.lane_at(d, index)[0] == round(y / 4)  # y grows to the right, like the lane index
    assert straight.pose(x, y) == pytest.approx((x, y, 0.0, 0.0), abs=1e-3)


def test_lanes_are_counted_from_the_left_and_d_is_measured_from_the_reference_line(straight):
    assert straight.centers_at(1234.5) == pytest.approx((0.0, 4.0, 8.0, 12.0), abs=1e-3)


@given(st.floats(-100.0, 900.0), st.floats(-3.0, 12.0))
def test_poses_and_projections_are_inverse_in_curves(s, d):
    bend = _highway()
    x, y, _, _ = bend.pose(s, d)
    found_s, found_d, _ = bend.project(np.array([[x, y]]))
    assert (found_s[0], found_d[0]) == pytest.approx((s, d), abs=0.05)


def _highway(kept: list[Route] = []) -> Route:  # noqa: B006 (made once)
    if not kept:
        first, across = leftmost(the_map("highway").get_waypoint(carla.Location(200.0, 5.25)))
        assert across == pytest.approx(3.5)
        kept.append(lay(first, 1000.0, behind=150.0))
    return kept[0]


def test_turns_are_taken_where_they_are_asked_for():
    ends = {}
    for turn in ("left", "straight", "right"):
        lane = 1.75 if turn == "left" else 5.25
        x, y, _, heading = route("intersection", (-140.0, lane), 220.0, (turn,)).pose(210.0, 0.0)
        ends[turn] = np.degrees(np.remainder(heading + np.pi, 2 * np.pi) - np.pi), x, y
    assert ends["left"][0] == pytest.approx(-90.0, abs=1.0)
    assert ends["left"][2] < -30.0  # y is negative to the left of x
    assert ends["straight"][0] == pytest.approx(0.0, abs=1.0)
    assert ends["right"][0] == pytest.approx(90.0, abs=1.0)
    assert ends["right"][2] > 30.0


def test_a_roundabout_is_left_at_the_exit_that_was_named():
    second = route("roundabout", (-130.0, 2.0), 200.0, ("right", "straight", "right"))
    x, y, _, heading = second.pose(195.0, 0.0)
    assert x > 30.0
    assert (y, heading) == pytest.approx((2.0, 0.0), abs=0.1)


def test_where_a_lane_ends_the_route_goes_on_beside_the_ones_that_are_left():
    merging = route("merge", (305.0, 12.25), 400.0)
    assert merging.centers_at(50.0) == pytest.approx((-10.5, -7.0, -3.5, 0.0), abs=0.05)
    half = 3.5 / 2  # its centre, which the line follows, moves left as it narrows away
    assert merging.centers_at(390.0) == pytest.approx((-10.5 + half, -7.0 + half, -3.5 + half), abs=0.05)
    assert np.abs(np.diff(merging.points, axis=0)).max() < 2.1  # the line itself does not jump


def test_vehicles_beside_the_road_are_not_on_it(straight):
    s, d, lane = straight.locate(np.array([[700.0, 4.1], [700.0, 30.0], [9000.0, 4.0], [700.0, 4.0]]), np.zeros(4))
    assert lane.tolist() == [1, -1, -1, 1]
    assert np.isnan(s[1:3]).all()
    assert np.isnan(d[1:3]).all()
    assert straight.locate(np.array([[700.0, 4.1]]), np.array([10.0]))[2].tolist() == [-1]  # a bridge above
