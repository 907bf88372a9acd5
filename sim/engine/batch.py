"""The engine's native interface: a batch of environments whose state is two arrays, stepped into shared buffers.

A family subclasses `EnvBatch` and supplies its state layout and kernels. Copying an environment is copying a row, which
is what search, branched roll-outs and resumed runs are made of.
"""

from __future__ import annotations

import copy
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numba
import numpy as np
from gymnasium import spaces

from sim.actions import MetaAction
from sim.compiled import compile_once
from sim.engine.buffers import Observations, copied, flat_buffer, shaped
from sim.engine.ego_actions import Actions
from sim.engine.episode import RUNNING
from sim.engine.rng import seeded_stream
from sim.env import Branches, EpisodeSummary, reset_needed
from sim.errors import UsageError
from sim.outcome import Outcome
from sim.scene import Scene
from sim.view import Views

PARALLEL_FROM = 256
"""Batch size from which the parallel kernel pays; below it the serial one is used whatever `threads` says."""


VIEWS_OF_BUFFERS = ("obs", "rewards", "outcomes", "terminated", "truncated")
"""Attributes of a batch that share memory with its state or its observations."""


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
    actions: Actions
    """What its actions are."""
    manoeuvres: tuple[MetaAction, ...]
    """What action ids mean; () where they are no meta-actions, and there are no views then."""
    observation_space: spaces.Box | spaces.Dict
    substeps: int
    """Simulation steps per decision."""
    decision_frequency: float
    """Hz"""
    config: Any
    goal_rewards: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    """(achieved goals, desired goals) -> rewards, where observations hold goals."""
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
        self.flat_obs = flat_buffer(self.observation_space, num_envs)
        """The observations as (N, rows, columns), see `buffers`."""
        self.masks = np.ones((num_envs, self.num_actions), bool)
        """bool (N, A) legal actions; all True where they are continuous (A = components)."""
        self.started = np.zeros(num_envs, bool)
        """bool (N,): whether each has been reset at least once."""
        space = self.action_space
        self.last_actions = np.zeros((num_envs, *(space.shape or ())), space.dtype)
        """(N, ...): actions of the last step ..."""
        self.decided = np.zeros(num_envs, bool)
        """... bool (N,): whether there was one since the last reset or restored state."""
        self._scratch: EngineState | None = None
        self._share_memory()
        compile_once(f"the {self.family} engine{' for threads' * self.parallel}", self._try_out)
        self.seed(range(num_envs), [None] * num_envs)

    def _share_memory(self) -> None:
        """Name parts of state and observations."""
        self.obs = shaped(self.observation_space, self.flat_obs)
        """The observations as the space has them: (N, ...), by key in a Dict space."""
        self.rewards = self.state.envs["reward"]
        """float64 (N,)"""
        self.outcomes = self.state.envs["outcome"]
        """int64 (N,) `Outcome` of the last step; RUNNING while the episode goes on."""
        self.terminated = self.state.envs["terminated"]
        """bool (N,): the task itself ended with the last step."""
        self.truncated = self.state.envs["truncated"]
        """bool (N,): a time limit outside the task was reached; may come together with `terminated`."""

    def __getstate__(self) -> dict[str, Any]:
        """All but what shares memory with the rest: a copy of a part would no longer be a part of the copy."""
        return {name: value for name, value in vars(self).items() if name not in VIEWS_OF_BUFFERS} | {"_scratch": None}

    def __setstate__(self, values: dict[str, Any]) -> None:
        vars(self).update(values)
        self._share_memory()

    def __deepcopy__(self, memo: dict[int, Any]) -> EnvBatch:
        """A batch with state and buffers of its own; what never changes (road, parameters, spaces) is shared."""
        copied = copy.copy(self)
        copied.state = EngineState(*self.get_state())
        for name in ("flat_obs", "masks", "started", "last_actions", "decided"):
            setattr(copied, name, getattr(self, name).copy())
        copied._share_memory()
        memo[id(self)] = copied
        return copied

    def _try_out(self) -> None:
        """Call every kernel once, and clear what they have computed."""
        self.seed(range(self.num_envs), [0] * self.num_envs)
        self.reset()
        self.branch(0, np.zeros_like(self.last_actions, shape=(1, 1, *self.last_actions.shape[1:])))
        if self.manoeuvres:
            self.views(np.arange(1))
        self._step(np.zeros_like(self.last_actions))
        for array in (*self.state, self.flat_obs, self.started):
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
        """One decision of every environment, into state and buffers; `actions` as `Actions.batch` returns them."""

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
        """What the egos of the environments `rows` see: `views_of` their scenes, by a kernel.

        Raises:
            UsageError: The actions are not meta-actions.
        """

    @abstractmethod
    def _reward_terms(self, i: int, action: Any) -> dict[str, float]:
        """Terms of environment i's last reward, as the reference simulator names them; `action` led to it."""

    # -- what all have -------------------------------------------------------------------------------------------------

    @property
    def action_space(self) -> spaces.Discrete | spaces.Box:
        """Action space of one environment, a new one each time."""
        return self.actions.space()

    @property
    def num_actions(self) -> int:
        """A: how many discrete actions there are, or components of a continuous one."""
        return self.actions.width

    def reward_terms(self, i: int) -> dict[str, float]:
        """Terms of environment i's last reward, as the reference simulator names them; {} before its first decision.

        Computed on request: this takes up to ten times as long as the decision.
        """
        return self._reward_terms(i, self.last_actions[i]) if self.decided[i] else {}

    def observation(self, i: int) -> Observations:
        """A copy of environment i's present observation."""
        return copied(self.obs, i)

    def observations(self) -> Observations:
        """A copy of all present observations."""
        return copied(self.obs)

    def running(self, i: int) -> bool:
        """Whether environment i has begun an episode that has not ended."""
        return bool(self.started[i]) and int(self.outcomes[i]) == RUNNING

    def require_running(self, i: int, method: str) -> None:
        """Check that environment i has an episode that has not ended.

        Args:
            i: The environment.
            method: What needs it, for the message.
        Raises:
            gymnasium.error.ResetNeeded: It has none.
        """
        if not self.running(i):
            raise reset_needed(method)

    def require_started(self, rows: Sequence[int] | np.ndarray | slice, method: str) -> None:
        """Check that environments have been reset.

        Args:
            rows: The environments.
            method: What needs it, for the message.
        Raises:
            gymnasium.error.ResetNeeded: One of them has not.
        """
        if not self.started[rows].all():
            raise reset_needed(method)

    def infos(self, more: Mapping[str, Any] = MappingProxyType({})) -> list[dict[str, Any]]:
        """Facts of every environment that every step reports.

        Args:
            more: Added to each.
        Returns:
            A new dict for each environment, which callers may keep and change.
        """
        common = {"backend": "engine", **more}
        columns = zip(self.speeds.tolist(), self.crashed.tolist(), strict=True)
        return [{**common, "speed": speed, "crashed": crashed} for speed, crashed in columns]

    def info(self, i: int) -> dict[str, Any]:
        """`infos` of environment i."""
        return {"backend": "engine", "speed": float(self.speeds[i]), "crashed": bool(self.crashed[i])}

    def clock(self) -> dict[str, Any]:
        """Rates by highway-env's names, Hz."""
        rate = self.decision_frequency
        return {"simulation_frequency": round(rate * self.substeps), "policy_frequency": rate}

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
        chosen = np.arange(self.num_envs) if rows is None else np.asarray(rows, np.int64)
        self._reset(chosen)
        self.started[chosen] = True
        self.decided[chosen] = False

    def step(self, actions: np.ndarray) -> None:
        """Make one decision in every environment. Ended ones must be reset before the next step.

        Args:
            actions: Action ids, int (N,), or continuous actions, float (N, D).
        Raises:
            UsageError: Wrong shape or type, or an action that does not exist.
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        actions = self.actions.batch(actions, self.num_envs)
        if np.count_nonzero(self.started) < self.num_envs:
            raise reset_needed("step")
        self.advance(actions)

    def advance(self, actions: np.ndarray) -> None:
        """`step` with actions that have been checked, of environments that have been reset.

        Args:
            actions: As `Actions.batch` or, for one environment, `Actions.one` returns them.
        """
        self.last_actions[:], self.decided[:] = actions, True
        if self.parallel:
            numba.set_num_threads(self.threads)
        self._step(actions)

    def get_state(self) -> tuple[np.ndarray, ...]:
        """Copies of the state arrays; with `set_state` the future repeats bit for bit."""
        return tuple(array.copy() for array in self.state)

    def set_state(self, state: Sequence[np.ndarray]) -> None:
        """Continue exactly from a `get_state` value.

        Args:
            state: The value.
        Raises:
            UsageError: It is of another batch size or config.
        """
        _check_shapes(self.state, state)
        for array, given in zip(self.state, state, strict=True):
            array[...] = given
        self.started[:] = True
        self.decided[:] = False

    def set_row(self, i: int, state: Sequence[np.ndarray]) -> None:
        """Put environment i into a state.

        Args:
            i: The environment.
            state: As from `get_state` of a batch of one.
        Raises:
            UsageError: It is of another config.
        """
        own = [array[i : i + 1] for array in self.state]
        _check_shapes(own, state)
        for array, given in zip(own, state, strict=True):
            array[...] = given
        self.started[i] = True
        self.decided[i] = False

    def clone(self, source: int, rows: Sequence[int] | np.ndarray) -> None:
        """Make `rows` exact copies of environment `source`, its random stream included."""
        for array in (*self.state, self.started, self.last_actions, self.decided):
            array[rows] = array[source]

    def branch(self, source: int, plans: np.ndarray) -> Branches:
        """Roll plans out from copies of one environment, which itself is left as it is.

        Args:
            source: The environment.
            plans: Action ids, int (P, H), or continuous actions, float (P, H, D).
        Returns:
            How they went.
        Raises:
            UsageError: Wrong shape or type, or an action that does not exist.
        """
        plans = self.actions.plans(plans)
        count, horizon = plans.shape[:2]
        if self._scratch is None or len(self._scratch.envs) < count:
            self._scratch = self.allocate(count)
        for scratch, own in zip(self._scratch, self.state, strict=True):
            scratch[:count] = own[source]
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


def _check_shapes(own: Sequence[np.ndarray], state: Sequence[np.ndarray]) -> None:
    shapes, given = ([np.shape(array) for array in arrays] for arrays in (own, state))
    if shapes != given:
        raise UsageError(f"state of another batch or config: expected arrays of shapes {shapes}, found {given}")
