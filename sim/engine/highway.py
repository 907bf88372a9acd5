"""Engine families on highway-env's worlds: highway (fast and dense too), two-way, merge (both), exit.

`HighwayWorld` runs a resolved highway-env config: the road is highway-env's own network, compiled to a table; the start
is drawn as highway-env draws it (`spawn`), the traffic moves as its traffic does (`traffic`), and observations, rewards
and ends are its own, to the bit. `why_not` says which configs it leaves to highway-env.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numba import njit, prange

from sim.actions import MetaAction
from sim.engine import physics, roads
from sim.engine.mirror import Mirror
from sim.engine.observe import make_observer, observe, space_of, uncovered
from sim.engine.roads import Road, compile_road, lane_keys
from sim.engine.spawn import EXIT, HIGHWAY, MERGE, MERGE_GENERIC, TWO_WAY, reset_world
from sim.engine.traffic import (
    CRASHED,
    FASTER,
    LANE,
    LEFT,
    NONE,
    RIGHT,
    ROWS,
    SLOWER,
    TAGS,
    TARGET,
    V_TARGET,
    VX,
    VY,
    WORLD,
    C,
    S,
    V,
    X,
    Y,
    substep,
)
from sim.engine.world import World
from sim.env import EpisodeSummary
from sim.outcome import Outcome
from sim.scene import LANE_MARGIN, Scene

RUNNING, SUCCESS, CRASH, MISSED = (int(outcome) for outcome in Outcome)
FAMILIES = {
    "highway-v0": HIGHWAY,
    "highway-fast-v0": HIGHWAY,
    "two-way-v0": TWO_WAY,
    "merge-v0": MERGE,
    "merge-v1": MERGE,
    "merge-generic-v0": MERGE_GENERIC,
    "merge-generic-v1": MERGE_GENERIC,
    "exit-v0": EXIT,
    "exit-v1": EXIT,
}
"""Engine family by the name of the highway-env world."""
TRAFFIC = "highway_env.vehicle.behavior.IDMVehicle"
MERGE_END = 370.0
FULL = (MetaAction.LANE_LEFT, MetaAction.IDLE, MetaAction.LANE_RIGHT, MetaAction.FASTER, MetaAction.SLOWER)
LONGITUDINAL = (MetaAction.SLOWER, MetaAction.IDLE, MetaAction.FASTER)
LATERAL = (MetaAction.LANE_LEFT, MetaAction.IDLE, MetaAction.LANE_RIGHT)
DEFAULT_SPEEDS = (20.0, 25.0, 30.0)


class State(NamedTuple):
    worlds: np.ndarray
    """`traffic.WORLD` (N,)"""
    cars: np.ndarray
    """float64 (N, ROWS, B), B the most bodies that a world can hold"""
    tags: np.ndarray
    """int32 (N, TAGS, B)"""

    @property
    def stream(self) -> np.ndarray:
        """uint64 (N, 6): PCG64 stream of each world."""
        return self.worlds["stream"]


def why_not(scenario: Any, config: Any) -> str | None:
    """What the engine does not cover in a resolved config of a highway-env scenario, or None."""
    family = FAMILIES.get(scenario.world.name)
    if family is None:
        return f"world {scenario.world.name}"
    if config.action["type"] != "DiscreteMetaAction":
        return f"action type {config.action['type']}"
    if getattr(config, "other_vehicles_type", TRAFFIC) != TRAFFIC:
        return f"traffic of class {config.other_vehicles_type.rpartition('.')[2]}"
    if getattr(config, "show_trajectories", False) or getattr(config, "manual_control", False):
        return "trajectories and manual control"
    if family == EXIT and config.lanes_count < 2:
        return "an exit from a road of one lane"
    return uncovered(config.observation, obstacles=family in (MERGE, MERGE_GENERIC))


def actions_of(settings: dict[str, Any]) -> tuple[MetaAction, ...]:
    """What the action ids of a DiscreteMetaAction mean."""
    longitudinal, lateral = settings.get("longitudinal", True), settings.get("lateral", True)
    return FULL if longitudinal and lateral else LONGITUDINAL if longitudinal else LATERAL


def params_of(config: Any, family: int, network: Any, road: Road) -> np.ndarray:
    """The config as one record for the kernels, in an array of one (parallel kernels take no bare records)."""

    def option(name: str, default: float = 0.0) -> float:
        return getattr(config, name, default)

    keys = lane_keys(network)
    merging = family in (MERGE, MERGE_GENERIC)
    lanes = config.lanes_count if family != MERGE and family != TWO_WAY else 2
    obstacle, spawn_end, end = (0.0, 0.0), 0.0, MERGE_END
    if merging:
        lane = network.get_lane(("b", "c", -1))
        obstacle = tuple(lane.position(lane.length, 0))
    if family == MERGE_GENERIC:
        spawn_end = config.before_merge_length + config.converge_merge_length + config.parallel_merge_length
        end = spawn_end + config.after_merge_length - 90
    low, high = option("reward_speed_range", (20, 30))  # type: ignore[arg-type, misc]
    initial = option("initial_lane_id", None)  # type: ignore[arg-type]
    values: dict[str, tuple[str, float]] = {
        "family": ("i8", family),
        "lanes": ("i8", lanes),
        "others": ("i8", int(option("vehicles_count"))),
        "initial_lane": ("i8", -1 if initial is None else initial),
        "only_ego_checks": ("i8", 0),
        "main": ("i8", keys.index(("a", "b", 0)) if merging else 0),
        "ramp": ("i8", keys.index(("j", "k", 0)) if merging else 0),
        "altruism_lane": ("i8", keys.index(("b", "c", 2)) if ("b", "c", 2) in keys else -1),
        "exit_lane": ("i8", max((n for n, key in enumerate(keys) if key[:2] == ("1", "2")), default=0)),
        "exit_ramp": ("i8", keys.index(("2", "exit", 0)) if family == EXIT else -1),
        "substeps": ("i8", int(config.simulation_frequency // config.policy_frequency)),
        "normalize": ("i8", option("normalize_reward", False)),
        "offroad_terminal": ("i8", option("offroad_terminal", False)),
        "dt": ("f8", 1 / config.simulation_frequency),
        "period": ("f8", 1 / config.policy_frequency),
        "duration": ("f8", config.duration),
        "ego_spacing": ("f8", option("ego_spacing")),
        "spacing": ("f8", 1 / option("vehicles_density", 1.0)),
        "crowding": ("f8", math.exp(-5 / 40 * lanes)),
        "obstacle_x": ("f8", obstacle[0]),
        "obstacle_y": ("f8", obstacle[1]),
        "spawn_end": ("f8", spawn_end),
        "end": ("f8", end),
        "slow": ("f8", low),
        "fast": ("f8", high),
        "collision": ("f8", option("collision_reward")),
        "right_lane": ("f8", option("right_lane_reward")),
        "left_lane": ("f8", option("left_lane_reward")),
        "high_speed": ("f8", option("high_speed_reward")),
        "lane_change": ("f8", option("lane_change_reward")),
        "merging_speed": ("f8", option("merging_speed_reward")),
        "goal": ("f8", option("goal_reward")),
    }
    dtype = [(name, kind) for name, (kind, _) in values.items()]
    return np.array([tuple(value for _, value in values.values())], dtype=np.dtype(dtype, align=True))


# --- one decision ----------------------------------------------------------------------------------------------------


@njit(cache=True, error_model="numpy")
def _linear(value, low, high):
    """highway-env's `lmap` onto [0, 1]."""
    return 0 + (value - low) * (1 - 0) / (high - low)


