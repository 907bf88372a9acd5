"""Builds engine scenarios: the factories that `sim.scenarios.Backend` names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim.engine.highway import HighwayWorld
from sim.engine.lane_change import LaneChangeWorld
from sim.engine.single import EngineEnv
from sim.engine.vec import EngineVecEnv
from sim.engine.vector import EngineVectorEnv
from sim.lane_change import LaneChangeConfig

if TYPE_CHECKING:
    from sim.engine.world import World
    from sim.scenarios import Scenario


def make_world(scenario: Scenario, config: Any, num_envs: int, threads: int = 1) -> World:
    """The native batched interface: `num_envs` worlds of the scenario, `config` resolved; seed and reset them first."""
    if isinstance(config, LaneChangeConfig):
        return LaneChangeWorld(config, num_envs, threads)
    return HighwayWorld(scenario, config, num_envs, threads)


def make_env(scenario: Scenario, config: Any, render_mode: str | None = None) -> EngineEnv:
    """One world of the scenario."""
    return EngineEnv(scenario.name, make_world(scenario, config, 1), render_mode)


def make_vec(scenario: Scenario, config: Any, num_envs: int, seed: int | None, workers: int) -> EngineVecEnv:
    """`num_envs` worlds of the scenario, world i starting from seed + i. `workers` counts threads here (0: one)."""
    return EngineVecEnv(scenario.name, make_world(scenario, config, num_envs, max(workers, 1)), seed)


def make_vector(scenario: Scenario, config: Any, num_envs: int, autoreset: str) -> EngineVectorEnv:
    """`num_envs` worlds of the scenario for gymnasium's vector interface."""
    return EngineVectorEnv(scenario.name, make_world(scenario, config, num_envs), autoreset)
