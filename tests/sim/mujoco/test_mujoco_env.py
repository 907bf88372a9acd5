"""MuJoCo scenarios: gymnasium's dynamics to the bit, measures of episodes, and one line for what cannot be."""

from __future__ import annotations

import json

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import sim
from lgdrl.cli import main
from sim.env import DrivingVecEnv
from sim.errors import UsageError
from tests.sim.mujoco.futures import NAMES


def test_the_nine_environments_have_gymnasiums_time_limits():
    assert len(NAMES) == 9
    for name in NAMES:
        scenario = sim.get(name)
        assert scenario.defaults.max_episode_steps == gym.spec(scenario.env_id).max_episode_steps
        assert (scenario.actions, scenario.driving, list(scenario.backends)) == ("continuous", False, ["mujoco"])


@pytest.mark.parametrize("name", NAMES)
def test_episodes_are_those_of_gymnasium(name):
    limit = 25
    ours = sim.make(name, config={"max_episode_steps": limit})
    theirs = gym.make(name.removeprefix("mujoco:"), max_episode_steps=limit)
    assert (ours.observation_space, ours.action_space) == (theirs.observation_space, theirs.action_space)
    theirs.action_space.seed(0)
    ended = False
    for seed in (3, None):  # the second episode's start is drawn from the stream of the first
        obs, info = ours.reset(seed=seed)
        expected, expected_info = theirs.reset(seed=seed)
        done = False
        while not done:
            assert obs.tobytes() == expected.tobytes()
            assert repr(info) == repr(expected_info)
            action = theirs.action_space.sample()
            obs, *rest, info = ours.step(action)
            expected, *expected_rest, expected_info = theirs.step(action)
            assert rest == expected_rest
            done = rest[1] or rest[2]
            summary = {key: info.pop(key) for key in ("summary", "outcome") if key in info}
            assert bool(summary) == done
            ended |= done
    assert ended


@pytest.mark.parametrize("name", NAMES)
def test_summaries_hold_what_the_environment_measures(name):
    env = sim.make(name, config={"max_episode_steps": 100})
    env.action_space.seed(0)
    _, info = env.reset(seed=0)
    start, total, steps = info.get("x_position"), 0.0, 0
    done = False
    while not done:
        _, reward, terminated, truncated, info = env.step(env.action_space.sample())
        total, steps, done = total + reward, steps + 1, terminated or truncated
    summary = info["summary"]
    assert (summary["episode_return"], summary["steps"], summary["backend"]) == (total, steps, "mujoco")
    assert summary["outcome"] == info["outcome"] == ("fell" if terminated else "time limit")
    assert ("distance" in summary) == (start is not None)
    if start is not None:
        assert summary["distance"] == pytest.approx(info["x_position"] - start, abs=1e-12)
    never = ("Reacher", "Swimmer", "HalfCheetah")
    assert summary.get("fell") == (None if any(body in name for body in never) else terminated)


def test_a_body_that_cannot_fall_reports_no_falls():
    env = sim.make("mujoco:Hopper-v5", config={"max_episode_steps": 5, "options": {"terminate_when_unhealthy": False}})
    env.reset(seed=0)
    for _ in range(5):
        *_, info = env.step(np.zeros(3, np.float32))
    assert "fell" not in info["summary"]


def test_options_reach_gymnasiums_environment():
    action = np.full(6, 0.5, np.float32)
    plain, dear = (
        sim.make("mujoco:HalfCheetah-v5", config={"options": options}) for options in ({}, {"ctrl_cost_weight": 1.0})
    )
    (plain.reset(seed=0), dear.reset(seed=0))
    difference = plain.step(action)[1] - dear.step(action)[1]
    assert difference == pytest.approx(0.9 * 6 * 0.25)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"options": {"healthy_rewad": 2}}, "did you mean 'healthy_reward'"),
        ({"options": {"render_mode": "human"}}, "unknown key in mujoco:Hopper-v5.options 'render_mode'"),
        ({"options": {"healthy_z_range": 3}}, "cannot be used"),
        ({"options": {"xml_file": "/nowhere.xml"}}, "does not exist"),
        ({"max_episode_steps": 0}, "max_episode_steps = 0"),
        ({"width": 5}, "width = 5"),
        ({"widht": 100}, "did you mean 'width'"),
    ],
)
def test_wrong_settings_are_one_line(config, words):
    with pytest.raises(UsageError) as error:
        sim.make("mujoco:Hopper-v5", config=config)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_name_suggests_the_closest_and_lists_its_own_kind():
    with pytest.raises(UsageError, match="did you mean 'mujoco:Hopper-v5'") as error:
        sim.get("mujoco:Hoper-v5")
    assert "highway" not in str(error.value)