@njit(cache=True, error_model="numpy")
def _exits(tags, p):
    """Is the ego on the way out of an `exit` world?"""
    return tags[TARGET, 0] in (p.exit_lane, p.exit_ramp)


@njit(cache=True, error_model="numpy")
def _reward(w, cars, tags, road, set_points, p, action):
    """highway-env's reward, terms added in its order."""
    lane, crashed = road.lanes[tags[LANE, 0]], float(tags[CRASHED, 0])
    target_id = float(road.lanes[tags[TARGET, 0]].id)
    if p.family == TWO_WAY:
        return 0 + p.high_speed * (w.speed_index / (set_points.size - 1)) + p.left_lane * (
            (lane.count - 1 - target_id) / (lane.count - 1)
        )
    if p.family == HIGHWAY:
        s, lateral = roads.project(lane, cars[X, 0], cars[Y, 0])
        on_road = 1.0 if roads.holds(lane, s, lateral, 0.0) else 0.0
        forward = _linear(cars[V, 0] * cars[C, 0], p.slow, p.fast)
        reward = (
            0
            + p.collision * crashed
            + p.right_lane * (target_id / max(lane.count - 1, 1))
            + p.high_speed * min(max(forward, 0.0), 1.0)
            + 0 * on_road
        )
        if p.normalize:
            reward = _linear(reward, p.collision, p.high_speed + p.right_lane)
        return reward * on_road
    speed = _linear(cars[V, 0], p.slow, p.fast)
    if p.family == EXIT:
        reward = (
            0
            + p.collision * crashed
            + p.goal * (1.0 if _exits(tags, p) else 0.0)
            + p.high_speed * min(max(speed, 0.0), 1.0)
            + p.right_lane * target_id
        )
        if p.normalize:
            reward = min(max(_linear(reward, p.collision, p.goal), 0.0), 1.0)
        return reward
    delayed = 0.0
    for i in range(w.vehicles):
        if tags[LANE, i] == p.altruism_lane:
            delayed += (cars[V_TARGET, i] - cars[V, i]) / cars[V_TARGET, i]
    reward = (
        0
        + p.collision * crashed
        + p.right_lane * (lane.id / 1)
        + p.high_speed * speed
        + p.lane_change * (1.0 if action in (0, 2) else 0.0)
        + p.merging_speed * delayed
    )
    return _linear(reward, p.collision + p.merging_speed, p.high_speed + p.right_lane)


