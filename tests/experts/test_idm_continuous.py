"""`idm-continuous`: highway-env's own cars go where its geometry says, and drive whole episodes on curved lanes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from gymnasium import spaces
from highway_env.road.road import Road, RoadNetwork
from highway_env.vehicle.kinematics import Vehicle

import sim
from experts import registry
from experts.centrelines import Centrelines, pursuit_steering
from experts.driving import run_episodes
from experts.idm import IDMConfig, acceleration
from experts.provider import Context, Status
from experts.rules.config import as_record
from sim.errors import UsageError
from tests.experts.expert_scenes import make_scene

CONTINUOUS = {"action": {"type": "ContinuousAction"}}


@pytest.mark.parametrize("target", [(20.0, 0.0), (15.0, 6.0), (12.0, -8.0), (5.0, 5.0)])
def test_a_car_of_highway_env_drives_through_the_point_that_it_steers_to(target):
    road = Road(RoadNetwork.straight_road_network(1))
    start, heading = np.array([3.0, 4.0]), 0.3
    turned = np.array([[math.cos(heading), -math.sin(heading)], [math.sin(heading), math.cos(heading)]])
    point = start + turned @ np.array(target)
    car = Vehicle(road, start, heading=heading, speed=5.0)
    car.act({"acceleration": 0.0, "steering": pursuit_steering(start, heading, point, car.LENGTH)})
    nearest = math.inf
    for _ in range(2500):
        car.step(0.002)
        nearest = min(nearest, math.dist(car.position, point))
    assert nearest < 0.05


def test_places_on_centre_lines_are_highway_envs_lane_coordinates():
    env = sim.make("racetrack-v1", "highway-env")
    env.reset(seed=0)
    lanes, lines = env.inner.road.network.lanes_list(), Centrelines(env.scene().shapes)
    rng = np.random.default_rng(0)
    for lane in lanes:
        s, d = rng.uniform(1.0, lane.length - 1.0), rng.uniform(-1.5, 1.5)
        place = lines.locate(lane.position(s, d), lane.heading_at(s))
        assert lanes[place.lane] is lane
        assert place.along == pytest.approx(s, abs=0.5)  # chords of 2 m
        assert place.offset == pytest.approx(d, abs=0.05)
        assert lines.ahead(place, 0.0, d) == pytest.approx(lane.position(s, d), abs=0.2)
    env.close()


def test_the_way_ahead_goes_on_where_a_lane_ends():
    env = sim.make("racetrack-v1", "highway-env")
    env.reset(seed=0)
    network, lines = env.inner.road.network, Centrelines(env.scene().shapes)
    lane, following = network.get_lane(("a", "b", 0)), network.get_lane(("b", "c", 0))
    place = lines.locate(lane.position(lane.length - 2.0, 0.0), lane.heading_at(0.0))
    assert lines.ahead(place, 8.0, 0.0) == pytest.approx(following.position(6.0, 0.0), abs=0.1)
    env.close()


def test_it_follows_the_curves_of_a_racetrack():
    config = {"duration": 30, "other_vehicles": 0, "observation": {"type": "Kinematics", "features": ["x", "y"]}}
    envs = sim.make_vec("racetrack-v1", 1, config=config)
    with registry.make("idm-continuous", "racetrack-v1") as expert:
        (episode,) = run_episodes(envs, expert, [0])
    envs.close()
    assert episode["outcome"] == "success"
    assert episode["episode_return"] / episode["steps"] > 0.93  # 1 is the centre of the lane without any steering


def test_it_drives_on_a_highway_with_acceleration_and_steering():
    config = CONTINUOUS | {"duration": 15}
    envs = sim.make_vec("highway-fast-v0", 2, config=config)
    with registry.make("idm-continuous", "highway-fast-v0") as expert:
        episodes = run_episodes(envs, expert, [0, 1])
    envs.close()
    assert [episode["outcome"] for episode in episodes] == ["success"] * 2
    assert all(episode["mean_speed"] > 20 for episode in episodes)


def test_the_acceleration_is_idms_in_the_range_of_the_action():
    env = sim.make("highway-fast-v0", config=CONTINUOUS)
    env.reset(seed=0)
    scene = env.scene()
    options = {"lane_changes": False, "acceleration_range": [-8, 4], "idm": {"desired_speed": 27.0, "limit": 100.0}}
    expert = registry.make("idm-continuous", "highway-fast-v0", options)
    (decision,) = expert.decide([Context(np.zeros(1), env.action_space, scene)])
    front = scene.front(scene.ego.lane)
    p = as_record(IDMConfig())[0]
    distance, speed = (math.inf, 0.0) if front is None else (front.dx, front.speed)
    expected = acceleration(scene.ego.speed, 27.0, distance, speed, p)
    assert decision.action[0] == pytest.approx(np.clip((expected + 2) / 6, -1, 1), abs=1e-6)
    assert abs(decision.action[1]) < 0.01  # it stands straight on its lane
    env.close()


def test_without_lanes_there_is_no_decision():
    expert = registry.make("idm-continuous", "racetrack-v1")
    contexts = [Context(np.zeros(1), spaces.Box(-1, 1, (1,)), scene) for scene in (None, make_scene())]
    assert [decision.status for decision in expert.decide(contexts)] == [Status.FAILED] * 2


@pytest.mark.parametrize("scenario", ["parking-v0", "gym:Pendulum-v1", "lane-change"])
def test_scenarios_without_lanes_are_refused(scenario):
    with pytest.raises(UsageError, match="steers along lanes of highway-env"):
        registry.make("idm-continuous", scenario)


def test_meta_actions_are_refused_before_anything_is_driven():
    envs = sim.make_vec("highway-fast-v0", 1)
    with (
        registry.make("idm-continuous", "highway-fast-v0") as expert,
        pytest.raises(UsageError, match=r"are 0 to 4: set scenario_config\.action\.type=ContinuousAction"),
    ):
        run_episodes(envs, expert, [0])
    envs.close()
    with pytest.raises(UsageError, match=r"steering_range = \[1.0, -1.0\]: give the lower bound first"):
        registry.make("idm-continuous", "racetrack-v1", {"steering_range": [1, -1]})
