"""The engine behind gymnasium's and SB3's interfaces: checked by their checkers and against single environments."""

from __future__ import annotations

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

NAMES = ("lane-change", "highway-fast-v0", "two-way-v0", "merge-v1", "merge-generic-v0", "exit-v1")
MODES = [mode.value for mode in AutoresetMode]


@pytest.mark.parametrize("name", NAMES)
def test_single_environment_passes_both_checkers(name):
    env = sim.make(name)
    assert env.backend == "engine"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_gymnasium(env, skip_render_check=True)
        check_sb3(env)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["lane-change", "highway-fast-v0", "merge-v1"])
def test_vector_env_equals_gymnasiums_over_single_environments(name, mode):
    batch = sim.make_vector(name, 5, autoreset=mode)
    single = SyncVectorEnv([lambda: sim.make(name)] * 5, autoreset_mode=AutoresetMode(mode))
    assert batch.single_observation_space == single.single_observation_space
    assert batch.action_space == single.action_space
    assert_same(batch.reset(seed=3), single.reset(seed=3))
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(60):
        actions = rng.integers(batch.single_action_space.n, size=5)
        ours, theirs = batch.step(actions), single.step(actions)
        assert_same(ours, theirs)
        ended = ours[2] | ours[3]
        ends += int(ended.sum())
        if mode == "Disabled" and ended.any():
            mask = {"reset_mask": ended}
            assert_same(batch.reset(options=dict(mask)), single.reset(options=dict(mask)))
    assert ends > 5


def assert_same(ours: Any, theirs: Any) -> None:
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            assert_same(value, theirs[key])
    elif isinstance(ours, tuple):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert_same(a, b)
    elif getattr(ours, "dtype", np.dtype(float)).hasobject:
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
    else:
        np.testing.assert_array_equal(ours, theirs)


def test_environments_without_a_seed_are_drawn_at_random():
    env = sim.make_vector("highway-fast-v0", 3)
    obs, _ = env.reset(seed=[4, None, None])
    again, _ = sim.make_vector("highway-fast-v0", 3).reset(seed=[4, None, None])
    np.testing.assert_array_equal(obs[0], again[0])
    assert not np.array_equal(obs[1], again[1])
    batch = native("exit-v1", 2)
    batch.reset()
    assert not np.array_equal(batch.obs[0], batch.obs[1])


def test_vector_env_says_what_is_wrong():
    with pytest.raises(UsageError, match="SameStep"):
        sim.make_vector("highway-fast-v0", autoreset="same-step")
    env = sim.make_vector("highway-fast-v0", 2, autoreset="Disabled", config={"duration": 1})
    with pytest.raises(UsageError, match="3 seeds for 2 environments"):
        env.reset(seed=[1, 2, 3])
    env.reset(seed=0)
    env.step(np.ones(2, int))
    with pytest.raises(UsageError, match=r"environments \[0, 1\] have ended"):
        env.step(np.ones(2, int))


@pytest.mark.parametrize("name", NAMES)
def test_batch_size_order_and_threads_change_no_trajectory(name):
    """Environment k of any batch is the environment that its seed gives, whatever its neighbours are."""
    seeds = list(range(6))
    alone = [trajectory(name, [seed])[:, 0] for seed in seeds]
    together = trajectory(name, seeds)
    mixed = trajectory(name, seeds[::-1])[:, ::-1]
    crowd = trajectory(name, seeds * 15, threads=2)[:, :6]
    for other in (together, mixed, crowd):
        np.testing.assert_array_equal(np.stack(alone, axis=1), other)


def trajectory(name: str, seeds: list[int], threads: int = 1) -> np.ndarray:
    """Observations and rewards (steps, N, ...) under actions that depend on the seed alone."""
    batch = native(name, len(seeds), threads)
    batch.seed(range(len(seeds)), seeds)
    batch.reset()
    rows = []
    for step in range(25):
        actions = np.array([(7 * seed + 3 * step) % 5 if seed % 2 else 1 for seed in seeds])
        batch.step(actions)
        rows.append(np.column_stack([batch.obs.reshape(len(seeds), -1), batch.rewards, batch.outcomes]))
        batch.reset(np.flatnonzero(batch.terminated | batch.truncated))
    return np.stack(rows)


def native(name: str, count: int, threads: int = 1) -> Any:
    scenario = sim.get(name)
    return make_batch(scenario, scenario.defaults, count, threads)


