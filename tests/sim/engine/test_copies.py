"""Copies of engine environments have the same future and a life of their own, rendered or not."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import sim
from sim.engine.observe import OBSERVERS

NAMES = (
    "lane-change",
    "highway-fast-v0",
    "two-way-v0",
    "merge-v1",
    "merge-generic-v0",
    "exit-v1",
    "roundabout-generic-v1",
    "u-turn-v0",
)
COPIERS = {"deepcopy": copy.deepcopy, "pickle": lambda env: pickle.loads(pickle.dumps(env))}
ACTIONS = (3, 1, 0, 4, 2, 1)


def future(env):
    rows = []
    for action in ACTIONS:
        obs, reward, terminated, truncated, info = env.step(action)
        rows.append((obs.tolist(), reward, terminated, truncated, info["speed"]))
        if terminated or truncated:
            break
    return rows


@pytest.mark.parametrize("backend", ["engine", "highway-env"])
@pytest.mark.parametrize("render_mode", [None, "rgb_array"])
@pytest.mark.parametrize("how", COPIERS)
def test_a_copy_has_the_same_future_and_leaves_the_original_alone(backend, render_mode, how):
    env = sim.make("highway-fast-v0", backend, {"vehicles_count": 4}, render_mode)
    env.reset(seed=3)
    env.step(1)
    env.render()
    before = env.scene()
    copied = COPIERS[how](env)
    foretold = future(copied)
    assert env.scene() == before
    assert future(env) == foretold
    if render_mode:
        assert copied.render().shape == env.render().shape


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", COPIERS)
def test_engine_environments_of_every_family_can_be_copied(name, how):
    env = sim.make(name, "engine", render_mode="rgb_array")
    env.reset(seed=1)
    env.render()
    copied = COPIERS[how](env)
    plans = np.array([[1, 3], [0, 4]])
    assert copied.branch(plans) == env.branch(plans)
    assert copied.scene() == env.scene()
    assert future(copied) == future(env)
    np.testing.assert_array_equal(copied.reset()[0], env.reset()[0])  # the random stream was copied too


@pytest.mark.parametrize("name", OBSERVERS)
def test_observers_are_pickled_by_name(name):
    assert pickle.loads(pickle.dumps(OBSERVERS[name])) is OBSERVERS[name]


@pytest.mark.parametrize("how", COPIERS)
def test_whole_batches_can_be_copied(how):
    envs = sim.make_vec("merge-v1", 3, seed=0)
    envs.reset()
    copied = COPIERS[how](envs)
    for _ in range(12):
        ours, theirs = envs.step(np.array([3, 1, 4])), copied.step(np.array([3, 1, 4]))
        for a, b in zip(ours[:3], theirs[:3], strict=True):
            np.testing.assert_array_equal(a, b)
    assert copied.env_method("scene") == envs.scenes([0, 1, 2])


def test_a_tree_search_over_copies_matches_the_branches_of_the_original():
    """A planner that knows nothing of this platform copies the environment for each node, video or not."""
    env = sim.make("highway-fast-v0", render_mode="rgb_array")
    env.reset(seed=2)
    env.render()
    plans = np.array([[a, b] for a in range(5) for b in range(5)])
    expected = env.branch(plans).rewards.sum(axis=1)
    returns = []
    for plan in plans:
        node, total, ended = copy.deepcopy(env), 0.0, False
        for action in plan:
            if not ended:
                _, reward, terminated, truncated, _ = node.step(int(action))
                total, ended = total + reward, terminated or truncated
        returns.append(total)
    np.testing.assert_array_equal(returns, expected)


def test_a_pickled_environment_opens_in_a_fresh_process(tmp_path):
    from tests.sim.highway.highway_envs import in_fresh_process

    env = sim.make("exit-v1", "engine", render_mode="rgb_array")
    env.reset(seed=5)
    (tmp_path / "env").write_bytes(pickle.dumps(env))
    code = "import pickle, sys; env = pickle.load(open(sys.argv[1], 'rb')); print(repr(env.step(3)[1]))"
    assert float(in_fresh_process(code, str(tmp_path / "env"))) == env.step(3)[1]
