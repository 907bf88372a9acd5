"""`HighwayDrivingEnv`: any highway-env environment behind this platform's `DrivingEnv` contract.

Kept from highway-env: dynamics, rewards, observations, random streams. Changed, because it surprises users:
time limits where upstream never truncates, reset infos without randomly sampled actions, errors for actions that do not
exist, observation types that match their declared space, and no state shared with other environments of the process.

FASTER and SLOWER step from the set-point nearest to the *present speed*, not from the one in force (highway-env's
rule): two FASTER in a row at 20 m/s may both ask for 25 m/s. `Ego.speed_index` is the set-point in force.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
from gymnasium import spaces
from highway_env.envs.common.abstract import AbstractEnv

from sim.actions import continuous_action, one_action, plans_of_actions, plans_of_continuous_actions
from sim.config import fingerprint
from sim.conflicts import Tracks, compile_tracks
from sim.env import Branches, DrivingEnv, refuse_options, reset_needed, warn_of_no_render_mode
from sim.errors import UsageError
from sim.highway import copying
from sim.highway.episode import EpisodeTotals
from sim.highway.kinds import MISSED, SUCCESS, EnvKind
from sim.highway.scenes import build_scene, lane_shapes, legal_actions, number_bodies, other_bodies
from sim.highway.viewer import Overlay, Viewer
from sim.scene import LaneShape, Scene

BACKEND = "highway-env"
SAMPLED_AT_RESET = ("action", "rewards", "agents_rewards", "agents_terminated")
"""Keys of highway-env's reset info that describe a random action, which is not executed."""


