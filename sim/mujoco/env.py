"""`MujocoEnv`: one of gymnasium's MuJoCo environments behind the contract of scenarios.

It steps gymnasium's own environment without its wrappers: the time limit is counted here, so that a state is arrays and
plain values. Observations, rewards and ends are those of `gymnasium.make`, to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np

from sim.action_names import action_names
from sim.actions import plans_of_continuous_actions
from sim.env import ScenarioEnv, refuse_options, reset_needed, warn_of_no_render_mode
from sim.errors import UsageError
from sim.mujoco import physics
from sim.mujoco.catalog import BACKEND
from sim.mujoco.config import MujocoConfig
from sim.mujoco.pictures import require_pictures
from sim.mujoco.rollouts import Rollouts
from sim.mujoco.scenario import MujocoScenario
from sim.mujoco.upstream import construct


class MujocoEnv(ScenarioEnv):
    """One environment.

    Args:
        scenario: Its registry entry.
        config: Its resolved config.
        render_mode: rgb_array or None.
    Raises:
        UsageError: An option is bad, or pictures were asked for and cannot be drawn here.
    """

    def __init__(self, scenario: MujocoScenario, config: MujocoConfig, render_mode: str | None = None) -> None:
        if render_mode == "human":
            raise UsageError(
                f"render_mode 'human': scenario {scenario.name!r} opens no window: choose 'rgb_array', or watch it in "
                "`lgdrl play`"
            )
        if render_mode is not None:
            require_pictures()
        self.scenario, self.backend, self.scenario_config = scenario.name, BACKEND, config
        self.inner = construct(scenario, config, render_mode)
        self.observation_space, self.action_space = self.inner.observation_space, self.inner.action_space
        self.action_names = action_names(scenario.name.partition(":")[2], self.inner)
        self.metadata = {**self.inner.metadata, "render_modes": ["rgb_array"]}
        self.render_mode = render_mode
        self._travels = scenario.travels
        self._falls = scenario.falls and bool(config.options.get("terminate_when_unhealthy", True))
        self._np_random = self.inner.np_random
        self._masks = np.ones(self.action_space.shape or (), bool)
        self._running = False
        self._steps, self._return, self._start_x = 0, 0.0, 0.0

    # -- gymnasium -----------------------------------------------------------------------------------------------------

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        refuse_options(options)
        obs, info = self.inner.reset(seed=seed)
        self._np_random, self._np_random_seed = self.inner.np_random, self.inner.np_random_seed
        self._running = True
        self._steps, self._return, self._start_x = 0, 0.0, self._x
        return obs, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One decision.

        Args:
            action: Finite numbers (D,). MuJoCo clips them to the bounds of the action space; costs of control are those
                of the numbers given.
        Returns:
            As gymnasium's; the last info of an episode has a `summary`.
        Raises:
            UsageError: The action has another shape or is not finite.
            gymnasium.error.ResetNeeded: No episode is running.
        """
        if not self._running:
            raise reset_needed("step")
        values = np.asarray(action)
        fits = values.shape == self.action_space.shape and values.dtype.kind in "fiu"
        if not fits or not all(map(math.isfinite, values.tolist())):  # a third of the time of NumPy's test
            raise UsageError(f"action {action!r}: expected finite numbers of shape {self.action_space.shape}")
        obs, reward, terminated, info = _plain(self.inner.step(values))
        self._steps += 1
        self._return += reward
        truncated = self._steps >= self.scenario_config.max_episode_steps
        if terminated or truncated:
            self._running = False
            info["summary"] = self._summary(terminated)
            info["outcome"] = info["summary"]["outcome"]
        return obs, reward, terminated, truncated, info

    def render(self) -> Any:
        """The present picture, uint8 (height, width, 3); None, with a warning, without a render mode.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        if self.render_mode is None:
            warn_of_no_render_mode()
            return None
        if not self._running and not self._steps:
            raise reset_needed("render")
        return self.inner.render()

    def close(self) -> None:
        self.inner.close()

    # -- ScenarioEnv ---------------------------------------------------------------------------------------------------

    def action_masks(self) -> np.ndarray:
        return self._masks.copy()

    def get_state(self) -> dict[str, Any]:
        """Everything that decides the future, as arrays and plain values.

        Returns:
            The physics by name (see `sim.mujoco.physics`), the random stream, and the episode's own numbers.
        """
        return {
            "scenario": self.scenario,
            "physics": physics.save(self.inner.model, self.inner.data),
            "stream": self.inner.np_random.bit_generator.state,
            "running": self._running,
            "steps": self._steps,
            "return": self._return,
            "start_x": self._start_x,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue exactly from a `get_state` value.

        Args:
            state: The value, of the same scenario and config.
        Raises:
            UsageError: It is of another scenario or model, or damaged.
        """
        try:
            if state["scenario"] != self.scenario:
                raise UsageError(f"a state of {state['scenario']!r:.100} does not fit scenario {self.scenario!r}")
            numbers = bool(state["running"]), int(state["steps"]), float(state["return"]), float(state["start_x"])
            physics.load(self.inner.model, self.inner.data, state["physics"])
            self.inner.np_random.bit_generator.state = state["stream"]
        except UsageError:
            raise
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            words = f"{type(error).__name__}: {error}"
            raise UsageError(f"the state does not fit scenario {self.scenario!r} ({words:.200})") from None
        self._running, self._steps, self._return, self._start_x = numbers

    def branch(self, plans: np.ndarray) -> Rollouts:
        """Roll plans out from copies of the exact present state; this environment is left as it is.

        Args:
            plans: Continuous actions, float (P, H, D).
        Returns:
            How they went.
        Raises:
            UsageError: The plans have another shape or are not finite.
            gymnasium.error.ResetNeeded: No episode is running.
        """
        if not self._running:
            raise reset_needed("branch")
        actions = plans_of_continuous_actions(plans, self.action_space.shape or ())
        space, data = self.observation_space, self.inner.data
        count = len(actions)
        found = Rollouts(
            rewards=np.zeros(actions.shape[:2]),
            steps=np.zeros(count, np.int64),
            terminated=np.zeros(count, bool),
            ended=np.zeros(count, bool),
            observations=np.zeros((count, *(space.shape or ())), space.dtype),
        )
        with physics.kept(self.inner.model, data) as present:
            for i, plan in enumerate(actions):
                mujoco.mj_copyData(data, self.inner.model, present)
                self._roll_out(plan, i, found)
        return found

    # -- inside --------------------------------------------------------------------------------------------------------

    @property
    def _x(self) -> float:
        """Forward position of the body, m, where it has one."""
        return float(self.inner.data.qpos[0])

    def _roll_out(self, plan: np.ndarray, i: int, found: Rollouts) -> None:
        """Step through plan number i, and write down how it went."""
        left = self.scenario_config.max_episode_steps - self._steps
        for k, action in enumerate(plan):
            obs, reward, terminated, _ = _plain(self.inner.step(action))
            found.rewards[i, k] = reward
            if terminated or k + 1 >= left:
                break
        found.steps[i] = k + 1
        found.terminated[i] = terminated
        found.ended[i] = terminated or k + 1 >= left
        found.observations[i] = obs

    def _summary(self, terminated: bool) -> dict[str, Any]:
        """What a finished episode is measured by."""
        found: dict[str, Any] = {
            "outcome": "fell" if terminated else "time limit",
            "steps": self._steps,
            "episode_return": self._return,
        }
        if self._travels:
            found["distance"] = self._x - self._start_x
        if self._falls:
            found["fell"] = terminated
        return found | {"backend": BACKEND}


def _plain(stepped: tuple[Any, ...]) -> tuple[np.ndarray, float, bool, dict[str, Any]]:
    """What gymnasium's environment returned for a decision, in Python's types; it knows no time limit."""
    obs, reward, terminated, _, info = stepped
    return obs, float(reward), bool(terminated), info
