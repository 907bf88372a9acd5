"""A state of a MuJoCo environment holds everything that decides the future, as arrays and plain values."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

import sim
from lgdrl.checkpoints import write_checkpoint
from sim.by_value import same_values
from sim.errors import UsageError
from sim.mujoco import physics
from tests.sim.mujoco.futures import NAMES, future

LIMIT = 30
"""Decisions: bodies that never fall end their episodes too."""


def at_a_random_moment(name, seed):
    """An environment somewhere in its first, second or third episode."""
    env = sim.make(name, config={"max_episode_steps": LIMIT})
    env.reset(seed=seed)
    future(env, int(np.random.default_rng(seed).integers(1, 2 * LIMIT)), seed)
    return env


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", NAMES)
def test_it_continues_to_the_bit_over_ends_of_episodes(name, seed):
    one = at_a_random_moment(name, seed)
    other = sim.make(name, config={"max_episode_steps": LIMIT})  # never reset
    state = one.get_state()
    expected = future(one, 2 * LIMIT, seed=9)
    other.set_state(state)
    assert future(other, 2 * LIMIT, seed=9) == expected
    one.set_state(state)  # and back in time, in the same environment
    assert future(one, 2 * LIMIT, seed=9) == expected


CONTINUE = """
import hashlib, json, pathlib, sys
import sim
from lgdrl.checkpoints import read_checkpoint
from tests.sim.mujoco.futures import future

found = {}
for name, state in read_checkpoint(pathlib.Path(sys.argv[1]))["states"].items():
    env = sim.make(name, config={"max_episode_steps": int(sys.argv[2])})
    env.set_state(state)
    found[name] = hashlib.sha256(repr(future(env, 50)).encode()).hexdigest()
print(json.dumps(found))
"""


def test_it_continues_in_another_process_from_a_checkpoint_without_pickles(tmp_path):
    envs = {name: at_a_random_moment(name, 3) for name in NAMES}
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(path, {"states": {name: env.get_state() for name, env in envs.items()}})
    command = [sys.executable, "-c", CONTINUE, str(path), str(LIMIT)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    expected = {name: hashlib.sha256(repr(future(env, 50)).encode()).hexdigest() for name, env in envs.items()}
    assert json.loads(done.stdout.splitlines()[-1]) == expected


@pytest.mark.parametrize("name", NAMES)
def test_saving_and_restoring_changes_nothing(name):
    env = at_a_random_moment(name, 1)
    state = env.get_state()
    env.set_state(state)
    again = env.get_state()
    assert all(same_values(state["physics"][key], again["physics"][key]) for key in state["physics"])
    assert {**state, "physics": None} == {**again, "physics": None}
    env.step(env.action_space.sample())
    assert not same_values(env.get_state()["physics"]["integration"], state["physics"]["integration"])
    assert same_values(again["physics"]["integration"], state["physics"]["integration"])  # a copy, not a view


@pytest.mark.parametrize(
    ("name", "part", "less"),
    [
        ("mujoco:Ant-v5", "LAGGING", ()),
        ("mujoco:Humanoid-v5", "LAGGING", ()),
        ("mujoco:Walker2d-v5", "INTEGRATION", int(physics.mujoco.mjtState.mjSTATE_FULLPHYSICS)),
    ],
)
def test_no_part_of_a_state_is_superfluous(name, part, less, monkeypatch):
    monkeypatch.setattr(physics, part, less)
    one, other = at_a_random_moment(name, 0), sim.make(name, config={"max_episode_steps": LIMIT})
    other.set_state(one.get_state())
    assert future(other, LIMIT) != future(one, LIMIT)


def broken(state, key, value):
    return {**state, key: value}


def test_states_that_do_not_fit_are_one_line_and_change_nothing():
    env, other = at_a_random_moment("mujoco:Hopper-v5", 0), at_a_random_moment("mujoco:Walker2d-v5", 0)
    state = env.get_state()
    short = {**state["physics"], "integration": state["physics"]["integration"][1:]}
    bad = [
        other.get_state(),
        broken(other.get_state(), "scenario", env.scenario),
        {key: value for key, value in state.items() if key != "steps"},
        broken(state, "physics", short),
        broken(state, "physics", {}),
        broken(state, "stream", {"bit_generator": "MT19937"}),
        broken(state, "steps", "many"),
    ]
    for wrong in bad:
        with pytest.raises(UsageError, match=r"fit scenario 'mujoco:Hopper-v5'") as error:
            env.set_state(wrong)
        assert "\n" not in str(error.value)
        assert same_values(env.get_state()["physics"]["integration"], state["physics"]["integration"])
        assert env.get_state()["stream"] == state["stream"]


@pytest.mark.parametrize("name", NAMES)
def test_rollouts_are_those_of_environments_in_the_same_state(name):
    env = at_a_random_moment(name, 2)
    state = env.get_state()
    space, rng = env.action_space, np.random.default_rng(0)
    plans = rng.uniform(space.low, space.high, (3, 2 * LIMIT, *space.shape)).astype(np.float32)
    found = env.branch(plans)
    for i, plan in enumerate(plans):
        alone = sim.make(name, config={"max_episode_steps": LIMIT})
        alone.set_state(state)
        rewards, terminated, truncated = [], False, False
        for action in plan:
            obs, reward, terminated, truncated, _ = alone.step(action)
            rewards.append(reward)
            if terminated or truncated:
                break
        assert found.rewards[i].tolist() == rewards + [0.0] * (len(plan) - len(rewards))
        assert (found.steps[i], found.terminated[i], found.ended[i]) == (len(rewards), terminated, True)
        assert found.observations[i].tobytes() == obs.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_rollouts_leave_the_environment_as_it_is(name):
    env, other = at_a_random_moment(name, 5), at_a_random_moment(name, 5)
    env.branch(np.ones((2, 10, *env.action_space.shape)))
    assert future(env, LIMIT) == future(other, LIMIT)


def test_plans_that_cannot_be_rolled_out_are_one_line():
    env = at_a_random_moment("mujoco:Reacher-v5", 0)
    for bad in (
        np.zeros((2, 2)),
        np.zeros((1, 0, 2)),
        np.zeros((1, 1, 3)),
        np.full((1, 1, 2), np.inf),
        "left",
        [[1], 2],
    ):
        with pytest.raises(UsageError, match=r"expected finite numbers of shape \(P, H, 2\)"):
            env.branch(bad)
    running_on = env.branch(np.zeros((1, 2, 2)))
    assert not running_on.ended[0]
    assert running_on.steps[0] == 2
