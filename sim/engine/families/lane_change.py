"""Family `lane-change`: the task of `sim.lane_change` as arrays and kernels.

Its simulation step is in `sim.engine.lane_traffic`. Kernel arguments as there; `set_points` are float64 (K,) m/s.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces
from numba import prange

from sim import kinematics
from sim import lane_change as task
from sim.actions import FULL, NUM_ACTIONS
from sim.compiled import kernel
from sim.engine import episode
from sim.engine.batch import EngineState, EnvBatch
from sim.engine.ego_actions import choice_of
from sim.engine.episode import CRASH, MISSED, RUNNING, SUCCESS
from sim.engine.family import Family
from sim.engine.lane_traffic import (
    A_MAX,
    CRASHED,
    ENV,
    FASTER,
    HEADWAY,
    IDLE,
    LEFT,
    RIGHT,
    ROWS,
    SLOWER,
    TWO_ROOT_AB,
    V_DESIRED,
    A,
    V,
    X,
    Y,
    in_order,
    last_at_or_behind,
    substep,
)
from sim.engine.records import Field, record
from sim.engine.rng import next_double
from sim.lane_change import LaneChangeConfig
from sim.outcome import Outcome
from sim.scene import Ego, Goal, LaneShape, Scene, Vehicles
from sim.sizes import CAR_LENGTH, CAR_WIDTH, LANE_WIDTH
from sim.view import VIEW, Views, look, set_speeds

PUBLISHED_ROWS = (X, V, A_MAX, HEADWAY)


def params_of(config: LaneChangeConfig) -> np.ndarray:
    """The config as one record for the kernels, in an array of one."""
    weights = config.reward
    values: dict[str, Field] = {
        "lanes": ("i8", config.lanes),
        "cars": ("i8", config.cars_per_lane),
        "cars_behind": ("i8", config.cars_behind),
        "start_lane": ("i8", config.start_lane),
        "goal_lane": ("i8", config.goal_lane),
        "time_limit": ("i8", config.time_limit),
        "substeps": ("i8", config.substeps),
        "period": ("f8", config.decision_period),
        "published": ("i8", config.layout == "published"),
        "random_phase": ("i8", config.phase == "random"),
        "start_x": ("f8", config.start_x),
        "start_speed": ("f8", config.start_speed),
        "goal_x": ("f8", config.goal_x),
        "goal_distance": ("f8", config.goal_distance),
        "slowest": ("f8", config.slowest),
        "fastest": ("f8", config.fastest),
        "crash": ("f8", weights.crash),
        "success": ("f8", weights.success),
        "missed": ("f8", weights.missed),
        "speed_weight": ("f8", weights.speed),
        "lane_gained": ("f8", weights.lane_gained),
        "lane_change": ("f8", weights.lane_change),
        "short_ttc": ("f8", weights.short_ttc),
    }
    for name in ("density", "traffic_speed", "traffic_acceleration", "traffic_headway"):
        low, high = getattr(config, name)
        values |= {f"{name}_low": ("f8", low), f"{name}_high": ("f8", high)}
    return record(values)


# --- start -----------------------------------------------------------------------------------------------------------


@kernel
def _start(env, cars, p, set_points, published):
    """Start an episode; the order of draws is that of `sim.lane_change.draw_traffic`."""
    env.x, env.y, env.heading, env.speed = p.start_x, p.start_lane * LANE_WIDTH, 0.0, p.start_speed
    env.lane = env.target_lane = env.old_lane = env.old_target = p.start_lane
    env.speed_index = kinematics.speed_index(p.start_speed, set_points)
    env.target_speed = set_points[env.speed_index]
    env.steering = env.acceleration = env.push_x = env.push_y = 0.0
    env.crashed = env.pushed = 0
    cars[:] = 0.0
    if p.published:
        for row in range(len(PUBLISHED_ROWS)):
            cars[PUBLISHED_ROWS[row]] = published[row]
    else:
        _draw_traffic(cars, p, env.stream)
    for c in range(cars.shape[1]):
        cars[Y, c] = (c // p.cars) * LANE_WIDTH
        cars[V_DESIRED, c] = cars[V, c]
        cars[TWO_ROOT_AB, c] = 2 * math.sqrt(-cars[A_MAX, c] * -task.IDM_DECELERATION)
    env.disorder = 0 if in_order(cars[X], p.cars) else 1
    episode.begin(env, _front_gap_ttc(env, cars, p, env.lane)[1])


@kernel
def _draw_traffic(cars, p, stream):
    density = p.density_low
    if p.density_high > p.density_low:
        density = p.density_low + (p.density_high - p.density_low) * next_double(stream)
    mean_spacing = 1000.0 / density
    for lane in range(p.lanes):
        spacing = mean_spacing * (0.9 + 0.2 * next_double(stream))
        phase = spacing * next_double(stream) if p.random_phase else 0.0
        if lane == p.start_lane:
            phase = 0.0
        for k in range(p.cars):
            c = lane * p.cars + k
            slot = float(k - p.cars_behind)
            if lane == p.start_lane and k >= p.cars_behind:
                slot += 1.0
            jitter = next_double(stream)
            cars[X, c] = p.start_x + (slot * spacing + phase) + 0.1 * mean_spacing * (2.0 * jitter - 1.0)
            cars[V, c] = _within(p.traffic_speed_low, p.traffic_speed_high, stream)
            cars[A_MAX, c] = _within(p.traffic_acceleration_low, p.traffic_acceleration_high, stream)
            cars[HEADWAY, c] = _within(p.traffic_headway_low, p.traffic_headway_high, stream)


@kernel
def _within(low, high, stream):
    return low + (high - low) * next_double(stream)


# --- one decision ----------------------------------------------------------------------------------------------------


@kernel
def _neighbour(env, cars, p, lane, ahead):
    """Nearest car ahead of or behind the ego on `lane` by highway-env's tie rules, or -1."""
    x = cars[X]
    if env.disorder:
        return _search_neighbour(env.x, x, cars[Y], lane, ahead)
    start, end = lane * p.cars, (lane + 1) * p.cars
    c = last_at_or_behind(x, start, end, env.x)
    level = c >= start and x[c] == env.x
    if ahead:
        front = c if level else c + 1
        return front if front < end else -1
    rear = c - 1 if level else c
    return rear if rear >= start else -1


