"""Builds CARLA scenarios: the factories that `sim.scenarios.Backend` names."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from sim.carla.env import CarlaDrivingEnv
from sim.carla.lane_change import LaneChangeTask
from sim.carla.roads import RoadTask
from sim.carla.servers import LiteServer, CarlaServer, server_at
from sim.carla.task import CarlaTask
from sim.lane_change import LaneChangeConfig
from sim.scenarios import Scenario
from sim.vec import DrivingEnvs


def make_env(
    scenario: Scenario, config: Any, render_mode: str | None = None, place: str | None = None
) -> CarlaDrivingEnv:
    """One world on the server at `place` (HOST:PORT, or the path of a CarlaUE4.sh); `config` is resolved."""
    return _make(scenario, config, server_at(place), render_mode)


def make_lite_env(scenario: Scenario, config: Any, render_mode: str | None = None) -> CarlaDrivingEnv:
    """One world on a carla-lite of its own."""
    return _make(scenario, config, LiteServer(), render_mode)


def make_vec(
    scenario: Scenario, config: Any, num_envs: int, seed: int | None, workers: int, place: str | None = None
) -> DrivingEnvs:
    """One world on the server at `place`; more of them need a server each, so they are refused."""
    if num_envs > 1:
        from sim.errors import UsageError

        raise UsageError(f"num_envs = {num_envs}: a CARLA server has one world; use 1, or backend 'carla-lite'")
    return _spread(functools.partial(make_env, scenario, config, place=place), 1, seed, workers)


def make_lite_vec(scenario: Scenario, config: Any, num_envs: int, seed: int | None, workers: int) -> DrivingEnvs:
    """`num_envs` worlds, each on a carla-lite of its own; `workers` > 0 uses processes for our side too."""
    return _spread(functools.partial(make_lite_env, scenario, config), num_envs, seed, workers)


def _spread(make: Callable[[], CarlaDrivingEnv], num_envs: int, seed: int | None, workers: int) -> DrivingEnvs:
    return DrivingEnvs([make] * num_envs, seed, workers)


def _make(scenario: Scenario, config: Any, server: CarlaServer, render_mode: str | None) -> CarlaDrivingEnv:
    task: CarlaTask = LaneChangeTask(config) if isinstance(config, LaneChangeConfig) else RoadTask(config)
    return CarlaDrivingEnv(scenario.name, config, task, server, render_mode)
