"""`CarlaDrivingEnv`: one world on a CARLA server behind this platform's `DrivingEnv` contract.

A decision is a number of frames of 0.05 s; in each, the ego's controllers steer to its target lane and speed, and the
traffic moves. A server that fails ends the episode as truncated, with the reason in `info["sim_error"]`; the next reset
starts from a fresh connection, and a server of our own is started again.

A CARLA world cannot be copied: `branch` refuses, and `get_state` keeps random streams but no traffic.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import time
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sim.actions import NUM_ACTIONS, MetaAction, legal_mask
from sim.carla.config import STEP
from sim.carla.control import SpeedControl, Steering, curvature
from sim.carla.errors import SimError
from sim.carla.lights import Lights
from sim.carla.routes import Route
from sim.carla.scenes import build_scene, lane_shapes, nearest_gap
from sim.carla.servers import CarlaServer
from sim.carla.session import Patience, CarlaSession
from sim.carla.task import DecisionResult, EpisodeStart, CarlaTask
from sim.carla.traffic import (
    STATE,
    ManagedTraffic,
    NoTraffic,
    ScriptedTraffic,
    CarlaTraffic,
    read,
    transform_of,
    velocity_of,
)
from sim.carla_lite import maps
from sim.env import Branches, DrivingEnv, EpisodeSummary
from sim.errors import UsageError
from sim.outcome import Outcome
from sim.scene import LaneShape, Scene

RELOAD_EVERY = 50
"""Episodes on one loaded map. Loading leaks and crashes real servers; never loading lets other things pile up."""
ATTEMPTS = 3
"""Times that a reset starts over, each with a fresh connection, before it gives up."""
CONTACT = 0.5
"""Metres between two cars below which a collision report may be on its way."""
REPORT_PATIENCE, REPORT_DUE = 0.02, 1.0
"""Seconds to wait for such a report (sensors have a channel of their own), and where the boxes overlap already: an
episode shall end in the frame of its contact also on a busy machine."""
log = logging.getLogger("sim.carla")


@dataclasses.dataclass
class CarlaEpisode:
    """The running episode: who is where, and running totals."""

    start: EpisodeStart
    ego: Any
    traffic: CarlaTraffic
    sizes: np.ndarray
    """(V, 2) length and width of the cars, m"""
    ego_size: tuple[float, float]
    steering: Steering
    control: SpeedControl
    lights: Lights
    line: float
    """d that the ego steers to"""
    speed_index: int
    state: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, STATE))
    own: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(1, STATE))
    scene: Scene | None = None
    steps: int = 0
    total_reward: float = 0.0
    total_speed: float = 0.0
    distance: float = 0.0
    lane_changes: int = 0
    lane_invasions: int = 0
    red_lights: int = 0
    min_ttc: float = np.inf
    crashed: bool = False
    ended: bool = False

    @property
    def route(self) -> Route:
        return self.start.route


class CarlaDrivingEnv(DrivingEnv):
    """See the module's text.

    Infos: `speed` (m/s), `crashed`, `rewards` (weighted terms), `lane_invasions`, `red_lights` (passed), `backend`;
    the last step of an episode adds `outcome` (success | crash | missed), `success`, `is_success` and `summary`."""

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
        self._collisions: collections.deque = collections.deque()
        self._invasions: collections.deque = collections.deque()
        self._renderer: Any = None
        self._drawn: tuple[Any, tuple[LaneShape, ...]] = (None, ())

    # -- gymnasium -----------------------------------------------------------------------------------------------------

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode. Options are refused: a new config is a new world.

        Raises: SimError where the server fails `ATTEMPTS` times in a row; UsageError where another one is needed.
        """
        if options:
            raise UsageError(f"reset options {sorted(options)}: not supported, make a new world with another config")
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
                log.warning("%s; connecting afresh (%d of %d)", error, attempt, ATTEMPTS - 1)
        return self._observation(self.scene()), self._info({})

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One decision. Raises UsageError for an action outside the space, ResetNeeded without a running episode."""
        episode = self._running()
        action = self._checked(action)
        before = self.scene()
        try:
            lane_changed, off_road = self._drive(episode, action)
        except SimError as error:
            return self._broken_off(episode, error)
        after = episode.scene = self._build_scene(episode)
        episode.steps += 1
        bumper = episode.ego_size[0] / 2
        passed_red = episode.lights.passed_red(before.ego.s + bumper, after.ego.s + bumper)
        episode.red_lights += passed_red
        moment = DecisionResult(before, after, episode.steps, episode.crashed, off_road, lane_changed, passed_red)
        terms, outcome, timed_out = self.task.judge(moment)
        reward = float(sum(terms.values()))
        self._add(episode, before, after, reward)
        episode.ended = outcome != Outcome.RUNNING
        info = self._info(terms)
        if episode.ended:
            info |= self._final_info(episode, outcome)
        return self._observation(after), reward, episode.ended and not timed_out, timed_out, info

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
        """Leave the server as it was found; end it where it is ours."""
        self._drop_session()
        self.server.stop()
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    # -- DrivingEnv ----------------------------------------------------------------------------------------------------

    def scene(self) -> Scene:
        episode = self._episode
        if episode is None:
            raise gym.error.ResetNeeded("there is no scene yet: call reset() first")
        if episode.scene is None:
            episode.scene = self._build_scene(episode)
        return episode.scene

    def action_masks(self) -> np.ndarray:
        return self.scene().legal.copy()

    def branch(self, plans: np.ndarray) -> Branches:
        """Refused: a CARLA world cannot be copied."""
        raise UsageError(
            f"scenario {self.scenario!r} on {self.backend}: a CARLA world cannot be copied, so experts that look ahead "
            "(search) cannot work here: use backend 'engine' or 'highway-env', or another expert"
        )

    def get_state(self) -> dict[str, Any]:
        """The random stream from which the next episodes come; the traffic on the server is not part of it."""
        return {"stream": self.np_random.bit_generator.state}

    def set_state(self, state: dict[str, Any]) -> None:
        """Begin the episode that would have followed."""
        self.np_random.bit_generator.state = state["stream"]
        self.reset()

    # -- beginning -----------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._episode = None
        session = self._ready_session()
        start = self.task.start(session.map, self.np_random)
        ego = self._place_ego(session, start)
        traffic = self._place_traffic(session, start, ego)
        self._collisions.clear()
        self._invasions.clear()
        snapshot = session.tick()
        by_id = {actor.id: actor for actor in session.world.get_actors(traffic.ids.tolist())}
        boxes = [by_id[int(number)].bounding_box.extent for number in traffic.ids]
        box = ego.bounding_box.extent
        steering = Steering.of(ego.get_physics_control())
        episode = CarlaEpisode(
            start=start,
            ego=ego,
            traffic=traffic,
            sizes=2 * np.array([[extent.x, extent.y] for extent in boxes]).reshape(-1, 2),
            ego_size=(2 * box.x, 2 * box.y),
            steering=steering,
            control=SpeedControl(1, self.task.gains, STEP),
            lights=Lights(session, start.route),
            line=start.ego.d,
            speed_index=int(np.argmin(np.abs(self.task.speeds - start.ego.desired_speed))),
        )
        self._observe_frame(episode, snapshot)
        front = self._build_scene(episode).front(start.lane)
        episode.min_ttc = np.inf if front is None else front.ttc
        self._episode = episode
        self._episodes += 1

    def _ready_session(self) -> CarlaSession:
        """A connection with the task's map loaded and nobody of ours on it."""
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

    def _place_ego(self, session: CarlaSession, start: EpisodeStart) -> Any:
        blueprint = session.blueprint(self.task.vehicle, role="ego")
        car = start.ego
        ego = session.spawn(blueprint, transform_of(session, start.route, car.s - car.speed * STEP, car.d))
        ego.set_target_velocity(velocity_of(session, start.route, car))
        origin = session.carla.Transform()
        for kind, found in (("collision", self._collisions), ("lane_invasion", self._invasions)):
            sensor = session.spawn(session.blueprint(f"sensor.other.{kind}"), origin, ego)
            sensor.listen(_collect(found))
        return ego

    def _place_traffic(self, session: CarlaSession, start: EpisodeStart, ego: Any) -> CarlaTraffic:
        task, draws = self.task, self.np_random
        if task.traffic == "none" or (not start.cars and task.traffic == "idm"):
            return NoTraffic()
        kinds = [session.blueprint(name, role="traffic") for name in task.others]
        if task.traffic == "tm":
            blueprints = [kinds[k] for k in draws.integers(len(kinds), size=len(start.places))]
            return ManagedTraffic(session, start.places, blueprints, int(draws.integers(2**31)))
        blueprints = [kinds[k] for k in draws.integers(len(kinds), size=len(start.cars))]
        length = 2 * ego.bounding_box.extent.x
        return ScriptedTraffic(session, start.route, start.cars, blueprints, task.idm, task.gains, length)

    # -- driving -------------------------------------------------------------------------------------------------------

    def _drive(self, episode: CarlaEpisode, action: Any) -> tuple[bool, bool]:
        """Carry a decision out. Returns whether the ego steers to another lane now, and whether it left the road."""
        session = self._session
        assert session is not None
        changed = self._decide(episode, action)
        off_road = False
        for _ in range(self.task.substeps):
            control = self._ego_command(session, episode, action)
            session.apply([control, *episode.traffic.commands(episode.state, episode.own)])
            self._observe_frame(episode, session.tick())
            off_road = self._off_road(episode)
            if self._hit_by_now(episode) or off_road:
                break
        return changed, off_road

    def _decide(self, episode: CarlaEpisode, action: Any) -> bool:
        """Move the targets as highway-env does: speeds step from the set-point nearest to the present speed."""
        if not isinstance(self.action_space, spaces.Discrete):
            return False
        speeds, s = self.task.speeds, self._own_place(episode)[0]
        nearest = int(np.argmin(np.abs(speeds - episode.own["speed"][0])))
        if action == MetaAction.FASTER:
            episode.speed_index = min(nearest + 1, len(speeds) - 1)
        elif action == MetaAction.SLOWER:
            episode.speed_index = max(nearest - 1, 0)
        elif action in (MetaAction.LANE_LEFT, MetaAction.LANE_RIGHT):
            centers = episode.route.centers_at(s)
            target = int(np.argmin(np.abs(np.subtract(centers, episode.line))))
            wanted = target + (1 if action == MetaAction.LANE_RIGHT else -1)
            if 0 <= wanted < len(centers):
                episode.line = centers[wanted]
                return True
        return False

    def _ego_command(self, session: CarlaSession, episode: CarlaEpisode, action: Any) -> Any:
        carla, own = session.carla, episode.own
        if isinstance(self.action_space, spaces.Discrete):
            pedal = float(episode.control.pedals(own["speed"], self.task.speeds[[episode.speed_index]])[0])
            steer = self._steer(episode)
        else:
            pedal, steer = float(action[0]), float(action[1])
        control = carla.VehicleControl(max(pedal, 0.0), steer, max(-pedal, 0.0))
        return carla.command.ApplyVehicleControl(episode.ego.id, control)

    def _steer(self, episode: CarlaEpisode) -> float:
        own, route = episode.own, episode.route
        _, d, index = route.project(np.stack([own["x"], own["y"]], axis=1))
        heading = np.remainder(own["yaw"] - route.headings[index] + np.pi, 2 * np.pi) - np.pi
        bend = curvature(self.task.gains, own["speed"], d - episode.line, heading, route.curvatures[index])
        return float(episode.steering.share(np.abs(own["speed"]), bend)[0])

    def _observe_frame(self, episode: CarlaEpisode, snapshot: Any) -> None:
        episode.state = read(snapshot, episode.traffic.ids.tolist())
        episode.own = read(snapshot, [episode.ego.id])
        if not np.isfinite(episode.own["x"][0]):
            raise SimError("the ego is not in the world any more: another client removed it")
        episode.scene = None

    def _own_place(self, episode: CarlaEpisode) -> tuple[float, float, int]:
        own = episode.own
        s, d, index = episode.route.project(np.stack([own["x"], own["y"]], axis=1))
        return float(s[0]), float(d[0]), int(index[0])

    def _off_road(self, episode: CarlaEpisode) -> bool:
        s, d, index = self._own_place(episode)
        lane = episode.route.lane_at(np.array([d]), np.array([index]))[0]
        return bool(lane < 0 or s >= episode.route.end)

    def _hit(self, episode: CarlaEpisode) -> bool:
        """Take in the reports that have arrived."""
        while self._invasions:
            self._invasions.popleft()
            episode.lane_invasions += 1
        while self._collisions:
            self._collisions.popleft()
            episode.crashed = True
        return episode.crashed

    def _hit_by_now(self, episode: CarlaEpisode) -> bool:
        """`_hit`, waiting for the report of a contact in this frame where there can be one."""
        gap = nearest_gap(episode)
        patience = REPORT_DUE if gap <= 0 else REPORT_PATIENCE if gap < CONTACT else 0.0
        deadline = time.monotonic() + patience
        while not self._hit(episode) and time.monotonic() < deadline:
            time.sleep(0.001)
        return episode.crashed

    def _broken_off(self, episode: CarlaEpisode, error: SimError) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """The server failed: a truncated episode. The connection is dropped, so that the next reset makes a new one."""
        log.warning("episode broken off: %s", error)
        episode.ended = True
        info = self._info({}) | self._final_info(episode, Outcome.MISSED) | {"sim_error": str(error)}
        obs = self._observation(self.scene())
        session, self._session = self._session, None
        if session is not None:
            session.close()
        return obs, 0.0, False, True, info

    # -- what is told --------------------------------------------------------------------------------------------------

    def _build_scene(self, episode: CarlaEpisode) -> Scene:
        session = self._session
        assert session is not None
        s, d, index = self._own_place(episode)
        centers = episode.route.centers_at(s)
        lane = int(np.argmin(np.abs(np.subtract(centers, d))))
        target = int(np.argmin(np.abs(np.subtract(centers, episode.line))))
        meta = isinstance(self.action_space, spaces.Discrete)
        legal = np.ones(2, dtype=bool)
        if meta:
            legal = legal_mask(lane, len(centers), episode.speed_index, len(self.task.speeds))
            assert len(legal) == NUM_ACTIONS
        return build_scene(
            self.scenario,
            episode,
            place=(s, d),
            lanes=(lane, target),
            centers=centers,
            width=float(episode.route.width[index]),
            time=episode.steps * self._period,
            period=self._period,
            set_points=tuple(self.task.speeds.tolist()) if meta else (),
            legal=legal,
            goal=self.task.goal(s),
            shapes=self._lane_shapes(session.map),
        )

    def _observation(self, scene: Scene) -> np.ndarray:
        episode = self._episode
        assert episode is not None
        return self.task.observe(scene, float(np.interp(scene.ego.s, episode.route.s, episode.route.headings)))

    def _lane_shapes(self, world_map: Any) -> tuple[LaneShape, ...]:
        if self._drawn[0] is not world_map:
            self._drawn = world_map, lane_shapes(world_map)
        return self._drawn[1]

    def _add(self, episode: CarlaEpisode, before: Scene, after: Scene, reward: float) -> None:
        front = after.front(after.ego.lane)
        episode.total_reward += reward
        episode.total_speed += after.ego.speed
        episode.distance += float(np.hypot(after.ego.x - before.ego.x, after.ego.y - before.ego.y))
        episode.lane_changes += after.ego.lane != before.ego.lane and len(before.lane_centers) == len(
            after.lane_centers
        )
        episode.min_ttc = min(episode.min_ttc, np.inf if front is None else front.ttc)

    def _info(self, terms: dict[str, float]) -> dict[str, Any]:
        episode = self._episode
        assert episode is not None
        return {
            "speed": float(episode.own["speed"][0]),
            "crashed": episode.crashed,
            "lane_invasions": episode.lane_invasions,
            "red_lights": episode.red_lights,
            "backend": self.backend,
        } | ({"rewards": terms} if terms else {})

    def _final_info(self, episode: CarlaEpisode, outcome: Outcome) -> dict[str, Any]:
        name = outcome.name.lower()
        summary = EpisodeSummary(
            outcome=name,
            success=outcome == Outcome.SUCCESS,
            crashed=outcome == Outcome.CRASH,
            steps=episode.steps,
            episode_return=episode.total_reward,
            mean_speed=episode.total_speed / max(episode.steps, 1),
            distance=episode.distance,
            lane_changes=int(episode.lane_changes),
            min_ttc=episode.min_ttc,
            backend=self.backend,
        )
        return {
            "outcome": name,
            "success": summary.success,
            "is_success": summary.success,
            "summary": dataclasses.asdict(summary),
        }

    def _running(self) -> CarlaEpisode:
        if self._episode is None or self._episode.ended:
            raise gym.error.ResetNeeded("no episode is running: call reset() before step()")
        return self._episode

    def _checked(self, action: Any) -> Any:
        space = self.action_space
        if isinstance(space, spaces.Discrete):
            number = np.asarray(action)
            if number.size != 1 or number.dtype.kind not in "iu" or not 0 <= number.item() < space.n:
                raise UsageError(f"action {action!r}: {self.scenario} takes the integers 0 to {int(space.n) - 1}")
            return int(number.item())
        values = np.array(action, dtype=np.float32)
        if values.shape != space.shape or not np.isfinite(values).all():
            raise UsageError(f"action {action!r}: {self.scenario} takes 2 numbers in [-1, 1]: pedal and steering")
        return np.clip(values, -1.0, 1.0)


def _collect(found: collections.deque) -> Any:
    """A sensor callback that holds nothing but the queue: a sensor must not keep its world alive."""

    def collect(event: Any) -> None:
        found.append(event.frame)

    return collect
