"""One episode on a CARLA server: its actors, what the last frame showed of them, and running totals."""

from __future__ import annotations

import collections
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from sim.carla.control import SpeedControl, Steering
from sim.carla.errors import SimError
from sim.carla.lights import Lights
from sim.carla.routes import Route
from sim.carla.session import CarlaSession
from sim.carla.task import EpisodeStart
from sim.carla.traffic import STATE, CarlaTraffic, read_states
from sim.env import EpisodeSummary
from sim.outcome import Outcome
from sim.scene import Scene

CONTACT = 0.5
"""Metres between two cars below which a collision report may be on its way."""
REPORT_PATIENCE, REPORT_DUE = 0.02, 1.0
"""Seconds to wait for such a report, and where the boxes overlap already: sensors have a channel of their own, and an
episode must end in the frame of its contact on a busy machine, too."""


class SensorReports:
    """Reports of the ego's collision and lane invasion sensors, which arrive on the client's threads."""

    def __init__(self, session: CarlaSession, ego: Any) -> None:
        """Attach the sensors.

        Args:
            session: Spawns and owns them.
            ego: The `carla.Vehicle` to attach them to.
        """
        self._collisions: collections.deque[int] = collections.deque()
        self._invasions: collections.deque[int] = collections.deque()
        origin = session.carla.Transform()
        for kind, queue in (("collision", self._collisions), ("lane_invasion", self._invasions)):
            sensor = session.spawn(session.blueprint(f"sensor.other.{kind}"), origin, ego)
            sensor.listen(_append_to(queue))

    def clear(self) -> None:
        """Drop what has arrived."""
        self._collisions.clear()
        self._invasions.clear()

    def take(self) -> tuple[bool, int]:
        """Take the reports that have arrived.

        Returns:
            Whether a collision was reported, and the number of lane invasions.
        """
        invasions = 0
        while self._invasions:
            self._invasions.popleft()
            invasions += 1
        collided = False
        while self._collisions:
            self._collisions.popleft()
            collided = True
        return collided, invasions


def _append_to(queue: collections.deque[int]) -> Any:
    """A sensor callback that references the queue only: a sensor must not keep its environment alive."""

    def append(event: Any) -> None:
        queue.append(event.frame)

    return append


@dataclass
class CarlaEpisode:
    """The running episode."""

    start: EpisodeStart
    ego: Any
    """The `carla.Vehicle`."""
    traffic: CarlaTraffic
    reports: SensorReports
    sizes: np.ndarray
    """(V, 2) length and width of the cars, m"""
    ego_size: tuple[float, float]
    """Length and width, m."""
    steering: Steering
    control: SpeedControl
    lights: Lights
    line: float
    """d that the ego steers to."""
    speed_index: int
    """Index of the set-point that the ego steers to."""
    state: np.ndarray = field(default_factory=lambda: np.zeros(0, STATE))
    """`STATE` (V,) of the cars in the last frame."""
    own: np.ndarray = field(default_factory=lambda: np.zeros(1, STATE))
    """`STATE` (1,) of the ego."""
    scene: Scene | None = None
    """Of the last frame; None until it is built."""
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

    # -- frames --------------------------------------------------------------------------------------------------------

    def read_frame(self, snapshot: Any) -> None:
        """Read the vehicles' states.

        Args:
            snapshot: A `carla.WorldSnapshot`.

        Raises:
            SimError: The ego does not exist any more.
        """
        self.state = read_states(snapshot, self.traffic.ids.tolist())
        self.own = read_states(snapshot, [self.ego.id])
        if not np.isfinite(self.own["x"][0]):
            raise SimError("the ego does not exist any more: another client removed it")
        self.scene = None

    def place(self) -> tuple[float, float, int]:
        """s and d of the ego, and the index of the route's sample before it."""
        own = self.own
        s, d, index = self.route.project(np.stack([own["x"], own["y"]], axis=1))
        return float(s[0]), float(d[0]), int(index[0])

    def off_road(self) -> bool:
        """Whether the ego has left the lanes of its road, or the route has ended."""
        s, d, index = self.place()
        lane = self.route.lane_at(np.array([d]), np.array([index]))[0]
        return bool(lane < 0 or s >= self.route.end)

    def collided(self) -> bool:
        """Whether the ego has collided. Waits for the report of a contact in the last frame where one is possible."""
        gap = self._nearest_gap()
        patience = REPORT_DUE if gap <= 0 else REPORT_PATIENCE if gap < CONTACT else 0.0
        deadline = time.monotonic() + patience
        while not self._take_reports() and time.monotonic() < deadline:
            time.sleep(0.001)
        return self.crashed

    def _take_reports(self) -> bool:
        collided, invasions = self.reports.take()
        self.lane_invasions += invasions
        self.crashed = self.crashed or collided
        return self.crashed

    def _nearest_gap(self) -> float:
        """Metres between the ego's box and the nearest car's bounding box along the ego's axes: never too far."""
        cars, own = self.state, self.own[0]
        if not len(cars):
            return np.inf
        dx, dy, yaw = cars["x"] - own["x"], cars["y"] - own["y"], own["yaw"]
        cos, sin = np.abs(np.cos(cars["yaw"] - yaw)), np.abs(np.sin(cars["yaw"] - yaw))
        length, width = self.sizes[:, 0], self.sizes[:, 1]
        along = np.abs(dx * np.cos(yaw) + dy * np.sin(yaw)) - (length * cos + width * sin + self.ego_size[0]) / 2
        across = np.abs(dy * np.cos(yaw) - dx * np.sin(yaw)) - (length * sin + width * cos + self.ego_size[1]) / 2
        return float(np.nanmin(np.maximum(along, across)))

    # -- totals --------------------------------------------------------------------------------------------------------

    def add(self, before: Scene, after: Scene, reward: float) -> None:
        """Add a decision to the totals.

        Args:
            before: The scene before the decision.
            after: The scene after it.
            reward: Of the decision.
        """
        front = after.front(after.ego.lane)
        self.total_reward += reward
        self.total_speed += after.ego.speed
        self.distance += float(np.hypot(after.ego.x - before.ego.x, after.ego.y - before.ego.y))
        self.lane_changes += after.ego.lane != before.ego.lane and len(before.lane_centers) == len(after.lane_centers)
        self.min_ttc = min(self.min_ttc, np.inf if front is None else front.ttc)

    def info(self, backend: str, terms: dict[str, float]) -> dict[str, Any]:
        """The info of a step.

        Args:
            backend: Which simulator computes the episode.
            terms: Weighted reward terms; left out where empty.

        Returns:
            Plain values.
        """
        return {
            "speed": float(self.own["speed"][0]),
            "crashed": self.crashed,
            "lane_invasions": self.lane_invasions,
            "red_lights": self.red_lights,
            "backend": backend,
        } | ({"rewards": terms} if terms else {})

    def final_info(self, backend: str, outcome: Outcome) -> dict[str, Any]:
        """What the info of the last step has in addition.

        Args:
            backend: Which simulator computed the episode.
            outcome: How the episode ended.

        Returns:
            Plain values.
        """
        name = outcome.name.lower()
        summary = EpisodeSummary(
            outcome=name,
            success=outcome == Outcome.SUCCESS,
            crashed=outcome == Outcome.CRASH,
            steps=self.steps,
            episode_return=self.total_reward,
            mean_speed=self.total_speed / max(self.steps, 1),
            distance=self.distance,
            lane_changes=int(self.lane_changes),
            min_ttc=self.min_ttc,
            backend=backend,
        )
        return {
            "outcome": name,
            "success": summary.success,
            "is_success": summary.success,
            "summary": asdict(summary),
        }
