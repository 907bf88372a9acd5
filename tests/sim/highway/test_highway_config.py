"""Configs: deep merge, and one line for every mistake that highway-env would swallow."""

from __future__ import annotations

import dataclasses
import inspect
import pickle

import numpy as np
import pytest
from highway_envs import NAMES

import sim
from sim.config import fingerprint, resolve, to_dict
from sim.errors import UsageError
from sim.highway import schema


def make(name: str, **config):
    return sim.make(name, "highway-env", config=config)


def test_overriding_set_points_keeps_the_other_action_settings() -> None:
    env = make("intersection-v2", action={"target_speeds": [0, 3, 6, 9]})
    env.reset(seed=0)
    assert env.action_space.n == 3
    assert env.scene().set_points == (0.0, 3.0, 6.0, 9.0)


def test_observation_settings_that_the_defaults_do_not_list_are_known() -> None:
    env = make("highway-fast-v0", observation={"vehicles_count": 8, "see_behind": True}, vehicles_count=3)
    assert env.observation_space.shape == (8, 5)


def test_another_observation_type_drops_settings_of_the_old_one() -> None:
    env = make("intersection-v2", observation={"type": "OccupancyGrid", "absolute": False}, initial_vehicle_count=2)
    assert env.scenario_config.observation["type"] == "OccupancyGrid"
    assert "vehicles_count" not in env.scenario_config.observation
    assert env.scenario_config.observation["features_range"]["vx"] == [-20.0, 20.0]  # what both types know stays
    obs, _ = env.reset(seed=0)
    assert env.observation_space.contains(obs)


MISTAKES = [
    ("highway-v0", {"lane_count": 3}, "did you mean 'lanes_count'"),
    ("highway-v0", {"lanes_count": "four"}, r"lanes_count = 'four': input should be a valid integer"),
    ("highway-v0", {"lanes_count": 2.5}, "valid integer"),
    ("highway-v0", {"duration": True}, "valid number"),
    ("highway-v0", {"duration": float("nan")}, "finite"),
    ("highway-v0", {"vehicles_density": 0}, "greater than 0"),
    ("highway-v0", {"observation": 3}, "dictionary"),
    ("highway-v0", {"observation": {"type": "Kinematic"}}, "did you mean 'Kinematics'"),
    ("highway-v0", {"observation": {"vehicle_count": 3}}, "did you mean 'vehicles_count'"),
    ("highway-v0", {"observation": {"vehicles_count": "many"}}, "valid integer"),
    ("highway-v0", {"action": {"target_speed": [1, 2]}}, "did you mean 'target_speeds'"),
    ("highway-v0", {"action": {"target_speeds": [0, 10, 15]}}, "evenly spaced"),
    ("highway-v0", {"action": {"target_speeds": [20]}}, "evenly spaced"),
    ("highway-v0", {"reward_speed_range": [30, 20]}, "lowest, highest"),
    ("highway-v0", {"other_vehicles_type": "highway_env.vehicle.behavior.Idm"}, "dotted path"),
    ("highway-v0", {"controlled_vehicles": 2}, "out of scope"),
    ("highway-v0", {"initial_lane_id": 9}, "cannot be built"),
    ("highway-v0", {"offscreen_rendering": "no"}, "valid boolean"),
    ("two-way-v0", {"action": {"type": "ContinuousAction"}}, "cannot be built"),
    ("intersection-v2", {"destination": "o9"}, "destination = 'o9'"),
]
NO_EFFECT = [
    ("highway-v0", {"lane_change_reward": -0.1}),
    ("two-way-v0", {"left_lane_constraint": 2}),
    ("two-way-v0", {"collision_reward": -1}),
    ("parking-v0", {"steering_range": 0.5}),
    ("racetrack-v1", {"action": {"target_speeds": [0, 10]}}),
    ("racetrack-v1", {"other_vehicles_type": "highway_env.vehicle.behavior.AggressiveVehicle"}),
    ("intersection-v1", {"action": {"target_speeds": [0, 10]}}),
    ("intersection-v2", {"observation": {"flatten": True}}),
    ("exit-v1", {"offroad_terminal": True}),
]


@pytest.mark.parametrize(("name", "config", "message"), MISTAKES)
def test_mistakes_are_named_in_one_line(name: str, config: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        sim.make(name, "highway-env", config=config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "config"), NO_EFFECT)
def test_keys_that_highway_env_ignores_are_refused_with_the_reason(name: str, config: dict) -> None:
    with pytest.raises(UsageError, match="no effect") as caught:
        sim.make(name, "highway-env", config=config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_defaults_survive_their_own_validation(name: str) -> None:
    defaults = sim.get(name).defaults
    assert resolve(defaults, to_dict(defaults), name) == defaults
    assert fingerprint(resolve(defaults, to_dict(defaults), name)) == fingerprint(defaults)
    assert pickle.loads(pickle.dumps(defaults)) == defaults


def test_equal_values_have_equal_fingerprints_however_they_are_written() -> None:
    defaults = sim.get("highway-v0").defaults
    for same in ({"duration": 40}, {"duration": 40.0}, {"reward_speed_range": (20, 30)}):
        assert fingerprint(resolve(defaults, same)) == fingerprint(defaults)
    speeds = resolve(defaults, {"action": {"target_speeds": np.linspace(0, 30, 4)}})
    assert speeds.action["target_speeds"] == [0.0, 10.0, 20.0, 30.0]
    assert fingerprint(speeds) != fingerprint(defaults)


def test_configs_are_frozen_and_share_nothing() -> None:
    defaults = sim.get("highway-v0").defaults
    with pytest.raises(dataclasses.FrozenInstanceError):
        defaults.duration = 3
    env = make("highway-fast-v0", vehicles_count=1)
    env.inner.config["reward_speed_range"][0] = 0.0
    assert sim.get("highway-fast-v0").defaults.reward_speed_range[0] == 20.0
    assert env.scenario_config.reward_speed_range[0] == 20.0


def test_schema_knows_every_setting_of_the_installed_highway_env() -> None:
    from highway_env.envs.common import action, observation

    classes = {
        "Kinematics": observation.KinematicObservation,
        "ExitObservation": observation.ExitObservation,
        "OccupancyGrid": observation.OccupancyGridObservation,
        "TimeToCollision": observation.TimeToCollisionObservation,
        "LidarObservation": observation.LidarObservation,
        "GrayscaleObservation": observation.GrayscaleObservation,
        "AttributesObservation": observation.AttributesObservation,
        "ContinuousAction": action.ContinuousAction,
        "DiscreteAction": action.DiscreteAction,
        "DiscreteMetaAction": action.DiscreteMetaAction,
    }
    ignored = {"self", "env", "kwargs"}
    for name, kind in classes.items():
        table = (schema.OBSERVATIONS | schema.ACTIONS)[name]
        theirs = set(inspect.signature(kind.__init__).parameters) - ignored
        assert theirs <= set(table), name
        extra = {key for key in set(table) - theirs if ("observation", key) not in schema.NO_EFFECT}
        assert {key for key in extra if (name, key) not in schema.NO_EFFECT} == set(), name


def test_reset_options_are_refused() -> None:
    env = make("highway-fast-v0", vehicles_count=1)
    with pytest.raises(UsageError, match="make a new one"):
        env.reset(options={"config": {"lanes_count": 5}})
