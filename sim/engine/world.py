"""The engine's native interface: a batch of worlds whose state is a tuple of arrays, stepped into shared buffers.

A family subclasses `World` and supplies its state layout and kernels. Copying a world is copying a row, which is what
search, branched roll-outs and resumed runs are made of.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

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


class World(ABC):
    """N worlds, drawn at random until they are seeded.

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
    state: Any
    """NamedTuple of arrays whose first axis is the world: among them `worlds`, records with `steps`, `outcome`,
    `episode_return`, `speed_sum`, `distance`, `lane_changes`, `min_ttc`, and `stream`, uint64 (N, STREAM)."""

    def __init__(self, num_envs: int, threads: int = 1) -> None:
        most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
        if not 1 <= threads <= most:
            raise UsageError(f"threads = {threads}: this machine offers 1 to {most}")
        self.num_envs = num_envs
        self.threads = threads
        self.parallel = threads > 1 and num_envs >= PARALLEL_FROM
        self.state = self.allocate(num_envs)
        self.obs = np.zeros((num_envs, *self.observation_space.shape), np.float32)
        """float32 (N, ...)"""
        self.rewards = np.zeros(num_envs)
        """float64 (N,)"""
        self.outcomes = np.zeros(num_envs, np.int64)
        """int64 (N,) `Outcome` of the last step; RUNNING while the episode goes on."""
        self.terminated = np.zeros(num_envs, bool)
        """bool (N,): the task itself ended with the last step."""
        self.truncated = np.zeros(num_envs, bool)
        """bool (N,): a time limit outside the task was reached; may come together with `terminated`."""
        self.masks = np.ones((num_envs, self.num_actions), bool)
        """bool (N, A) legal actions."""
        self._scratch: Any = None
        compile_once(f"the {self.family} engine{' for threads' * self.parallel}", self._try_out)
        self.seed(range(num_envs), [None] * num_envs)

    def _try_out(self) -> None:
        """Use every kernel once, and forget it."""
        self.seed(range(self.num_envs), [0] * self.num_envs)
        self._reset(np.arange(self.num_envs))
        self._step(np.zeros(self.num_envs, np.int64))
        self.branch(0, np.zeros((1, 1), np.int64))
        self.views(np.arange(1))
        for array in (*self.state, self.obs, self.rewards, self.outcomes, self.terminated, self.truncated):
            array[...] = np.zeros((), array.dtype)

    @abstractmethod
    def allocate(self, num_envs: int) -> Any:
        """Empty state arrays for `num_envs` worlds."""

    @abstractmethod
    def _reset(self, rows: np.ndarray) -> None:
        """Start the worlds `rows` from their random streams."""

    @abstractmethod
    def _step(self, actions: np.ndarray) -> None:
        """One decision of every world, into the buffers."""

    @abstractmethod
    def _roll_out(
        self, state: Any, plans: np.ndarray, rewards: np.ndarray, steps: np.ndarray, final: np.ndarray
    ) -> np.ndarray:
        """Play plan b in row b of `state`; fills the arrays of `Branches` and returns outcomes (P,)."""

    @property
    @abstractmethod
    def vehicles(self) -> float:
        """Vehicles per world, on average, egos included."""

    @property
    @abstractmethod
    def speeds(self) -> np.ndarray:
        """float64 (N,) m/s of every ego."""

    @property
    @abstractmethod
    def crashed(self) -> np.ndarray:
        """bool (N,): has the ego crashed?"""

    @abstractmethod
    def scene(self, i: int) -> Scene:
        """Snapshot of world i."""

    @abstractmethod
    def views(self, rows: np.ndarray) -> Views:
        """What the egos of the worlds `rows` see: `views_of` their scenes, by a kernel."""

    @property
    def action_space(self) -> spaces.Discrete:
        """Action space of one world."""
        return spaces.Discrete(self.num_actions)

    def info(self, i: int) -> dict[str, Any]:
        """Facts of world i that every step reports."""
        return {"speed": float(self.speeds[i]), "crashed": bool(self.crashed[i])}

    def summary(self, i: int) -> EpisodeSummary:
        """Figures of world i's episode so far."""
        w = self.state.worlds[i]
        outcome, steps = Outcome(w["outcome"]), int(w["steps"])
        return EpisodeSummary(
            outcome=outcome.name.lower(),
            success=outcome == Outcome.SUCCESS,
            crashed=outcome == Outcome.CRASH,
            steps=steps,
            episode_return=float(w["episode_return"]),
            mean_speed=float(w["speed_sum"] / max(steps, 1)),
            distance=float(w["distance"]),
            lane_changes=int(w["lane_changes"]),
            min_ttc=float(w["min_ttc"]),
            backend="engine",
        )

    def final_info(self, i: int) -> dict[str, Any]:
        """What the last step of an episode reports beside them."""
        summary = self.summary(i)
        return {
            "outcome": summary.outcome,
            "success": summary.success,
            "is_success": summary.success,
            "summary": dataclasses.asdict(summary),
        }

    def seed(self, rows: Sequence[int] | np.ndarray, seeds: Sequence[int | None]) -> None:
        """Give each of `rows` the stream that gymnasium's `np_random` has for its seed, from its next reset on."""
        for row, seed in zip(rows, seeds, strict=True):
            self.state.stream[row] = seeded_stream(seed)

    def reset(self, rows: np.ndarray | None = None) -> None:
        """Start `rows` (default: all) afresh; each continues its own random stream."""
        rows = np.arange(self.num_envs) if rows is None else np.asarray(rows, np.int64)
        self.outcomes[rows] = Outcome.RUNNING
        self.terminated[rows] = self.truncated[rows] = False
        self._reset(rows)

    def step(self, actions: np.ndarray) -> None:
        """One decision of every world. Args: int (N,). Ended worlds must be reset before the next step."""
        actions = np.ascontiguousarray(actions, np.int64)
        if actions.shape != (self.num_envs,):
            raise ValueError(f"expected actions of shape ({self.num_envs},), found {actions.shape}")
        if actions.size and not 0 <= actions.min() <= actions.max() < self.num_actions:
            raise ValueError(f"actions must be 0 to {self.num_actions - 1}, found {actions.min()} to {actions.max()}")
        if self.parallel:
            numba.set_num_threads(self.threads)
        self._step(actions)

    def get_state(self) -> tuple[np.ndarray, ...]:
        """Copies of all state arrays; with `set_state` the future repeats bit for bit."""
        return tuple(array.copy() for array in self.state)

    def set_state(self, state: Sequence[np.ndarray]) -> None:
        for own, given in zip(self.state, state, strict=True):
            if own.shape != given.shape:
                raise ValueError(f"state of another batch or config: expected shape {own.shape}, found {given.shape}")
            own[...] = given

    def clone(self, source: int, rows: Sequence[int] | np.ndarray) -> None:
        """Make `rows` exact copies of world `source`, its random stream included."""
        for array in self.state:
            array[rows] = array[source]

    def branch(self, source: int, plans: np.ndarray) -> Branches:
        """Roll plans (P, H) out from copies of world `source`; the world itself is untouched."""
        plans = np.ascontiguousarray(plans, np.int64)
        if plans.ndim != 2 or (plans.size and not 0 <= plans.min() <= plans.max() < self.num_actions):
            raise ValueError(f"plans must be (P, H) actions of 0 to {self.num_actions - 1}")
        count, horizon = plans.shape
        if self._scratch is None or len(self._scratch.stream) < count:
            self._scratch = self.allocate(count)
        for copy, own in zip(self._scratch, self.state, strict=True):
            copy[:count] = own[source]
        rewards, steps = np.zeros((count, horizon)), np.zeros(count, np.int64)
        final = np.zeros((count, 6))
        outcomes = self._roll_out(self._scratch, plans, rewards, steps, final)
        return Branches(
            rewards=rewards,
            steps=steps,
            crashed=outcomes == Outcome.CRASH,
            success=outcomes == Outcome.SUCCESS,
            ended=outcomes != Outcome.RUNNING,
            final=final,
        )