@njit(cache=True, error_model="numpy")
def _end(w, cars, tags, road, p):
    """Set outcome and truncation: the ends of highway-env's worlds, and time limits where it has none."""
    crashed = tags[CRASHED, 0] != 0
    passed = off = False
    if p.family in (MERGE, MERGE_GENERIC):
        passed = cars[X, 0] > p.end
    elif p.family == HIGHWAY and p.offroad_terminal:
        lane = road.lanes[tags[LANE, 0]]
        s, lateral = roads.project(lane, cars[X, 0], cars[Y, 0])
        off = not roads.holds(lane, s, lateral, 0.0)
    if p.family in (HIGHWAY, EXIT):
        w.truncated = w.time >= p.duration
    else:
        w.truncated = w.steps * p.period >= p.duration - 1e-9
    w.terminated = crashed or passed or off
    w.outcome = RUNNING
    if crashed:
        w.outcome = CRASH
    elif passed:
        w.outcome = SUCCESS
    elif off:
        w.outcome = MISSED
    elif w.truncated:
        missed = p.family in (MERGE, MERGE_GENERIC) or (p.family == EXIT and not _exits(tags, p))
        w.outcome = MISSED if missed else SUCCESS


@njit(cache=True, error_model="numpy")
def front_gap_ttc(w, cars, tags, road, n):
    """Bumper gap (m) and time-to-collision (s) to the body ahead of the ego in lane n of its road, as `Scene` has them.

    The lane goes on straight beyond its ends, as the frame of a scene does. Both are inf when there is nobody.
    """
    own, lane = road.lanes[tags[LANE, 0]], road.lanes[n]
    s, lateral = roads.project(own, cars[X, 0], cars[Y, 0])
    px, py = roads.position(lane, roads.along(lane, cars[X, 0], cars[Y, 0]), 0.0)
    center = roads.project(own, px, py)[1]
    best, best_s = -1, math.inf
    for j in range(1, w.bodies):
        s_j, lateral_j = roads.project(own, cars[X, j], cars[Y, j])
        if s <= s_j <= best_s and abs(lateral_j - center) <= own.width / 2 + LANE_MARGIN:
            best, best_s = j, s_j
    if best < 0:
        return math.inf, math.inf
    length = physics.LENGTH if best < w.vehicles else 2.0
    gap = abs(best_s - s) - (length + physics.LENGTH) / 2
    same_way = cars[C, best] * cars[C, 0] + cars[S, best] * cars[S, 0] >= 0
    closing = cars[V, 0] - (cars[V, best] if same_way else -cars[V, best])
    return gap, (max(gap, 0.0) / closing if closing > 0 else math.inf)


