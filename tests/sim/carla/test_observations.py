"""Observations and rewards computed from scenes equal those of the other simulators, on their scenes."""

from __future__ import annotations

import numpy as np
import pytest

import sim
from sim.carla.lane_change import observe as observe_lane_change
from sim.carla.lane_change import reward_terms
from sim.carla.roads import observe as observe_road
from sim.outcome import Outcome


@pytest.mark.parametrize("seed", range(4))
def test_the_lane_change_is_observed_and_rewarded_as_on_the_engine(seed):
    env = sim.make("lane-change", config={"density": [15, 30]})
    config = env.scenario_config
    actions = np.random.default_rng(seed)
    obs, _ = env.reset(seed=seed)
    for _ in range(60):
        before = env.scene()
        assert observe_lane_change(config, before) == pytest.approx(obs, abs=1e-6)
        action = int(actions.choice(np.flatnonzero(env.action_masks())))
        obs, reward, ended, _, info = env.step(action)
        after = env.scene()
        changed = after.ego.target_lane != before.ego.target_lane
        outcome = Outcome[info["outcome"].upper()] if ended else Outcome.RUNNING
        assert sum(reward_terms(config, before, after, changed, outcome).values()) == pytest.approx(reward, abs=1e-6)
        if ended:
            break


@pytest.mark.parametrize("backend", ["engine", "highway-env"])
def test_roads_are_observed_as_highway_v0_is(backend):
    env = sim.make("highway-v0", backend, {"vehicles_count": 30, "vehicles_density": 1.5})
    for seed in range(3):
        obs, _ = env.reset(seed=seed)
        for action in (1, 0, 3, 2, 4):
            assert observe_road(env.scene(), 0.0, rows=5) == pytest.approx(obs, abs=1e-6)
            obs, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                break
