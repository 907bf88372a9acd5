"""Shared by the tests of MuJoCo: the scenarios, and what an environment does from now on."""

from __future__ import annotations

import numpy as np

import sim

NAMES = [name for name in sim.registry() if name.startswith("mujoco:")]


def future(env, steps, seed=0):
    """Observations, rewards, ends and summaries of random actions, over the ends of episodes; resets have no seed."""
    rng = np.random.default_rng(seed)
    low, high = env.action_space.low, env.action_space.high
    found = []
    for _ in range(steps):
        obs, reward, terminated, truncated, info = env.step(rng.uniform(low, high).astype(np.float32))
        found.append((obs.tobytes(), reward, terminated, truncated, repr(info)))
        if terminated or truncated:
            obs, info = env.reset()
            found.append((obs.tobytes(), repr(info)))
    return found
