"""How fast the lane-change engine is, against the same scenario on highway-env, interleaved in one process.

    make bench          (or: python benchmarks/engine.py --json FILE)

Rates are decisions per CPU-second of this process. `drive` is a car that slows down and stays in traffic (episodes of
about 120 decisions), `random` picks any action (episodes of about 8 decisions, so resets and crashes weigh in).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import sim
from lgdrl.runs import fingerprint_environment

VEHICLES = 73
SUBSTEPS = 10


def engine_rate(num_envs: int, policy: str, decisions: int) -> float:
    """Decisions per CPU-second of `num_envs` engine worlds, resets included."""
    worlds = sim.make_vec("lane-change", num_envs, seed=0)
    worlds.reset()
    rng = np.random.default_rng(0)
    steps = max(decisions // num_envs, 10)
    actions = rng.integers(0, 5, (steps, num_envs)) if policy == "random" else np.full((steps, num_envs), 4)
    worlds.step(actions[0])
    started = time.process_time()
    for row in actions:
        worlds.step(row)
    return steps * num_envs / (time.process_time() - started)


def reference_rate(policy: str, decisions: int) -> float:
    """The same on highway-env, one world."""
    env = sim.make("lane-change", "highway-env")
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    started = time.process_time()
    for _ in range(decisions):
        *_, ended, _, _ = env.step(int(rng.integers(5)) if policy == "random" else 4)
        if ended:
            env.reset()
    return decisions / (time.process_time() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    sizes = (1, 64, 1024)
    rates: dict[tuple[str, str], list[float]] = {}
    for _ in range(arguments.rounds):
        for policy in ("drive", "random"):
            rates.setdefault((policy, "highway-env"), []).append(reference_rate(policy, 10))
            for size in sizes:
                decisions = 20_000 if size == 1 else 100_000
                rates.setdefault((policy, f"engine, N = {size}"), []).append(engine_rate(size, policy, decisions))
    results: list[dict[str, Any]] = []
    table = Table(title="lane-change, one thread", title_justify="left", title_style="bold")
    for column in ("policy", "simulator", "decisions / CPU-s", "ratio", "ns / vehicle-substep"):
        table.add_column(column, justify="right" if "/" in column or column == "ratio" else "left")
    for (policy, name), values in rates.items():
        rate = float(np.median(values))
        ratio = rate / float(np.median(rates[policy, "highway-env"]))
        cost = 1e9 / (rate * VEHICLES * SUBSTEPS)
        results.append(
            {"policy": policy, "simulator": name, "rate": rate, "ratio": ratio, "ns_per_vehicle_substep": cost}
        )
        table.add_row(policy, name, f"{rate:,.0f}" if rate > 100 else f"{rate:.1f}", f"{ratio:,.0f}", f"{cost:,.1f}")
    Console().print(table)
    if arguments.json:
        report = {"environment": fingerprint_environment(), "rounds": arguments.rounds, "results": results}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
