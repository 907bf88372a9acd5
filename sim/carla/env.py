"""`CarlaDrivingEnv`: an environment on a CARLA server behind the `DrivingEnv` contract.

A decision takes a number of frames of 0.05 s. In each, the ego's controllers steer to its target lane and speed, and
the traffic moves. A server that fails ends the episode as truncated, with the reason in `info["sim_error"]`; the next
reset opens a new connection, and restarts a server that this process started.

A CARLA world cannot be copied: `branch` raises, and `get_state` holds random streams but no traffic.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from gymnasium import spaces

from sim.actions import continuous_action, one_action
from sim.carla.beginning import begin_episode
from sim.carla.config import STEP
from sim.carla.ego import ego_command, set_targets
from sim.carla.episode import CarlaEpisode
from sim.carla.errors import SimError
from sim.carla.scenes import build_scene, lane_shapes
from sim.carla.servers import CarlaServer
from sim.carla.session import CarlaSession, Patience
from sim.carla.task import CarlaTask, DecisionResult
from sim.carla_lite import maps
from sim.env import Branches, DrivingEnv, refuse_options, reset_needed, warn_of_no_render_mode
from sim.errors import UsageError
from sim.outcome import Outcome
from sim.scene import LaneShape, Scene

RELOAD_EVERY = 50
"""Episodes on one loaded map. Loading leaks memory and crashes real servers; never loading lets other state pile up."""
ATTEMPTS = 3
"""Attempts of a reset, each with a new connection, before it raises."""
log = logging.getLogger("sim.carla")


class CarlaDrivingEnv(DrivingEnv):
    """See the module's docstring.

    Infos: `speed` (m/s), `crashed`, `rewards` (weighted terms), `lane_invasions`, `red_lights` (passed), `backend`;
    the last step of an episode adds `outcome` (success | crash | missed), `success`, `is_success` and `summary`.
    """

    exact_state = False

    def __init__(
        self,
        scenario: str,
        config: Any,
        task: CarlaTask,
        server: CarlaServer,
        render_mode: str | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Nothing is started or connected before the first reset.

        Args:
            scenario: Registry name.
            config: The resolved scenario config.
            task: The scenario.
            server: Where to connect.
            render_mode: rgb_array, human, or None.
            patience: Time limits of the connection.
        """
        self.scenario = scenario
        self.scenario_config = config
        self.task = task
        self.server = server
        self.patience = patience or Patience()
        self.render_mode = render_mode
        self.observation_space = task.observation_space
        self.action_space = task.action_space
        self.backend = server.label
        period = STEP * task.substeps
        self.metadata = {"render_modes": ["human", "rgb_array"], "render_fps": max(round(1 / period), 1)}
        self._period = period
        self._session: CarlaSession | None = None
        self._episodes = 0
        self._episode: CarlaEpisode | None = None
        self._renderer: Any = None
        self._shapes: tuple[Any, tuple[LaneShape, ...]] = (None, ())
        """A map and its lanes, to draw."""

    # -- gymnasium -----------------------------------------------------------------------------------------------------

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: Of the episodes from now on.
            options: Not supported; another config needs another environment.

        Returns:
            Observation and info.

        Raises:
            SimError: The server failed `ATTEMPTS` times in a row.
            UsageError: Options were given, or another server or client is needed.
        """
        refuse_options(options)
        super().reset(seed=seed)
        if seed is not None:
            self.action_space.seed(seed)
        beginning = self.np_random.bit_generator.state
        for attempt in range(1, ATTEMPTS + 1):
            self.np_random.bit_generator.state = beginning
            try:
                self._begin()
                break
            except SimError as error:
                self._drop_session()
                if attempt == ATTEMPTS:
                    raise
                log.warning("%s; opening a new connection (%d of %d)", error, attempt, ATTEMPTS - 1)
        episode = self._running()
        return self._observation(self.scene()), episode.info(self.backend, {})

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Carry out one decision.

        Args:
            action: A meta-action, or pedal and steering in [-1, 1] where actions are continuous.

        Returns:
            Observation, reward, terminated, truncated, info.

        Raises:
            UsageError: The action is not in the space.
            ResetNeeded: No episode is running.
        """
        episode = self._running()
        action = self._checked(action)
        before = self.scene()
        try:
            lane_changed, off_road = self._drive(episode, action)
        except SimError as error:
            return self._broken_off(episode, error)
        after = self.scene()
        episode.steps += 1
        bumper = episode.ego_size[0] / 2
        passed_red = episode.lights.passed_red(before.ego.s + bumper, after.ego.s + bumper)
        episode.red_lights += passed_red
        result = DecisionResult(before, after, episode.steps, episode.crashed, off_road, lane_changed, passed_red)
        terms, outcome, timed_out = self.task.evaluate(result)
        reward = float(sum(terms.values()))
        episode.add(before, after, reward)
        episode.ended = outcome != Outcome.RUNNING
        info = episode.info(self.backend, terms)
        if episode.ended:
            info |= episode.final_info(self.backend, outcome)
        return self._observation(after), reward, episode.ended and not timed_out, timed_out, info

    def render(self) -> np.ndarray | None:
        """Draw the present scene.

        Returns:
            uint8 (height, width, 3) in mode rgb_array; None in mode human, which draws to a window, and without a mode.

        Raises:
            ResetNeeded: Before the first reset.
        """
        from sim.render import SceneRenderer

        if self.render_mode is None:
            warn_of_no_render_mode()
            return None
        if self._renderer is None:
            self._renderer = SceneRenderer(window=self.render_mode == "human")
        frame = self._renderer.draw(self.scene())
        return frame if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Leave the server as it was found; end it where this process started it."""
        self._drop_session()
        self.server.stop()
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    # -- DrivingEnv ----------------------------------------------------------------------------------------------------

    def scene(self) -> Scene:
        """The present scene.

        Raises:
            ResetNeeded: Before the first reset.
        """
        episode = self._episode
        if episode is None:
            raise reset_needed("scene")
        if episode.scene is None:
            assert self._session is not None
            shapes = self._lane_shapes(self._session.map)
            episode.scene = build_scene(self.scenario, self.task, episode, self._period, shapes)
        return episode.scene

    def action_masks(self) -> np.ndarray:
        """bool (A,) of legal actions."""
        return self.scene().legal.copy()

    def branch(self, plans: np.ndarray) -> Branches:
        """Not supported: a CARLA world cannot be copied.

        Args:
            plans: Not used.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            f"scenario {self.scenario!r} on {self.backend}: a CARLA world cannot be copied, so experts that look ahead "
            "(search) cannot work here: use backend 'engine' or 'highway-env', or another expert"
        )

    def get_state(self) -> dict[str, Any]:
        """The random stream from which the next episodes come; the traffic on the server is not part of it."""
        return {"stream": self.np_random.bit_generator.state}

    def set_state(self, state: dict[str, Any]) -> None:
        """Begin the episode that would have followed.

        Args:
            state: From `get_state`.
        """
        self.np_random.bit_generator.state = state["stream"]
        self.reset()

    # -- episodes ------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._episode = None
        session = self._ready_session()
        episode = self._episode = begin_episode(session, self.task, self.np_random)
        front = self.scene().front(episode.start.lane)
        episode.min_ttc = np.inf if front is None else front.ttc
        self._episodes += 1

    def _ready_session(self) -> CarlaSession:
        """A connection with the task's map loaded and no actors of earlier episodes."""
        session = self._session
        if session is None or not self.server.alive():
            self._drop_session()
            session = CarlaSession(self.server.start(), self.patience, self.server.alive)
            self._session = session
            session.connect()
            self._episodes = 0
        afresh = self._episodes >= RELOAD_EVERY
        session.clear()
        if self.task.map in maps.available():
            session.load_opendrive(maps.read(self.task.map), afresh)
        else:
            session.load_town(self.task.map, afresh)
        if afresh:
            self._episodes = 0
        self.backend = session.backend
        return session

    def _drop_session(self) -> None:
        session, self._session, self._episode = self._session, None, None
        if session is not None:
            session.close()

    def _drive(self, episode: CarlaEpisode, action: Any) -> tuple[bool, bool]:
        """Carry out a decision. Returns whether the ego steers to another lane now, and whether it left the road."""
        session = self._session
        assert session is not None
        lane_changed = set_targets(self.task, episode, action)
        off_road = False
        for _ in range(self.task.substeps):
            command = ego_command(session.carla, self.task, episode, action)
            session.apply([command, *episode.traffic.commands(episode.state, episode.own)])
            episode.read_frame(session.tick())
            off_road = episode.off_road()
            if episode.collided() or off_road:
                break
        return lane_changed, off_road

    def _broken_off(self, episode: CarlaEpisode, error: SimError) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """A truncated episode, because the server failed. The connection is dropped: the next reset opens a new one."""
        log.warning("episode broken off: %s", error)
        episode.ended = True
        info = episode.info(self.backend, {}) | episode.final_info(self.backend, Outcome.MISSED)
        obs = self._observation(self.scene())
        session, self._session = self._session, None
        if session is not None:
            session.close()
        return obs, 0.0, False, True, info | {"sim_error": str(error)}

    def _observation(self, scene: Scene) -> np.ndarray:
        assert self._episode is not None
        route = self._episode.route
        return self.task.observe(scene, float(np.interp(scene.ego.s, route.s, route.headings)))

    def _lane_shapes(self, world_map: Any) -> tuple[LaneShape, ...]:
        if self._shapes[0] is not world_map:
            self._shapes = world_map, lane_shapes(world_map)
        return self._shapes[1]

    def _running(self) -> CarlaEpisode:
        if self._episode is None or self._episode.ended:
            raise reset_needed("step")
        return self._episode

    def _checked(self, action: Any) -> Any:
        space = self.action_space
        if isinstance(space, spaces.Discrete):
            return one_action(action, int(space.n))
        return np.clip(continuous_action(action, space.shape), -1.0, 1.0)  # type: ignore[arg-type]

    def _simulator_config(self) -> dict[str, Any]:
        return {"simulation_frequency": round(1 / STEP), "policy_frequency": 1 / self._period}
