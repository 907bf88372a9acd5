"""The engine's native interface: a batch of environments whose state is two arrays, stepped into shared buffers.

A family subclasses `EnvBatch` and supplies its state layout and kernels. Copying an environment is copying a row, which
is what search, branched roll-outs and resumed runs are made of.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
from gymnasium import spaces

from sim.compiled import compile_once
from sim.engine.rng import seeded_stream
from sim.env import Branches, EpisodeSummary
from sim.errors import UsageError
from sim.outcome import Outcome
from sim.scene import Scene
from sim.view import Views

PARALLEL_FROM = 256
"""Batch size from which the parallel kernel pays; below it the serial one is used whatever `threads` says."""


class EngineState(NamedTuple):
    """State of N environments, the environment being the first axis of both arrays."""

    envs: np.ndarray
    """Records (N,) that start with `episode.FIELDS`."""
    bodies: np.ndarray
    """What moves in them, (N, ...) as the family lays it out."""


class EnvBatch(ABC):
    """N environments, started from random seeds until they are seeded.

    After `reset` or `step` the buffers below hold the present values; callers copy what they keep.
    """

    family: str
    num_actions: int
    observation_space: spaces.Box
    substeps: int
    """Simulation steps per decision."""
    decision_frequency: float
    """Hz"""
    config: Any
    state: EngineState

    def __init__(self, num_envs: int, threads: int = 1) -> None:
        """Allocate the batch; compile its kernels where this version of them has not been compiled yet.

        Args:
            num_envs: N.
            threads: CPU threads that step it, from `PARALLEL_FROM` environments on.
        Raises:
            UsageError: The machine does not offer so many threads.
        """
        most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
        if not 1 <= threads <= most:
            raise UsageError(f"threads = {threads}: this machine offers 1 to {most}")
        self.num_envs = num_envs
        self.threads = threads
        self.parallel = threads > 1 and num_envs >= PARALLEL_FROM
        self.state = self.allocate(num_envs)
        self.obs = np.zeros((num_envs, *self.observation_space.shape), np.float32)
        """float32 (N, ...)"""
        self.flat_obs = self.obs.reshape(num_envs, -1, self.obs.shape[-1])
        """The same buffer as (N, rows, columns)."""
        self.rewards = self.state.envs["reward"]
        """float64 (N,)"""
        self.outcomes = self.state.envs["outcome"]
        """int64 (N,) `Outcome` of the last step; RUNNING while the episode goes on."""
        self.terminated = self.state.envs["terminated"]
        """bool (N,): the task itself ended with the last step."""
        self.truncated = self.state.envs["truncated"]
        """bool (N,): a time limit outside the task was reached; may come together with `terminated`."""
        self.masks = np.ones((num_envs, self.num_actions), bool)
        """bool (N, A) legal actions."""
        self._scratch: EngineState | None = None
        compile_once(f"the {self.family} engine{' for threads' * self.parallel}", self._try_out)
        self.seed(range(num_envs), [None] * num_envs)

    def _try_out(self) -> None:
        """Call every kernel once, and clear what they have computed."""
        self.seed(range(self.num_envs), [0] * self.num_envs)
        self._reset(np.arange(self.num_envs))
        self._step(np.zeros(self.num_envs, np.int64))
        self.branch(0, np.zeros((1, 1), np.int64))
        self.views(np.arange(1))
        for array in (*self.state, self.obs):
            array[...] = np.zeros((), array.dtype)

    # -- what a family supplies ----------------------------------------------------------------------------------------

    @abstractmethod
    def allocate(self, num_envs: int) -> EngineState:
        """Empty state of `num_envs` environments."""

    @abstractmethod
    def _reset(self, rows: np.ndarray) -> None:
        """Start the environments `rows` from their random streams; fills their observations and masks."""

    @abstractmethod
    def _step(self, actions: np.ndarray) -> None:
        """One decision of every environment, into state and buffers."""

    @abstractmethod
    def _roll_out(self, state: EngineState, plans: np.ndarray, rewards: np.ndarray, final: np.ndarray) -> None:
        """Play plan b in row b of `state` until its episode ends; fills `rewards` and `final` of `Branches`."""

    @property
    @abstractmethod
    def vehicles(self) -> float:
        """Vehicles per environment, on average, egos included."""

    @property
    @abstractmethod
    def speeds(self) -> np.ndarray:
        """float64 (N,) m/s of every ego."""

    @property
    @abstractmethod
    def crashed(self) -> np.ndarray:
        """bool (N,): whether the ego has crashed."""

    @abstractmethod
    def scene(self, i: int) -> Scene:
        """Snapshot of environment i."""

    @abstractmethod
    def views(self, rows: np.ndarray) -> Views:
        """What the egos of the environments `rows` see: `views_of` their scenes, by a kernel."""

    @abstractmethod
    def reward_terms(self, i: int, action: int) -> dict[str, float]:
        """Terms of environment i's last reward, as the reference simulator names them; `action` led to it.

        Computed on request: this takes up to ten times as long as the decision.
        """

    # -- what all have -------------------------------------------------------------------------------------------------

    @property
    def action_space(self) -> spaces.Discrete:
        """Action space of one environment."""
        return spaces.Discrete(self.num_actions)

    def info(self, i: int) -> dict[str, Any]:
        """Facts of environment i that every step reports."""
        return {"speed": float(self.speeds[i]), "crashed": bool(self.crashed[i])}

    def summary(self, i: int) -> EpisodeSummary:
        """Figures of environment i's episode so far."""
        env = self.state.envs[i]
        outcome, steps = Outcome(env["outcome"]), int(env["steps"])
        return EpisodeSummary(
            outcome=outcome.name.lower(),
            success=outcome == Outcome.SUCCESS,
            crashed=outcome == Outcome.CRASH,
            steps=steps,
            episode_return=float(env["episode_return"]),
            mean_speed=float(env["speed_sum"] / max(steps, 1)),
            distance=float(env["distance"]),
            lane_changes=int(env["lane_changes"]),
            min_ttc=float(env["min_ttc"]),
            backend="engine",
        )

    def final_info(self, i: int) -> dict[str, Any]:
        """What the last step of an episode reports besides."""
        summary = self.summary(i)
        return {
            "outcome": summary.outcome,
            "success": summary.success,
            "is_success": summary.success,
            "summary": dataclasses.asdict(summary),
        }

    def seed(self, rows: Sequence[int] | np.ndarray, seeds: Sequence[int | None]) -> None:
        """Set random streams, from the next reset on.

        Args:
            rows: Environments.
            seeds: One seed for each: its stream becomes that of gymnasium's `np_random`. None draws a seed.
        """
        for row, seed in zip(rows, seeds, strict=True):
            self.state.envs["stream"][row] = seeded_stream(seed)

    def reset(self, rows: np.ndarray | None = None) -> None:
        """Start new episodes; each environment continues its own random stream.

        Args:
            rows: Environments, int (R,); None: all.
        """
        self._reset(np.arange(self.num_envs) if rows is None else np.asarray(rows, np.int64))

    def step(self, actions: np.ndarray) -> None:
        """Make one decision in every environment. Ended ones must be reset before the next step.

        Args:
            actions: Action ids, int (N,).
        Raises:
            ValueError: Wrong shape, or an action that does not exist.
        """
        actions = np.ascontiguousarray(actions, np.int64)
        if actions.shape != (self.num_envs,):
            raise ValueError(f"expected actions of shape ({self.num_envs},), found {actions.shape}")
        self._check_actions(actions, "actions")
        if self.parallel:
            numba.set_num_threads(self.threads)
        self._step(actions)

    def _check_actions(self, actions: np.ndarray, what: str) -> None:
        if actions.size and actions.view(np.uint64).max() >= self.num_actions:  # negative ones count as huge
            raise ValueError(f"{what} must be 0 to {self.num_actions - 1}, found {actions.min()} to {actions.max()}")

    def get_state(self) -> tuple[np.ndarray, ...]:
        """Copies of the state arrays; with `set_state` the future repeats bit for bit."""
        return tuple(array.copy() for array in self.state)

    def set_state(self, state: Sequence[np.ndarray]) -> None:
        """Continue exactly from a `get_state` value.

        Args:
            state: The value.
        Raises:
            ValueError: It is of another batch size or config.
        """
        for own, given in zip(self.state, state, strict=True):
            if own.shape != given.shape:
                raise ValueError(f"state of another batch or config: expected shape {own.shape}, found {given.shape}")
            own[...] = given

    def clone(self, source: int, rows: Sequence[int] | np.ndarray) -> None:
        """Make `rows` exact copies of environment `source`, its random stream included."""
        for array in self.state:
            array[rows] = array[source]

    def branch(self, source: int, plans: np.ndarray) -> Branches:
        """Roll plans out from copies of one environment, which itself is left as it is.

        Args:
            source: The environment.
            plans: Action ids, int (P, H).
        Returns:
            How they went.
        Raises:
            ValueError: Wrong shape, or an action that does not exist.
        """
        plans = np.ascontiguousarray(plans, np.int64)
        if plans.ndim != 2:
            raise ValueError(f"plans must have shape (P, H), found {plans.shape}")
        self._check_actions(plans, "plans")
        count, horizon = plans.shape
        if self._scratch is None or len(self._scratch.envs) < count:
            self._scratch = self.allocate(count)
        for copy, own in zip(self._scratch, self.state, strict=True):
            copy[:count] = own[source]
        rewards, final = np.zeros((count, horizon)), np.zeros((count, 6))
        self._roll_out(self._scratch, plans, rewards, final)
        ended = self._scratch.envs[:count]
        outcomes = ended["outcome"]
        return Branches(
            rewards=rewards,
            steps=ended["steps"] - self.state.envs["steps"][source],
            crashed=outcomes == Outcome.CRASH,
            success=outcomes == Outcome.SUCCESS,
            ended=outcomes != Outcome.RUNNING,
            final=final,
        )
