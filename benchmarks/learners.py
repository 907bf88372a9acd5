"""HighwayEnv's own SB3 examples on the engine and on highway-env: how fast they train, and whether they learn the same.

    python benchmarks/learners.py --algorithm dqn --backend engine --seeds 0 1 2 --json FILE

DQN and PPO with the settings of HighwayEnv's example scripts (`scripts/sb3_highway_dqn.py`, `sb3_highway_ppo.py`) on
highway-fast-v0, 20,000 steps, one torch thread. The curve is the mean return of the episodes that ended in each tenth
of the training.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

import sim
from lgdrl.runs import fingerprint_environment

NETWORK = {"net_arch": [256, 256]}


class Returns(BaseCallback):
    """Notes (steps so far, return) of every episode."""

    def __init__(self) -> None:
        super().__init__()
        self.episodes: list[tuple[int, float]] = []

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self.episodes.append((self.num_timesteps, float(info["episode"]["r"])))
        return True


def make(algorithm: str, worlds: VecEnv, seed: int) -> BaseAlgorithm:
    if algorithm == "dqn":
        return DQN(
            "MlpPolicy",
            worlds,
            policy_kwargs=NETWORK,
            learning_rate=5e-4,
            buffer_size=15_000,
            learning_starts=200,
            batch_size=32,
            gamma=0.8,
            train_freq=1,
            gradient_steps=1,
            target_update_interval=50,
            seed=seed,
            device="cpu",
        )
    return PPO(
        "MlpPolicy",
        worlds,
        policy_kwargs=NETWORK,
        n_steps=64 * 12 // 6,
        batch_size=64,
        n_epochs=10,
        learning_rate=5e-4,
        gamma=0.8,
        seed=seed,
        device="cpu",
    )


def train(algorithm: str, backend: str, steps: int, seed: int) -> dict[str, Any]:
    """One training run: rate and curve."""
    count = 1 if algorithm == "dqn" else 6
    worlds: VecEnv = sim.make_vec("highway-fast-v0", count, seed=1000 * seed, backend=backend)
    if backend != "engine":
        worlds = VecMonitor(worlds)
    model, returns = make(algorithm, worlds, seed), Returns()
    cpu, wall = time.process_time(), time.perf_counter()
    model.learn(steps, callback=returns)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    edges = np.linspace(0, model.num_timesteps, 11)
    at, value = np.array(returns.episodes).T
    curve = [float(value[(at > low) & (at <= high)].mean()) for low, high in itertools.pairwise(edges)]
    done = model.num_timesteps
    return {"seed": seed, "steps": done, "steps_per_cpu_s": done / cpu, "steps_per_s": done / wall, "curve": curve}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--algorithm", choices=("dqn", "ppo"), default="dqn")
    parser.add_argument("--backend", choices=("engine", "highway-env"), default="engine")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runs = []
    for seed in arguments.seeds:
        run = train(arguments.algorithm, arguments.backend, arguments.steps, seed)
        runs.append(run)
        curve = " ".join(f"{value:5.1f}" for value in run["curve"])
        rate = f"{run['steps_per_cpu_s']:,.0f} steps / CPU-s"
        print(f"{arguments.algorithm} on {arguments.backend}, seed {seed}: {rate}; returns {curve}", flush=True)
    if arguments.json:
        settings = {"algorithm": arguments.algorithm, "backend": arguments.backend}
        arguments.json.write_text(json.dumps(settings | {"runs": runs, "machine": fingerprint_environment()}, indent=2))


if __name__ == "__main__":
    main()