def test_what_it_refuses():
    env = sim.make("mujoco:InvertedPendulum-v5", config={"max_episode_steps": 1})
    for early in (lambda: env.step(np.zeros(1)), lambda: env.branch(np.zeros((1, 1, 1)))):
        with pytest.raises(gym.error.ResetNeeded):
            early()
    with pytest.raises(UsageError, match="reset options"):
        env.reset(options={"x": 1})
    env.reset(seed=0)
    for bad in (np.zeros(2), [np.nan], "left", None, np.zeros((1, 1))):
        with pytest.raises(UsageError, match="expected finite numbers of shape"):
            env.step(bad)
    env.step(np.zeros(1))
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros(1))
    with pytest.raises(UsageError, match="no traffic scenes"):
        sim.make_driving("mujoco:Hopper-v5")


@pytest.mark.parametrize("name", ["mujoco:Reacher-v5", "mujoco:Ant-v5"])
def test_it_keeps_gymnasiums_own_contract(name):
    check_env(sim.make(name), skip_render_check=True)


def test_its_spec_makes_it_again():
    env = sim.make("mujoco:Hopper-v5", config={"max_episode_steps": 7})
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json())).unwrapped
    assert again.scenario_config == env.scenario_config
    assert again.reset(seed=1)[0].tobytes() == env.reset(seed=1)[0].tobytes()


def test_no_log_file_is_left_in_the_working_directory(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    sim.make("mujoco:HalfCheetah-v5").reset(seed=0)
    assert not list(tmp_path.iterdir())
    assert not "".join(capfd.readouterr())


def test_worker_processes_compute_the_same():
    name = "mujoco:Walker2d-v5"
    here, there = (sim.make_vec(name, 3, seed=5, config={"max_episode_steps": 12}, workers=k) for k in (0, 2))
    assert not isinstance(here, DrivingVecEnv)
    try:
        assert here.reset().tobytes() == there.reset().tobytes()
        rng = np.random.default_rng(0)
        for _ in range(20):
            actions = rng.uniform(-1, 1, (3, 6)).astype(np.float32)
            for a, b in zip(here.step(actions)[:3], there.step(actions)[:3], strict=True):
                assert a.tobytes() == b.tobytes()
        plans = rng.uniform(-1, 1, (2, 4, 6))
        assert here.branch(2, plans) == there.branch(2, plans)
        with pytest.raises(UsageError, match="there are environments 0 to 2"):
            here.branch(3, plans)
        there.set_state(here.get_state())
        assert here.step(actions)[0].tobytes() == there.step(actions)[0].tobytes()
    finally:
        there.close()


def test_gymnasiums_vector_environments_have_it():
    envs = sim.make_vector("mujoco:Reacher-v5", 2)
    obs, _ = envs.reset(seed=0)
    assert obs.shape == (2, 10)
    assert obs.dtype == np.float64


def test_evaluations_show_distance_and_falls(tmp_path, capsys):
    arguments = ["evaluate", "--scenario", "mujoco:Hopper-v5", "--expert", "random", "--episodes", "4"]
    path = tmp_path / "found.json"
    assert main([*arguments, "--json", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "fell" in shown
    assert "distance" in shown
    assert "success" not in shown
    found = json.loads(path.read_text())
    assert found["backend"] == "mujoco"
    assert found["fell"]["count"] == found["fell"]["total"] == 4  # random actions keep no hopper upright
    assert abs(found["distance_mean_m"]) < 2