class HighwayDrivingEnv(DrivingEnv):
    """One highway-env environment.

    Infos: `speed` (m/s), `crashed`, `rewards` (terms before weighting) and `backend`; the last step of an episode adds
    `outcome` (success | crash | missed), `success`, `is_success` and `summary`.
    """

    def __init__(
        self,
        scenario_name: str,
        config: Any,
        inner: AbstractEnv,
        kind: EnvKind,
        render_mode: str | None = None,
    ) -> None:
        """Wrap a highway-env environment.

        Args:
            scenario_name: Registry name.
            config: The resolved scenario config that `inner` was built from; its field `duration` (s) is enforced here
                where `kind.time_limit` is set.
            inner: The environment, owned by this object from now on.
            kind: How to read it.
            render_mode: None | rgb_array | human.
        """
        self.scenario = scenario_name
        self.backend = BACKEND
        self.scenario_config = config
        self.inner = inner
        self.kind = kind
        self.render_mode = render_mode
        self._overlay: Overlay | None = None
        self.observation_space = inner.observation_space
        self.action_space = inner.action_space
        frequency = inner.config["policy_frequency"]
        self.metadata = {"render_modes": ["human", "rgb_array"], "render_fps": max(round(frequency), 1)}
        self._decision_period = 1 / frequency
        self._episode: EpisodeTotals | None = None
        self._shapes: tuple[LaneShape, ...] | None = None
        self._tracks: Tracks | None = None
        self._adopt(inner)

    def _adopt(self, inner: AbstractEnv) -> None:
        """Replace the environment's own rendering and its mutable class attributes."""
        inner.metadata = dict(inner.metadata)
        inner.render_mode = "human" if self.render_mode == "human" else None
        asked = getattr(self.scenario_config, "offscreen_rendering", None)
        inner.config["offscreen_rendering"] = self.render_mode != "human" if asked is None else asked

    # -- gymnasium -----------------------------------------------------------------------------------------------------

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
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
        if seed is not None:
            self.action_space.seed(seed)
        if self.render_mode == "human":
            self._viewer()
        obs, info = self.inner.reset(seed=seed)
        self._np_random = self.inner.np_random
        self._np_random_seed = self.inner.np_random_seed
        self._shapes = self._tracks = None
        number_bodies(self.inner)
        self._episode = EpisodeTotals.begin(self.inner.vehicle, self._time_to_collision())
        info = {key: value for key, value in info.items() if key not in SAMPLED_AT_RESET}
        return self.conform(obs), self._plain_info(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Make one decision.

        Args:
            action: An element of the action space.
        Returns:
            Observation, reward, terminated, truncated, info.
        Raises:
            UsageError: The action lies outside the space.
            gymnasium.error.ResetNeeded: No episode is running.
        """
        if self._episode is None or self._episode.ended:
            raise reset_needed("step")
        episode = self._episode
        obs, reward, terminated, truncated, info = self._advance(self.inner, self._checked(action), episode.steps + 1)
        number_bodies(self.inner)
        episode.add(self.inner.vehicle, reward, self._time_to_collision(), terminated or truncated)
        info = self._plain_info(info)
        if episode.ended:
            outcome = self._outcome(self.inner, terminated, truncated)
            summary = episode.summary(outcome, self.backend)
            info |= {
                "outcome": outcome,
                "success": summary.success,
                "is_success": summary.success,
                "summary": dataclasses.asdict(summary),
            }
        return self.conform(obs), reward, terminated, truncated, info

    def render(self) -> np.ndarray | None:
        """Draw the present state.

        Returns:
            uint8 (height, width, 3) in mode rgb_array; None in mode human, which draws to a window, and without a mode.
        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        if self.render_mode is None:
            warn_of_no_render_mode()
            return None
        if self._episode is None:
            raise reset_needed("render")
        viewer = self._viewer()
        viewer.display()
        viewer.handle_events()
        return viewer.get_image() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Close this environment's window, if any; other windows and pygame itself stay alive."""
        if self.inner.viewer is not None:
            self.inner.viewer.close()
            self.inner.viewer = None

    @property
    def overlay(self) -> Overlay | None:
        """Callable (surface) -> None that draws onto this environment's frames, between road and traffic."""
        return self._overlay

    @overlay.setter
    def overlay(self, overlay: Overlay | None) -> None:
        self._overlay = overlay
        if self.inner.viewer is not None:
            self.inner.viewer.overlay = overlay

    # -- DrivingEnv ----------------------------------------------------------------------------------------------------

    def scene(self) -> Scene:
        """The present scene. Vehicle ids: 0 is the ego, the others count from 1 in the order in which they appeared.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        if self._episode is None:
            raise reset_needed("scene")
        if self._shapes is None:
            self._shapes = lane_shapes(self.inner)
            self._tracks = compile_tracks(self.inner.road.network)
        return build_scene(self.inner, self.kind, self.scenario, self._time(), self._shapes, self._tracks)

    def action_masks(self) -> np.ndarray:
        """highway-env's available actions.

        Lane changes are allowed by the lane that the ego is in, while they count from the lane that it is steering to.

        Returns:
            bool (A,); all True where actions are not meta-actions.
        """
        return legal_actions(self.inner)

    def branch(self, plans: np.ndarray) -> Branches:
        """Roll plans out from copies of the exact present state; plans that begin alike share the work.

        Args:
            plans: Discrete actions, int (P, H), or continuous ones, float (P, H, D).
        Returns:
            How they went.
        Raises:
            UsageError: The shape is wrong, or an action does not exist.
            gymnasium.error.ResetNeeded: No episode is running.
        """
        plans = self._checked_plans(plans)
        if self._episode is None or self._episode.ended:
            raise reset_needed("branch")
        count, horizon = plans.shape[:2]
        result = Branches(
            rewards=np.zeros((count, horizon)),
            steps=np.zeros(count, dtype=int),
            crashed=np.zeros(count, dtype=bool),
            success=np.zeros(count, dtype=bool),
            ended=np.zeros(count, dtype=bool),
            final=np.zeros((count, 6)),
        )
        self._roll_out(self.inner, plans, np.arange(count), 0, result)
        return result

    def get_state(self) -> dict[str, Any]:
        """Everything that decides this environment's future, random streams included: plain values and bytes."""
        return {
            "scenario": self.scenario,
            "config": fingerprint(self.scenario_config),
            "environment": copying.save(self.inner),
            "episode": dataclasses.asdict(self._episode) if self._episode else None,
            "action_space": self.action_space.np_random.bit_generator.state,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue exactly from a `get_state` value. No code of its author runs.

        Args:
            state: The value.
        Raises:
            UsageError: It is of another scenario or config, or damaged.
        """
        if (state["scenario"], state["config"]) != (self.scenario, fingerprint(self.scenario_config)):
            raise UsageError(
                f"state of scenario {state['scenario']!r} with config {state['config']} does not fit scenario "
                f"{self.scenario!r} with config {fingerprint(self.scenario_config)}: use the same scenario and config"
            )
        copying.load(self.inner, state["environment"])
        self._np_random = self.inner.np_random
        self._np_random_seed = self.inner.np_random_seed
        self._episode = EpisodeTotals(**state["episode"]) if state["episode"] else None
        self._shapes = self._tracks = None
        self.action_space.np_random.bit_generator.state = state["action_space"]
        self._adopt(self.inner)

    def __setstate__(self, values: dict[str, Any]) -> None:
        """A copy or an unpickled environment: pictures are drawn anew, windows are not copied."""
        vars(self).update(values)
        copying.renew_pictures(self.inner)
        self._adopt(self.inner)

    def _simulator_config(self) -> dict[str, Any]:
        return {name: copy.deepcopy(value) for name, value in self.inner.config.items() if name != "task"}

    # -- inside --------------------------------------------------------------------------------------------------------

    def _advance(self, inner: AbstractEnv, action: Any, steps: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One decision of an environment, `steps` being the count of decisions after it; adds the time limit."""
        obs, reward, terminated, truncated, info = inner.step(action)
        if self.kind.time_limit is not None:
            truncated = truncated or steps * self._decision_period >= self.scenario_config.duration - 1e-9
        return obs, float(reward), bool(terminated), bool(truncated), info

    def _outcome(self, inner: AbstractEnv, terminated: bool, truncated: bool) -> str:
        return self.kind.outcome(inner, terminated, truncated) or MISSED

    def _roll_out(self, inner: AbstractEnv, plans: np.ndarray, rows: np.ndarray, depth: int, result: Branches) -> None:
        """Continue the plans `rows`, which share their first `depth` actions, from `inner`, which had those actions."""
        assert self._episode is not None
        assert result.final is not None
        if depth == plans.shape[1] or result.ended[rows[0]]:
            result.final[rows] = self._final(inner)
            return
        chosen = plans[rows, depth]
        for action in np.unique(chosen, axis=0):
            group = rows[(chosen == action).reshape(len(rows), -1).all(axis=1)]
            copied = copying.branch_off(inner)
            steps = self._episode.steps + depth + 1
            _, reward, terminated, truncated, _ = self._advance(copied, action if action.ndim else int(action), steps)
            number_bodies(copied)
            result.rewards[group, depth] = reward
            result.steps[group] = depth + 1
            result.crashed[group] = bool(copied.vehicle.crashed)
            if terminated or truncated:
                result.ended[group] = True
                result.success[group] = self._outcome(copied, terminated, truncated) == SUCCESS
            self._roll_out(copied, plans, group, depth + 1, result)

    def _final(self, inner: AbstractEnv) -> tuple[float, ...]:
        """s, d, lane, target lane, speed, bumper gap ahead in the target lane (inf when free)."""
        scene = build_scene(inner, self.kind, self.scenario, 0.0)
        ego, front = scene.ego, scene.front(scene.ego.target_lane)
        return ego.s, ego.d, ego.lane, ego.target_lane, ego.speed, np.inf if front is None else front.gap

    def _time(self) -> float:
        return self._episode.steps * self._decision_period if self._episode else 0.0

    def _time_to_collision(self) -> float:
        """Bumper time-to-collision with the car ahead in the ego's lane, s, by `Scene.front`; inf when free."""
        if not other_bodies(self.inner):
            return np.inf
        scene = build_scene(self.inner, self.kind, self.scenario, 0.0)
        front = scene.front(scene.ego.lane)
        return np.inf if front is None else front.ttc

    def _checked(self, action: Any) -> Any:
        space = self.action_space
        if isinstance(space, spaces.Discrete):
            return one_action(action, int(space.n))
        return continuous_action(action, space.shape)  # type: ignore[arg-type]

    def _checked_plans(self, plans: np.ndarray) -> np.ndarray:
        space = self.action_space
        if isinstance(space, spaces.Discrete):
            return plans_of_actions(plans, int(space.n))
        return plans_of_continuous_actions(plans, space.shape)  # type: ignore[arg-type]

    def conform(self, obs: Any) -> Any:
        """An observation in the declared shape and dtype, as arrays of our own.

        Args:
            obs: As highway-env gives it. Where it is asked for the ego alone it adds all vehicles in sight.
        Returns:
            An element of the observation space, but for its bounds.
        """
        space = self.observation_space
        if isinstance(space, spaces.Dict):
            return {key: np.array(obs[key], dtype=part.dtype) for key, part in space.spaces.items()}
        if isinstance(space, spaces.Tuple):
            return tuple(np.array(part, dtype=sub.dtype) for part, sub in zip(obs, space.spaces, strict=True))
        values = np.array(obs, dtype=space.dtype)
        return values if values.shape == space.shape else values[: space.shape[0]]  # type: ignore[index]

    def _plain_info(self, info: dict[str, Any]) -> dict[str, Any]:
        ego = self.inner.vehicle
        info = info | {"speed": float(ego.speed), "crashed": bool(ego.crashed), "backend": self.backend}
        if "rewards" in info:
            info["rewards"] = {name: float(value) for name, value in info["rewards"].items()}
        return {key: value.item() if isinstance(value, np.generic) else value for key, value in info.items()}

    def _viewer(self) -> Viewer:
        if self.inner.viewer is None:
            self.inner.viewer = Viewer(self.inner, window=not self.inner.config["offscreen_rendering"])
            self.inner.viewer.overlay = self._overlay
        return self.inner.viewer


class HighwayGoalEnv(HighwayDrivingEnv):
    """A environment with a goal in its observation (parking), as hindsight replay needs it."""

    def compute_reward(self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any) -> np.ndarray:
        """Reward of goals achieved while others were desired; crashes are not counted.

        Args:
            achieved_goal: (..., 6)
            desired_goal: (..., 6)
            info: Not used.
        Returns:
            Rewards (...).
        """
        return self.inner.compute_reward(achieved_goal, desired_goal, {})
