"""What the model of motion promises, whatever the pedals do. The figures of real vehicles are not its claim."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.carla_lite import physics
from sim.carla_lite.rays import Boxes, cast, ground_distance

DT = 0.05
pedal = st.floats(0.0, 1.0)
speeds = st.floats(-10.0, 40.0)
yaws = st.floats(-math.pi, math.pi)


def car(x: float = 0.0, y: float = 0.0, yaw: float = 0.0, speed: float = 0.0, **about: float) -> np.ndarray:
    """One body, (1,)."""
    body = np.zeros(1, physics.BODY)
    body["x"], body["y"], body["yaw"] = x, y, yaw
    body["vx"], body["vy"] = speed * math.cos(yaw), speed * math.sin(yaw)
    body["length"], body["width"], body["height"] = 2.4, 1.0, 0.75
    body["mass"], body["wheelbase"], body["max_steer"] = 1500.0, 2.9, math.radians(70)
    body["constant"], body["limit"] = np.nan, 90.0
    body["moves"] = body["falls"] = body["solid"] = body["wheels"] = True
    for name, value in about.items():
        body[name] = value
    return body


def along(b: np.ndarray) -> np.ndarray:
    return b["vx"] * np.cos(b["yaw"]) + b["vy"] * np.sin(b["yaw"])


def drive(b: np.ndarray, seconds: float, dt: float = DT) -> np.ndarray:
    for _ in range(round(seconds / dt)):
        physics.step(b, dt)
    return b


@given(speeds, st.floats(0.3, 1.0), st.floats(-1.0, 1.0), st.booleans(), st.sampled_from([0.02, 0.05, 0.2]))
def test_braking_never_turns_a_direction_around_and_ends_in_standstill(speed, brake, steer, hand, dt):
    b = car(speed=speed, brake=brake, steer=steer, hand_brake=hand)
    for _ in range(round(20.0 / dt)):
        before = along(b)[0]
        physics.step(b, dt)
        assert along(b)[0] * before >= -1e-12
        assert abs(along(b)[0]) <= abs(before) + 1e-9
        if not b["vx"].any() and not b["vy"].any():
            break
    place = b["x"][0], b["y"][0]
    drive(b, 1.0)
    assert (b["x"][0], b["y"][0]) == place


@given(speeds, pedal, pedal, st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=20), st.booleans(), yaws)
def test_nothing_moves_further_than_it_is_fast(speed, throttle, brake, steering, reverse, yaw):
    b = car(yaw=yaw, speed=speed, throttle=throttle, brake=brake, reverse=reverse)
    for steer in steering:
        b["steer"] = steer
        x, y, before = b["x"][0], b["y"][0], np.hypot(b["vx"], b["vy"])[0]
        physics.step(b, DT)
        fastest = max(before, np.hypot(b["vx"], b["vy"])[0]) + physics.DRIVE * DT
        assert math.hypot(b["x"][0] - x, b["y"][0] - y) <= fastest * DT + 1e-9
        assert -math.pi <= b["yaw"][0] <= math.pi


@given(st.floats(0.0, 50.0), st.floats(-1.0, 1.0), pedal)
def test_tyres_hold_no_more_than_their_grip(speed, steer, throttle):
    b = car(speed=speed, steer=steer, throttle=throttle)
    drive(b, 1.5)
    for _ in range(20):
        physics.step(b, DT)
        assert abs(along(b)[0] * b["spin"][0]) <= physics.GRIP * 1.05 + 0.1


@pytest.mark.parametrize("steer", [0.0, 0.05, 0.4])
def test_smaller_steps_converge(steer):
    ends = []
    for dt in (0.1, 0.05, 0.025, 0.0125):
        b = drive(car(speed=15.0, throttle=0.6, steer=steer), 3.0, dt)
        ends.append(np.array([b["x"][0], b["y"][0], along(b)[0]]))
    apart = [np.abs(a - b).max() for a, b in pairwise(ends[1:])]
    assert apart[1] < 0.7 * apart[0] or apart[0] < 1e-3
    assert apart[0] < 0.5


def test_a_long_step_is_made_in_pieces():
    one, many = car(speed=20.0, steer=0.1, throttle=1.0), car(speed=20.0, steer=0.1, throttle=1.0)
    physics.step(one, 0.5)
    drive(many, 0.5)
    for name in ("x", "y", "yaw", "vx", "vy"):
        assert one[name] == pytest.approx(many[name], abs=1e-9)


def test_full_throttle_reaches_top_speed_and_no_more():
    b = car(throttle=1.0)
    found = []
    for _ in range(1200):
        physics.step(b, DT)
        found.append(along(b)[0])
    assert np.all(np.diff(found) >= -1e-9)
    assert 30.0 < found[-1] < physics.TOP_SPEED
    assert found[19] == pytest.approx(5.0, abs=0.3)  # one second


def test_pedals_and_wheel_do_what_drivers_expect():
    assert drive(car(throttle=0.5, reverse=True), 2.0)["x"][0] < -1.0
    right = drive(car(speed=8.0, throttle=0.3, steer=0.2), 1.0)
    assert right["yaw"][0] > 0.1  # clockwise, as CARLA counts
    assert right["y"][0] > 0.1
    assert drive(car(speed=8.0, steer=0.2, reverse=True), 0.2)["yaw"][0] > 0.0
    assert along(drive(car(speed=10.0, hand_brake=True), 5.0))[0] == 0.0


def test_a_mirrored_world_is_driven_in_the_mirror():
    for left, right in ((-0.3, 0.3), (-0.02, 0.02)):
        a = drive(car(speed=25.0, steer=left, throttle=0.4), 2.0)
        b = drive(car(speed=25.0, steer=right, throttle=0.4), 2.0)
        assert (a["x"], a["y"], a["yaw"]) == (b["x"], -b["y"], -b["yaw"])


def test_what_rests_is_left_alone():
    b = np.concatenate([car(), car(x=4.81), car(x=20.0, brake=1.0, steer=0.5)])
    before = b.tobytes()
    assert physics.step(b, DT).first.size == 0
    assert b.tobytes() == before


def test_bodies_far_apart_do_not_know_each_other():
    """To the bit, in any order and number."""
    rng = np.random.default_rng(5)
    crowd = np.concatenate(
        [car(x=100.0 * k, yaw=rng.uniform(-3, 3), speed=rng.uniform(0, 30), steer=rng.uniform(-1, 1)) for k in range(9)]
    )
    order = rng.permutation(9)
    shuffled, alone = crowd[order].copy(), crowd[3:4].copy()
    for b in (crowd, shuffled, alone):
        drive(b, 2.0)
    assert shuffled.tobytes() == crowd[order].tobytes()
    assert alone.tobytes() == crowd[3:4].tobytes()


@given(st.floats(0.0, 40.0), st.floats(-20.0, 40.0), yaws, st.floats(-1.5, 1.5), st.floats(300.0, 9000.0))
def test_collisions_keep_momentum_and_make_no_energy(speed, other_speed, yaw, aside, mass):
    b = np.concatenate([car(speed=speed, mass=mass), car(x=4.5, y=aside, yaw=yaw, speed=other_speed)])
    b["wheels"] = False  # no tyres: momentum has nowhere else to go
    for _ in range(15):
        momentum = [(b["mass"] * b[name]).sum() for name in ("vx", "vy")]
        energy = (b["mass"] * (b["vx"] ** 2 + b["vy"] ** 2)).sum()
        physics.step(b, DT)
        assert [(b["mass"] * b[name]).sum() for name in ("vx", "vy")] == pytest.approx(momentum, rel=1e-9, abs=1e-6)
        assert (b["mass"] * (b["vx"] ** 2 + b["vy"] ** 2)).sum() <= energy * (1 + 1e-9) + 1e-6


def test_who_comes_first_in_the_table_makes_no_difference_to_a_collision():
    pair = np.concatenate([car(speed=20.0, mass=1000.0), car(x=5.0, y=0.5, yaw=0.3, speed=5.0)])
    swapped = pair[::-1].copy()
    a, b = physics.step(pair, DT), physics.step(swapped, DT)
    assert a.impulse.shape == (1, 2)
    assert a.impulse == pytest.approx(-b.impulse)
    assert a.impulse[0, 0] < -1000.0  # on the first one: backwards
    for name in ("x", "y", "vx", "vy"):
        assert pair[name] == pytest.approx(swapped[name][::-1])


def test_what_does_not_move_is_hit_and_stays():
    b = np.concatenate([car(speed=15.0), car(x=6.0, moves=False, wheels=False, mass=1.0)])
    impulses = [physics.step(b, DT).impulse for _ in range(40)]
    assert sum(len(impulse) for impulse in impulses) >= 1
    assert (b["x"][1], b["vx"][1]) == (6.0, 0.0)
    assert b["x"][0] < 6.0 - 4.8 + 0.1
    assert abs(b["vx"][0]) < 2.0


def test_things_that_are_not_solid_or_at_another_height_are_passed():
    for other in (car(x=5.0, solid=False), car(x=5.0, z=6.0, ground=6.0)):
        b = np.concatenate([car(speed=20.0), other])
        assert all(physics.step(b, DT).first.size == 0 for _ in range(20))
        assert b["x"][0] > 10.0


@given(yaws, yaws, st.floats(-6.0, 6.0), st.floats(-6.0, 6.0))
def test_boxes_overlap_where_they_have_points_in_common(yaw, other_yaw, x, y):
    a, b = car(yaw=yaw), car(x=x, y=y, yaw=other_yaw)
    depth, normal = physics.overlap(a, b)
    common = _inside(b[0], _points(a[0])).any() or _inside(a[0], _points(b[0])).any()
    if common:
        assert depth[0] > 0.0
    if depth[0] > 0.15:  # deeper than the points are apart
        assert common
        moved = a.copy()  # along the normal they come apart
        moved["x"] += (depth[0] + 1e-6) * normal[0, 0]
        moved["y"] += (depth[0] + 1e-6) * normal[0, 1]
        assert physics.overlap(moved, b)[0][0] <= 1e-9


def _points(box: np.void) -> np.ndarray:
    u, v = np.meshgrid(np.linspace(-1, 1, 97) * box["length"], np.linspace(-1, 1, 41) * box["width"])
    cos, sin = math.cos(box["yaw"]), math.sin(box["yaw"])
    return np.stack([box["x"] + u * cos - v * sin, box["y"] + u * sin + v * cos], axis=-1).reshape(-1, 2)


def _inside(box: np.void, points: np.ndarray) -> np.ndarray:
    cos, sin = math.cos(box["yaw"]), math.sin(box["yaw"])
    offset = points - (box["x"], box["y"])
    u, v = offset @ (cos, sin), offset @ (-sin, cos)
    return (np.abs(u) < box["length"] - 1e-9) & (np.abs(v) < box["width"] - 1e-9)


def test_a_kept_speed_is_kept_whatever_the_pedals_say():
    b = car(constant=12.0, brake=1.0, steer=0.1)
    drive(b, 2.0)
    assert along(b)[0] == pytest.approx(12.0)
    b["constant"] = np.nan
    drive(b, 3.0)
    assert along(b)[0] == 0.0


def test_walkers_keep_their_way_and_need_no_wheels():
    b = car(wheels=False, upright=True)
    b["vx"], b["vy"] = 0.6, 0.8
    drive(b, 10.0)
    assert (b["x"][0], b["y"][0]) == pytest.approx((6.0, 8.0))


@given(st.floats(0.0, 30.0), st.floats(0.01, 20.0))
def test_what_is_dropped_lands_on_the_road_and_stays_there(ground, height):
    b = car(z=ground + height, ground=ground)
    expected = math.sqrt(2 * height / physics.GRAVITY)
    for _ in range(round((expected + 0.2) / DT)):
        physics.step(b, DT)
        assert b["z"][0] >= ground
    assert (b["z"][0], b["vz"][0]) == (ground, 0.0)


def test_weightless_hidden_and_frozen_bodies_stay_where_they_are_put():
    for b in (car(z=5.0, falls=False), car(z=-500.0), car(z=5.0, moves=False)):
        height = b["z"][0]
        drive(b, 2.0)
        assert b["z"][0] == height


def test_accelerations_are_those_of_the_step():
    b = car(speed=10.0, throttle=1.0)
    before = b["vx"][0]
    physics.step(b, DT)
    assert b["ax"][0] == pytest.approx((b["vx"][0] - before) / DT)
    b["moves"], b["vx"] = False, 0.0
    physics.step(b, DT)
    assert b["ax"][0] == 0.0


@given(yaws, st.floats(-8.0, 8.0), st.floats(-8.0, 8.0), st.floats(0.0, 2 * math.pi), st.floats(-0.5, 0.2))
def test_rays_meet_boxes_where_walking_along_them_does(yaw, x, y, azimuth, altitude):
    box = Boxes(np.array([[x, y, 0.0]]), np.array([[2.4, 1.0, 0.8]]), np.array([yaw]), np.array([7]), np.array([14]))
    level = math.cos(altitude)
    ray = np.array([level * math.cos(azimuth), level * math.sin(azimuth), math.sin(altitude)])
    origin = np.array([0.0, 0.0, 0.3])
    distance, which, cosine = cast(origin, ray[None], box)
    walk = origin + np.arange(0.0, 15.0, 0.005)[:, None] * ray
    cos, sin = math.cos(yaw), math.sin(yaw)
    offset = walk - (x, y, 0.0)
    local = np.abs(np.stack([offset[:, :2] @ (cos, sin), offset[:, :2] @ (-sin, cos), offset[:, 2]], axis=1))
    inside = (local <= (2.4, 1.0, 0.8)).all(axis=1)
    if inside[0]:
        assert which[0] == -1  # who is inside does not see it
    elif inside.sum() > 3:
        assert which[0] == 0
        assert distance[0] == pytest.approx(0.005 * np.argmax(inside), abs=0.006)
        assert 0.0 <= cosine[0] <= 1.0 + 1e-12
    elif not inside.any() and which[0] == 0:
        assert distance[0] > 0  # a corner was grazed between two steps


def test_rays_meet_the_ground_below_and_not_above():
    down, up, level = np.array([0.0, 0.0, -1.0]), np.array([0.0, 0.6, 0.8]), np.array([1.0, 0.0, 0.0])
    slanted = np.array([0.6, 0.0, -0.8])
    distance, cosine = ground_distance(np.array([0.0, 0.0, 2.0]), np.array([down, up, level, slanted]), 0.0)
    assert distance == pytest.approx([2.0, np.inf, np.inf, 2.5])
    assert cosine == pytest.approx([1.0, 0.0, 0.0, 0.8])
