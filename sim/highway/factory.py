"""Builds highway-env scenarios: the two factories that `sim.scenarios.Backend` names."""

from __future__ import annotations

import functools
from typing import Any

from sim.highway.env import HighwayDrivingEnv, HighwayGoalEnv
from sim.highway.scenario import HighwayScenario
from sim.highway.schema import to_inner
from sim.highway.worlds import construct, env_class
from sim.vec import DrivingEnvs


def make_env(scenario: HighwayScenario, config: Any, render_mode: str | None = None) -> HighwayDrivingEnv:
    """One world of the scenario; `config` is resolved."""
    world = scenario.world
    inner = construct(env_class(world.env_class), to_inner(config, world))
    kind = HighwayGoalEnv if hasattr(inner, "compute_reward") else HighwayDrivingEnv
    return kind(scenario.name, config, inner, world, render_mode)


def make_vec(scenario: HighwayScenario, config: Any, num_envs: int, seed: int | None, workers: int) -> DrivingEnvs:
    """`num_envs` worlds of the scenario, world i starting from seed + i; `workers` > 0 uses processes."""
    return DrivingEnvs([functools.partial(make_env, scenario, config)] * num_envs, seed, workers)
