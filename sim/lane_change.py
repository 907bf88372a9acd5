"""The mandatory lane change: the published LGDRL task, defined once for every simulator.

A straight 4-lane road in dense traffic; the ego starts in the leftmost lane at x = 500 m and 20 m/s and has to be in
the rightmost lane when it passes x = 1000 m. Geometry, rates and servo gains were measured from the one published
episode of LGDRL (arXiv 2412.18511); where that is silent (traffic parameters, observation, reward, time limit) the
values are ours: "LGDRL-style, as specified here".

Observation, float32 (29,), clipped to [-1, 1]:
    lane / (lanes - 1), speed / top speed, (goal lane - lane) / (lanes - 1), remaining / goal distance,
    speed index / (set-points - 1), then for own front, own rear, left front, left rear, right front, right rear:
    present, dx / 100 m, (its speed - ego speed) / 20 m/s, its acceleration / 2 m/s2; absent = 0, +-1, 0, 0.

Reward per decision (`reward_terms`): crash, success and missed once; a share for speed; lanes gained towards the goal;
small costs for a commanded lane change and for a bumper time-to-collision under 4 s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np

from sim.bounds import Bounds, Number, Positive, Whole, config_dataclass
from sim.by_value import ByValue
from sim.errors import UsageError
from sim.outcome import Outcome

SIMULATION_STEP = 0.05
"""Seconds (20 Hz)."""

KP_SPEED = 20.0
"""Speed servo, 1/s: a new set-point is reached within one simulation step. Measured."""
KP_LATERAL = 1 / 0.3
"""Lateral servo, 1/s. Measured (highway-env's default is 1 / 0.6)."""
KP_HEADING = 1 / 0.2
"""Heading servo, 1/s. Measured; equals highway-env's default."""

IDM_DECELERATION = 5.0
"""Comfortable braking b, m/s2 (highway-env's default)."""
IDM_JAM_DISTANCE = 10.0
"""Centre to centre, metres (highway-env's default)."""
TRAFFIC_ACCELERATION_LIMIT = 2.0
"""Traffic accelerations are clipped to +- this, m/s2. Measured (highway-env's default is 6)."""

TTC_WARNING = 4.0
"""Seconds; the published expert keeps more than this."""
NUM_NEIGHBOURS = 6
OBSERVATION_SIZE = 5 + 4 * NUM_NEIGHBOURS
DISTANCE_SCALE = 100.0
"""Metres that an observed distance of 1 stands for ..."""
SPEED_SCALE = 20.0
"""... m/s of a relative speed ..."""
ACCELERATION_SCALE = 2.0
"""... and m/s2 of an acceleration."""


HIGHWAY_ENV_NAMES = {"lanes_count": "lanes", "initial_lane_id": "start_lane", "policy_frequency": "decision_frequency"}
"""highway-env's names of settings that this task has too."""
Density = Annotated[float, Bounds(1, 90)]
TrafficSpeed = Annotated[float, Bounds(1, 40)]
TrafficParameter = Annotated[float, Bounds(0.1, 10)]


@config_dataclass
class RewardWeights:
    """Chosen so that a full episode of small terms cannot outweigh either terminal term."""

    crash: Number = -10.0
    success: Number = 10.0
    missed: Number = -5.0
    speed: Number = 0.02  # times (v - v_min) / (v_max - v_min)
    lane_gained: Number = 0.5  # per lane towards the goal, negative when moving away
    lane_change: Number = -0.02  # per commanded lane change
    short_ttc: Number = -0.04  # per decision that ends with a bumper time-to-collision under 4 s


@config_dataclass
class LaneChangeConfig:
    """Task and traffic. Lengths in m, speeds in m/s; traffic parameters are drawn uniformly per car."""

    layout: Literal["random", "published"] = "random"  # traffic drawn per seed, or the published frame 0
    density: tuple[Density, Density] = (25.0, 25.0)  # vehicles per km and lane; drawn per episode when the two differ
    lanes: Annotated[int, Bounds(2, 12)] = 4
    start_lane: Whole = 0
    goal_lane: Whole = 3
    start_x: Positive = 500.0
    start_speed: Annotated[float, Bounds(0, 40)] = 20.0
    goal_distance: Positive = 500.0
    time_limit: Annotated[int, Bounds(1, 1_000_000)] = 120  # decisions (60 s)
    # Hz, as published; simulation steps (20 Hz) per decision are a whole number
    decision_frequency: Annotated[float, Bounds(0.1, 20)] = 2.0
    # ego speed set-points: linspace(slowest, fastest, set_points); measured
    slowest: Annotated[float, Bounds(0, 40, open_low=True)] = 6.0
    fastest: Annotated[float, Bounds(0, 40, open_low=True)] = 28.0
    set_points: Annotated[int, Bounds(2, 1000)] = 20
    traffic_speed: tuple[TrafficSpeed, TrafficSpeed] = (15.0, 22.0)  # initial = desired
    traffic_acceleration: tuple[TrafficParameter, TrafficParameter] = (1.0, 3.0)  # IDM a, m/s2
    traffic_headway: tuple[TrafficParameter, TrafficParameter] = (1.0, 2.0)  # IDM T, s
    phase: Literal["level", "random"] = "level"  # each lane has a car beside the ego (as published), or anywhere
    behind: Positive = 280.0  # traffic reaches this far back at the start
    ahead: Positive = 440.0  # and this far ahead
    reward: RewardWeights = field(default_factory=RewardWeights)
    observation: dict[str, Any] | None = None  # None: as above; else as highway-env's, which only that backend has
    action: dict[str, Any] | None = None  # None: meta-actions over the set-points; else as highway-env's, as before

    @classmethod
    def renamed(cls, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """Overrides under highway-env's names of lane settings, by the names of this config.

        Args:
            overrides: Values by either name.
        Returns:
            Values by field name.
        Raises:
            UsageError: A setting is given under both names.
        """
        for theirs, ours in HIGHWAY_ENV_NAMES.items():
            if theirs in overrides and ours in overrides:
                raise UsageError(f"{theirs} and {ours} are the same setting of lane-change: give one")
        return {HIGHWAY_ENV_NAMES.get(name, name): value for name, value in overrides.items()}

    def __post_init__(self) -> None:
        for part in ("observation", "action"):
            value = getattr(self, part)
            if value is not None and not isinstance(value.get("type"), str):
                raise ValueError(f"{part} = {value}: name its type, e.g. {{'type': 'Kinematics'}}, as in highway-env")
        for name in ("density", "traffic_speed", "traffic_acceleration", "traffic_headway"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} = [{low}, {high}]: give [low, high]")
        for name, lane in (("start_lane", self.start_lane), ("goal_lane", self.goal_lane)):
            if lane >= self.lanes:
                raise ValueError(f"{name} = {lane}: the lanes are 0 to {self.lanes - 1}")
        if self.slowest >= self.fastest:
            raise ValueError(f"slowest = {self.slowest}, fastest = {self.fastest}: choose slowest < fastest, in m/s")
        if not (self.behind < self.start_x and self.start_x + self.goal_distance + self.ahead < 8000):
            raise ValueError(
                "the road is 10 km long: keep behind < start_x and start_x + goal_distance + ahead < 8000 m"
            )
        if 20 % self.decision_frequency:
            raise ValueError(
                f"decision_frequency = {self.decision_frequency}: choose 20, 10, 5, 4, 2.5, 2, 1 Hz or another that "
                "divides the 20 Hz of the simulation"
            )
        if self.layout == "published" and (self.lanes, self.start_lane, self.start_x) != (4, 0, 500.0):
            raise ValueError("layout = 'published' needs 4 lanes and the start at lane 0, x = 500 m")

    @property
    def substeps(self) -> int:
        """Simulation steps per decision."""
        return round(1 / (self.decision_frequency * SIMULATION_STEP))

    @property
    def decision_period(self) -> float:
        """Seconds per decision."""
        return self.substeps * SIMULATION_STEP

    @property
    def goal_x(self) -> float:
        """Where the goal lies along the road, m."""
        return self.start_x + self.goal_distance

    @property
    def speeds(self) -> np.ndarray:
        """Set-points (set_points,), m/s."""
        return np.linspace(self.slowest, self.fastest, self.set_points)

    @property
    def cars_behind(self) -> int:
        """Cars per lane behind the ego at the start; enough for the densest episode."""
        return int(np.ceil(self.behind * self.density[1] / 1000.0))

    @property
    def cars_per_lane(self) -> int:
        """Cars per lane at the start."""
        return self.cars_behind + int(np.ceil(self.ahead * self.density[1] / 1000.0))


def uncovered(scenario: Any, config: LaneChangeConfig) -> str | None:
    """What only the backend highway-env has: its own observation and action types.

    Args:
        scenario: Not used.
        config: The resolved config.
    Returns:
        What it is; None: nothing.
    """
    for part in ("observation", "action"):
        value = getattr(config, part)
        if value is not None:
            return f"{part} type {value['type']} in this task"
    return None


def reward_terms(
    config: LaneChangeConfig,
    lanes: tuple[int, int],
    target_changed: bool,
    speed: float,
    ttc: float,
    outcome: Outcome,
) -> dict[str, float]:
    """Weighted terms of one decision's reward, in the order in which they are summed.

    Args:
        config: The task.
        lanes: The ego's lane before and after the decision.
        target_changed: Whether the decision changed the lane that the ego steers to.
        speed: Of the ego after the decision, m/s.
        ttc: Bumper time-to-collision with the car ahead after the decision, s; inf when never closing in.
        outcome: Of the decision.
    Returns:
        Term by name.
    """
    weights, (old_lane, lane) = config.reward, lanes
    share = (speed - config.slowest) / (config.fastest - config.slowest)
    return {
        "crash": weights.crash * (outcome == Outcome.CRASH),
        "success": weights.success * (outcome == Outcome.SUCCESS),
        "missed": weights.missed * (outcome == Outcome.MISSED),
        "speed": weights.speed * share,
        "lane_gained": weights.lane_gained * (abs(config.goal_lane - old_lane) - abs(config.goal_lane - lane)),
        "lane_change": weights.lane_change * bool(target_changed),
        "short_ttc": weights.short_ttc * bool(ttc < TTC_WARNING),
    }


def observation(
    config: LaneChangeConfig,
    lane: int,
    x: float,
    speed: float,
    speed_index: int,
    neighbours: Sequence[tuple[float, float, float] | None],
) -> np.ndarray:
    """The observation of one state, see the module's text.

    Args:
        config: The task.
        lane: Of the ego.
        x: Of the ego along the road, m.
        speed: Of the ego, m/s.
        speed_index: Set-point in force.
        neighbours: (distance m, speed m/s, acceleration m/s2) of the car ahead of and the car behind the ego in its
            own, its left and its right lane; None where there is none.
    Returns:
        float32 (29,).
    """
    values = [
        lane / (config.lanes - 1),
        speed / config.fastest,
        (config.goal_lane - lane) / (config.lanes - 1),
        (config.goal_x - x) / config.goal_distance,
        speed_index / (config.set_points - 1),
    ]
    for k, car in enumerate(neighbours):
        if car is None:
            values += [0.0, 1.0 if k % 2 == 0 else -1.0, 0.0, 0.0]
        else:
            distance, its_speed, acceleration = car
            values += [
                1.0,
                distance / DISTANCE_SCALE,
                (its_speed - speed) / SPEED_SCALE,
                acceleration / ACCELERATION_SCALE,
            ]
    return np.clip(np.array(values, dtype=np.float64), -1.0, 1.0).astype(np.float32)


@dataclass(frozen=True, eq=False)
class TrafficDraw(ByValue):
    """Initial traffic, each (lanes, cars), cars in ascending x: position, speed (= desired speed), IDM a and T."""

    x: np.ndarray
    speed: np.ndarray
    acceleration: np.ndarray
    headway: np.ndarray


def draw_traffic(config: LaneChangeConfig, rng: np.random.Generator) -> TrafficDraw:
    """Draw the traffic of one episode. The order of draws is part of the scenario: every backend keeps it.

    One draw for the density where it is a range; per lane one for the spacing and, with random phase, one more;
    then per car four: jitter, speed, acceleration, headway.

    Args:
        config: The task.
        rng: Its random stream.
    Returns:
        The traffic at the start.
    """
    if config.layout == "published":
        return _published_traffic(config)
    low, high = config.density
    density = low + (high - low) * rng.random() if high > low else low
    mean_spacing = 1000.0 / density
    shape = (config.lanes, config.cars_per_lane)
    x, speed, acceleration, headway = (np.empty(shape) for _ in range(4))
    for lane in range(config.lanes):
        spacing = mean_spacing * (0.9 + 0.2 * rng.random())
        phase = spacing * rng.random() if config.phase == "random" else 0.0
        slots = np.arange(-config.cars_behind, config.cars_per_lane - config.cars_behind, dtype=np.float64)
        if lane == config.start_lane:
            slots[config.cars_behind :] += 1.0  # the ego takes the slot beside itself
            phase = 0.0
        jitter, drawn_speed, drawn_acceleration, drawn_headway = rng.random((config.cars_per_lane, 4)).T
        x[lane] = config.start_x + (slots * spacing + phase) + 0.1 * mean_spacing * (2.0 * jitter - 1.0)
        speed[lane] = _within(config.traffic_speed, drawn_speed)
        acceleration[lane] = _within(config.traffic_acceleration, drawn_acceleration)
        headway[lane] = _within(config.traffic_headway, drawn_headway)
    return TrafficDraw(x, speed, acceleration, headway)


def _within(bounds: tuple[float, float], share: np.ndarray) -> np.ndarray:
    return bounds[0] + (bounds[1] - bounds[0]) * share


PUBLISHED_OFFSETS: tuple[tuple[float, ...], ...] = (
    (-45.7, 41.1, 82.4, 129.0),
    (-36.4, -1.2, 38.3),
    (-32.5, 2.5, 38.4, 72.5, 110.8),
    (-40.5, -1.2, 37.1, 73.8, 110.5),
)
"""Metres from the ego, per lane: frame 0 of the published video, window -59 to +141 m."""
PUBLISHED_SPEEDS: tuple[tuple[float, ...], ...] = (
    (17.5, 18.3, 17.5, 17.5),
    (19.5, 19.5, 22.3),
    (18.0, 18.0, 18.0, 17.5, 17.5),
    (18.5, 20.0, 19.5, 17.5, 17.5),
)
"""m/s: read from the published text where a car is first seen, extrapolated as its acceleration fades; 17.5 else."""
PUBLISHED_SPACING = 38.5
"""Metres: continues the published rows beyond the window ..."""
PUBLISHED_WINDOW_END = 141.0
"""... which shows this far ahead, and no car of lane 1 beyond 38.3 m."""


def _published_traffic(config: LaneChangeConfig) -> TrafficDraw:
    x = np.empty((config.lanes, config.cars_per_lane))
    speed = np.full_like(x, 17.5)
    for lane, offsets in enumerate(PUBLISHED_OFFSETS):
        behind = sum(offset < 0 for offset in offsets)
        first = config.cars_behind - behind
        last = first + len(offsets)
        x[lane, first:last] = offsets
        speed[lane, first:last] = PUBLISHED_SPEEDS[lane]
        x[lane, :first] = offsets[0] - PUBLISHED_SPACING * np.arange(first, 0, -1)
        next_ahead = max(offsets[-1] + PUBLISHED_SPACING, PUBLISHED_WINDOW_END)
        x[lane, last:] = next_ahead + PUBLISHED_SPACING * np.arange(config.cars_per_lane - last)
    shape = x.shape
    return TrafficDraw(config.start_x + x, speed, np.full(shape, 2.0), np.full(shape, 1.5))
