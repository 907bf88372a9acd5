"""Parking on the engine behind gymnasium's and SB3's interfaces: dicts of observations, continuous actions, goals."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as check_gymnasium
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.env_checker import check_env as check_sb3

import sim
from sim.engine.factory import make_batch
from sim.errors import UsageError
from tests.sim.engine.test_interfaces import assert_same

SHORT = {"duration": 3}
KEYS = ["achieved_goal", "desired_goal", "observation"]


def native(count: int, threads: int = 1) -> Any:
    scenario = sim.get("parking-parked-v0")
    batch = make_batch(scenario, scenario.defaults, count, threads)
    batch.seed(range(count), [7 + i % 6 for i in range(count)])
    batch.reset()
    return batch


def test_single_environment_passes_both_checkers():
    env = sim.make("parking-v0")
    assert env.backend == "engine"
    assert env.observation_space == sim.make("parking-v0", "highway-env").observation_space
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_gymnasium(env, skip_render_check=True)
        check_sb3(env)


@pytest.mark.parametrize("mode", [mode.value for mode in AutoresetMode])
def test_vector_env_equals_gymnasiums_over_single_environments(mode):
    batch = sim.make_vector("parking-v0", 3, autoreset=mode, config=SHORT)
    single = SyncVectorEnv([lambda: sim.make("parking-v0", config=SHORT)] * 3, autoreset_mode=AutoresetMode(mode))
    assert batch.observation_space == single.observation_space
    assert_same(batch.reset(seed=3), single.reset(seed=3))
    rng, ends = np.random.default_rng(0), 0
    for _ in range(40):
        actions = rng.uniform(-1, 1, (3, 2)).astype(np.float32)
        ours, theirs = batch.step(actions), single.step(actions)
        assert_same(ours, theirs)
        ended = ours[2] | ours[3]
        ends += int(ended.sum())
        if mode == "Disabled" and ended.any():
            mask = {"reset_mask": ended}
            assert_same(batch.reset(options=dict(mask)), single.reset(options=dict(mask)))
    assert ends > 3


def test_sb3_environments_hand_out_dicts_of_their_own():
    envs = sim.make_vec("parking-v0", 4, seed=0, config=SHORT)
    obs = envs.reset()
    kept, ends = copy.deepcopy(obs), 0
    for _ in range(20):
        after, _, dones, infos = envs.step(np.full((4, 2), 0.3, np.float32))
        assert_same(obs, kept)
        obs, kept = after, copy.deepcopy(after)
        for i in np.flatnonzero(dones):
            ends += 1
            assert sorted(infos[i]["terminal_observation"]) == KEYS
            assert not np.array_equal(infos[i]["terminal_observation"]["observation"], obs["observation"][i])
    assert ends == 4
    saved = pickle.loads(pickle.dumps(envs.get_state()))
    future = envs.step(np.zeros((4, 2), np.float32))[0]
    envs.set_state(saved)
    assert_same(envs.step(np.zeros((4, 2), np.float32))[0], future)


def test_rewards_of_other_goals_are_those_of_highway_env():
    ours, theirs = sim.make_vec("parking-v0", 2, seed=0), sim.make("parking-v0", "highway-env")
    rng = np.random.default_rng(1)
    achieved, desired = rng.normal(size=(50, 6)), rng.normal(size=(50, 6))
    rewards = ours.env_method("compute_reward", achieved, desired, [{}] * 50, indices=[0])[0]
    np.testing.assert_array_equal(rewards, theirs.compute_reward(achieved, desired, {}))
    env = sim.make("parking-v0")
    env.reset(seed=2)
    obs, reward, *_ = env.step(np.array([0.5, 0.2], np.float32))
    assert env.compute_reward(obs["achieved_goal"], obs["desired_goal"], {}) == reward
    assert not hasattr(sim.make("highway-fast-v0"), "compute_reward")


def test_batch_size_order_and_threads_change_no_trajectory():
    def trajectory(batch: Any) -> np.ndarray:
        rows = []
        for step in range(12):
            actions = np.array([[0.9, (seed % 6 - 2) / 4 + step / 50] for seed in range(batch.num_envs)], np.float32)
            batch.step(actions)
            rows.append(np.column_stack([batch.flat_obs[:, 0], batch.rewards])[:6])
        return np.stack(rows)

    few = trajectory(native(6))
    np.testing.assert_array_equal(few, trajectory(native(300, threads=2)))
    np.testing.assert_array_equal(few[:, :1], trajectory(native(1)))


def test_copies_and_branches_foretell_the_future():
    batch = native(3)
    batch.step(np.zeros((3, 2), np.float32))
    batch.clone(2, [0])
    copied = pickle.loads(pickle.dumps(copy.deepcopy(batch)))
    plan = np.random.default_rng(0).uniform(-1, 1, (6, 2)).astype(np.float32)
    branches = batch.branch(2, plan[None])
    for k, action in enumerate(plan):
        for each in (batch, copied):
            each.step(np.tile(action, (3, 1)))
        assert_same(batch.obs, copied.obs)
        assert batch.rewards[0] == batch.rewards[2] == branches.rewards[0, k]
    assert branches.final[0, 0] == batch.state.bodies["x"][2, 0]


def test_scenes_are_those_of_highway_env():
    ours, theirs = sim.make("parking-parked-v0"), sim.make("parking-parked-v0", "highway-env")
    for env in (ours, theirs):
        env.reset(seed=5)
    for _ in range(3):
        a, b = ours.scene(), theirs.scene()
        assert a.goal == b.goal
        for field in ("x", "y", "s", "d", "lane", "speed"):
            np.testing.assert_allclose(getattr(a.ego, field), getattr(b.ego, field), atol=1e-9)
        for column in ("ids", "x", "y", "heading", "speed", "s", "d", "lane", "length", "width", "crashed"):
            np.testing.assert_allclose(getattr(a.vehicles, column), getattr(b.vehicles, column), atol=1e-9)
        for env in (ours, theirs):
            env.step(np.array([1.0, 0.3], np.float32))
    assert ours.reward_terms() == {}


def test_meta_actions_and_many_agents_are_left_or_refused_in_one_line():
    meta = {"action": {"type": "DiscreteMetaAction"}}
    with pytest.raises(UsageError, match="does not cover meta-actions on a parking lot"):
        sim.make("parking-v0", "engine", meta)
    for kind in ("MultiAgentObservation", "TupleObservation"):
        with pytest.raises(UsageError, match=kind) as error:
            sim.make("highway-fast-v0", config={"observation": {"type": kind}})
        assert "\n" not in str(error.value)
