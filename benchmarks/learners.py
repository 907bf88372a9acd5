"""DQN and PPO on the engine and on highway-env: how fast they train, and whether they learn the same.

    python benchmarks/learners.py --algorithm dqn --settings example --seeds 0 --json FILE

Settings `example` are those of HighwayEnv's example scripts (`scripts/sb3_highway_dqn.py`, `sb3_highway_ppo.py`) on
highway-fast-v0; `batched` are the same learners fed by 64 worlds at a time: one DQN gradient step of 128 samples per 64
steps, PPO minibatches of 1,024. One torch thread. A curve is the mean return of the episodes that ended in each tenth
of the training. Both simulators start from the same seeds, so the curves of a seed are equal to the last digit as long
as every rounding is (start with NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL" OPENBLAS_CORETYPE=Nehalem for that).
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

import sim
from lgdrl.runs import fingerprint_environment

BACKENDS = ("engine", "highway-env")
COMMON = {"learning_rate": 5e-4, "gamma": 0.8, "policy_kwargs": {"net_arch": [256, 256]}}
DQN_COMMON = COMMON | {"buffer_size": 15_000, "learning_starts": 200, "train_freq": 1, "gradient_steps": 1}
SETTINGS: dict[tuple[str, str], tuple[int, dict[str, Any]]] = {
    ("dqn", "example"): (1, DQN_COMMON | {"batch_size": 32, "target_update_interval": 50}),
    ("ppo", "example"): (6, COMMON | {"n_steps": 64 * 12 // 6, "batch_size": 64, "n_epochs": 10}),
    ("dqn", "batched"): (64, DQN_COMMON | {"batch_size": 128, "target_update_interval": 640}),
    ("ppo", "batched"): (64, COMMON | {"n_steps": 64, "batch_size": 1024, "n_epochs": 10}),
}
"""Worlds and learner settings."""


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


def train(algorithm: str, settings: str, backend: str, steps: int, seed: int) -> dict[str, Any]:
    """One training run: rate and curve."""
    count, options = SETTINGS[algorithm, settings]
    worlds = sim.make_vec("highway-fast-v0", count, seed=1000 * seed, backend=backend)
    learner: type[BaseAlgorithm] = DQN if algorithm == "dqn" else PPO
    model, returns = learner("MlpPolicy", worlds, seed=seed, device="cpu", **options), Returns()
    cpu, wall = time.process_time(), time.perf_counter()
    model.learn(steps, callback=returns)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    worlds.close()
    edges = np.linspace(0, model.num_timesteps, 11)
    at, value = np.array(returns.episodes).T
    tenths = [value[(at > low) & (at <= high)] for low, high in itertools.pairwise(edges)]
    return {
        "backend": backend,
        "seed": seed,
        "steps": model.num_timesteps,
        "steps_per_cpu_s": model.num_timesteps / cpu,
        "steps_per_s": model.num_timesteps / wall,
        "curve": [float(tenth.mean()) if tenth.size else None for tenth in tenths],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--algorithm", choices=("dqn", "ppo"), default="dqn")
    parser.add_argument("--settings", choices=("example", "batched"), default="example")
    parser.add_argument("--backends", choices=BACKENDS, nargs="+", default=BACKENDS)
    parser.add_argument("--steps", type=int, nargs="+", default=[20_000], help="for all backends, or one for each")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    lengths = arguments.steps * (len(arguments.backends) if len(arguments.steps) == 1 else 1)
    if len(lengths) != len(arguments.backends):
        parser.error(f"--steps {lengths}: give one number, or one for each of {list(arguments.backends)}")
    torch.set_num_threads(1)
    runs = []
    for seed, (backend, steps) in itertools.product(arguments.seeds, zip(arguments.backends, lengths, strict=True)):
        run = train(arguments.algorithm, arguments.settings, backend, steps, seed)
        runs.append(run)
        curve = " ".join("    -" if value is None else f"{value:5.1f}" for value in run["curve"])
        rate = f"{run['steps_per_cpu_s']:,.0f} steps / CPU-s"
        print(f"{arguments.algorithm} on {backend}, seed {seed}, {steps:,} steps: {rate}; returns {curve}", flush=True)
    if set(arguments.backends) == set(BACKENDS):
        ours, theirs = (np.median([r["steps_per_cpu_s"] for r in runs if r["backend"] == name]) for name in BACKENDS)
        print(f"engine / highway-env: {ours / theirs:,.0f}")
    if arguments.json:
        settings = {"algorithm": arguments.algorithm, "settings": arguments.settings}
        arguments.json.write_text(json.dumps(settings | {"runs": runs, "machine": fingerprint_environment()}, indent=2))


if __name__ == "__main__":
    main()
