"""What every world of this platform can do beyond gymnasium: show its scene, name legal actions, branch.

`DrivingEnv` is one world, `DrivingVecEnv` a batch of them behind Stable-Baselines3's VecEnv contract.
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


class DrivingEnv(gym.Env, ABC):
    """A single driving world. `sim.make` returns one, wrapped by nothing that hides these methods."""

    scenario: str
    """Registry name."""
    backend: str
    """Which simulator computes it; results record it."""
    scenario_config: Any
    """The resolved scenario config."""
    exact_state: bool = True
    """`get_state` holds everything that decides the future. False: it holds what decides the next episodes."""

    @abstractmethod
    def scene(self) -> Scene:
        """The present scene."""

    @abstractmethod
    def action_masks(self) -> np.ndarray:
        """bool (A,) of legal actions (the name that sb3-contrib's MaskablePPO asks for); all True if continuous."""

    @abstractmethod
    def branch(self, plans: np.ndarray) -> Branches:
        """Roll (P, H) plans of discrete actions out from copies of the exact present state; this world is untouched."""


class DrivingVecEnv(VecEnv, ABC):
    """N driving worlds with SB3's contract: reset in the same step, `terminal_observation`, `TimeLimit.truncated`."""

    scenario: str
    backend: str
    scenario_config: Any
    exact_state: bool = True
    """As in `DrivingEnv`."""

    @abstractmethod
    def scenes(self, indices: Sequence[int]) -> list[Scene]:
        """Present scenes of the worlds named by `indices`."""

    def views(self, indices: Sequence[int]) -> Views:
        """What the egos of the worlds `indices` see, for rules. ValueError where actions are not meta-actions."""
        return views_of(self.scenes(indices))

    @abstractmethod
    def action_masks(self) -> np.ndarray:
        """bool (N, A): legal actions of every world now."""

    @abstractmethod
    def branch(self, index: int, plans: np.ndarray) -> Branches:
        """As `DrivingEnv.branch`, from world `index`."""

    @abstractmethod
    def reset_to(self, seeds: Sequence[int]) -> np.ndarray:
        """Start world i afresh from seeds[i], for all N worlds; returns observations (N, ...)."""

    @abstractmethod
    def get_state(self) -> Any:
        """Everything that decides the future of all worlds, random streams included; picklable."""

    @abstractmethod
    def set_state(self, state: Any) -> None:
        """Continue exactly from a `get_state` value (same scenario, config and N)."""
