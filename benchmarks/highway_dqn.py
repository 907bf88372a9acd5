"""HighwayEnv's DQN example, by `lgdrl train --learner dqn` and by plain Stable-Baselines3: decisions per CPU-second.

    python benchmarks/highway_dqn.py [--rounds 5] [--seconds 4] [--json FILE]

The task and the settings are those of HighwayEnv's `scripts/sb3_highway_dqn.py`: highway-fast-v0, one environment, one
update of a 256-256 network per decision. Contenders take turns within one run, with one torch thread; a ratio is the
median over rounds. Everything that a run does between two decisions is counted (rows of metrics, checkpoints), its
start is not. Exploration stands at its final rate of 5 % from the first update on, as after a tenth of the example's
20,000 decisions: contenders then meet the same mixture of states, and all ask their network for most actions.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gymnasium
import highway_env
import numpy as np
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.type_aliases import GymEnv

import sim
from lgdrl import training
from lgdrl.config import RunConfig
from lgdrl.runs import fingerprint_environment

SCENARIO = "highway-fast-v0"
SLICE = 50
"""Decisions between two looks at the clock."""
EXPLORATION = 0.05
"""Probability of a random action, after the 200 random ones at the start."""
PLAIN: dict[str, Any] = {
    "policy_kwargs": {"net_arch": [256, 256]},
    "learning_rate": 5e-4,
    "buffer_size": 15_000,
    "learning_starts": 200,
    "batch_size": 32,
    "gamma": 0.8,
    "train_freq": 1,
    "gradient_steps": 1,
    "target_update_interval": 50,
    "exploration_initial_eps": EXPLORATION,
    "exploration_final_eps": EXPLORATION,
}
"""Settings of Stable-Baselines3; the others are its defaults."""
OURS: dict[str, Any] = {
    "hidden": [256, 256],
    "learning_rate": 5e-4,
    "buffer_size": 15_000,
    "learning_starts": 200,
    "batch_size": 32,
    "gamma": 0.8,
    "updates_per_decision": 1.0,
    "target_interval": 50,
    "double": False,
    "exploration_initial": EXPLORATION,
    "exploration_final": EXPLORATION,
}
"""The same settings, as `lgdrl train` names them."""

Advance = Callable[[int], object]
"""Goes on with a training for a number of decisions."""


def plain(env: GymEnv, seed: int) -> Advance:
    """The DQN of Stable-Baselines3 in an environment."""
    model = DQN("MlpPolicy", env, seed=seed, device="cpu", **PLAIN)
    model.learn(PLAIN["learning_starts"])
    return lambda decisions: model.learn(decisions, reset_num_timesteps=False)


def ours(core: str, folder: Path, seed: int) -> training.Trainer:
    """The training that `lgdrl train` makes, behind its random decisions; without a learning curve, as the others."""
    config = RunConfig(
        scenario=SCENARIO,
        strategy="sac",  # no expert: the learner alone
        learner="dqn",
        learner_options={**OURS, "core": core},
        num_envs=1,
        steps=1_000_000,
        seed=seed,
        evaluate_every=0,
    )
    trainer = training.start(config, folder)
    trainer.advance(OURS["learning_starts"])
    return trainer


def measure(advance: Advance, seconds: float) -> float:
    """Decisions per CPU-second, over at least some seconds of wall time."""
    cpu, wall, decisions = time.process_time(), time.perf_counter(), 0
    while not decisions or time.perf_counter() - wall < seconds:
        advance(SLICE)
        decisions += SLICE
    return decisions / (time.process_time() - cpu)


def compare(rounds: int, seconds: float, seed: int) -> dict[str, list[float]]:
    """Rates of each contender by round; the first contender is the reference."""
    gymnasium.register_envs(highway_env)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        contenders = {
            "SB3 on highway-env": plain(gymnasium.make(SCENARIO), seed),
            "SB3 on the engine": plain(sim.make_vec(SCENARIO, 1, seed=seed), seed),
        }
        for core in ("torch", "fused"):
            trainer = ours(core, Path(folder) / core, seed)
            stack.callback(trainer.close)
            contenders[f"lgdrl train on the engine, core {core}"] = trainer.advance
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, advance in contenders.items():
                rates[name].append(measure(advance, seconds))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each contender in each round")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rates = compare(arguments.rounds, arguments.seconds, arguments.seed)
    reference = np.array(next(iter(rates.values())))
    rows = []
    for name, own in rates.items():
        ratios = np.array(own) / reference
        low, ratio, high = (float(value) for value in (ratios.min(), np.median(ratios), ratios.max()))
        rate = float(np.median(own))
        print(f"{name:40} {rate:8,.1f} decisions / CPU-s, {ratio:6.1f}x ({low:.1f} - {high:.1f})")
        rows.append({"contender": name, "decisions_per_cpu_s": rate, "ratio": ratio, "low": low, "high": high})
    if arguments.json:
        settings = {"rounds": arguments.rounds, "seconds": arguments.seconds, "seed": arguments.seed}
        found = {"settings": settings, "rows": rows, "machine": fingerprint_environment()}
        arguments.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
