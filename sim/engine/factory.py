"""Builds engine scenarios: the two factories that `sim.scenarios.Backend` names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.engine.lane_change import LaneChangeWorld
from sim.engine.single import EngineEnv
from sim.engine.vec import EngineVecEnv
from sim.lane_change import LaneChangeConfig

if TYPE_CHECKING:
    from sim.scenarios import Scenario

WORLDS = {LaneChangeConfig: LaneChangeWorld}
"""Which family runs a config."""


def make_env(scenario: Scenario, config: LaneChangeConfig, render_mode: str | None = None) -> EngineEnv:
    """One world of the scenario; `config` is resolved."""
    return EngineEnv(scenario.name, WORLDS[type(config)](config, 1), render_mode)


def make_vec(
    scenario: Scenario, config: LaneChangeConfig, num_envs: int, seed: int | None, workers: int
) -> EngineVecEnv:
    """`num_envs` worlds of the scenario, world i starting from seed + i. `workers` counts threads here (0: one)."""
    return EngineVecEnv(scenario.name, WORLDS[type(config)](config, num_envs, max(workers, 1)), seed)
