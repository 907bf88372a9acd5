"""Decisions per CPU-second of the MuJoCo scenarios beside plain `gymnasium.make`, with the same random actions.

    python benchmarks/mujoco_steps.py [--decisions 300] [--rounds 40] [--json FILE]

Both take turns, and the ratio is the median over the rounds, since other load on the machine changes between them.
Resets are included. `vec` is `sim.make_vec` with one environment, what a learner steps.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import gymnasium as gym
import numpy as np

import sim
from sim.files import write_atomically
from sim.mujoco.catalog import MUJOCO_SCENARIOS

WARM_UP = 100


@dataclass
class StepRate:
    """Decisions per CPU-second; ratios are to gymnasium's."""

    scenario: str
    gymnasium: float
    ours: float
    ratio: float
    vec: float


def rate(decide: Callable[[np.ndarray], Any], actions: Sequence[np.ndarray]) -> float:
    """Decisions per CPU-second."""
    started = time.process_time()
    for action in actions:
        decide(action)
    return len(actions) / (time.process_time() - started)


def stepping(env: gym.Env) -> Callable[[np.ndarray], None]:
    """A function that makes one decision, and resets at an end."""
    env.reset(seed=0)

    def decide(action: np.ndarray) -> None:
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()

    return decide


def measure(scenario: str, env_id: str, decisions: int, rounds: int) -> StepRate:
    """Medians over rounds."""
    ours, theirs, vec = sim.make(scenario), gym.make(env_id), sim.make_vec(scenario, 1, seed=0)
    vec.reset()
    ours.action_space.seed(0)
    actions = [ours.action_space.sample() for _ in range(decisions)]
    drivers = [stepping(theirs), stepping(ours), lambda action: vec.step(action[None])]
    for driver in drivers:
        rate(driver, actions[:WARM_UP])
    rates = [[rate(driver, actions) for driver in drivers] for _ in range(rounds)]
    columns = list(zip(*rates, strict=True))
    return StepRate(
        scenario=scenario,
        gymnasium=median(columns[0]),
        ours=median(columns[1]),
        ratio=median(row[1] / row[0] for row in rates),
        vec=median(columns[2]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decisions", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    print(f"{'scenario':34} {'gymnasium':>10} {'ours':>10} {'ratio':>7} {'vec':>10}")
    for each in MUJOCO_SCENARIOS:
        row = measure(each.name, each.env_id, arguments.decisions, arguments.rounds)
        rows.append(row)
        print(
            f"{row.scenario:34} {row.gymnasium:10,.0f} {row.ours:10,.0f} {row.ratio:7.3f} {row.vec:10,.0f}", flush=True
        )
    if arguments.json:
        text = json.dumps([asdict(row) for row in rows], indent=2)
        write_atomically(arguments.json, lambda file: file.write(text.encode()))


if __name__ == "__main__":
    main()
