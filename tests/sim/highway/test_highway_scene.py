"""Scenes: exact coordinates on straight roads, neighbours as highway-env finds them, sight across segment borders."""

from __future__ import annotations

import numpy as np
import pytest
from highway_envs import make_small

import sim

IDLE = 1


@pytest.mark.parametrize("seed", range(6))
def test_neighbours_equal_those_that_highway_env_finds(seed: int) -> None:
    env = sim.make(
        "highway-fast-v0", "highway-env", config={"lanes_count": 4, "vehicles_count": 30, "vehicles_density": 2}
    )
    env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    found = 0
    for _ in range(6):
        scene, inner = env.scene(), env.inner
        for lane in range(4):
            for mine, theirs in zip(
                (scene.front(lane), scene.rear(lane)),
                inner.road.neighbour_vehicles(inner.vehicle, ("0", "1", lane)),
                strict=True,
            ):
                assert (mine is None) == (theirs is None)
                if mine is not None:
                    assert mine.id == theirs.scene_id
                    assert mine.dx == theirs.position[0] - inner.vehicle.position[0]
                    found += 1
        if any(env.step(int(rng.integers(5)))[2:4]):
            break
    assert found


def test_coordinates_of_a_straight_highway_are_those_of_the_environment() -> None:
    env = sim.make("highway-fast-v0", "highway-env")
    env.reset(seed=0)
    for _ in range(3):
        env.step(0)
    scene, inner = env.scene(), env.inner
    cars = [car for car in inner.road.vehicles if car is not inner.vehicle]
    assert scene.vehicles.s.tolist() == [car.position[0] for car in cars]
    assert scene.vehicles.d.tolist() == [car.position[1] for car in cars]
    assert scene.vehicles.lane.tolist() == [car.lane_index[2] for car in cars]
    assert (scene.ego.s, scene.ego.d) == tuple(inner.vehicle.position)
    assert scene.lane_centers == (0.0, 4.0, 8.0)
    assert scene.lane_width == 4.0
    assert scene.time == 3.0


def test_merge_is_one_road_across_its_segments() -> None:
    env = make_small("merge-v1")
    env.reset(seed=3)
    seen = set()
    for _ in range(11):
        ended = any(env.step(IDLE)[2:4])
        scene, inner = env.scene(), env.inner
        seen.add(inner.vehicle.lane_index[:2])
        assert scene.ego.s == pytest.approx(inner.vehicle.position[0])
        assert scene.lane_centers[:2] == (0.0, 4.0)
        on_road = np.isfinite(scene.vehicles.s)
        assert scene.vehicles.s[on_road] == pytest.approx(scene.vehicles.x[on_road])
        assert scene.vehicles.d[on_road] == pytest.approx(scene.vehicles.y[on_road])
        if ended:
            break
    assert len(seen) >= 2, "the ego has passed a border"


def test_car_across_a_segment_border_is_seen() -> None:
    env = make_small("merge-v0")
    env.reset(seed=0)
    ego, car = env.inner.vehicle, env.inner.road.vehicles[1]
    env.inner.road.vehicles[:] = [ego, car]
    for vehicle, x in ((ego, 225.0), (car, 240.0)):  # the border is at 230
        vehicle.position[:] = (x, 4.0)
        vehicle.on_state_update()
    assert ego.lane_index[:2] != car.lane_index[:2]
    ahead = env.scene().front(1)
    assert ahead.dx == pytest.approx(15.0)
    car.position[0], ego.position[0] = 220.0, 235.0
    car.on_state_update()
    ego.on_state_update()
    assert env.scene().rear(1).dx == pytest.approx(-15.0)


def test_crossing_traffic_is_not_on_the_egos_road() -> None:
    env = sim.make("intersection-v2", "highway-env")
    env.reset(seed=0)
    scene, inner = env.scene(), env.inner
    for car in inner.road.vehicles:
        if car is not inner.vehicle and car.lane_index[0].startswith("o"):
            row = scene.vehicles.ids.tolist().index(car.scene_id)
            assert np.isnan(scene.vehicles.s[row]) == (car.lane_index[:2] != inner.vehicle.lane_index[:2])


def test_oncoming_traffic_is_seen_in_its_lane() -> None:
    env = sim.make("two-way-v0", "highway-env")
    env.reset(seed=0)
    scene = env.scene()
    oncoming = np.flatnonzero(np.abs(scene.vehicles.heading) > 3)
    assert len(oncoming) == 2
    assert scene.vehicles.lane[oncoming].tolist() == [0, 0]
    assert scene.vehicles.s[oncoming] == pytest.approx(scene.vehicles.x[oncoming])


def test_ids_last_for_the_episode_while_cars_come_and_go() -> None:
    env = sim.make("intersection-v2", "highway-env", config={"spawn_probability": 1})
    env.reset(seed=1)
    at_first = len(env.inner.road.vehicles)
    names: dict[int, int] = {}
    bodies = []  # kept alive, so that Python does not reuse their addresses
    for _ in range(6):
        for body in env.inner.road.vehicles:
            bodies.append(body)
            assert names.setdefault(body.scene_id, id(body)) == id(body)
        ended = any(env.step(IDLE)[2:4])
        if ended:
            break
    assert len(names) > at_first
    assert env.inner.vehicle.scene_id == 0


def test_walls_and_obstacles_appear_as_standing_vehicles() -> None:
    parking = sim.make("parking-v0", "highway-env")
    parking.reset(seed=0)
    walls = parking.scene().vehicles
    assert sorted(walls.length.tolist()) == [42.0, 42.0, 70.0, 70.0]
    assert (walls.speed == 0).all()
    merge = make_small("merge-v1")
    merge.reset(seed=0)
    barrier = merge.scene().vehicles
    assert (barrier.x[-1], barrier.speed[-1], barrier.length[-1]) == (310.0, 0.0, 2.0)


def test_goals() -> None:
    leave = make_small("exit-v1")
    leave.reset(seed=0)
    goal = leave.scene().goal
    assert (goal.lane, goal.s) == (6, 500.0)
    assert goal.remaining == 500.0 - leave.scene().ego.x
    arrive = make_small("intersection-v2")
    arrive.reset(seed=0)
    before = arrive.scene().goal.remaining
    arrive.step(2)
    ego = arrive.scene().ego
    assert before - arrive.scene().goal.remaining == pytest.approx(ego.speed, abs=1.5)
    park = make_small("parking-v0")
    park.reset(seed=0)
    spot = park.inner.vehicle.goal.position
    assert park.scene().goal.remaining == pytest.approx(np.hypot(*(spot - park.inner.vehicle.position)))


@pytest.mark.parametrize("name", ["highway-fast-v0", "intersection-v2", "u-turn-v1", "exit-v1"])
def test_masks_name_the_available_actions(name: str) -> None:
    env = make_small(name)
    env.reset(seed=0)
    mask = env.action_masks()
    assert sorted(np.flatnonzero(mask)) == sorted(env.inner.get_available_actions())
    mask[:] = False
    assert env.action_masks().any(), "the mask is a copy"


def test_lane_shapes_follow_the_road() -> None:
    env = make_small("racetrack-v1")
    env.reset(seed=0)
    scene = env.scene()
    assert len(scene.shapes) == len(env.inner.road.network.lanes_list())
    assert scene.shapes is env.scene().shapes, "computed once per episode"
    for shape, lane in zip(scene.shapes, env.inner.road.network.lanes_list(), strict=True):
        assert np.allclose(shape.center[0], lane.position(0, 0))
        assert np.allclose(shape.center[-1], lane.position(lane.length, 0))
