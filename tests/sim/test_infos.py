"""Infos are new for each environment and step: what a wrapper keeps in them stays that environment's."""

from __future__ import annotations

import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper

import sim

NAMES = ("highway-fast-v0", "merge-v1", "exit-v1", "two-way-v0", "lane-change")


class Relabelled(VecEnvWrapper):
    """Replaces rewards and keeps the old ones in the infos, as preference-based methods do."""

    def reset(self):
        return self.venv.reset()

    def step_wait(self):
        obs, rewards, dones, infos = self.venv.step_wait()
        for info, reward in zip(infos, rewards, strict=True):
            info["original_reward"] = reward
        self.kept = [*getattr(self, "kept", []), (rewards, infos)]
        return obs, np.zeros_like(rewards), dones, infos


@pytest.mark.parametrize("backend", ["engine", "highway-env"])
def test_a_relabelling_wrapper_reads_its_own_environments_rewards(backend):
    envs = Relabelled(sim.make_vec("highway-fast-v0", 4, 0, backend, {"vehicles_count": 3, "duration": 5}))
    envs.reset()
    rng = np.random.default_rng(0)
    for _ in range(12):
        envs.step(rng.integers(0, 5, 4))
    wrong = sum(
        info["original_reward"] != reward
        for rewards, infos in envs.kept
        for reward, info in zip(rewards, infos, strict=True)
    )
    assert wrong == 0


@pytest.mark.parametrize("name", NAMES)
def test_infos_share_nothing_across_environments_and_steps(name):
    envs = sim.make_vec(name, 3, seed=0, backend="engine")
    envs.reset()
    seen = [envs.reset_infos, *(envs.step(np.ones(3, int))[3] for _ in range(3))]
    assert len({id(info) for infos in seen for info in infos}) == 12
    for infos in seen:
        for info in infos:
            assert info["backend"] == "engine"
            assert isinstance(info["speed"], float)
            assert isinstance(info["crashed"], bool)


@pytest.mark.parametrize("name", NAMES)
def test_the_batch_behaves_as_sb3s_own_vec_env_over_single_environments(name):
    """DummyVecEnv with a Monitor's keys is SB3's reference: observations, rewards, dones, infos, reset infos."""
    envs, dummy = sim.make_vec(name, 3, seed=4), DummyVecEnv([lambda: sim.make(name)] * 3)
    dummy.seed(4)
    np.testing.assert_array_equal(envs.reset(), dummy.reset())
    assert envs.reset_infos == dummy.reset_infos
    rng, ends = np.random.default_rng(0), 0
    for _ in range(40):
        actions = rng.integers(0, 5, 3)
        ours, theirs = envs.step(actions), dummy.step(actions)
        for a, b in zip(ours[:3], theirs[:3], strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
        for mine, reference in zip(ours[3], theirs[3], strict=True):
            for key in reference:
                np.testing.assert_equal(mine[key], reference[key])
        assert envs.reset_infos == dummy.reset_infos
        ends += int(ours[2].sum())
    assert ends > 1
