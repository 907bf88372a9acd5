"""Builds gymnasium's MuJoCo environments, their keyword arguments checked, MuJoCo's deprecation notes kept quiet."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.envs.mujoco.mujoco_env import MujocoEnv as GymnasiumEnv
from gymnasium.envs.registration import load_env_creator

from sim.errors import UsageError, unknown
from sim.mujoco.config import MujocoConfig
from sim.mujoco.scenario import MujocoScenario

SET_ELSEWHERE = ("self", "kwargs", "model_path", "observation_space", "render_mode", "width", "height")
"""Parameters of the constructors that are no options: gymnasium's own, and those that the config names."""


def construct(scenario: MujocoScenario, config: MujocoConfig, render_mode: str | None) -> GymnasiumEnv:
    """gymnasium's environment without its wrappers.

    Args:
        scenario: The registry entry.
        config: Its resolved config.
        render_mode: rgb_array or None.
    Raises:
        UsageError: An option is unknown, or the environment cannot work with its value.
    """
    spec = gym.spec(scenario.env_id)
    kind: Any = load_env_creator(str(spec.entry_point))
    _check_names(scenario, config, kind)
    size = {"width": config.width, "height": config.height}
    values = {**spec.kwargs, **config.options, **size, "render_mode": render_mode}
    with deprecations_ignored():
        if not config.options:
            return kind(**values)
        try:
            _try(kind(**values))
            return kind(**values)
        except Exception as error:  # values of options are checked nowhere: they may raise anything
            words = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UsageError(f"{scenario.name}.options = {config.options}: cannot be used ({words})") from None


def _check_names(scenario: MujocoScenario, config: MujocoConfig, kind: type) -> None:
    """Refuse keyword arguments that neither the environment nor gymnasium's base class has."""
    found = [*inspect.signature(kind).parameters, *inspect.signature(GymnasiumEnv.__init__).parameters]
    known = dict.fromkeys(name for name in found if name not in SET_ELSEWHERE)
    for name in config.options:
        if name not in known:
            raise unknown(f"key in {scenario.name}.options", name, known)


def _try(env: GymnasiumEnv) -> None:
    """One decision in an environment that is not used for anything else: some values fail there only."""
    env.reset(seed=0)
    env.step(np.zeros(env.model.nu, np.float32))
    env.close()


@contextmanager
def deprecations_ignored() -> Iterator[None]:
    """A block in which MuJoCo's notes on deprecated attributes of models are dropped, other warnings are Python's.

    gymnasium's half_cheetah.xml has one, which MuJoCo 4 prints and appends to MUJOCO_LOG.TXT in the working directory.
    """
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda words: None if "deprecated" in words else warnings.warn(words, stacklevel=2))
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)
