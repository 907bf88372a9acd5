"""SAC with hindsight replay (HER) on parking, on the engine and on highway-env: the same training, timed on both.

Stable-Baselines3 learns the same way on both from the same seed; printed are wall time, the part of it spent in the
environments, and the share of episodes that end in the goal. Run: python benchmarks/parking_her.py --steps 3000
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnvWrapper
from stable_baselines3.her import HerReplayBuffer

import sim

LAST = 20
"""Episodes at the end whose success is reported."""


class Timed(VecEnvWrapper):
    """Adds up the time that the environments take."""

    seconds = 0.0
    _start = 0.0

    def reset(self) -> Any:
        return self.venv.reset()

    def step_async(self, actions: np.ndarray) -> None:
        self._start = time.perf_counter()
        self.venv.step_async(actions)

    def step_wait(self) -> Any:
        results = self.venv.step_wait()
        self.seconds += time.perf_counter() - self._start
        return results


class Outcomes(BaseCallback):
    """Keeps whether each episode reached its goal."""

    def __init__(self) -> None:
        super().__init__()
        self.successes: list[bool] = []

    def _on_step(self) -> bool:
        self.successes += [info["success"] for info in self.locals["infos"] if "episode" in info]
        return True


def train(backend: str, steps: int, every: int, num_envs: int, seed: int) -> dict[str, float]:
    """Train once.

    Args:
        backend: engine | highway-env
        steps: Decisions in all.
        every: Decisions of each environment per gradient step.
        num_envs: Environments.
        seed: Of environments and learner.
    Returns:
        Seconds in all and in the environments, episodes, and the share of successes among the last `LAST`.
    """
    envs = Timed(sim.make_vec("parking-v0", num_envs, seed, backend, config={"duration": 20}))
    model = SAC(
        "MultiInputPolicy",
        envs,
        replay_buffer_class=HerReplayBuffer,
        replay_buffer_kwargs={"n_sampled_goal": 4, "goal_selection_strategy": "future"},
        learning_starts=min(1000, steps // 3) + 100 * num_envs,
        train_freq=every,
        gamma=0.95,
        batch_size=256,
        seed=seed,
        device="cpu",
    )
    outcomes, start = Outcomes(), time.perf_counter()
    model.learn(steps, callback=outcomes)
    seconds = time.perf_counter() - start
    envs.close()
    done = outcomes.successes
    share = float(np.mean(done[-LAST:])) if done else 0.0
    return {"seconds": seconds, "in the environments": envs.seconds, "episodes": len(done), "success": share}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000, help="decisions in all")
    parser.add_argument("--every", type=int, default=1, help="decisions of each environment per gradient step")
    parser.add_argument("--num-envs", type=int, default=1, help="environments")
    parser.add_argument("--seed", type=int, default=0, help="of environments and learner")
    parser.add_argument("--backends", default="engine,highway-env", help="engine, highway-env or both")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for backend in given.backends.split(","):
        sim.make_vec("parking-v0", 1, 0, backend).close()  # kernels are compiled before the clock starts
        found[backend] = train(backend, given.steps, given.every, given.num_envs, given.seed)
        print(backend, {name: round(value, 2) for name, value in found[backend].items()}, flush=True)
    if len(found) == 2:
        ours, theirs = found["engine"], found["highway-env"]
        for name in ("seconds", "in the environments"):
            print(f"{name}: highway-env takes {theirs[name] / ours[name]:.1f} times as long")


if __name__ == "__main__":
    main()
