"""What commands, wrappers and learners need of scenarios beyond meta-actions, and of those on CARLA without a server.

gymnasium's and SB3's checkers run over the scenarios in `engine/test_interfaces.py` and
`highway/test_highway_catalog.py`.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as check_gymnasium
from stable_baselines3.common.env_checker import check_env as check_sb3

import sim
from sim.render import SceneRenderer
from tests.sim.highway.highway_envs import NAMES, few_cars

CONTINUOUS = [name for name in NAMES if sim.get(name).actions == "continuous"]


def test_both_checkers_pass_on_lane_change_with_highway_envs_spaces():
    config = {"density": [5, 5], "observation": {"type": "OccupancyGrid"}, "action": {"type": "ContinuousAction"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_gymnasium(sim.make("lane-change", config=config), skip_render_check=True)
        check_sb3(sim.make("lane-change", config=config))


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_environments_can_be_driven_seen_filmed_and_restored(name):
    config = few_cars(name)
    env, envs = sim.make(name, config=config, render_mode="rgb_array"), sim.make_vec(name, 2, seed=0, config=config)
    obs, _ = env.reset(seed=0)
    assert env.observation_space.contains(obs)
    assert env.config["policy_frequency"] > 0
    assert env.render().dtype == np.uint8
    assert SceneRenderer(size=(320, 160)).draw(env.scene()).any()
    envs.reset()
    assert [scene.scenario for scene in envs.scenes([0, 1])] == [name] * 2
    assert envs.scenes([0])[0].meanings == ()
    assert envs.action_masks().all()
    state = envs.get_state()
    actions = np.array([envs.action_space.sample() for _ in range(2)])
    first = envs.step(actions)
    envs.set_state(state)
    np.testing.assert_equal(envs.step(actions)[:2], first[:2])
    for wrong in (np.full(env.action_space.shape, np.nan), np.zeros(3), "left", None):
        with pytest.raises(ValueError, match="finite numbers of shape"):
            env.step(wrong)
    with pytest.raises(ValueError, match="plans of shape"):
        env.branch(np.array([[0]]))


@pytest.mark.parametrize("name", ["carla-highway", "carla-intersection"])
def test_carla_environments_say_their_settings_without_a_server(name):
    env = sim.make(name, "carla-lite")
    assert env.config["simulation_frequency"] == 20
    assert env.config["policy_frequency"] == env.scenario_config.policy_frequency
    with pytest.raises(ValueError, match=r"reset options \['x'\]: not supported"):
        env.reset(options={"x": 1})
