"""The engine refuses what highway-env refuses, in the same way, behind every interface; both say what is wrong."""

from __future__ import annotations

import copy
import dataclasses

import gymnasium as gym
import numpy as np
import pytest

import sim
from sim.env import Branches
from sim.errors import UsageError
from sim.lane_change import LaneChangeConfig, draw_traffic

BACKENDS = ("engine", "highway-env")
CONFIG = {"vehicles_count": 3, "duration": 4}
BAD_ACTIONS = [1.7, 1.0, True, 5, -1, None, "FASTER", np.float32(2), 2**64]


def make(backend: str, **keywords):
    return sim.make("highway-fast-v0", backend, CONFIG, **keywords)


def make_vec(backend: str, num_envs: int = 3, **keywords):
    return sim.make_vec("highway-fast-v0", num_envs, seed=0, backend=backend, config=CONFIG, **keywords)


# -- order of calls ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_can_be_asked_of_an_episode_before_the_first_reset(backend):
    env, envs = make(backend, render_mode="rgb_array"), make_vec(backend)
    calls = [
        lambda: env.step(1),
        env.scene,
        env.render,
        lambda: env.branch(np.array([[1]])),
        lambda: envs.step(np.ones(3, int)),
        lambda: envs.scenes([0]),
        lambda: envs.views([0]),
        lambda: envs.branch(0, np.array([[1]])),
        envs.action_masks,
        lambda: envs.env_method("scene", indices=1),
        lambda: sim.make_vector("highway-fast-v0", 2, backend, CONFIG).step(np.ones(2, int)),
    ]
    for call in calls:
        with pytest.raises(gym.error.ResetNeeded, match=r"call reset\(\) before"):
            call()


@pytest.mark.parametrize("backend", ["engine", "highway-env", "carla-lite"])
def test_the_scene_before_reset_is_one_clear_error_on_every_backend(backend):
    with pytest.raises(gym.error.ResetNeeded, match=r"call reset\(\) before scene\(\)"):
        sim.make("lane-change", backend).scene()


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_ended_episode_cannot_be_stepped_or_branched_but_still_seen(backend):
    env = make(backend)
    env.reset(seed=0)
    ended = False
    while not ended:
        _, _, terminated, truncated, _ = env.step(1)
        ended = terminated or truncated
    for call in (lambda: env.step(1), lambda: env.branch(np.array([[1]]))):
        with pytest.raises(gym.error.ResetNeeded):
            call()
    assert env.scene().time == 4