@kernel
def _search_neighbour(ego_x, x, y, lane, ahead):
    """`_neighbour` over every car, wherever it has been pushed."""
    best, best_distance = -1, math.inf
    for c in range(x.size):
        if kinematics.on_lane(y[c], lane):
            dx = x[c] - ego_x
            if ahead and 0 <= dx <= best_distance:
                best, best_distance = c, dx
            elif not ahead and dx < 0 and -dx < best_distance:
                best, best_distance = c, -dx
    return best


@kernel
def _front_gap_ttc(env, cars, p, lane):
    """Bumper gap (m) and time-to-collision (s) to the car ahead on `lane`; both inf when there is none."""
    c = _neighbour(env, cars, p, lane, True)
    if c < 0:
        return math.inf, math.inf
    gap = cars[X, c] - env.x - CAR_LENGTH
    closing = env.speed - cars[V, c]
    return gap, (max(gap, 0.0) / closing if closing > 0 else math.inf)


@kernel
def _decide(env, cars, p, set_points, action):
    """One decision: its simulation steps, statistics, outcome and reward."""
    env.old_lane, env.old_target = env.lane, env.target_lane
    old_x, old_y = env.x, env.y
    for k in range(p.substeps):
        substep(env, cars, p, set_points, action if k == 0 else IDLE)
    ttc = _front_gap_ttc(env, cars, p, env.lane)[1]
    episode.count(env, env.speed, env.x - old_x, env.y - old_y, env.lane != env.old_lane, ttc)
    if env.crashed:
        env.outcome = CRASH
    elif env.x >= p.goal_x:
        env.outcome = SUCCESS if env.lane == p.goal_lane else MISSED
    elif env.steps >= p.time_limit:
        env.outcome = MISSED
    env.terminated = env.outcome != RUNNING  # the time limit is part of the task
    env.reward = _reward(env, p, ttc)
    env.episode_return += env.reward


@kernel
def _reward(env, p, ttc):
    """Sum of `sim.lane_change.reward_terms`, in their order (a test compares them)."""
    gained = abs(p.goal_lane - env.old_lane) - abs(p.goal_lane - env.lane)
    return (
        (p.crash if env.outcome == CRASH else 0.0)
        + (p.success if env.outcome == SUCCESS else 0.0)
        + (p.missed if env.outcome == MISSED else 0.0)
        + p.speed_weight * ((env.speed - p.slowest) / (p.fastest - p.slowest))
        + p.lane_gained * gained
        + (p.lane_change if env.target_lane != env.old_target else 0.0)
        + (p.short_ttc if ttc < task.TTC_WARNING else 0.0)
    )


@kernel
def _unit(x):
    return np.float32(min(max(x, -1.0), 1.0))


