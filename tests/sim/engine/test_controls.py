"""Continuous actions on the engine: the same interfaces, the same refusals and the same branches as on highway-env."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env as check_gymnasium
from gymnasium.vector import SyncVectorEnv
from stable_baselines3.common.env_checker import check_env as check_sb3

import sim
from sim.engine.factory import make_batch
from sim.errors import UsageError
from tests.sim.engine.test_interfaces import assert_same

NAME = "racetrack-v1"
BAD: list[Any] = [[np.nan], [np.inf], 0.5, [0.1, 0.2], "left", None, [[0.1]]]


def test_single_environment_passes_both_checkers():
    env = sim.make(NAME)
    assert env.backend == "engine"
    assert env.action_space == spaces.Box(-1.0, 1.0, (1,), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_gymnasium(env, skip_render_check=True)
        check_sb3(env)


def test_vector_env_equals_gymnasiums_over_single_environments():
    batch = sim.make_vector(NAME, 4, autoreset="SameStep")
    single = SyncVectorEnv([lambda: sim.make(NAME)] * 4, autoreset_mode=batch.mode)
    assert batch.action_space == single.action_space
    assert_same(batch.reset(seed=3), single.reset(seed=3))
    rng, ends = np.random.default_rng(0), 0
    for _ in range(30):
        actions = rng.uniform(-1, 1, (4, 1)).astype(np.float32)
        ours = batch.step(actions)
        assert_same(ours, single.step(actions))
        ends += int((ours[2] | ours[3]).sum())
    assert ends > 3


def trajectory(seeds: list[int], threads: int = 1) -> np.ndarray:
    """Observations and rewards (steps, N, ...) under actions that depend on the seed alone."""
    scenario = sim.get(NAME)
    batch = make_batch(scenario, scenario.defaults, len(seeds), threads)
    batch.seed(range(len(seeds)), seeds)
    batch.reset()
    rows = []
    for step in range(20):
        batch.step(np.array([[np.sin(seed + 2.0 * step)] for seed in seeds]))
        rows.append(np.column_stack([batch.flat_obs.reshape(len(seeds), -1), batch.rewards, batch.outcomes]))
        batch.reset(np.flatnonzero(batch.terminated | batch.truncated))
    return np.stack(rows)


def test_batch_size_order_and_threads_change_no_trajectory():
    seeds = list(range(6))
    together = trajectory(seeds)
    np.testing.assert_array_equal(np.concatenate([trajectory([seed]) for seed in seeds], axis=1), together)
    np.testing.assert_array_equal(trajectory(seeds[::-1])[:, ::-1], together)
    np.testing.assert_array_equal(trajectory(seeds * 50, threads=2)[:, :6], together)


@pytest.mark.parametrize("action", BAD, ids=repr)
def test_what_is_no_action_is_refused_in_the_words_of_highway_env(action):
    words = []
    for backend in ("engine", "highway-env"):
        env = sim.make(NAME, backend)
        env.reset(seed=0)
        with pytest.raises(UsageError, match=r"expected finite numbers of shape \(1,\) in \[-1, 1\]") as error:
            env.step(action)
        words.append(str(error.value))
    assert words[0] == words[1]


def test_batches_of_actions_are_checked_before_any_environment_moves():
    for backend in ("engine", "highway-env"):
        envs = sim.make_vec(NAME, 2, seed=0, backend=backend)
        envs.reset()
        with pytest.raises(UsageError, match="3 actions: give one to each of 2 environments"):
            envs.step(np.zeros((3, 1), np.float32))
    envs = sim.make_vec(NAME, 2, seed=0)
    envs.reset()
    with pytest.raises(UsageError, match=r"action array\(\[nan\].*shape \(1,\)"):
        envs.step(np.array([[0.0], [np.nan]], np.float32))
    with pytest.raises(UsageError, match=r"plans of shape \(2, 3\): expected finite numbers of shape \(P, H, 1\)"):
        envs.branch(0, np.zeros((2, 3)))


@pytest.mark.parametrize("dynamical", [False, True])
def test_scenes_terms_and_branches_are_those_of_highway_env(dynamical):
    config = {"action": {"longitudinal": True, "dynamical": dynamical}, "other_vehicles": 3}
    ours, theirs = sim.make(NAME, "engine", config), sim.make(NAME, "highway-env", config)
    for env in (ours, theirs):
        env.reset(seed=5)
    rng = np.random.default_rng(0)
    for _ in range(4):
        a, b = ours.scene(), theirs.scene()
        assert (a.ego, a.lane_centers, a.set_points, a.goal, a.time) == (
            b.ego,
            b.lane_centers,
            b.set_points,
            b.goal,
            b.time,
        )
        np.testing.assert_allclose(a.vehicles.s, b.vehicles.s, atol=1e-9)
        plans = rng.uniform(-1, 1, (3, 2, 2)).astype(np.float32)
        plans[1, 0] = plans[0, 0]
        x, y = ours.branch(plans), theirs.branch(plans)
        for field in ("rewards", "steps", "crashed", "success", "ended", "final"):
            np.testing.assert_allclose(getattr(x, field), getattr(y, field), atol=1e-7)
        action = np.array([0.3, 0.05], np.float32)
        ours.step(action)
        expected = theirs.step(action)[4]["rewards"]
        np.testing.assert_allclose(list(ours.reward_terms().values()), list(expected.values()), rtol=1e-12)


def test_a_branch_is_what_the_same_steps_lead_to():
    env = sim.make(NAME)
    env.reset(seed=2)
    plan = np.linspace(-0.2, 0.2, 6, dtype=np.float32).reshape(1, 6, 1)
    rewards = env.branch(plan).rewards[0]
    copies = [copy.deepcopy(env), pickle.loads(pickle.dumps(env)), env]
    for other in copies:
        np.testing.assert_array_equal([other.step(action)[1] for action in plan[0]], rewards)


def test_views_are_for_meta_actions():
    envs = sim.make_vec(NAME, 1, seed=0)
    envs.reset()
    with pytest.raises(UsageError, match="has other actions than meta-actions"):
        envs.views([0])
