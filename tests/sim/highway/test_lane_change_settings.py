"""lane-change takes highway-env's observation, action and lane settings, on the backend highway-env."""

from __future__ import annotations

import numpy as np
import pytest

import sim
from sim.config import resolve, to_dict
from sim.errors import UsageError
from sim.lane_change import LaneChangeConfig

FEW = {"density": [5.0, 5.0], "time_limit": 6}
OBSERVATIONS = {
    "Kinematics": ({"type": "Kinematics", "vehicles_count": 7}, (7, 5)),
    "OccupancyGrid": ({"type": "OccupancyGrid"}, (4, 11, 11)),
    "TimeToCollision": ({"type": "TimeToCollision", "horizon": 5}, (3, 3, 10)),
    "LidarObservation": ({"type": "LidarObservation", "cells": 32}, (32, 2)),
    "GrayscaleObservation": (
        {"type": "GrayscaleObservation", "observation_shape": [64, 32], "stack_size": 2, "weights": [0.3, 0.6, 0.1]},
        (2, 64, 32),
    ),
}
ACTIONS = {
    "meta": ({"type": "DiscreteMetaAction"}, 5),
    "speeds only": ({"type": "DiscreteMetaAction", "lateral": False}, 3),
    "own set-points": ({"target_speeds": [5, 15, 25], "type": "DiscreteMetaAction"}, 5),
    "continuous": ({"type": "ContinuousAction"}, None),
    "steering only": ({"type": "ContinuousAction", "longitudinal": False}, None),
    "a grid": ({"type": "DiscreteAction", "actions_per_axis": 3}, 9),
}


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_observation_types_of_highway_env_are_observed(name):
    settings, shape = OBSERVATIONS[name]
    env = sim.make("lane-change", config={**FEW, "observation": settings})
    assert env.backend == "highway-env"
    obs, _ = env.reset(seed=0)
    after, *_ = env.step(1)
    for each in (obs, after):
        assert each.shape == shape == env.observation_space.shape
        assert env.observation_space.contains(each)


@pytest.mark.parametrize("name", ACTIONS)
def test_action_types_of_highway_env_drive_and_end(name):
    settings, count = ACTIONS[name]
    env = sim.make("lane-change", config={**FEW, "action": settings})
    obs, _ = env.reset(seed=0)
    assert obs.shape == (29,)
    assert getattr(env.action_space, "n", None) == count
    ended = False
    while not ended:
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert np.isfinite(reward)
        assert env.observation_space.contains(obs)
        ended = terminated or truncated
    assert info["summary"]["steps"] <= 6
    assert env.scene().num_lanes == 4


def test_meta_actions_by_highway_envs_name_are_the_tasks_own():
    plain, named = (
        sim.make("lane-change", "highway-env", {**FEW, **more})
        for more in ({}, {"action": {"type": "DiscreteMetaAction"}})
    )
    np.testing.assert_array_equal(plain.reset(seed=3)[0], named.reset(seed=3)[0])
    for action in (2, 3, 1):
        ours, theirs = plain.step(action), named.step(action)
        np.testing.assert_array_equal(ours[0], theirs[0])
        assert ours[1] == theirs[1]
    assert sim.make("lane-change", config={"action": ACTIONS["own set-points"][0]}).config["action"][
        "target_speeds"
    ] == [5, 15, 25]


def test_lane_settings_have_highway_envs_names_too():
    config = resolve(LaneChangeConfig(), {"lanes_count": 5, "initial_lane_id": 1, "policy_frequency": 5})
    assert (config.lanes, config.start_lane, config.decision_frequency) == (5, 1, 5.0)
    assert resolve(LaneChangeConfig(), to_dict(config)) == config
    for backend in ("engine", "highway-env"):
        env = sim.make("lane-change", backend, {"lanes_count": 5, "initial_lane_id": 1})
        env.reset(seed=0)
        assert (env.scene().num_lanes, env.scene().ego.lane) == (5, 1)
    with pytest.raises(UsageError, match="lanes_count and lanes are the same setting"):
        sim.make("lane-change", config={"lanes_count": 5, "lanes": 4})
    with pytest.raises(UsageError, match="the lanes are 0 to 2"):
        sim.make("lane-change", config={"lanes_count": 3})


@pytest.mark.parametrize("backend", ["engine", "carla-lite"])
@pytest.mark.parametrize("more", [{"observation": {"type": "Kinematics"}}, {"action": {"type": "ContinuousAction"}}])
def test_other_backends_refuse_them_in_one_line(backend, more):
    part, settings = next(iter(more.items()))
    with pytest.raises(UsageError, match=f"does not cover {part} type {settings['type']}.*highway-env"):
        sim.make("lane-change", backend, more)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"observation": {"type": "Kinematic"}}, "did you mean 'Kinematics'"),
        ({"observation": {"type": "Kinematics", "vehicle_count": 3}}, "did you mean 'vehicles_count'"),
        ({"action": {"type": "DiscreteMetaAction", "target_speeds": [3, 1]}}, "ascending"),
        ({"lane_count": 4}, "unknown key in lane-change 'lane_count'"),
    ],
)
def test_mistakes_in_them_are_named(more, message):
    with pytest.raises(UsageError, match=message):
        sim.make("lane-change", config=more)
