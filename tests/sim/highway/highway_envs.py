"""Small versions of every registered highway-env environment, and rollouts to compare."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest

import sim
from sim.highway.catalog import HIGHWAY_ENV_SCENARIOS

NAMES = [scenario.name for scenario in HIGHWAY_ENV_SCENARIOS]
GYM_IDS = [name for name in NAMES if not name.startswith("dense")]
SUCCEEDED = {name for name in GYM_IDS if name.endswith("-v0") and {name[:-1] + "1", name[:-1] + "2"} & set(GYM_IDS)}
"""Ids with a successor that differs in traffic's sight only: their sweeps are slow tests."""
FEW = {"vehicles_count": 4, "initial_vehicle_count": 4}


def sweep(names: list[str]) -> list[Any]:
    """Parameters for a test over all these environments, those with a successor marked slow."""
    return [pytest.param(name, marks=pytest.mark.slow if name in SUCCEEDED else ()) for name in names]


def few_cars(name: str) -> dict[str, int]:
    """Config overrides that make an environment quick to step."""
    if name.startswith("parking"):
        return {}
    defaults = sim.get(name).defaults
    return {key: value for key, value in FEW.items() if hasattr(defaults, key)}


def make_small(name: str, **keywords: Any) -> Any:
    config = few_cars(name) | keywords.pop("config", {})
    return sim.make(name, "highway-env", config=config, **keywords)


def action_sequence(space: Any, count: int, seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    if hasattr(space, "n"):
        return [int(action) for action in rng.integers(space.n, size=count)]
    return list(rng.uniform(-0.3, 0.3, size=(count, *space.shape)).astype(np.float32))


def rollout(env: Any, seed: int, count: int) -> list[Any]:
    """Observation, reward, ends and info of each of `count` decisions (fewer if the episode ends), reset first."""
    record: list[Any] = [env.reset(seed=seed)]
    for action in action_sequence(env.action_space, count, seed):
        record.append(env.step(action))
        if record[-1][2] or record[-1][3]:
            break
    return record


def same(a: Any, b: Any) -> bool:
    """Bitwise equality of nested results (repr keeps every bit of a float)."""
    return repr(_plain(a)) == repr(_plain(b))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return [(key, _plain(value[key])) for key in sorted(value)]
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    return value


def in_fresh_process(code: str, *arguments: str, environment: dict[str, str] | None = None) -> str:
    """Standard output of Python code run in a process of its own, from the repository's root."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | (environment or {}),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
