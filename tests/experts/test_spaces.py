"""Whether a trained policy fits an environment."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from gymnasium import spaces

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