@njit(cache=True, error_model="numpy")
def decide(w, cars, tags, road, set_points, meanings, p, action):
    """One decision: simulation steps, end, reward, statistics. Returns the reward."""
    old_lane, old_x, old_y = tags[LANE, 0], cars[X, 0], cars[Y, 0]
    meaning = meanings[action]
    for _ in range(p.substeps):
        substep(w, cars, tags, road, set_points, meaning, p.only_ego_checks, p.dt)
        meaning = NONE
    w.steps += 1
    w.time += p.period
    reward = _reward(w, cars, tags, road, set_points, p, action)
    _end(w, cars, tags, road, p)
    lane = tags[LANE, 0]
    same_road = road.lanes[lane].road == road.lanes[old_lane].road
    w.lane_changes += 1 if same_road and lane != old_lane else 0
    w.distance += math.sqrt((cars[X, 0] - old_x) ** 2 + (cars[Y, 0] - old_y) ** 2)
    w.episode_return += reward
    w.speed_sum += cars[V, 0]
    w.min_ttc = min(w.min_ttc, front_gap_ttc(w, cars, tags, road, lane)[1])
    return reward


@njit(cache=True, error_model="numpy")
def _mask(w, cars, tags, road, set_points, meanings, out):
    """Legal actions: reachable lanes beside the present one, speeds beside the present set-point."""
    n = tags[LANE, 0]
    lane = road.lanes[n]
    for a in range(meanings.size):
        meaning = meanings[a]
        legal = True
        if meaning == LEFT:
            legal = lane.id > 0 and roads.reachable(road.lanes[n - 1], cars[X, 0], cars[Y, 0])
        elif meaning == RIGHT:
            legal = lane.id < lane.count - 1 and roads.reachable(road.lanes[n + 1], cars[X, 0], cars[Y, 0])
        elif meaning == FASTER:
            legal = w.speed_index < set_points.size - 1
        elif meaning == SLOWER:
            legal = w.speed_index > 0
        out[a] = legal


# --- batches ---------------------------------------------------------------------------------------------------------


@njit(cache=True, error_model="numpy")
def _step_one(w, cars, tags, road, set_points, meanings, p, observer, action, obs, mask):
    reward = decide(w, cars, tags, road, set_points, meanings, p, action)
    observe(w, cars, tags, road, set_points, observer, p, obs)
    _mask(w, cars, tags, road, set_points, meanings, mask)
    return reward


@njit(cache=True, error_model="numpy", nogil=True)
def _step_serial(
    worlds, cars, tags, road, set_points, meanings, params, observer, actions, rewards, outcomes, terminated, truncated, obs, masks
):
    for i in range(actions.size):
        w, p = worlds[i], params[0]
        rewards[i] = _step_one(
            w, cars[i], tags[i], road, set_points, meanings, p, observer, actions[i], obs[i], masks[i]
        )
        outcomes[i], terminated[i], truncated[i] = w.outcome, w.terminated, w.truncated


