"""One engine world as a gymnasium.Env."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from sim import lane_change as task
from sim.engine.highway import HighwayWorld
from sim.engine.lane_change import LaneChangeWorld
from sim.engine.world import World
from sim.env import Branches, DrivingEnv
from sim.errors import UsageError
from sim.outcome import Outcome
from sim.scene import Scene


class EngineEnv(DrivingEnv):
    """A batch of one. Infos as on highway-env: `speed`, `crashed`, `backend`, at the end `outcome` and `summary`."""

    backend = "engine"

    def __init__(self, scenario: str, world: World, render_mode: str | None = None) -> None:
        self.scenario = scenario
        self.scenario_config = world.config
        self.world = world
        self.render_mode = render_mode
        self.metadata = {"render_modes": ["human", "rgb_array"], "render_fps": max(round(world.decision_frequency), 1)}
        self.observation_space = world.observation_space
        self.action_space = world.action_space
        self._running = self._seeded = False
        self._last_action: int | None = None
        self._lanes_before = 0, 0  # lane and target lane before it, on `lane-change`
        self._renderer: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode. Options are refused: a new config is a new world."""
        if options:
            raise UsageError(f"reset options {sorted(options)}: not supported, make a new world with another config")
        if seed is not None or not self._seeded:
            super().reset(seed=seed)
            self.world.seed([0], [self.np_random_seed])
            self.action_space.seed(seed)
            self._seeded = True
        self.world.reset()
        self._running, self._last_action = True, None
        return self.world.obs[0].copy(), self._info()

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One decision. UsageError for an action that does not exist, ResetNeeded without a running episode."""
        if not self._running:
            raise gym.error.ResetNeeded("no episode is running: call reset() before step()")
        number = np.asarray(action)
        if number.size != 1 or number.dtype.kind not in "iu" or not 0 <= number.item() < self.world.num_actions:
            raise UsageError(f"action {action!r}: {self.scenario} takes the integers 0 to {self.world.num_actions - 1}")
        self._last_action = int(number.item())
        if isinstance(self.world, LaneChangeWorld):
            worlds = self.world.state.worlds
            self._lanes_before = int(worlds["lane"][0]), int(worlds["target_lane"][0])
        self.world.step(number.reshape(1))
        self._running = not (self.world.terminated[0] or self.world.truncated[0])
        info = self._info()
        if not self._running:
            info |= self.world.final_info(0)
        ends = bool(self.world.terminated[0]), bool(self.world.truncated[0])
        return self.world.obs[0].copy(), float(self.world.rewards[0]), *ends, info

    def _info(self) -> dict[str, Any]:
        return {**self.world.info(0), "backend": self.backend}

    def reward_terms(self) -> dict[str, float]:
        """The terms of the last decision's reward, as highway-env's worlds report them in `info["rewards"]`.

        Worked out when asked for: that takes up to ten times as long as the decision. Empty before the first one.
        """
        if self._last_action is None:
            return {}
        if isinstance(self.world, LaneChangeWorld):
            return _lane_change_terms(self.world, *self._lanes_before)
        assert isinstance(self.world, HighwayWorld)
        terms = self.world.mirror.show(self.world, 0)._rewards(self._last_action)
        return {name: float(value) for name, value in terms.items()}

    def scene(self) -> Scene:
        return self.world.scene(0)

    def action_masks(self) -> np.ndarray:
        return self.world.masks[0].copy()

    def branch(self, plans: np.ndarray) -> Branches:
        if not self._running:
            raise gym.error.ResetNeeded("no episode is running: call reset() before branch()")
        return self.world.branch(0, plans)

    def get_state(self) -> Any:
        """Everything that decides this world's future, its random stream included; picklable."""
        return self.world.get_state(), self.world.obs.copy(), self.world.masks.copy(), self._running

    def set_state(self, state: Any) -> None:
        """Continue exactly from a `get_state` value."""
        arrays, obs, masks, self._running = state
        self._seeded, self._last_action = True, None
        self.world.set_state(arrays)
        self.world.obs[...], self.world.masks[...] = obs, masks

    def render(self) -> np.ndarray | None:
        """uint8 (height, width, 3) in mode rgb_array; draws to a window and returns None in mode human."""
        from sim.render import SceneRenderer

        if self.render_mode is None:
            raise UsageError("render() needs a render mode: make the world with render_mode 'rgb_array' or 'human'")
        if self._renderer is None:
            self._renderer = SceneRenderer(window=self.render_mode == "human")
        frame = self._renderer.draw(self.scene())
        return frame if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def _lane_change_terms(world: LaneChangeWorld, old_lane: int, old_target: int) -> dict[str, float]:
    """Weighted reward terms of the decision just made, in the order of their sum."""
    config, weights, w = world.config, world.config.reward, world.state.worlds[0]
    lane, goal, outcome = int(w["lane"]), config.goal_lane, Outcome(w["outcome"])
    front = world.scene(0).front(lane)
    return {
        "crash": weights.crash * (outcome is Outcome.CRASH),
        "success": weights.success * (outcome is Outcome.SUCCESS),
        "missed": weights.missed * (outcome is Outcome.MISSED),
        "speed": weights.speed * float((w["speed"] - config.slowest) / (config.fastest - config.slowest)),
        "lane_gained": weights.lane_gained * (abs(goal - old_lane) - abs(goal - lane)),
        "lane_change": weights.lane_change * bool(w["target_lane"] != old_target),
        "short_ttc": weights.short_ttc * (front is not None and front.ttc < task.TTC_WARNING),
    }
