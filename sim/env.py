"""What driving environments offer beyond gymnasium: their scene, legal actions, branching, exact state.

`DrivingEnv` is one environment, `DrivingVecEnv` several behind Stable-Baselines3's VecEnv contract.
Both report a finished episode in its last info as `info["summary"]`, an `EpisodeSummary` in plain values.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from sim.by_value import ByValue
from sim.config import to_dict
from sim.errors import UsageError
from sim.scene import Scene
from sim.view import Views, views_of


@dataclasses.dataclass(frozen=True, slots=True)
class EpisodeSummary:
    """One finished episode. Speeds in m/s, times in s, distances in m."""

    outcome: str
    """success | crash | missed (the goal or the time limit was missed)"""
    success: bool
    crashed: bool
    steps: int
    episode_return: float
    mean_speed: float
    distance: float
    lane_changes: int
    min_ttc: float
    """Smallest bumper time-to-collision with the car ahead over all decisions; inf when never closing in."""
    backend: str


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Branches(ByValue):
    """Outcome of rolling P action sequences of length H out from one exact state, (P, H) unless noted.

    A branch that ends early keeps its last state; `steps` (P,) says how many decisions it made.
    """

    rewards: np.ndarray
    steps: np.ndarray
    crashed: np.ndarray
    """(P,) bool"""
    success: np.ndarray
    """(P,) bool"""
    ended: np.ndarray
    """(P,) bool: the episode ended within the plan."""
    scenes: Sequence[Scene] | None = None
    """Final scenes where the caller asked for them."""
    final: np.ndarray | None = None
    """(P, 6) float: s, d, lane, target lane, speed, bumper gap ahead in the target lane (inf when free)."""


class ReadOnlyConfig(Mapping[str, Any]):
    """Settings to read. What highway-env changes by writing to them needs a new environment here."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values)

    def __setitem__(self, name: str, value: Any) -> None:
        raise UsageError(f"config[{name!r}] = {value!r}: settings are fixed, make an environment with config={{...}}")

    def update(self, *args: Any, **values: Any) -> None:
        """Refused as assignments are."""
        for name, value in dict(*args, **values).items():
            self[name] = value


class ScenarioEnv(gym.Env, ABC):
    """A single environment of a scenario. `sim.make` returns one, wrapped by nothing that hides these methods."""

    scenario: str
    """Registry name."""
    backend: str
    """The simulator that computes it; results record it."""
    scenario_config: Any
    """The resolved scenario config."""
    exact_state: bool = True
    """`get_state` holds everything that decides the future. False: it holds what decides the next episodes."""
    action_names: tuple[str, ...] = ()
    """Names of discrete actions, or of the components of continuous ones, for people; empty: numbers serve."""

    @abstractmethod
    def action_masks(self) -> np.ndarray:
        """Legal actions now, under the name that sb3-contrib's MaskablePPO uses.

        Returns:
            bool (A,); all True where actions are continuous.
        """

    def get_state(self) -> Any:
        """Everything that decides this environment's future, random streams included; picklable.

        Raises:
            UsageError: Environments of this kind cannot save their state.
        """
        raise UsageError(f"environments of scenario {self.scenario!r} cannot save their state")

    def set_state(self, state: Any) -> None:
        """Continue exactly from a `get_state` value.

        Args:
            state: The value, of the same scenario and config.
        Raises:
            UsageError: Environments of this kind cannot restore a state.
        """
        raise UsageError(f"environments of scenario {self.scenario!r} cannot restore a state")


