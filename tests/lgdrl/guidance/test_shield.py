"""Environments behind the shield: fewer legal actions, and otherwise the environments."""

from __future__ import annotations

import numpy as np
import pytest

import sim
from lgdrl.guidance.shield import ShieldedVecEnv, safe_masks


@pytest.fixture
def pair():
    plain = sim.make_vec("highway-fast-v0", 3, seed=0)
    shielded = ShieldedVecEnv(sim.make_vec("highway-fast-v0", 3, seed=0))
    yield plain, shielded
    plain.close()
    shielded.close()


def test_masks_are_those_of_the_safety_check_and_steps_those_of_the_environments(pair):
    plain, shielded = pair
    assert np.array_equal(plain.reset(), shielded.reset())
    refused = 0
    for _ in range(30):
        masks = safe_masks(plain.views(range(3)), plain.action_masks())
        assert np.array_equal(shielded.action_masks(), masks)
        refused += int((plain.action_masks() & ~masks).sum())
        actions = masks.argmax(axis=1)
        for one, other in zip(plain.step(actions)[:3], shielded.step(actions)[:3], strict=True):
            assert np.array_equal(one, other)
    assert refused > 0


def test_infos_of_resets_and_options_reach_through(pair):
    plain, shielded = pair
    for env in pair:
        env.reset()
    assert shielded.reset_infos == plain.reset_infos != [{}, {}, {}]
    for _ in range(60):
        for env in pair:
            env.step(np.full(3, 3))
    assert shielded.reset_infos == plain.reset_infos
    for env in pair:
        env.set_options({"unknown": 1})
        with pytest.raises(Exception, match="unknown"):
            env.reset()
