"""Builds engine environments: the factories that `sim.scenarios.Backend` names."""

from __future__ import annotations

from typing import Any

from gymnasium.vector import AutoresetMode

from sim.engine.batch import EnvBatch
from sim.engine.families import family_of
from sim.engine.single import EngineEnv, engine_env
from sim.engine.vec import EngineVecEnv
from sim.engine.vector import EngineVectorEnv
from sim.errors import UsageError
from sim.scenarios import Scenario


def why_not(scenario: Scenario, config: Any) -> str | None:
    """What the engine does not cover in a resolved config of a scenario; None: it covers all."""
    family = family_of(scenario)
    return f"environments of kind {scenario.family}" if family is None else family.why_not(config)


def make_batch(scenario: Scenario, config: Any, num_envs: int, threads: int = 1) -> EnvBatch:
    """The native batched interface. Its environments must be seeded and reset before they are stepped.

    Args:
        scenario: One that a family covers.
        config: Its resolved config.
        num_envs: N.
        threads: CPU threads that step large batches.
    Returns:
        The batch.
    Raises:
        UsageError: No family covers the scenario or its config, or the machine does not offer so many threads.
    """
    family = family_of(scenario)
    if family is None:
        raise UsageError(f"scenario {scenario.name!r} does not run on the engine: choose another backend")
    reason = family.why_not(config)
    if reason is not None:
        raise UsageError(f"scenario {scenario.name!r}: the engine does not cover {reason}: choose another backend")
    return family.make(scenario, config, num_envs, threads)


def make_env(scenario: Scenario, config: Any, render_mode: str | None = None) -> EngineEnv:
    """One environment of the scenario."""
    return engine_env(scenario.name, make_batch(scenario, config, 1), render_mode)


def make_vec(
    scenario: Scenario, config: Any, num_envs: int, seed: int | None, workers: int, render_mode: str | None = None
) -> EngineVecEnv:
    """`num_envs` environments of the scenario, number i starting from seed + i. `workers` counts threads (0: one)."""
    return EngineVecEnv(scenario.name, make_batch(scenario, config, num_envs, max(workers, 1)), seed, render_mode)


def make_vector(
    scenario: Scenario, config: Any, num_envs: int, autoreset: AutoresetMode, render_mode: str | None = None
) -> EngineVectorEnv:
    """`num_envs` environments of the scenario for gymnasium's vector interface."""
    return EngineVectorEnv(scenario.name, make_batch(scenario, config, num_envs), autoreset, render_mode)