@pytest.mark.parametrize("name", NAMES)
def test_clones_and_restored_environments_have_the_same_future(name):
    batch = native(name, 8)
    batch.seed(range(8), list(range(8)))
    batch.reset()
    batch.step(np.full(8, 1))
    batch.clone(2, [0, 1, 3])
    saved = batch.get_state()
    rng = np.random.default_rng(1)
    plan = rng.integers(0, 5, 6)
    branches = batch.branch(2, plan[None])
    futures = []
    for _ in range(2):
        batch.set_state(saved)
        future = []
        for action in plan:
            batch.step(np.full(8, action))
            future.append(np.column_stack([batch.obs.reshape(8, -1), batch.rewards]))
        futures.append(np.stack(future))
        for row in (0, 1, 3):
            np.testing.assert_array_equal(futures[-1][:, row], futures[-1][:, 2])
    np.testing.assert_array_equal(*futures)
    steps = int(branches.steps[0])
    np.testing.assert_array_equal(branches.rewards[0, :steps], futures[0][:steps, 2, -1])


@pytest.mark.parametrize("name", NAMES)
def test_sb3_environments_report_the_end_of_an_episode_once(name):
    envs = sim.make_vec(name, 8, seed=0)
    obs = envs.reset()
    kept = obs.copy()
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(60):
        after, _, dones, infos = envs.step(rng.integers(0, 5, 8))
        np.testing.assert_array_equal(obs, kept)  # what was handed out is never written to again
        obs, kept = after, after.copy()
        for done, info in zip(dones, infos, strict=True):
            assert ("terminal_observation" in info) == ("episode" in info) == ("summary" in info) == bool(done)
            if done:
                ends += 1
                assert info["episode"]["l"] == info["summary"]["steps"]
                assert not (info["TimeLimit.truncated"] and info["crashed"])
    assert ends > 3


def test_time_limits_are_truncations():
    envs = sim.make_vec("highway-fast-v0", 1, seed=0, config={"duration": 2, "vehicles_count": 0})
    envs.reset()
    envs.step([1])
    _, _, dones, infos = envs.step([1])
    assert dones[0]
    assert infos[0]["TimeLimit.truncated"]
    assert infos[0]["outcome"] == "success"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"observation": {"type": "OccupancyGrid"}}, "observation type OccupancyGrid"),
        ({"other_vehicles_type": "highway_env.vehicle.behavior.AggressiveVehicle"}, "AggressiveVehicle"),
        ({"observation": {"order": "shuffled"}}, "order shuffled"),
        ({"observation": {"features": ["x", "y", "lat_off"]}}, "feature lat_off"),
    ],
)
def test_what_the_engine_lacks_falls_to_highway_env_unless_asked_for(config, reason):
    with pytest.raises(UsageError, match=f"'engine' does not cover .*{reason}.*choose backend 'highway-env'"):
        sim.make("highway-fast-v0", "engine", config)
    env = sim.make("highway-fast-v0", config=config)
    assert env.backend == "highway-env"


@pytest.mark.parametrize("name", NAMES[1:])
def test_scenes_and_branches_are_those_of_highway_env(name):
    ours, theirs = sim.make(name), sim.make(name, "highway-env")
    for env in (ours, theirs):
        env.reset(seed=5)
    for _ in range(3):
        a, b = ours.scene(), theirs.scene()
        assert (a.ego, a.lane_centers, a.set_points, a.goal, a.time) == (
            b.ego,
            b.lane_centers,
            b.set_points,
            b.goal,
            b.time,
        )
        for column in ("ids", "x", "y", "heading", "speed", "acceleration", "s", "d", "lane", "length", "crashed"):
            np.testing.assert_allclose(getattr(a.vehicles, column), getattr(b.vehicles, column), atol=1e-9)
        np.testing.assert_array_equal(a.legal, b.legal)
        assert len(a.shapes) == len(b.shapes)
        plans = np.array([[0, 1], [2, 4], [1, 1]])
        x, y = ours.branch(plans), theirs.branch(plans)
        for field in ("rewards", "steps", "crashed", "success", "ended", "final"):
            np.testing.assert_allclose(getattr(x, field), getattr(y, field), atol=1e-9)
        if ours.step(1)[2] | theirs.step(1)[2]:
            break
