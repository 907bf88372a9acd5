"""Whether a trained policy or an expert fits an environment."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from gymnasium import spaces

import sim
from experts import registry
from experts.driving import run_episodes
from experts.provider import Context
from experts.spaces import check_spaces, form, same_actions, same_form
from sim.errors import UsageError

BOX = spaces.Box(-1, 1, (3,))


@pytest.mark.parametrize(
    ("other", "fits"),
    [
        (spaces.Box(-9, 9, (3,)), True),
        (spaces.Box(-1, 1, (3,), np.float64), True),
        (spaces.Box(-1, 1, (4,)), False),
        (spaces.Box(-1, 1, (3, 1)), False),
        (spaces.Discrete(3), False),
        (spaces.Dict({"a": BOX}), False),
    ],
)
def test_observations_have_the_same_form_whatever_their_bounds(other, fits):
    assert same_form(BOX, other) == fits
    nested = [spaces.Dict({"a": each, "b": spaces.Discrete(2)}) for each in (BOX, other)]
    assert same_form(*nested) == fits
    assert same_form(*(spaces.Tuple([each]) for each in (BOX, other))) == fits


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (BOX, spaces.Box(-1, 1, (3,), np.float64), True),
        (BOX, spaces.Box(-2, 2, (3,)), False),  # the same number would steer twice as much
        (spaces.Discrete(5), spaces.Discrete(5), True),
        (spaces.Discrete(5), spaces.Discrete(5, start=1), False),
        (spaces.Discrete(5), spaces.Discrete(3), False),
        (spaces.Discrete(3), BOX, False),
    ],
)
def test_actions_mean_the_same_only_within_the_same_bounds(one, other, same):
    assert same_actions(one, other) == same
    assert same_actions(other, one) == same


def test_what_does_not_fit_is_one_line_with_both_forms():
    policy = SimpleNamespace(observation_space=BOX, action_space=spaces.Discrete(5))
    check_spaces("it", policy, policy, "here")
    wrong = SimpleNamespace(observation_space=spaces.Box(0, 1, (2, 2)), action_space=spaces.Discrete(5))
    with pytest.raises(UsageError, match=r"of shape \(3,\) in \[-1, 1\], those of here are of shape \(2, 2\)"):
        check_spaces("it", policy, wrong, "here")
    wrong = SimpleNamespace(observation_space=BOX, action_space=spaces.Discrete(3))
    with pytest.raises(UsageError, match="actions 0 to 4, those of here are 0 to 2"):
        check_spaces("it", policy, wrong, "here")
    assert form(spaces.Dict({"a": spaces.Discrete(2)})) == "{a: 0 to 1}"


@pytest.mark.parametrize("name", ["rule", "idm", "search", "person", "slower"])
def test_an_expert_for_meta_actions_takes_no_others(name):
    expert, obs = registry.make(name, "lane-change"), spaces.Box(-1, 1, (29,))
    for fits in (spaces.Discrete(5), spaces.Discrete(3)):
        expert.check_spaces(obs, fits, "lane-change")
    for other in (spaces.Discrete(9), BOX):
        with pytest.raises(UsageError, match="scenario 'there' as configured has other actions than meta-actions"):
            expert.check_spaces(obs, other, "there")


def test_random_and_idle_act_in_any_bounded_box():
    space = spaces.Box(np.array([-2.0, 1.0]), np.array([4.0, 3.0]), dtype=np.float64)
    context = Context(np.zeros(3), space)
    (rest,) = registry.make("idle", "gym:Pendulum-v1").decide([context])
    assert rest.action.tolist() == [0.0, 1.0]
    expert = registry.make("random", "gym:Pendulum-v1")
    drawn = np.stack([decision.action for decision in expert.decide([context] * 4000)])
    assert drawn.min(axis=0) == pytest.approx(space.low, abs=0.01)
    assert drawn.max(axis=0) == pytest.approx(space.high, abs=0.01)
    assert drawn.mean(axis=0) == pytest.approx([1.0, 2.0], abs=0.1)
    assert drawn.std(axis=0) == pytest.approx(np.array([6.0, 2.0]) / np.sqrt(12), rel=0.05)


@pytest.mark.parametrize("name", ["random", "idle"])
def test_actions_that_cannot_be_drawn_or_rested_are_refused(name):
    unfit = {"random": spaces.Box(-np.inf, np.inf, (1,)), "idle": spaces.Discrete(5)}[name]
    expert = registry.make(name, "gym:Pendulum-v1")
    expert.check_spaces(BOX, BOX, "there")
    with pytest.raises(UsageError, match=r"'there'.*: choose another expert"):
        expert.check_spaces(BOX, unfit, "there")


def test_episodes_do_not_begin_with_an_expert_that_does_not_fit():
    envs = sim.make_vec("highway-fast-v0", 1, config={"action": {"type": "ContinuousAction"}})
    with (
        registry.make("rule", "highway-fast-v0") as expert,
        pytest.raises(UsageError, match="idm-continuous, random, policy:PATH or a person"),
    ):
        run_episodes(envs, expert, [0])
    envs.close()