@kernel
def _observe(env, cars, p, set_points, obs):
    """float32 (29,), as `sim.lane_change.observation` defines it."""
    obs[0] = _unit(env.lane / (p.lanes - 1))
    obs[1] = _unit(env.speed / p.fastest)
    obs[2] = _unit((p.goal_lane - env.lane) / (p.lanes - 1))
    obs[3] = _unit((p.goal_x - env.x) / p.goal_distance)
    obs[4] = _unit(env.speed_index / (set_points.size - 1))
    at = 5
    for side in (0, -1, 1):
        lane = env.lane + side
        for ahead in (True, False):
            c = _neighbour(env, cars, p, lane, ahead) if 0 <= lane < p.lanes else -1
            if c >= 0:
                obs[at] = 1.0
                obs[at + 1] = _unit((cars[X, c] - env.x) / task.DISTANCE_SCALE)
                obs[at + 2] = _unit((cars[V, c] - env.speed) / task.SPEED_SCALE)
                obs[at + 3] = _unit(cars[A, c] / task.ACCELERATION_SCALE)
            else:
                obs[at], obs[at + 1] = 0.0, 1.0 if ahead else -1.0
                obs[at + 2] = obs[at + 3] = 0.0
            at += 4


@kernel
def _mask(env, p, set_points, mask):
    """Legal actions by highway-env's rule: lanes from the present lane, speeds from the present set-point."""
    mask[LEFT] = env.lane > 0
    mask[IDLE] = True
    mask[RIGHT] = env.lane < p.lanes - 1
    mask[FASTER] = env.speed_index < set_points.size - 1
    mask[SLOWER] = env.speed_index > 0


# --- batches ---------------------------------------------------------------------------------------------------------


@kernel
def _step_one(env, cars, p, set_points, action, obs, mask):
    _decide(env, cars, p, set_points, action)
    _observe(env, cars, p, set_points, obs)
    _mask(env, p, set_points, mask)


@kernel
def _step_serial(envs, cars, params, set_points, actions, obs, masks):
    for i in range(actions.size):
        _step_one(envs[i], cars[i], params[0], set_points, actions[i], obs[i], masks[i])


@kernel(parallel=True)
def _step_parallel(envs, cars, params, set_points, actions, obs, masks):
    for i in prange(actions.size):
        _step_one(envs[i], cars[i], params[0], set_points, actions[i], obs[i], masks[i])


@kernel
def _reset_rows(envs, cars, params, set_points, published, rows, obs, masks):
    p = params[0]
    for i in rows:
        _start(envs[i], cars[i], p, set_points, published)
        _observe(envs[i], cars[i], p, set_points, obs[i])
        _mask(envs[i], p, set_points, masks[i])


@kernel
def _roll_out(envs, cars, params, set_points, plans, rewards, final):
    """Play plans[b] in environment b until its episode ends; those that have ended stay as they are."""
    p = params[0]
    for b in range(plans.shape[0]):
        env = envs[b]
        for h in range(plans.shape[1]):
            if env.outcome != RUNNING:
                break
            _decide(env, cars[b], p, set_points, plans[b, h])
            rewards[b, h] = env.reward
        final[b, 0], final[b, 1], final[b, 2] = env.x, env.y, env.lane
        final[b, 3], final[b, 4] = env.target_lane, env.speed
        final[b, 5], _ = _front_gap_ttc(env, cars[b], p, env.target_lane)


@kernel
def _views(envs, cars, params, set_points, rows, centers, headings, lengths, views):
    p = params[0]
    for k in range(rows.size):
        env, traffic = envs[rows[k]], cars[rows[k]]
        ego = (env.x, env.y, env.speed, env.heading, CAR_LENGTH)
        lanes = (env.lane, env.target_lane, p.goal_lane)
        look(views[k], ego, lanes, centers, LANE_WIDTH, traffic[X], traffic[Y], traffic[V], headings, lengths)
        set_speeds(views[k], env.speed_index, set_points, p.period)


