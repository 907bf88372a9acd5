"""`DrivingEnvs`: Stable-Baselines3's VecEnv contract, in this process and over workers."""

from __future__ import annotations

import os
import pickle
import signal

import gymnasium as gym
import numpy as np
import pytest

import sim
from sim.errors import UsageError
from tests.sim.highway.highway_envs import action_sequence, make_small, same

CONFIG = {"vehicles_count": 3, "duration": 3}


def make(num_envs: int = 3, workers: int = 0, seed: int | None = 10, name: str = "highway-fast-v0", **config):
    return sim.make_vec(name, num_envs, seed=seed, backend="highway-env", config=CONFIG | config, workers=workers)


def without_clock(infos: list[dict]) -> list[dict]:
    for info in infos:
        info.get("episode", {}).pop("t", None)
    return infos


@pytest.fixture(scope="module")
def spread():
    """Three environments over two processes."""
    envs = make(workers=2)
    yield envs
    envs.close()


def test_environment_i_starts_from_seed_plus_i_and_is_not_reseeded() -> None:
    envs, alone = make(2), [make_small("highway-fast-v0", config=CONFIG) for _ in range(2)]
    obs = envs.reset()
    for i, env in enumerate(alone):
        assert same(obs[i], env.reset(seed=10 + i)[0])
    for _ in range(7):  # past two episode ends
        obs, rewards, dones, infos = envs.step(np.array([4, 1]))
        assert obs.dtype == np.float32
        assert rewards.dtype == np.float32
        assert dones.dtype == bool
        for i, env in enumerate(alone):
            expected, reward, terminated, truncated, _ = env.step((4, 1)[i])
            assert rewards[i] == np.float32(reward)
            assert dones[i] == (terminated or truncated)
            if dones[i]:
                assert same(infos[i]["terminal_observation"], expected)
                expected = env.reset()[0]
            assert same(obs[i], expected)


def test_finished_episodes_are_reported_as_sb3_and_this_platform_expect() -> None:
    envs = make(1, vehicles_count=0)
    envs.reset()
    rewards = []
    for _ in range(3):
        _, reward, dones, infos = envs.step(np.array([1]))
        rewards.append(reward[0])
    info = infos[0]
    assert dones.tolist() == [True]
    assert info["TimeLimit.truncated"] is True
    assert info["episode"]["l"] == 3
    assert info["episode"]["r"] == pytest.approx(sum(rewards), rel=1e-6)
    assert info["episode"]["t"] > 0
    assert info["summary"]["outcome"] == "success"
    assert info["terminal_action_mask"].shape == (5,)
    _, _, dones, infos = envs.step(np.array([1]))
    assert not dones.any()
    assert "episode" not in infos[0]


def test_a_crash_is_no_time_limit() -> None:
    envs = sim.make_vec("highway-fast-v0", 1, seed=0, backend="highway-env")
    envs.reset()
    done = False
    while not done:
        _, _, (done,), (info,) = envs.step(np.array([3]))
    assert info["crashed"]
    assert info["TimeLimit.truncated"] is False


def test_results_do_not_change_afterwards() -> None:
    envs = make(2)
    obs = envs.reset()
    kept = obs.copy()
    masks = envs.action_masks()
    masks[:] = False
    after = envs.step(np.array([4, 4]))[0]
    assert np.array_equal(obs, kept)
    assert not np.array_equal(after, kept)
    assert envs.action_masks().any()


def test_workers_compute_what_one_process_computes(spread) -> None:
    here = make()
    assert same(here.reset_to([5, 6, 7]), spread.reset_to([5, 6, 7]))
    assert np.array_equal(here.action_masks(), spread.action_masks())
    for actions in np.random.default_rng(0).integers(5, size=(5, 3)):
        ours, theirs = here.step(actions), spread.step(actions)
        assert same(ours[:3], theirs[:3])
        assert same(without_clock(ours[3]), without_clock(theirs[3]))
        assert np.array_equal(here.action_masks(), spread.action_masks())
    plans = np.array([[1, 1], [4, 4]])
    assert same(here.branch(2, plans).rewards, spread.branch(2, plans).rewards)
    order = [2, 0]
    assert [scene.ego for scene in here.scenes(order)] == [scene.ego for scene in spread.scenes(order)]


