"""Building highway-env environments without the side effects of their constructors."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from gymnasium import spaces
from highway_env.envs.common.abstract import AbstractEnv
from highway_env.envs.lane_keeping_env import LaneKeepingEnv

from sim.errors import UsageError


def env_class(path: str) -> type[AbstractEnv]:
    """A class by path.

    Args:
        path: "module:Class".
    Returns:
        The class.
    """
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def construct(env_type: type[AbstractEnv], config: Mapping[str, Any]) -> AbstractEnv:
    """Build an environment that shares no state with others of its class.

    highway-env writes render_fps into `metadata`, a dict of the *class*, from within the constructor: the environment
    gets its own dict before that. Environments are made without a render mode, which three constructors do not take.

    Args:
        env_type: The class.
        config: Its config in highway-env's own form.
    Returns:
        The environment, reset once by its constructor.
    Raises:
        UsageError: highway-env cannot build and reset an environment from the config (keys that do not go together).
    """
    made = cast(Any, env_type).__new__(env_type)
    made.metadata = dict(env_type.metadata)
    try:
        made.__init__(config=dict(config))
    except Exception as error:
        raise UsageError(
            f"{env_type.__name__} cannot be built from this config ({type(error).__name__}: {error}): "
            f"check what goes with observation {config.get('observation')} and action {config.get('action')}"
        ) from error
    if type(made.observation_space) is spaces.Space:
        raise UsageError(f"{env_type.__name__} does not support observation type {config['observation']['type']!r}")
    return made


class LaneKeeping(LaneKeepingEnv):
    """lane-keeping-v0 that observes *after* moving, keeps time, and reports speed and crashes.

    highway-env returns the observation taken before the step (one action late), an empty info, and a trajectory list
    that grows over all episodes.
    """

    def __init__(self, config: dict | None = None, render_mode: str | None = None) -> None:
        self.lane: Any = None
        self.lanes: list[Any] = []
        AbstractEnv.__init__(self, config, render_mode)

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
        if self.lanes and not self.lane.on_lane(self.vehicle.position):
            self.lane = self.lanes.pop(0)
        self.time += 1 / self.config["policy_frequency"]
        self._simulate(action)
        obs = self.observation_type.observe()
        reward = self._reward(action)
        if self.render_mode == "human":
            self.render()
        return obs, reward, False, False, self._info(obs, action)