class LaneChangeBatch(EnvBatch):
    """N lane-change environments in one process."""

    family = "lane-change"
    actions = choice_of(NUM_ACTIONS)
    manoeuvres = FULL
    observation_space = spaces.Box(-1.0, 1.0, (task.OBSERVATION_SIZE,), np.float32)

    def __init__(self, config: LaneChangeConfig, num_envs: int, threads: int = 1) -> None:
        """Make the batch.

        Args:
            config: The resolved scenario config.
            num_envs: N.
            threads: See `EnvBatch`.
        """
        self.config = config
        self.decision_frequency = config.decision_frequency
        self.substeps = config.substeps
        self.params = params_of(config)
        self.set_points = config.speeds
        self._set_points = tuple(self.set_points.tolist())
        self._shapes = _lane_shapes(config.lanes)
        count = config.lanes * config.cars_per_lane
        self._centers = np.arange(config.lanes) * LANE_WIDTH
        self._headings, self._lengths = np.zeros(count), np.full(count, CAR_LENGTH)
        traffic = task.draw_traffic(config, np.random.default_rng(0))
        self._published = np.stack(
            [values.ravel() for values in (traffic.x, traffic.speed, traffic.acceleration, traffic.headway)]
        )
        super().__init__(num_envs, threads)

    def allocate(self, num_envs: int) -> EngineState:
        count = self.config.lanes * self.config.cars_per_lane
        return EngineState(np.zeros(num_envs, ENV), np.zeros((num_envs, ROWS, count)))

    def _reset(self, rows: np.ndarray) -> None:
        _reset_rows(*self.state, self.params, self.set_points, self._published, rows, self.obs, self.masks)

    def _step(self, actions: np.ndarray) -> None:
        step = _step_parallel if self.parallel else _step_serial
        step(*self.state, self.params, self.set_points, actions, self.obs, self.masks)

    def _roll_out(self, state: EngineState, plans: np.ndarray, rewards: np.ndarray, final: np.ndarray) -> None:
        _roll_out(*state, self.params, self.set_points, plans, rewards, final)

    def views(self, rows: np.ndarray) -> Views:
        found = np.zeros(len(rows), VIEW)
        _views(*self.state, self.params, self.set_points, rows, self._centers, self._headings, self._lengths, found)
        return Views(found, FULL)

    @property
    def vehicles(self) -> float:
        return 1.0 + self.state.bodies.shape[2]

    @property
    def speeds(self) -> np.ndarray:
        return self.state.envs["speed"]

    @property
    def crashed(self) -> np.ndarray:
        return self.state.envs["crashed"] > 0

    def _reward_terms(self, i: int, action: Any) -> dict[str, float]:
        env, front = self.state.envs[i], self.scene(i).front(int(self.state.envs["lane"][i]))
        return task.reward_terms(
            self.config,
            lanes=(int(env["old_lane"]), int(env["lane"])),
            target_changed=bool(env["target_lane"] != env["old_target"]),
            speed=float(env["speed"]),
            ttc=math.inf if front is None else front.ttc,
            outcome=Outcome(env["outcome"]),
        )

    def scene(self, i: int) -> Scene:
        config, env, cars = self.config, self.state.envs[i], self.state.bodies[i].copy()
        x, y, count = cars[X], cars[Y], cars.shape[1]
        return Scene(
            scenario="lane-change",
            time=float(env["steps"]) * config.decision_period,
            decision_period=config.decision_period,
            ego=Ego(
                x=float(env["x"]),
                y=float(env["y"]),
                heading=float(env["heading"]),
                speed=float(env["speed"]),
                s=float(env["x"]),
                d=float(env["y"]),
                lane=int(env["lane"]),
                target_lane=int(env["target_lane"]),
                speed_index=int(env["speed_index"]),
                acceleration=float(env["acceleration"]),
                crashed=bool(env["crashed"]),
            ),
            vehicles=Vehicles(
                ids=np.arange(1, count + 1),
                x=x,
                y=y,
                heading=np.zeros(count),
                speed=cars[V],
                acceleration=cars[A],
                s=x,
                d=y,
                lane=np.clip(np.rint(y / LANE_WIDTH), 0, config.lanes - 1).astype(np.int64),
                length=np.full(count, CAR_LENGTH),
                width=np.full(count, CAR_WIDTH),
                crashed=cars[CRASHED] > 0,
            ),
            lane_centers=tuple(lane * LANE_WIDTH for lane in range(config.lanes)),
            lane_width=LANE_WIDTH,
            set_points=self._set_points,
            legal=self.masks[i].copy(),
            goal=Goal(config.goal_lane, config.goal_x, config.goal_x - float(env["x"])),
            shapes=self._shapes,
        )


def _lane_shapes(lanes: int) -> tuple[LaneShape, ...]:
    return tuple(
        LaneShape(
            center=np.array([[0.0, lane * LANE_WIDTH], [10_000.0, lane * LANE_WIDTH]]),
            width=LANE_WIDTH,
            left="solid" if lane == 0 else "broken",
            right="solid" if lane == lanes - 1 else "broken",
        )
        for lane in range(lanes)
    )


def _make(scenario: Any, config: LaneChangeConfig, num_envs: int, threads: int) -> LaneChangeBatch:
    return LaneChangeBatch(config, num_envs, threads)


FAMILY = Family("lane-change", ("lane-change",), _make, lambda config: task.uncovered(None, config))
