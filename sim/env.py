"""What driving environments offer beyond gymnasium: their scene, legal actions, branching, exact state.

`DrivingEnv` is one environment, `DrivingVecEnv` several behind Stable-Baselines3's VecEnv contract.
Both report a finished episode in its last info as `info["summary"]`, an `EpisodeSummary` in plain values.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import VecEnv

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


@dataclasses.dataclass(frozen=True, slots=True)
class Branches:
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

    @abstractmethod
    def scene(self) -> Scene:
        """The present scene."""

    @abstractmethod
    def branch(self, plans: np.ndarray) -> Branches:
        """Roll plans out from copies of the exact present state; this environment is left as it is.

        Args:
            plans: Discrete actions, int (P, H).
        Returns:
            How they went.
        """

    def reward_terms(self) -> dict[str, float]:
        """Terms of the last decision's reward that are too slow for the info of every step; {} where there are none."""
        return {}


class ScenarioVecEnv(VecEnv, ABC):
    """N environments behind SB3's contract: same-step reset, `terminal_observation`, `TimeLimit.truncated`."""

    scenario: str
    backend: str
    scenario_config: Any
    exact_state: bool = True
    """As in `ScenarioEnv`."""

    @abstractmethod
    def action_masks(self) -> np.ndarray:
        """Legal actions of every environment now, bool (N, A)."""

    @abstractmethod
    def reset_to(self, seeds: Sequence[int]) -> np.ndarray:
        """Start a new episode in every environment.

        Args:
            seeds: One seed for each of the N environments.
        Returns:
            Observations (N, ...).
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
            plans: Discrete actions, int (P, H).
        Returns:
            How they went.
        """