class DrivingEnv(ScenarioEnv):
    """A single driving environment: it has scenes, and most can be rolled out from copies."""

    @property
    def config(self) -> ReadOnlyConfig:
        """The resolved settings by name, as highway-env's `unwrapped.config`, which scripts read."""
        values = {**self._simulator_config(), **to_dict(self.scenario_config)}
        if values.get("offscreen_rendering") is None:
            values["offscreen_rendering"] = self.render_mode != "human"
        return ReadOnlyConfig(values)

    def _simulator_config(self) -> dict[str, Any]:
        """Settings under highway-env's names that the scenario's config does not hold."""
        return {}

    @abstractmethod
    def scene(self) -> Scene:
        """The present scene.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """

    @abstractmethod
    def branch(self, plans: np.ndarray) -> Branches:
        """Roll plans out from copies of the exact present state; this environment is left as it is.

        Args:
            plans: Discrete actions, int (P, H), or continuous ones, float (P, H, D).
        Returns:
            How they went.
        """

    def reward_terms(self) -> dict[str, float]:
        """Terms of the last decision's reward that are too slow for the info of every step; {} where there are none."""
        return {}


def reset_needed(method: str) -> gym.error.ResetNeeded:
    """The error for a call that needs an episode where none is running, or none has begun."""
    return gym.error.ResetNeeded(f"no episode is running: call reset() before {method}()")


def refuse_options(options: Mapping[str, Any] | None) -> None:
    """Reset options are refused: another config needs another environment.

    Args:
        options: As given to `reset`.
    Raises:
        UsageError: There are some.
    """
    if options:
        raise UsageError(f"reset options {sorted(options)}: not supported, make a new one with another config")


def warn_of_no_render_mode() -> None:
    """What `render()` says without a render mode, as gymnasium's environments do, before it returns None."""
    gym.logger.warn("render() without a render mode: make the environment with render_mode='rgb_array' or 'human'")


class ScenarioVecEnv(VecEnv, ABC):
    """N environments behind SB3's contract: same-step reset, `terminal_observation`, `TimeLimit.truncated`."""

    scenario: str
    backend: str
    scenario_config: Any
    exact_state: bool = True
    """As in `ScenarioEnv`."""

    def existing(self, indices: Any) -> list[int]:
        """SB3's `indices` as numbers of environments.

        Args:
            indices: None for all, one number, or several.
        Returns:
            The numbers, in the order given.
        Raises:
            UsageError: There is no such environment.
        """
        wanted = [int(i) for i in self._get_indices(indices)]
        if any(not 0 <= i < self.num_envs for i in wanted):
            raise UsageError(f"indices {wanted}: there are environments 0 to {self.num_envs - 1}")
        return wanted

    @abstractmethod
    def action_masks(self) -> np.ndarray:
        """Legal actions of every environment now, bool (N, A).

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """

    @abstractmethod
    def reset_to(self, seeds: Sequence[int]) -> Any:
        """Start a new episode in every environment.

        Args:
            seeds: One seed for each of the N environments.
        Returns:
            Observations (N, ...), by key in a Dict space.
        """

    @abstractmethod
    def get_state(self) -> Any:
        """Everything that decides the future of all environments, random streams included; picklable."""

    @abstractmethod
    def set_state(self, state: Any) -> None:
        """Continue exactly from a `get_state` value.

        Args:
            state: The value, of the same scenario, config and N.
        """


class DrivingVecEnv(ScenarioVecEnv):
    """N driving environments."""

    @abstractmethod
    def scenes(self, indices: Sequence[int]) -> list[Scene]:
        """Present scenes.

        Args:
            indices: Environments.
        Returns:
            One scene each.
        Raises:
            UsageError: There is no such environment.
            gymnasium.error.ResetNeeded: Before the first reset.
        """

    def views(self, indices: Sequence[int]) -> Views:
        """What egos see, in the numbers that rules decide on.

        Args:
            indices: Environments.
        Returns:
            Their views.
        Raises:
            ValueError: The actions are not meta-actions.
        """
        return views_of(self.scenes(indices))

    @abstractmethod
    def branch(self, index: int, plans: np.ndarray) -> Branches:
        """`DrivingEnv.branch` from one environment.

        Args:
            index: The environment.
            plans: Discrete actions, int (P, H), or continuous ones, float (P, H, D).
        Returns:
            How they went.
        """
