"""One engine environment as a gymnasium.Env."""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.engine.batch import EnvBatch
from sim.engine.buffers import Observations
from sim.env import Branches, DrivingEnv, refuse_options, warn_of_no_render_mode
from sim.errors import UsageError
from sim.scene import Scene


class EngineEnv(DrivingEnv):
    """One environment of a batch; where it is alone in it, it can be stepped.

    Infos as on highway-env: `speed`, `crashed`, `backend`, at the end `outcome` and `summary`. It can be copied deeply
    and pickled, with a render mode too: a copy has a renderer of its own.
    """

    backend = "engine"

    def __init__(self, scenario: str, batch: EnvBatch, render_mode: str | None = None, row: int | None = None) -> None:
        """Take one environment of a batch.

        Args:
            scenario: Registry name.
            batch: The batch; without `row` a batch of one, owned by this object from now on.
            render_mode: None | rgb_array | human.
            row: Its number in a batch that others step; None: the batch is its own.
        """
        self.scenario = scenario
        self.scenario_config = batch.config
        self.batch = batch
        self.row = row or 0
        self.render_mode = render_mode
        self.metadata = engine_metadata(batch)
        self.observation_space = batch.observation_space
        self.action_space = batch.action_space
        self._alone = row is None
        self._seeded = not self._alone
        self._renderer: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observations, dict]:
        """Start an episode.

        Args:
            seed: Seeds the environment and `action_space`; None: the random stream goes on.
            options: Refused: another config needs another environment.
        Returns:
            Observation and info.
        Raises:
            UsageError: There are options.
        """
        refuse_options(options)
        if seed is not None or not self._seeded:
            super().reset(seed=seed)
            self.batch.seed([self.row], [self.np_random_seed])
            self.action_space.seed(seed)
            self._seeded = True
        self.batch.reset(np.array([self.row]))
        return self.batch.observation(self.row), self.batch.info(self.row)

    def step(self, action: Any) -> tuple[Observations, float, bool, bool, dict[str, Any]]:
        """Make one decision.

        Args:
            action: An element of the action space; a continuous one outside it counts as the simulator clips it.
        Returns:
            Observation, reward, terminated, truncated, info.
        Raises:
            UsageError: The action does not exist, or this is one environment of a larger batch.
            gymnasium.error.ResetNeeded: No episode is running.
        """
        batch = self.batch
        if not self._alone:
            raise UsageError(f"environment {self.row} of a batch cannot be stepped alone: step the whole batch")
        batch.require_running(0, "step")
        batch.advance(batch.actions.one(action))
        info = batch.info(0)
        if not batch.running(0):
            info |= batch.final_info(0)
        ends = bool(batch.terminated[0]), bool(batch.truncated[0])
        return batch.observation(0), float(batch.rewards[0]), *ends, info

    def reward_terms(self) -> dict[str, float]:
        """Terms of the last decision's reward, by the names of highway-env's `info["rewards"]`; {} before the first.

        Computed on request: this takes up to ten times as long as the decision.
        """
        return self.batch.reward_terms(self.row)

    def scene(self) -> Scene:
        self.batch.require_started([self.row], "scene")
        return self.batch.scene(self.row)

    def action_masks(self) -> np.ndarray:
        return self.batch.masks[self.row].copy()

    def branch(self, plans: np.ndarray) -> Branches:
        """Roll plans out, see `DrivingEnv.branch`.

        Raises:
            UsageError: The shape is wrong, or an action does not exist.
            gymnasium.error.ResetNeeded: No episode is running.
        """
        self.batch.require_running(self.row, "branch")
        return self.batch.branch(self.row, plans)

    def get_state(self) -> Any:
        """Everything that decides this environment's future, its random stream included; picklable."""
        batch = self.batch
        own = [array[self.row : self.row + 1].copy() for array in batch.state]
        return own, batch.flat_obs[self.row].copy(), batch.masks[self.row].copy(), bool(batch.started[self.row])

    def set_state(self, state: Any) -> None:
        """Continue exactly from a `get_state` value.

        Args:
            state: The value, of the same scenario and config.
        Raises:
            UsageError: It is of another config.
        """
        arrays, obs, masks, started = state
        batch, row = self.batch, self.row
        batch.set_row(row, arrays)
        batch.flat_obs[row] = np.reshape(obs, batch.flat_obs.shape[1:])
        batch.masks[row], batch.started[row] = masks, started
        self._seeded = True

    def render(self) -> np.ndarray | None:
        """Draw the present scene.

        Returns:
            uint8 (height, width, 3) in mode rgb_array; None in mode human, which draws to a window, and without a mode.
        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        from sim.render import SceneRenderer

        if self.render_mode is None:
            warn_of_no_render_mode()
            return None
        scene = self.scene()
        if self._renderer is None:
            self._renderer = SceneRenderer(window=not self.config["offscreen_rendering"])
        frame = self._renderer.draw(scene)
        return frame if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: pictures are drawn anew, windows are not copied."""
        return vars(self) | {"_renderer": None}

    def _simulator_config(self) -> dict[str, Any]:
        return self.batch.clock()


class EngineGoalEnv(EngineEnv):
    """An environment with a goal in its observation (parking), as hindsight replay needs it."""

    def compute_reward(self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any) -> np.ndarray:
        """Reward of goals achieved while others were desired; crashes are not counted.

        Args:
            achieved_goal: (..., 6)
            desired_goal: (..., 6)
            info: Not used.
        Returns:
            Rewards (...).
        """
        assert self.batch.goal_rewards is not None
        return self.batch.goal_rewards(achieved_goal, desired_goal)


def engine_env(scenario: str, batch: EnvBatch, render_mode: str | None = None, row: int | None = None) -> EngineEnv:
    """One environment of a batch, as `EngineEnv` takes it; one with a goal can compute rewards of other goals."""
    made = EngineEnv if batch.goal_rewards is None else EngineGoalEnv
    return made(scenario, batch, render_mode, row)


def engine_metadata(batch: EnvBatch) -> dict[str, Any]:
    """gymnasium's `metadata` of the environments of a batch."""
    return {"render_modes": ["human", "rgb_array"], "render_fps": max(round(batch.decision_frequency), 1)}
