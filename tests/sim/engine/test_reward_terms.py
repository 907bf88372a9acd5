"""Reward terms of single engine environments equal those that highway-env reports, decision by decision."""

import numpy as np
import pytest

import sim

NAMES = (
    "lane-change",
    "highway-fast-v0",
    "two-way-v0",
    "merge-v0",
    "merge-v1",
    "merge-generic-v0",
    "exit-v0",
    "exit-v1",
    "roundabout-v0",
    "roundabout-generic-v1",
    "u-turn-v1",
)


@pytest.mark.parametrize("name", NAMES)
def test_terms_equal_those_of_highway_env(name):
    config = {"behind": 40, "ahead": 80} if name == "lane-change" else {}  # on highway-env cars far away are costly
    engine, reference = sim.make(name, "engine", config), sim.make(name, "highway-env", config)
    ends = set()
    for seed in range(3 if name == "lane-change" else 2):
        rng = np.random.default_rng(seed)
        engine.reset(seed=seed)
        reference.reset(seed=seed)
        assert engine.reward_terms() == {}
        for _ in range(40):
            legal = np.flatnonzero(reference.action_masks())
            action = int(rng.choice(legal, p=[0.6 if a == 1 else 0.4 / (len(legal) - 1) for a in legal]))
            _, reward, *_ = engine.step(action)
            _, _, terminated, truncated, info = reference.step(action)
            assert engine.reward_terms() == info["rewards"]
            if name == "lane-change":
                assert sum(engine.reward_terms().values()) == reward
            if terminated or truncated:
                ends.add(info["outcome"])
                break
    assert name != "lane-change" or "crash" in ends


def test_asking_for_terms_changes_nothing():
    asked, left_alone = sim.make("highway-fast-v0"), sim.make("highway-fast-v0")
    asked.reset(seed=3)
    left_alone.reset(seed=3)
    for action in (1, 4, 4, 1):
        one, other = asked.step(action), left_alone.step(action)
        asked.reward_terms()
        assert np.array_equal(one[0], other[0])
        assert one[1:] == other[1:]


def test_a_restored_environment_knows_no_last_decision():
    env = sim.make("lane-change")
    env.reset(seed=0)
    env.step(1)
    env.set_state(env.get_state())
    assert env.reward_terms() == {}
