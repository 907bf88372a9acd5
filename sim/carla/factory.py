"""Factories of CARLA environments, named by `sim.scenarios.Backend`."""

from __future__ import annotations

import functools
from typing import Any

from sim.carla.env import CarlaDrivingEnv
from sim.carla.lane_change import LaneChangeTask
from sim.carla.roads import RoadTask
from sim.carla.servers import CarlaServer, LiteServer, server_at
from sim.carla.task import CarlaTask
from sim.errors import UsageError
from sim.lane_change import LaneChangeConfig
from sim.scenarios import Scenario
from sim.vec import DrivingEnvs


def make_env(
    scenario: Scenario, config: Any, render_mode: str | None = None, place: str | None = None
) -> CarlaDrivingEnv:
    """An environment on a real server.

    Args:
        scenario: From the registry.
        config: Its resolved config.
        render_mode: rgb_array, human, or None.
        place: HOST:PORT, or the path of a CarlaUE4.sh; None for 127.0.0.1:2000.

    Returns:
        The environment.

    Raises:
        UsageError: The place is invalid.
    """
    return _make(scenario, config, server_at(place), render_mode)


def make_lite_env(scenario: Scenario, config: Any, render_mode: str | None = None) -> CarlaDrivingEnv:
    """An environment on a carla-lite of its own.

    Args:
        scenario: From the registry.
        config: Its resolved config.
        render_mode: rgb_array, human, or None.

    Returns:
        The environment.
    """
    return _make(scenario, config, LiteServer(), render_mode)


def make_vec(
    scenario: Scenario,
    config: Any,
    num_envs: int,
    seed: int | None,
    workers: int,
    render_mode: str | None = None,
    place: str | None = None,
) -> DrivingEnvs:
    """One environment on a real server, behind the vectorised contract.

    Args:
        scenario: From the registry.
        config: Its resolved config.
        num_envs: 1.
        seed: Of the episodes.
        workers: Worker processes; 0 for none.
        render_mode: rgb_array, human, or None.
        place: HOST:PORT, or the path of a CarlaUE4.sh; None for 127.0.0.1:2000.

    Returns:
        The environment.

    Raises:
        UsageError: More than one environment was asked for: each needs a server of its own.
    """
    if num_envs > 1:
        raise UsageError(f"num_envs = {num_envs}: a CARLA server has one world; use 1, or backend 'carla-lite'")
    return DrivingEnvs([functools.partial(make_env, scenario, config, render_mode, place)], seed, workers)


def make_lite_vec(
    scenario: Scenario, config: Any, num_envs: int, seed: int | None, workers: int, render_mode: str | None = None
) -> DrivingEnvs:
    """Environments on a carla-lite each.

    Args:
        scenario: From the registry.
        config: Its resolved config.
        num_envs: Number of environments.
        seed: Of the episodes.
        workers: Worker processes for the client side; 0 for none. Every carla-lite is a process of its own anyway.
        render_mode: rgb_array, human, or None.

    Returns:
        The environments.
    """
    return DrivingEnvs([functools.partial(make_lite_env, scenario, config, render_mode)] * num_envs, seed, workers)


def _make(scenario: Scenario, config: Any, server: CarlaServer, render_mode: str | None) -> CarlaDrivingEnv:
    task: CarlaTask = LaneChangeTask(config) if isinstance(config, LaneChangeConfig) else RoadTask(config)
    return CarlaDrivingEnv(scenario.name, config, task, server, render_mode)