@njit(cache=True, error_model="numpy", parallel=True)
def _step_parallel(
    worlds, cars, tags, road, set_points, meanings, params, observer, actions, rewards, outcomes, terminated, truncated, obs, masks
):
    for i in prange(actions.size):
        w, p = worlds[i], params[0]
        rewards[i] = _step_one(
            w, cars[i], tags[i], road, set_points, meanings, p, observer, actions[i], obs[i], masks[i]
        )
        outcomes[i], terminated[i], truncated[i] = w.outcome, w.terminated, w.truncated


@njit(cache=True, error_model="numpy", nogil=True)
def _reset_rows(worlds, cars, tags, road, set_points, meanings, params, observer, shares, rows, obs, masks):
    p = params[0]
    for i in rows:
        reset_world(worlds[i], cars[i], tags[i], road, set_points, p, shares)
        worlds[i].min_ttc = front_gap_ttc(worlds[i], cars[i], tags[i], road, tags[i, LANE, 0])[1]
    _look(worlds, cars, tags, road, set_points, meanings, params, observer, rows, obs, masks)


@njit(cache=True, error_model="numpy", nogil=True)
def _look(worlds, cars, tags, road, set_points, meanings, params, observer, rows, obs, masks):
    """Observations and masks of `rows` as they are."""
    for i in rows:
        observe(worlds[i], cars[i], tags[i], road, set_points, observer, params[0], obs[i])
        _mask(worlds[i], cars[i], tags[i], road, set_points, meanings, masks[i])


@njit(cache=True, error_model="numpy", nogil=True)
def _roll_out(worlds, cars, tags, road, set_points, meanings, params, plans, rewards, steps, final):
    """Play plans[b] in world b until it ends; worlds that ended stay as they are."""
    p = params[0]
    for b in range(plans.shape[0]):
        w = worlds[b]
        for h in range(plans.shape[1]):
            if w.outcome != RUNNING:
                break
            rewards[b, h] = decide(w, cars[b], tags[b], road, set_points, meanings, p, plans[b, h])
            steps[b] += 1
        own, target = road.lanes[tags[b, LANE, 0]], tags[b, TARGET, 0]
        beside = _beside(road, own, target, cars[b])
        final[b, 0], final[b, 1] = cars[b, X, 0], cars[b, Y, 0]
        final[b, 2], final[b, 3], final[b, 4] = own.id, road.lanes[beside].id, cars[b, V, 0]
        final[b, 5] = front_gap_ttc(w, cars[b], tags[b], road, beside)[0]


@njit(cache=True, error_model="numpy")
def _beside(road, own, target, cars):
    """The lane of road `own.road` that leads to the ego's target lane (itself if it is one of them)."""
    if road.lanes[target].road == own.road:
        return target
    x, y = roads.position(road.lanes[target], 0.0, 0.0)
    aim = roads.project(own, x, y)[1]
    best, best_distance = own.first, math.inf
    for n in range(own.first, own.first + own.count):
        lane = road.lanes[n]
        px, py = roads.position(lane, roads.along(lane, cars[X, 0], cars[Y, 0]), 0.0)
        far = abs(roads.project(own, px, py)[1] - aim)
        if far < best_distance:
            best, best_distance = n, far
    return best


