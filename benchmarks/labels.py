"""What a label costs: experts asked for 32 environments at once, and scene by scene.

    python benchmarks/labels.py [--json FILE]

CPU time per decision, scenes and views included; one thread.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import sim
from experts import registry
from experts.driving import batch_decisions, contexts_of
from experts.views import ViewExpert
from lgdrl.runs import fingerprint_environment

WORLDS = 32


def cost(run: Callable[[], object], times: int) -> float:
    """Microseconds of CPU time per environment, after one call that compiles."""
    run()
    started = time.process_time()
    for _ in range(times):
        run()
    return 1e6 * (time.process_time() - started) / times / WORLDS


def measure(scenario: str, name: str) -> dict[str, Any]:
    """One row: both costs, us."""
    envs, expert = sim.make_vec(scenario, WORLDS, seed=0), registry.make(name, scenario)
    assert isinstance(expert, ViewExpert)
    obs, masks, everyone = envs.reset(), envs.action_masks(), np.arange(WORLDS)
    together = cost(lambda: batch_decisions(expert, envs, masks, everyone), 300)
    alone = cost(lambda: expert.decide(contexts_of(envs, obs, masks, everyone)), 8)
    return {"scenario": scenario, "expert": name, "together_us": together, "one_by_one_us": alone}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for scenario, name in itertools.product(("lane-change", "highway-fast-v0", "merge-v1"), ("rule", "idm")):
        row = measure(scenario, name)
        rows.append(row)
        a, b = row["together_us"], row["one_by_one_us"]
        print(f"{scenario:16} {name:5} {a:5.1f} us together, {b:5.0f} us one by one, {b / a:.0f}x")
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows, "machine": fingerprint_environment()}, indent=2))


if __name__ == "__main__":
    main()