def test_state_moves_between_one_process_and_workers(spread) -> None:
    here = make()
    here.reset()
    here.step(np.array([1, 3, 4]))
    state = pickle.loads(pickle.dumps(here.get_state()))
    spread.set_state(state)
    assert np.array_equal(here.action_masks(), spread.action_masks())
    for _ in range(4):  # over an episode's end, so that random streams and returns count too
        ours, theirs = here.step(np.array([1, 1, 4])), spread.step(np.array([1, 1, 4]))
        assert same(ours[:3], theirs[:3])
        assert same(without_clock(ours[3]), without_clock(theirs[3]))
    with pytest.raises(UsageError, match="3 environments"):
        make(2).set_state(state)


def test_sb3_helpers_reach_the_environments(spread) -> None:
    for envs in (make(), spread):
        envs.reset()
        assert envs.get_attr("scenario") == ["highway-fast-v0"] * 3
        assert envs.get_attr("scenario", indices=1) == ["highway-fast-v0"]
        envs.set_attr("marker", 4, indices=[0, 2])
        assert envs.get_attr("marker", indices=[2, 0]) == [4, 4]
        assert not envs.has_attr("marker")
        masks = envs.env_method("action_masks", indices=[1])
        assert np.array_equal(masks[0], envs.action_masks()[1])
        assert envs.env_is_wrapped(type(None)) == [False] * 3
        assert (envs.scenario, envs.backend) == ("highway-fast-v0", "highway-env")
        assert envs.scenario_config.duration == 3.0


def test_errors_in_workers_reach_the_caller_and_leave_the_pipes_usable(spread) -> None:
    spread.reset()
    with pytest.raises(UsageError, match="integers 0 to 4"):
        spread.step(np.array([1, 9, 1]))
    assert spread.reset().shape == (3, 5, 5)
    with pytest.raises(UsageError, match="environments 0 to 2"):
        spread.branch(7, np.array([[1]]))
    with pytest.raises(UsageError, match="environments 0 to 2"):
        spread.scenes([7])


def test_environments_survive_ctrl_c_and_an_unread_answer(spread) -> None:
    spread.reset_to([1, 2, 3])
    state = spread.get_state()
    for share in spread._shares:
        os.kill(share._process.pid, signal.SIGINT)
        share.send("masks")  # as if Ctrl-C had come before the response was read
    assert same(state, spread.get_state())


@pytest.mark.slow
def test_dead_worker_is_named() -> None:
    envs = make(1, workers=1)
    envs.reset()
    os.kill(envs._shares[0]._process.pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="simulator process died"):
        envs.step(np.array([1]))
    envs.close()


def test_dictionary_observations_are_stacked_by_key() -> None:
    envs = sim.make_vec("parking-v0", 2, seed=0, backend="highway-env")
    obs = envs.reset()
    assert {key: value.shape for key, value in obs.items()} == dict.fromkeys(envs.observation_space.spaces, (2, 6))
    obs, _, _, _ = envs.step(np.array(action_sequence(envs.action_space, 2)))
    assert obs["observation"].shape == (2, 6)


def test_sb3_algorithms_run_on_it() -> None:
    from stable_baselines3 import PPO

    envs = make(2)
    model = PPO("MlpPolicy", envs, n_steps=4, batch_size=8, n_epochs=1, device="cpu", seed=0)
    model.learn(16)
    assert model.num_timesteps == 16
    assert len(model.ep_info_buffer) > 0


def test_asking_before_the_first_reset_and_closing_twice() -> None:
    envs = make(1)
    with pytest.raises(gym.error.ResetNeeded):
        envs.action_masks()
    envs.close()
    envs.close()
    with pytest.raises(UsageError, match="workers = -1"):
        make(1, workers=-1)