# -- actions and options -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", BAD_ACTIONS)
def test_actions_that_do_not_exist_are_refused_alike(action):
    messages = set()
    for backend in BACKENDS:
        env, envs = make(backend), make_vec(backend, 2)
        env.reset(seed=0)
        envs.reset()
        before = envs.scenes([0, 1])
        with pytest.raises(UsageError, match="actions are the integers 0 to 4") as caught:
            env.step(action)
        messages.add(str(caught.value))
        with pytest.raises(UsageError, match="actions are the integers 0 to 4"):
            envs.step(np.array([action, action]))
        assert envs.scenes([0, 1]) == before, "no environment has moved"
    assert len(messages) == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_vectorised_interfaces_want_one_integer_for_each_environment(backend):
    envs, vector = make_vec(backend), sim.make_vector("highway-fast-v0", 3, backend, CONFIG)
    envs.reset()
    vector.reset(seed=0)
    for wrong in ([1, 1], [1, 1, 1, 1], [[1, 1, 1]], []):
        with pytest.raises(UsageError, match="give one to each of 3 environments"):
            envs.step(np.array(wrong))
    with pytest.raises(UsageError, match=r"action 1\.7"):
        vector.step(np.array([1.7, 1, 1]))
    obs = envs.step(np.array([[1], [1], [4]]))[0]  # what some policies hand out
    assert obs.shape == (3, 5, 5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("plans", [[1, 1], [[1.0]], [[True]], [[5]], [[-1]], np.zeros((0, 2), int)])
def test_plans_are_checked_alike(backend, plans):
    env = make(backend)
    env.reset(seed=0)
    with pytest.raises(UsageError, match="plans"):
        env.branch(np.array(plans))


@pytest.mark.parametrize("backend", BACKENDS)
def test_reset_options_are_refused_behind_every_interface(backend):
    with pytest.raises(UsageError, match=r"reset options \['x'\]: not supported"):
        make(backend).reset(options={"x": 1})
    envs = make_vec(backend)
    envs.set_options({"x": 1})
    with pytest.raises(UsageError, match=r"reset options \['x'\]: not supported"):
        envs.reset()
    envs.set_options()
    envs.reset()
    with pytest.raises(UsageError, match=r"reset options \['x'\]"):
        sim.make_vector("highway-fast-v0", 2, backend, CONFIG).reset(options={"x": 1})


# -- SB3's remote calls ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_remote_calls_reach_the_environments_named(backend):
    envs = make_vec(backend)
    envs.reset()
    assert envs.get_attr("scenario") == ["highway-fast-v0"] * 3
    assert envs.get_attr("backend", indices=1) == [backend]
    envs.set_attr("marker", 4, indices=[0, 2])
    assert envs.get_attr("marker", indices=[2, 0]) == [4, 4]
    with pytest.raises(AttributeError, match="marker"):
        envs.get_attr("marker")
    assert envs.env_method("scene", indices=[2, 0]) == envs.scenes([2, 0])
    np.testing.assert_array_equal(envs.env_method("action_masks", indices=1)[0], envs.action_masks()[1])
    plans = np.array([[1, 3], [4, 4]])
    assert envs.env_method("branch", plans, indices=2) == [envs.branch(2, plans)]
    assert envs.env_method("reward_terms") == [{}] * 3
    assert envs.env_method("render") == [None] * 3
    with pytest.raises(AttributeError, match="no_such_method"):
        envs.env_method("no_such_method")


@pytest.mark.parametrize("backend", BACKENDS)
def test_remote_resets_restart_the_environments_named_only(backend):
    envs, alone = make_vec(backend), make(backend)
    envs.reset()
    envs.step(np.array([1, 1, 1]))
    others = envs.scenes([0, 2])
    obs, info = envs.env_method("reset", seed=77, indices=1)[0]
    expected, _ = alone.reset(seed=77)
    np.testing.assert_array_equal(obs, expected)
    assert info["backend"] == backend
    assert envs.scenes([1])[0].time == 0
    assert envs.scenes([0, 2]) == others


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("indices", [7, -1, [0, 3]])
def test_environments_that_do_not_exist_are_named(backend, indices):
    envs = make_vec(backend)
    envs.reset()
    calls = [
        lambda: envs.get_attr("scenario", indices),
        lambda: envs.set_attr("marker", 1, indices),
        lambda: envs.env_method("scene", indices=indices),
        lambda: envs.env_is_wrapped(gym.Wrapper, indices),
        lambda: envs.scenes(np.atleast_1d(indices)),
        lambda: envs.views(np.atleast_1d(indices)),
        lambda: envs.branch(int(np.atleast_1d(indices)[-1]), np.array([[1]])),
    ]
    for call in calls:
        with pytest.raises(UsageError, match="environments 0 to 2"):
            call()


def test_an_environment_of_a_batch_says_why_it_cannot_be_stepped_alone():
    envs = make_vec("engine")
    envs.reset()
    with pytest.raises(UsageError, match="environment 1 of a batch cannot be stepped alone"):
        envs.env_method("step", 1, indices=1)


def test_states_of_one_environment_move_between_a_batch_and_a_single_one():
    envs, alone = make_vec("engine"), make("engine")
    envs.reset()
    alone.reset(seed=9)
    alone.set_state(envs.env_method("get_state", indices=2)[0])
    assert alone.scene() == envs.scenes([2])[0]
    after = envs.step(np.array([1, 1, 4]))[0][2]
    np.testing.assert_array_equal(alone.step(4)[0], after)
    with pytest.raises(UsageError, match="state of another batch or config"):
        sim.make("highway-fast-v0", "engine", CONFIG | {"vehicles_count": 9}).set_state(alone.get_state())


# -- seeds -------------------------------------------------------------------------------------------------------------


def test_seeds_are_used_at_the_next_reset_and_once_as_on_the_reference():
    engine, reference = make_vec("engine"), make_vec("highway-env")
    for seeds in (5, None):
        np.testing.assert_array_equal(engine.seed(11), reference.seed(11))
        for envs in (engine, reference):
            envs.seed(seeds) if seeds is not None else None
        np.testing.assert_allclose(engine.reset(), reference.reset(), atol=1e-6)
        np.testing.assert_allclose(engine.reset(), reference.reset(), atol=1e-6)
    assert all(isinstance(seed, int) for seed in engine.seed())
    with pytest.raises(UsageError, match="2 seeds for 3 environments"):
        engine.reset_to([1, 2])


# -- equality ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_scenes_are_equal_where_their_values_are(backend):
    env = sim.make("merge-v1", backend)  # some of its cars are off the ego's road, at s = NaN
    env.reset(seed=0)
    one, other = env.scene(), env.scene()
    assert one == other == copy.deepcopy(one)
    assert one.vehicles == other.vehicles
    assert one.shapes == other.shapes
    assert one != dataclasses.replace(one, time=one.time + 1)
    assert one != dataclasses.replace(one, legal=~one.legal)
    assert one != dataclasses.replace(one, shapes=one.shapes[1:])
    assert one.vehicles != dataclasses.replace(one.vehicles, speed=one.vehicles.speed + 1e-12)
    assert one != "a scene"
    env.step(1)
    assert env.scene() != one


def test_other_records_with_arrays_compare_too():
    env = make("engine")
    env.reset(seed=0)
    plans = np.array([[1, 3], [4, 4]])
    branches = env.branch(plans)
    assert branches == env.branch(plans)
    assert branches != env.branch(plans[::-1])
    assert isinstance(branches, Branches)
    traffic = draw_traffic(LaneChangeConfig(), np.random.default_rng(0))
    assert traffic == draw_traffic(LaneChangeConfig(), np.random.default_rng(0))
    assert traffic != draw_traffic(LaneChangeConfig(), np.random.default_rng(1))