class HighwayWorld(World):
    """N worlds of one highway-env scenario in one process."""

    state: State

    def __init__(self, scenario: Any, config: Any, num_envs: int, threads: int = 1) -> None:
        """`scenario` is a `HighwayScenario`, `config` its resolved config, one for which `why_not` is None."""
        self.scenario, self.config = scenario, config
        self.family = FAMILIES[scenario.world.name]
        self.mirror = Mirror(scenario, config)
        network = self.mirror.network
        connected = bool(config.neighbour_vehicles_connected_lanes)
        self.road = compile_road(network, connected, self._routes(network))
        self.params = params_of(config, self.family, network, self.road)
        self.params["only_ego_checks"] = scenario.world.name == "highway-fast-v0"
        speeds = config.action.get("target_speeds") or DEFAULT_SPEEDS
        self.set_points = np.array(speeds, np.float64)
        actions = actions_of(config.action)
        self.meanings = np.array(actions, np.int64)
        self.num_actions = len(actions)
        self.observer = make_observer(config.observation, config.policy_frequency)
        self.observation_space = space_of(self.observer, self.set_points.size)
        lanes = np.arange(self.params["lanes"][0])
        shares = np.cumsum(lanes / max(lanes.sum(), 1))
        self.shares = shares / max(shares[-1], 1e-300)
        self.bodies = 8 if self.family in (TWO_WAY, MERGE) else int(self.params["others"][0]) + 3
        super().__init__(num_envs, threads)

    def _routes(self, network: Any) -> list[list[tuple]]:
        """`plan_route_to("3")` of the cars of `exit`, by the lane in which they start."""
        if self.family != EXIT:
            return []
        path = network.shortest_path("1", "3")
        rest = [(a, b, None) for a, b in zip(path, path[1:], strict=False)]
        return [[("0", "1", lane), *rest] for lane in range(self.config.lanes_count)]

    def allocate(self, num_envs: int) -> State:
        return State(
            np.zeros(num_envs, WORLD),
            np.zeros((num_envs, ROWS, self.bodies)),
            np.zeros((num_envs, TAGS, self.bodies), np.int32),
        )

    @property
    def _fixed(self) -> tuple[Any, ...]:
        return self.road, self.set_points, self.meanings, self.params

    def _matrix(self) -> np.ndarray:
        """The observation buffer as (N, rows, columns)."""
        return self.obs.reshape(self.num_envs, -1, self.obs.shape[-1])

    def _reset(self, rows: np.ndarray) -> None:
        _reset_rows(*self.state, *self._fixed, self.observer, self.shares, rows, self._matrix(), self.masks)

    def _step(self, actions: np.ndarray) -> None:
        kernel = _step_parallel if self.parallel else _step_serial
        buffers = (self.rewards, self.outcomes, self.terminated, self.truncated, self._matrix(), self.masks)
        kernel(*self.state, *self._fixed, self.observer, actions, *buffers)

    def look(self) -> None:
        """Refill observations and masks from the state, after it has been changed from outside."""
        rows = np.arange(self.num_envs)
        _look(*self.state, *self._fixed, self.observer, rows, self._matrix(), self.masks)

    def _roll_out(
        self, state: State, plans: np.ndarray, rewards: np.ndarray, steps: np.ndarray, final: np.ndarray
    ) -> np.ndarray:
        _roll_out(*state, *self._fixed, plans, rewards, steps, final)
        return state.worlds["outcome"][: len(plans)]

    def info(self, i: int) -> dict[str, Any]:
        return {"speed": float(self.state.cars[i, V, 0]), "crashed": bool(self.state.tags[i, CRASHED, 0])}

    def summary(self, i: int) -> EpisodeSummary:
        w = self.state.worlds[i]
        outcome, steps = Outcome(w["outcome"]), int(w["steps"])
        return EpisodeSummary(
            outcome=outcome.name.lower(),
            success=outcome == Outcome.SUCCESS,
            crashed=outcome == Outcome.CRASH,
            steps=steps,
            episode_return=float(w["episode_return"]),
            mean_speed=float(w["speed_sum"] / max(steps, 1)),
            distance=float(w["distance"]),
            lane_changes=int(w["lane_changes"]),
            min_ttc=float(w["min_ttc"]),
            backend="engine",
        )

    def scene(self, i: int) -> Scene:
        return self.mirror.scene(self, i)
