"""Any gymnasium environment as a scenario: same dynamics, exact state, one clear line for what cannot be."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import sim
from lgdrl import training
from lgdrl.config import RunConfig, load_config
from lgdrl.runs import Run
from sim.env import DrivingVecEnv
from sim.errors import UsageError


def test_episodes_are_those_of_gymnasium():
    ours, theirs = sim.make("gym:CartPole-v1"), gym.make("CartPole-v1")
    actions = np.random.default_rng(0).integers(2, size=60)
    for seed in range(3):
        obs, _ = ours.reset(seed=seed)
        expected, _ = theirs.reset(seed=seed)
        total = 0.0
        for action in actions:
            assert np.array_equal(obs, expected)
            obs, reward, terminated, truncated, info = ours.step(int(action))
            expected, *rest = theirs.step(int(action))
            assert (reward, terminated, truncated) == tuple(rest[:3])
            total += reward
            if terminated or truncated:
                assert info["summary"] == {"episode_return": total, "steps": int(total), "backend": "gymnasium"}
                break
        else:
            pytest.fail("no episode ended")


def test_it_keeps_gymnasiums_own_contract():
    check_env(sim.make("gym:CartPole-v1"), skip_render_check=True)


def test_vectorised_environments_continue_from_their_state_to_the_bit():
    one, other = sim.make_vec("gym:CartPole-v1", 3, seed=0), sim.make_vec("gym:CartPole-v1", 3, seed=9)
    assert not isinstance(one, DrivingVecEnv)
    rng = np.random.default_rng(1)
    one.reset()
    for _ in range(30):
        one.step(rng.integers(2, size=3))
    other.reset()
    other.set_state(one.get_state())
    for _ in range(60):
        actions = rng.integers(2, size=3)
        for a, b in zip(one.step(actions)[:3], other.step(actions)[:3], strict=True):
            assert np.array_equal(a, b)


@pytest.mark.parametrize(("name", "exact"), [("gym:CartPole-v1", True), ("gym:Hopper-v5", False)])
def test_an_exact_state_is_promised_only_where_the_pickle_has_one(name, exact):
    env, other = sim.make(name), sim.make(name)
    assert env.exact_state is exact
    env.reset(seed=0)
    for _ in range(5):
        env.step(env.action_space.sample())
    other.reset(seed=1)
    other.set_state(env.get_state())
    if exact:
        action = env.action_space.sample()
        assert other.step(action)[0].tobytes() == env.step(action)[0].tobytes()
    assert other.reset()[0].tobytes() == env.reset()[0].tobytes()


def test_observations_that_are_no_box_are_flattened():
    env = sim.make("gym:FrozenLake-v1", config={"options": {"is_slippery": False}})
    obs, _ = env.reset(seed=0)
    assert obs.shape == env.observation_space.shape == (16,)
    assert obs.tolist() == [1.0] + [0.0] * 15


@pytest.mark.parametrize(
    ("name", "words"),
    [("gym:CartPol-v1", "did you mean 'CartPole-v1'"), ("gym:Blackjack-v9", "unknown gymnasium environment")],
)
def test_what_gymnasium_does_not_know_is_one_line(name, words):
    with pytest.raises(UsageError) as error:
        sim.get(name)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_driving_is_required_where_scenes_are():
    with pytest.raises(UsageError, match="has no traffic scenes"):
        sim.make_driving("gym:CartPole-v1")


QUICK = {
    "scenario": "gym:CartPole-v1",
    "strategy": "sac",
    "steps": 400,
    "num_envs": 4,
    "log_every": 200,
    "evaluate_every": 400,
    "evaluate_episodes": 3,
    "learner_options": {"hidden": [8, 8], "learning_starts": 100, "batch_size": 16},
}


def test_a_training_has_returns_and_no_measures_of_driving(tmp_path):
    trainer = training.start(load_config(None, QUICK), tmp_path / "run")
    assert trainer.train()
    trainer.close()
    row = trainer.metrics.rows[-1]
    assert row["eval/learner_return"] > 0
    assert not {"eval/success", "eval/crash", "rollout/executed_success"} & set(row)
    found = training.evaluate_run(Run(tmp_path / "run"), 5, 10_000).to_dict()
    assert found["return_mean"] > 0
    assert "success" not in found
    assert "mean_speed_m_s" not in found


def test_its_tuned_settings_lie_under_the_users(tmp_path):
    config = RunConfig(scenario="gym:CartPole-v1", strategy="sac", learner_options={"tau": 0.5}).resolved()
    assert config.learner_options["tau"] == 0.5
    assert config.learner_options["gamma"] == 0.995
    assert RunConfig(strategy="sac").resolved().learner_options["gamma"] == 0.99


def test_an_expert_that_needs_scenes_is_refused_before_there_is_a_folder(tmp_path):
    with pytest.raises(UsageError, match="needs driving scenes, which scenario 'gym:CartPole-v1' does not offer"):
        training.start(load_config(None, QUICK | {"strategy": "sac-bc", "expert": "rule"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_was_stopped_continues_identically(tmp_path):
    changes = {"checkpoint_every": 200, "evaluate_every": 0}
    straight = training.start(load_config(None, QUICK | changes), tmp_path / "straight")
    straight.train()
    broken = training.start(load_config(None, QUICK | changes), tmp_path / "broken")
    broken.train(lambda progress: setattr(broken, "stop_requested", True))
    broken.close()
    resumed = training.resume(tmp_path / "broken")
    assert resumed.loop.progress == 200
    resumed.train()
    for a, b in zip(straight.loop.model.policy.parameters(), resumed.loop.model.policy.parameters(), strict=True):
        assert np.array_equal(a.detach().numpy(), b.detach().numpy())
    straight.close()
    resumed.close()
