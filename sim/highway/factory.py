"""Builds highway-env scenarios: the two factories that `sim.scenarios.Backend` names."""

from __future__ import annotations

import functools
from typing import Any

from sim.highway.env import HighwayDrivingEnv, HighwayGoalEnv
from sim.highway.scenario import HighwayScenario
from sim.highway.schema import to_inner
from sim.highway.upstream import construct, env_class
from sim.vec import DrivingEnvs


def make_env(scenario: HighwayScenario, config: Any, render_mode: str | None = None) -> HighwayDrivingEnv:
    """One environment of the scenario; `config` is resolved."""
    inner = construct(env_class(scenario.kind.env_class), to_inner(config, scenario.kind))
    wrapper = HighwayGoalEnv if hasattr(inner, "compute_reward") else HighwayDrivingEnv
    return wrapper(scenario.name, config, inner, scenario.kind, render_mode)


def make_vec(
    scenario: HighwayScenario,
    config: Any,
    num_envs: int,
    seed: int | None,
    workers: int,
    render_mode: str | None = None,
) -> DrivingEnvs:
    """`num_envs` environments of the scenario, environment i starting from seed + i; `workers` > 0 uses processes."""
    return DrivingEnvs([functools.partial(make_env, scenario, config, render_mode)] * num_envs, seed, workers)
