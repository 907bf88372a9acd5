"""Crossings on the engine: cars come and go, and scenes, branches and copies are still those of highway-env."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import sim
from sim.config import resolve
from sim.engine.factory import make_batch

BUSY: dict[str, Any] = {"spawn_probability": 1.0, "initial_vehicle_count": 12}
COLUMNS = ("ids", "x", "y", "heading", "speed", "acceleration", "s", "d", "lane", "length", "crashed")


def batch_of(name: str, count: int, config: dict[str, Any] | None = None, threads: int = 1) -> Any:
    scenario = sim.get(name)
    batch = make_batch(scenario, resolve(scenario.defaults, config or {}), count, threads)
    batch.seed(range(count), list(range(count)))
    batch.reset()
    return batch


@pytest.mark.parametrize(
    ("name", "config", "action"),
    [("intersection-v2", BUSY, 0), ("intersection-v0", {"destination": None}, 1), ("intersection-v1", BUSY, [0.2, 0])],
)
def test_scenes_terms_and_branches_are_those_of_highway_env(name, config, action):
    ours, theirs = sim.make(name, "engine", config), sim.make(name, "highway-env", config)
    for env in (ours, theirs):
        env.reset(seed=5)
    for step in range(9):
        a, b = ours.scene(), theirs.scene()
        assert (a.ego.lane, a.ego.target_lane, a.set_points, a.time) == (
            b.ego.lane,
            b.ego.target_lane,
            b.set_points,
            b.time,
        )
        np.testing.assert_allclose([a.ego.s, a.ego.d, a.ego.speed], [b.ego.s, b.ego.d, b.ego.speed], atol=1e-9)
        assert (a.goal is None) == (b.goal is None)
        if a.goal and b.goal:
            np.testing.assert_allclose([a.goal.s, a.goal.remaining], [b.goal.s, b.goal.remaining], atol=1e-9)
        for column in COLUMNS:
            np.testing.assert_allclose(getattr(a.vehicles, column), getattr(b.vehicles, column), atol=1e-9)
        if step in (0, 3) and name != "intersection-v1":
            x, y = (env.branch(np.array([[0, 1], [2, 2]])) for env in (ours, theirs))
            for field in ("rewards", "steps", "crashed", "success", "ended", "final"):
                np.testing.assert_allclose(getattr(x, field), getattr(y, field), atol=1e-9)
        ended = ours.step(action)[2]
        info = theirs.step(action)[4]
        np.testing.assert_allclose(list(ours.reward_terms().values()), list(info["rewards"].values()), atol=1e-9)
        if ended:
            break
    assert step > 2


def test_an_id_names_one_car_for_a_whole_episode_although_rows_move():
    """A car moves by its speed, and what pushes it; rows shift as cars before it in the list leave."""
    env = sim.make("intersection-v2", config=BUSY | {"collision_reward": 0.0, "duration": 40})
    moved = 0
    for seed in range(6):
        env.reset(seed=seed)
        before, ended = env.scene().vehicles, False
        newest = before.ids.max()
        while not ended:
            _, _, terminated, truncated, _ = env.step(0)
            ended, after = terminated or truncated, env.scene().vehicles
            rows = {vehicle: row for row, vehicle in enumerate(before.ids.tolist())}
            for row, vehicle in enumerate(after.ids.tolist()):
                if vehicle not in rows:
                    assert vehicle > newest
                    newest = vehicle
                    continue
                old = rows[vehicle]
                moved += old != row
                gone = np.hypot(after.x[row] - before.x[old], after.y[row] - before.y[old])
                pushed = 4.0 if after.crashed[row] else 0.0  # out of the way of what it touched
                assert gone <= max(abs(before.speed[old]), abs(after.speed[row])) + 4.0 + pushed
            assert len(set(after.ids.tolist())) == len(after.ids)
            before = after
    assert moved > 20


def trajectory(name: str, seeds: list[int], threads: int = 1) -> np.ndarray:
    """Observations and rewards (steps, N, ...) under actions that depend on the seed alone."""
    batch = batch_of(name, len(seeds), threads=threads)
    batch.seed(range(len(seeds)), seeds)
    batch.reset()
    rows = []
    for step in range(20):
        if name == "intersection-v1":
            actions: Any = np.array([[np.sin(seed + step), 0.1 * np.cos(seed - step)] for seed in seeds])
        else:
            actions = np.array([(7 * seed + 3 * step) % 3 for seed in seeds])
        batch.step(actions)
        rows.append(np.column_stack([batch.flat_obs.reshape(len(seeds), -1), batch.rewards, batch.outcomes]))
        batch.reset(np.flatnonzero(batch.terminated | batch.truncated))
    return np.stack(rows)


@pytest.mark.parametrize("name", ["intersection-v1", "intersection-v2"])
def test_batch_size_order_and_threads_change_no_trajectory(name):
    seeds = list(range(6))
    together = trajectory(name, seeds)
    np.testing.assert_array_equal(np.concatenate([trajectory(name, [seed]) for seed in seeds], axis=1), together)
    np.testing.assert_array_equal(trajectory(name, seeds[::-1])[:, ::-1], together)
    np.testing.assert_array_equal(trajectory(name, seeds * 50, threads=2)[:, :6], together)


@pytest.mark.parametrize(
    "config", [{}, BUSY | {"observation": {"order": "shuffled"}}], ids=["defaults", "observations that draw"]
)
def test_copies_and_branches_have_the_future_of_the_original(config):
    env = sim.make("intersection-v0", "engine", config)
    env.reset(seed=3)
    env.step(0)
    plan = np.array([0, 2, 0, 1, 2, 0])
    branches = env.branch(plan[None])
    steps = int(branches.steps[0])
    assert steps > 2
    for other in (copy.deepcopy(env), pickle.loads(pickle.dumps(env)), env):
        rewards = [other.step(int(action))[1] for action in plan[:steps]]
        np.testing.assert_array_equal(rewards, branches.rewards[0, :steps])


def test_clones_have_the_same_traffic_to_come():
    batch = batch_of("intersection-v2", 4, BUSY)
    batch.clone(2, [0, 3])
    for action in (0, 1, 2, 0, 1):
        batch.step(np.full(4, action))
        for row in (0, 3):
            np.testing.assert_array_equal(batch.obs[row], batch.obs[2])
    assert not np.array_equal(batch.obs[1], batch.obs[2])


def test_cars_yield_and_go_on():
    batch = batch_of("intersection-v0", 32, BUSY)
    yielded = went_on = 0
    for _ in range(8):
        cars = batch.state.bodies["id"].astype(int)
        was = batch.state.bodies["yielding"] > 0
        batch.step(np.zeros(32, int))
        now, ids = batch.state.bodies["yielding"] > 0, batch.state.bodies["id"].astype(int)
        count = batch.state.envs["vehicles"]
        for i in range(32):
            stopped = {int(k) for k in ids[i, : count[i]][now[i, : count[i]]]}
            yielded += len(stopped)
            went_on += len(set(cars[i][was[i]].tolist()) & set(ids[i, : count[i]].tolist()) - stopped)
            assert (batch.state.bodies["target_speed"][i, : count[i]][now[i, : count[i]]] == 0).all()
    assert not batch.state.bodies["yielding"][:, 0].any()
    assert yielded > 50
    assert went_on > 20


def test_a_crossing_without_room_takes_no_more_cars():
    batch = batch_of("intersection-v0", 8, BUSY)
    full = int(batch.state.envs["vehicles"].max())
    batch.own["most"] = full
    for _ in range(12):
        batch.step(np.zeros(8, int))
        assert (batch.state.envs["vehicles"] <= full).all()
