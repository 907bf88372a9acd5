"""Factories of MuJoCo environments, named by `sim.scenarios.Backend`; they say in one line where it is missing."""

from __future__ import annotations

import functools
import importlib
import os
from typing import TYPE_CHECKING

from sim.errors import UsageError
from sim.mujoco.config import MujocoConfig
from sim.mujoco.pictures import VARIABLE
from sim.mujoco.scenario import MujocoScenario

if TYPE_CHECKING:
    from sim.mujoco.env import MujocoEnv
    from sim.mujoco.vec import MujocoEnvs

MODULES = ("mujoco", "imageio", "glfw", "gymnasium.envs.mujoco.mujoco_rendering")
"""What the extra brings, in the order in which it is asked for."""


def make_env(scenario: MujocoScenario, config: MujocoConfig, render_mode: str | None = None) -> MujocoEnv:
    """One environment.

    Args:
        scenario: From the registry.
        config: Its resolved config.
        render_mode: rgb_array or None.
    Returns:
        The environment.
    Raises:
        UsageError: MuJoCo is not installed or broken, or the environment cannot be made.
    """
    require_mujoco(scenario)
    from sim.mujoco.env import MujocoEnv

    return MujocoEnv(scenario, config, render_mode)


def make_vec(
    scenario: MujocoScenario,
    config: MujocoConfig,
    num_envs: int,
    seed: int | None,
    workers: int,
    render_mode: str | None = None,
) -> MujocoEnvs:
    """Several environments.

    Args:
        scenario: From the registry.
        config: Its resolved config.
        num_envs: N, at least 1.
        seed: Environment i starts from seed + i; None: from random seeds.
        workers: Number of worker processes; 0: all environments run in this one.
        render_mode: rgb_array or None.
    Returns:
        The environments.
    Raises:
        UsageError: As in `make_env`.
    """
    require_mujoco(scenario)
    from sim.mujoco.vec import MujocoEnvs

    return MujocoEnvs([functools.partial(make_env, scenario, config, render_mode)] * num_envs, seed, workers)


def require_mujoco(scenario: MujocoScenario) -> None:
    """Import MuJoCo and gymnasium's environments of it.

    Args:
        scenario: What needs it, for messages.
    Raises:
        UsageError: It is not installed, or cannot be imported.
    """
    try:
        for module in MODULES:
            importlib.import_module(module)
    except ModuleNotFoundError:
        raise UsageError(f"scenario {scenario.name!r} needs MuJoCo: pip install 'lgdrl[mujoco]'") from None
    except Exception as error:  # MuJoCo, whose import loads the library that MUJOCO_GL names, may raise anything
        words = (str(error).strip().splitlines() or [""])[0]
        named = os.environ.get(VARIABLE)
        remedy = f"unset {VARIABLE} = {named!r}" if named else "reinstall it with pip install 'lgdrl[mujoco]'"
        raise UsageError(
            f"scenario {scenario.name!r}: MuJoCo cannot be imported ({type(error).__name__}: {words:.200}): {remedy}"
        ) from None
