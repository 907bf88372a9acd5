"""One engine environment as a gymnasium.Env."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from sim.engine.batch import EnvBatch
from sim.env import Branches, DrivingEnv
from sim.errors import UsageError
from sim.scene import Scene


class EngineEnv(DrivingEnv):
    """A batch of one. Infos as on highway-env: `speed`, `crashed`, `backend`, at the end `outcome` and `summary`."""

    backend = "engine"

    def __init__(self, scenario: str, batch: EnvBatch, render_mode: str | None = None) -> None:
        """Wrap a batch of one.

        Args:
            scenario: Registry name.
            batch: The batch, owned by this object from now on.
            render_mode: None | rgb_array | human.
        """
        self.scenario = scenario
        self.scenario_config = batch.config
        self.batch = batch
        self.render_mode = render_mode
        self.metadata = {"render_modes": ["human", "rgb_array"], "render_fps": max(round(batch.decision_frequency), 1)}
        self.observation_space = batch.observation_space
        self.action_space = batch.action_space
        self._running = self._seeded = False
        self._last_action: int | None = None
        self._renderer: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode. Options are refused: another config needs another environment."""
        if options:
            raise UsageError(f"reset options {sorted(options)}: not supported, make a new one with another config")
        if seed is not None or not self._seeded:
            super().reset(seed=seed)
            self.batch.seed([0], [self.np_random_seed])
            self.action_space.seed(seed)
            self._seeded = True
        self.batch.reset()
        self._running, self._last_action = True, None
        return self.batch.obs[0].copy(), self._info()

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One decision. UsageError for an action that does not exist, ResetNeeded without a running episode."""
        if not self._running:
            raise gym.error.ResetNeeded("no episode is running: call reset() before step()")
        number = np.asarray(action)
        if number.size != 1 or number.dtype.kind not in "iu" or not 0 <= number.item() < self.batch.num_actions:
            raise UsageError(f"action {action!r}: {self.scenario} takes the integers 0 to {self.batch.num_actions - 1}")
        self._last_action = int(number.item())
        self.batch.step(number.reshape(1))
        self._running = not (self.batch.terminated[0] or self.batch.truncated[0])
        info = self._info()
        if not self._running:
            info |= self.batch.final_info(0)
        ends = bool(self.batch.terminated[0]), bool(self.batch.truncated[0])
        return self.batch.obs[0].copy(), float(self.batch.rewards[0]), *ends, info

    def _info(self) -> dict[str, Any]:
        return {**self.batch.info(0), "backend": self.backend}

    def reward_terms(self) -> dict[str, float]:
        """Terms of the last decision's reward, by the names of highway-env's `info["rewards"]`; {} before the first.

        Computed on request: this takes up to ten times as long as the decision.
        """
        return {} if self._last_action is None else self.batch.reward_terms(0, self._last_action)

    def scene(self) -> Scene:
        return self.batch.scene(0)

    def action_masks(self) -> np.ndarray:
        return self.batch.masks[0].copy()

    def branch(self, plans: np.ndarray) -> Branches:
        if not self._running:
            raise gym.error.ResetNeeded("no episode is running: call reset() before branch()")
        return self.batch.branch(0, plans)

    def get_state(self) -> Any:
        """Everything that decides this environment's future, its random stream included; picklable."""
        return self.batch.get_state(), self.batch.obs.copy(), self.batch.masks.copy(), self._running

    def set_state(self, state: Any) -> None:
        """Continue exactly from a `get_state` value."""
        arrays, obs, masks, self._running = state
        self._seeded, self._last_action = True, None
        self.batch.set_state(arrays)
        self.batch.obs[...], self.batch.masks[...] = obs, masks

    def render(self) -> np.ndarray | None:
        """uint8 (height, width, 3) in mode rgb_array; draws to a window and returns None in mode human."""
        from sim.render import SceneRenderer

        if self.render_mode is None:
            raise UsageError("render() needs a render mode: make it with render_mode 'rgb_array' or 'human'")
        if self._renderer is None:
            self._renderer = SceneRenderer(window=self.render_mode == "human")
        frame = self._renderer.draw(self.scene())
        return frame if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
