"""Configs that highway-env documents (its docs, docstrings, default configs and scripts) are accepted as they stand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from highway_envs import GYM_IDS, action_sequence

import sim
from sim.errors import UsageError
from sim.highway.upstream import construct, env_class

FEATURES = ["presence", "x", "y", "vx", "vy", "cos_h", "sin_h"]
RANGES = {"x": [-100, 100], "y": [-100, 100], "vx": [-20, 20], "vy": [-20, 20]}
PICTURE = {
    "type": "GrayscaleObservation",
    "observation_shape": (128, 64),
    "stack_size": 4,
    "weights": [0.2989, 0.5870, 0.1140],
    "scaling": 1.75,
}
OVAL = {
    "observation": {
        "type": "OccupancyGrid",
        "features": ["presence", "on_road", *FEATURES[1:], "long_off", "lat_off", "ang_off"],
        "grid_size": [[-18, 18], [-18, 18]],
        "grid_step": [3, 3],
        "as_image": False,
        "align_to_vehicle_axes": True,
    },
    "action": {"type": "ContinuousAction", "longitudinal": False, "lateral": True, "target_speeds": [0, 5, 10]},
    "simulation_frequency": 15,
    "policy_frequency": 5,
    "duration": 120,
    "collision_reward": -1000,
    "other_vehicles": 3,
    "screen_width": 1000,
    "screen_height": 1000,
    "speed_limit": 10.0,
    "terminate_off_road": True,
    "length": 100,
    "no_lanes": 3,
}
DOCUMENTED = {
    "occupancy grid": (
        "highway-v0",
        {
            "observation": {
                "type": "OccupancyGrid",
                "vehicles_count": 15,
                "features": FEATURES,
                "features_range": RANGES,
                "grid_size": [[-27.5, 27.5], [-27.5, 27.5]],
                "grid_step": [5, 5],
                "absolute": False,
            }
        },
        "engine",
    ),
    "kinematics": (
        "highway-v0",
        {
            "observation": {
                "type": "Kinematics",
                "vehicles_count": 15,
                "features": FEATURES,
                "features_range": RANGES,
                "absolute": False,
                "order": "sorted",
            }
        },
        "engine",
    ),
    "grayscale": ("highway-v0", {"observation": PICTURE, "policy_frequency": 2}, "highway-env"),
    "time to collision": ("highway-v0", {"observation": {"type": "TimeToCollision", "horizon": 10}}, "engine"),
    "lidar in a car park": (
        "parking-v0",
        {"observation": {"type": "LidarObservation", "cells": 128}, "vehicles_count": 3},
        "engine",
    ),
    "lidar": (
        "highway-v0",
        {"observation": {"type": "LidarObservation", "cells": 128, "maximum_range": 64, "normalise": True}},
        "engine",
    ),
    "continuous actions": ("highway-v0", {"action": {"type": "ContinuousAction"}}, "engine"),
    "a grid of actions": ("highway-v0", {"action": {"type": "DiscreteAction"}}, "engine"),
    "meta-actions": ("highway-v0", {"action": {"type": "DiscreteMetaAction"}}, "engine"),
    "attention (PPO script)": (
        "highway-v0",
        {
            "lanes_count": 3,
            "vehicles_count": 15,
            "observation": {"type": "Kinematics", "vehicles_count": 10, "features": FEATURES, "absolute": False},
            "policy_frequency": 2,
            "duration": 40,
        },
        "engine",
    ),
    "oval (PPO script)": ("racetrack-oval-v0", OVAL, "engine"),
    "pictures (DQN script)": ("highway-fast-v0", {"observation": PICTURE}, "highway-env"),
    "screen": ("roundabout-v0", {"screen_width": 640, "screen_height": 480}, "engine"),
    "real time": ("highway-v0", {"real_time_rendering": True}, "engine"),
    "no window": ("highway-v0", {"offscreen_rendering": True}, "engine"),
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_documented_examples_are_accepted_and_driven(name):
    scenario, config, backend = DOCUMENTED[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = sim.make(scenario, config=config)
    assert env.backend == backend
    obs, _ = env.reset(seed=0)
    assert env.observation_space.contains(obs)
    for action in action_sequence(env.action_space, 2):
        obs, *_ = env.step(action)
    assert env.observation_space.contains(obs)


@pytest.mark.parametrize("name", [name for name in GYM_IDS if not name.startswith("lane-keeping")])
def test_the_whole_default_config_of_each_environment_is_accepted(name):
    theirs = env_class(sim.get(name).kind.env_class).default_config()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        env = sim.make(name, "highway-env", theirs)
    shown = env.config
    different = {key for key, value in theirs.items() if not np.all(shown[key] == value)}
    assert different <= {"offscreen_rendering", "observation", "action", *sim.get(name).kind.overrides}


def test_what_does_nothing_is_said_in_one_line():
    with pytest.warns(UserWarning, match=r"observation\.vehicles_count = 15 has no effect: type OccupancyGrid"):
        sim.make("highway-fast-v0", config={"observation": {"type": "OccupancyGrid", "vehicles_count": 15}})
    with pytest.warns(UserWarning, match=r"simulates 0\.467 s per decision and counts 0\.5 s"):
        sim.make("highway-v0", config={"policy_frequency": 2, "vehicles_count": 1})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"observation": {"type": "OccupancyGrid", "grid_sise": [[0, 1], [0, 1]]}}, "did you mean 'grid_size'"),
        ({"controlled_vehicles": 2}, "out of scope"),
        ({"action": {"type": "MultiAgentAction", "action_config": {}}}, "out of scope"),
        ({"observation": {"type": "MultiAgentObservation"}}, "out of scope"),
        ({"policy_frequency": 30}, "needs at least one simulation step"),
    ],
)
def test_the_rest_is_still_refused_in_one_line(config, message):
    with pytest.raises(UsageError, match=message) as caught:
        sim.make("highway-v0", config=config)
    assert "\n" not in str(caught.value)


def test_clocks_that_do_not_divide_run_as_highway_envs_own():
    config = {"policy_frequency": 2, "vehicles_count": 5}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = construct(env_class("highway_env.envs.highway_env:HighwayEnv"), config)
        ours = [sim.make("highway-v0", backend, config) for backend in ("engine", "highway-env")]
    first = reference.reset(seed=3)[0]
    for env in ours:
        np.testing.assert_allclose(env.reset(seed=3)[0], first, atol=1e-6)
    for action in (1, 3, 1, 4):
        obs, reward, *_ = reference.step(action)
        for env in ours:
            mine = env.step(action)
            np.testing.assert_allclose(mine[0], obs, atol=1e-6)
            assert mine[1] == pytest.approx(reward)


def test_a_window_is_opened_or_not_as_highway_env_decides(monkeypatch):
    from sim.highway import viewer

    asked = []
    monkeypatch.setattr(viewer.Viewer, "_open", staticmethod(lambda size: asked.append(size)))
    for mode, offscreen, windows in (("human", None, 1), ("human", True, 0), ("rgb_array", False, 1)):
        asked.clear()
        env = sim.make("highway-fast-v0", "highway-env", {"vehicles_count": 1, "offscreen_rendering": offscreen}, mode)
        env.reset(seed=0)
        env.render()
        assert len(asked) == windows, (mode, offscreen)
    assert sim.make("highway-fast-v0", config={"offscreen_rendering": False}).backend == "highway-env"


def test_the_config_can_be_read_but_not_written():
    for env in (sim.make("highway-fast-v0"), sim.make("highway-fast-v0", "highway-env"), sim.make("lane-change")):
        config = env.unwrapped.config
        assert config["simulation_frequency"] / config["policy_frequency"] in (5, 10)
        assert dict(config)["offscreen_rendering"] is True
        with pytest.raises(UsageError, match=r"make an environment with config"):
            config["duration"] = 3
        with pytest.raises(UsageError, match=r"make an environment with config"):
            config.update(duration=3)
    engine, reference = (sim.make("highway-v0", backend).config for backend in ("engine", "highway-env"))
    assert engine == reference
    assert engine["action"]["type"] == "DiscreteMetaAction"
