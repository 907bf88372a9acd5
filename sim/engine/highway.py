"""Engine families on highway-env's worlds: highway (fast and dense too), two-way, merge (both), exit.

`HighwayWorld` runs a resolved highway-env config: the road is highway-env's own network, compiled to a table; the start
is drawn as highway-env draws it (`spawn`), the traffic moves as its traffic does (`traffic`), and observations, rewards
and ends are its own, to the bit. `why_not` says which configs it leaves to highway-env.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import numpy as np
from numba import prange

from sim.actions import FULL, LATERAL, LONGITUDINAL, MetaAction
from sim.compiled import kernel
from sim.engine import physics, roads
from sim.engine.mirror import Mirror
from sim.engine.observe import observe, observer_fields, space_of, uncovered
from sim.engine.records import nth
from sim.engine.roads import compile_road, lane_keys
from sim.engine.spawn import EXIT, HIGHWAY, MERGE, MERGE_GENERIC, TWO_WAY, reset_world
from sim.engine.traffic import BODY, FASTER, LEFT, NONE, RIGHT, SLOWER, WORLD, substep
from sim.engine.views import compile_frames, see
from sim.engine.world import World
from sim.outcome import Outcome
from sim.scene import LANE_MARGIN, Scene
from sim.view import VIEW, Views

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
DEFAULT_SPEEDS = (20.0, 25.0, 30.0)
MOST_SPEEDS = 32
MOST_LANES = 16
"""Lanes of the main road of `exit`."""
ROUTE_STEPS = 8


class State(NamedTuple):
    worlds: np.ndarray
    """`traffic.WORLD` (N,)"""
    bodies: np.ndarray
    """`traffic.BODY` (N, B), B the most bodies that a world can hold"""

    @property
    def stream(self) -> np.ndarray:
        """uint64 (N, STREAM): PCG64 stream of each world."""
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
    if family == EXIT and not 2 <= config.lanes_count <= MOST_LANES:
        return f"an exit from a road of {config.lanes_count} lanes"
    if len(config.action.get("target_speeds") or ()) > MOST_SPEEDS:
        return f"more than {MOST_SPEEDS} set-points"
    return uncovered(config.observation, obstacles=family in (MERGE, MERGE_GENERIC))


def actions_of(settings: dict[str, Any]) -> tuple[MetaAction, ...]:
    """What the action ids of a DiscreteMetaAction mean."""
    longitudinal, lateral = settings.get("longitudinal", True), settings.get("lateral", True)
    return FULL if longitudinal and lateral else LONGITUDINAL if longitudinal else LATERAL


def params_of(world: str, config: Any, network: Any) -> np.ndarray:
    """The config as one record for the kernels, in an array of one. Args: world name; resolved config; its network."""

    def option(name: str, default: Any = 0.0) -> Any:
        return getattr(config, name, default)

    family, keys = FAMILIES[world], lane_keys(network)
    merging = family in (MERGE, MERGE_GENERIC)
    lanes = 2 if family in (MERGE, TWO_WAY) else config.lanes_count
    ramp_end = network.get_lane(("b", "c", -1)) if merging else None
    spawn_end, end = 0.0, MERGE_END
    if family == MERGE_GENERIC:
        spawn_end = config.before_merge_length + config.converge_merge_length + config.parallel_merge_length
        end = spawn_end + config.after_merge_length - 90
    slow, fast = option("reward_speed_range", (20, 30))
    obstacle = ramp_end.position(ramp_end.length, 0) if ramp_end else (0.0, 0.0)
    initial = option("initial_lane_id", None)
    actions = actions_of(config.action)
    speeds = config.action.get("target_speeds") or DEFAULT_SPEEDS

    def lane(*key: Any) -> int:
        return keys.index(key) if key in keys else -1

    values: dict[str, tuple[Any, ...]] = {
        "family": ("i8", family),
        "lanes": ("i8", lanes),
        "others": ("i8", int(option("vehicles_count"))),
        "initial_lane": ("i8", -1 if initial is None else initial),
        "only_ego_checks": ("i8", world == "highway-fast-v0"),
        "main": ("i8", lane("a", "b", 0)),
        "ramp": ("i8", lane("j", "k", 0)),
        "altruism_lane": ("i8", lane("b", "c", 2)),
        "exit_lane": ("i8", lane("1", "2", lanes)),
        "exit_ramp": ("i8", lane("2", "exit", 0)),
        "actions": ("i8", len(actions)),
        "meanings": ("i8", _padded(actions, len(FULL)), len(FULL)),
        "set_points": ("i8", len(speeds)),
        "speeds": ("f8", _padded(speeds, MOST_SPEEDS), MOST_SPEEDS),
        "shares": ("f8", _padded(_lane_shares(lanes), MOST_LANES), MOST_LANES),
        "routes": ("i8", _routes(network, lanes, keys) if family == EXIT else -1, (MOST_LANES, ROUTE_STEPS, 2)),
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
        "slow": ("f8", slow),
        "fast": ("f8", fast),
        "collision": ("f8", option("collision_reward")),
        "right_lane": ("f8", option("right_lane_reward")),
        "left_lane": ("f8", option("left_lane_reward")),
        "high_speed": ("f8", option("high_speed_reward")),
        "lane_change": ("f8", option("lane_change_reward")),
        "merging_speed": ("f8", option("merging_speed_reward")),
        "goal": ("f8", option("goal_reward")),
        **observer_fields(config.observation, config.policy_frequency),
    }
    dtype = np.dtype([(name, kind, *shape) for name, (kind, _, *shape) in values.items()], align=True)
    params = np.zeros(1, dtype)
    for name, (_, value, *_) in values.items():
        params[name] = value
    return params


def _padded(values: Any, length: int) -> np.ndarray:
    padded = np.zeros(length)
    padded[: len(values)] = values
    return padded


def _lane_shares(lanes: int) -> np.ndarray:
    """Cumulative shares with which `exit` draws a lane, as `Generator.choice` makes them; zeros for a single lane."""
    weights = np.arange(lanes)
    shares = np.cumsum(weights / max(weights.sum(), 1))[:MOST_LANES]
    return shares / (shares[-1] or 1.0)


def _routes(network: Any, lanes: int, keys: list[tuple[str, str, int]]) -> np.ndarray:
    """`plan_route_to("3")` of the cars of `exit` by their first lane: int (P, S, 2), see `roads.next_lane`."""
    routes = np.full((MOST_LANES, ROUTE_STEPS, 2), -1)
    path = ["0", *network.shortest_path("1", "3")]
    for first in range(lanes):
        for k, (a, b) in enumerate(itertools.pairwise(path)):
            routes[first, k] = keys.index((a, b, 0)), first if k == 0 else -1
    return routes


# --- one decision ----------------------------------------------------------------------------------------------------


@kernel
def _linear(value, low, high):
    """highway-env's `lmap` onto [0, 1]."""
    return 0 + (value - low) * (1 - 0) / (high - low)


@kernel
def _exits(ego, p):
    """Is the ego on the way out of an `exit` world?"""
    return ego.target in (p.exit_lane, p.exit_ramp)


@kernel
def _reward(w, ego, lanes, p, action):
    """highway-env's reward, terms added in its order."""
    lane, crashed = nth(lanes, ego.lane), float(ego.crashed)
    target_id = float(nth(lanes, ego.target).id)
    if p.family == TWO_WAY:
        return (
            0
            + p.high_speed * (w.speed_index / (p.set_points - 1))
            + p.left_lane * ((lane.count - 1 - target_id) / (lane.count - 1))
        )
    if p.family == HIGHWAY:
        s, lateral = roads.project(lane, ego.x, ego.y)
        on_road = 1.0 if roads.holds(lane, s, lateral, 0.0) else 0.0
        forward = _linear(ego.speed * ego.cos, p.slow, p.fast)
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
    speed = _linear(ego.speed, p.slow, p.fast)
    if p.family == EXIT:
        reward = (
            0
            + p.collision * crashed
            + p.goal * (1.0 if _exits(ego, p) else 0.0)
            + p.high_speed * min(max(speed, 0.0), 1.0)
            + p.right_lane * target_id
        )
        if p.normalize:
            reward = min(max(_linear(reward, p.collision, p.goal), 0.0), 1.0)
        return reward
    delayed = 0.0
    for i in range(w.vehicles):
        body = nth(ego, i)
        if body.lane == p.altruism_lane:
            delayed += (body.target_speed - body.speed) / body.target_speed
    reward = (
        0
        + p.collision * crashed
        + p.right_lane * (lane.id / 1)
        + p.high_speed * speed
        + p.lane_change * (1.0 if action in (0, 2) else 0.0)
        + p.merging_speed * delayed
    )
    return _linear(reward, p.collision + p.merging_speed, p.high_speed + p.right_lane)


@kernel
def _end(w, ego, lanes, p):
    """Set outcome and truncation: the ends of highway-env's worlds, and time limits where it has none."""
    crashed = ego.crashed != 0
    passed = off = False
    if p.family in (MERGE, MERGE_GENERIC):
        passed = ego.x > p.end
    elif p.family == HIGHWAY and p.offroad_terminal:
        lane = nth(lanes, ego.lane)
        s, lateral = roads.project(lane, ego.x, ego.y)
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
        missed = p.family in (MERGE, MERGE_GENERIC) or (p.family == EXIT and not _exits(ego, p))
        w.outcome = MISSED if missed else SUCCESS


@kernel
def front_gap_ttc(w, ego, lanes, n):
    """Bumper gap (m) and time-to-collision (s) to the body ahead of the ego in lane n of its road, as `Scene` has them.

    The lane goes on straight beyond its ends, as the frame of a scene does. Both are inf when there is nobody.
    """
    own, lane = nth(lanes, ego.lane), nth(lanes, n)
    s = roads.along(own, ego.x, ego.y)
    px, py = roads.position(lane, roads.along(lane, ego.x, ego.y), 0.0)
    center = roads.project(own, px, py)[1]
    best, best_s = -1, math.inf
    for j in range(1, w.bodies):
        body = nth(ego, j)
        s_j, lateral_j = roads.project(own, body.x, body.y)
        if s <= s_j <= best_s and abs(lateral_j - center) <= own.width / 2 + LANE_MARGIN:
            best, best_s = j, s_j
    if best < 0:
        return math.inf, math.inf
    length = physics.LENGTH if best < w.vehicles else 2.0
    gap = abs(best_s - s) - (length + physics.LENGTH) / 2
    body = nth(ego, best)
    same_way = body.cos * ego.cos + body.sin * ego.sin >= 0
    closing = ego.speed - (body.speed if same_way else -body.speed)
    return gap, (max(gap, 0.0) / closing if closing > 0 else math.inf)


@kernel
def decide(w, ego, lanes, p, action):
    """One decision: simulation steps, end, reward, statistics. Returns the reward."""
    old_lane, old_x, old_y = ego.lane, ego.x, ego.y
    meaning = p.meanings[action]
    for _ in range(p.substeps):
        substep(w, ego, lanes, p, meaning)
        meaning = NONE
    w.steps += 1
    w.time += p.period
    reward = _reward(w, ego, lanes, p, action)
    _end(w, ego, lanes, p)
    lane = ego.lane
    same_road = nth(lanes, lane).road == nth(lanes, old_lane).road
    w.lane_changes += 1 if same_road and lane != old_lane else 0
    w.distance += math.sqrt((ego.x - old_x) ** 2 + (ego.y - old_y) ** 2)
    w.episode_return += reward
    w.speed_sum += ego.speed
    w.min_ttc = min(w.min_ttc, front_gap_ttc(w, ego, lanes, lane)[1])
    return reward


@kernel
def _mask(w, ego, lanes, p, out):
    """Legal actions: reachable lanes beside the present one, speeds beside the present set-point."""
    n = ego.lane
    lane = nth(lanes, n)
    for a in range(p.actions):
        meaning = p.meanings[a]
        legal = True
        if meaning == LEFT:
            legal = lane.id > 0 and roads.reachable(nth(lanes, n - 1), ego.x, ego.y)
        elif meaning == RIGHT:
            legal = lane.id < lane.count - 1 and roads.reachable(nth(lanes, n + 1), ego.x, ego.y)
        elif meaning == FASTER:
            legal = w.speed_index < p.set_points - 1
        elif meaning == SLOWER:
            legal = w.speed_index > 0
        out[a] = legal


# --- batches ---------------------------------------------------------------------------------------------------------


@kernel
def _step_one(w, ego, lanes, p, action, obs, mask):
    reward = decide(w, ego, lanes, p, action)
    observe(w, ego, lanes, p, obs)
    _mask(w, ego, lanes, p, mask)
    return reward


@kernel
def _step_serial(worlds, bodies, lanes, params, actions, rewards, outcomes, terminated, truncated, obs, masks):
    for i in range(actions.size):
        w = worlds[i]
        rewards[i] = _step_one(w, bodies[i, 0], lanes[0], params[0], actions[i], obs[i], masks[i])
        outcomes[i], terminated[i], truncated[i] = w.outcome, w.terminated, w.truncated


@kernel(parallel=True)
def _step_parallel(worlds, bodies, lanes, params, actions, rewards, outcomes, terminated, truncated, obs, masks):
    for i in prange(actions.size):
        w = worlds[i]
        rewards[i] = _step_one(w, bodies[i, 0], lanes[0], params[0], actions[i], obs[i], masks[i])
        outcomes[i], terminated[i], truncated[i] = w.outcome, w.terminated, w.truncated


@kernel
def _reset_rows(worlds, bodies, lanes, params, rows, obs, masks):
    for i in rows:
        w, ego = worlds[i], bodies[i, 0]
        reset_world(w, ego, lanes[0], params[0])
        w.min_ttc = front_gap_ttc(w, ego, lanes[0], ego.lane)[1]
        observe(w, ego, lanes[0], params[0], obs[i])
        _mask(w, ego, lanes[0], params[0], masks[i])


@kernel
def _roll_out(worlds, bodies, lanes, params, plans, rewards, steps, final):
    """Play plans[b] in world b until it ends; worlds that ended stay as they are."""
    for b in range(plans.shape[0]):
        w, ego = worlds[b], bodies[b, 0]
        for h in range(plans.shape[1]):
            if w.outcome != RUNNING:
                break
            rewards[b, h] = decide(w, ego, lanes[0], params[0], plans[b, h])
            steps[b] += 1
        own, target = nth(lanes[0], ego.lane), _beside(ego, lanes[0])
        final[b, 0], final[b, 1], final[b, 2] = ego.x, ego.y, own.id
        final[b, 3], final[b, 4] = lanes[target].id, ego.speed
        final[b, 5] = front_gap_ttc(w, ego, lanes[0], target)[0]


@kernel
def _beside(ego, lanes):
    """The lane of the ego's road that leads to its target lane (the target itself if it is one of them)."""
    own = nth(lanes, ego.lane)
    if nth(lanes, ego.target).road == own.road:
        return np.int64(ego.target)
    x, y = roads.position(nth(lanes, ego.target), 0.0, 0.0)
    aim = roads.project(own, x, y)[1]
    best, best_distance = own.first, math.inf
    for n in range(own.first, own.first + own.count):
        lane = nth(lanes, n)
        px, py = roads.position(lane, roads.along(lane, ego.x, ego.y), 0.0)
        far = abs(roads.project(own, px, py)[1] - aim)
        if far < best_distance:
            best, best_distance = n, far
    return best


@kernel
def _views(worlds, bodies, lanes, frames, params, set_points, rows, columns, views):
    for k in range(rows.size):
        w, ego = worlds[rows[k]], bodies[rows[k], 0]
        see(views[k], w, ego, lanes[0], frames[0], params[0], set_points, _beside(ego, lanes[0]), columns)


class HighwayWorld(World):
    """N worlds of one highway-env scenario in one process."""

    family = "highway"
    state: State

    def __init__(self, scenario: Any, config: Any, num_envs: int, threads: int = 1) -> None:
        """`scenario` is a `HighwayScenario`, `config` its resolved config, one for which `why_not` is None."""
        self.scenario, self.config = scenario, config
        self.mirror = Mirror(scenario, config)
        self.lanes = compile_road(self.mirror.network, bool(config.neighbour_vehicles_connected_lanes))
        self.frames = compile_frames(self.mirror.network)
        self.params = params_of(scenario.world.name, config, self.mirror.network)
        self.manoeuvres = actions_of(config.action)
        count = int(self.params["set_points"][0]) if MetaAction.FASTER in self.manoeuvres else 0
        self._set_points = self.params["speeds"][0, :count].copy()
        self.num_actions, self.substeps = int(self.params["actions"][0]), int(self.params["substeps"][0])
        self.decision_frequency = config.policy_frequency
        self.observation_space = space_of(self.params[0])
        self.most_bodies = 8 if self.params["family"][0] in (TWO_WAY, MERGE) else int(self.params["others"][0]) + 3
        super().__init__(num_envs, threads)

    def allocate(self, num_envs: int) -> State:
        return State(np.zeros(num_envs, WORLD), np.zeros((num_envs, self.most_bodies), BODY))

    def _matrix(self) -> np.ndarray:
        """The observation buffer as (N, rows, columns)."""
        return self.obs.reshape(self.num_envs, -1, self.obs.shape[-1])

    def _reset(self, rows: np.ndarray) -> None:
        _reset_rows(*self.state, self.lanes, self.params, rows, self._matrix(), self.masks)

    def _step(self, actions: np.ndarray) -> None:
        step = _step_parallel if self.parallel else _step_serial
        buffers = (self.rewards, self.outcomes, self.terminated, self.truncated, self._matrix(), self.masks)
        step(*self.state, self.lanes, self.params, actions, *buffers)

    def _roll_out(
        self, state: State, plans: np.ndarray, rewards: np.ndarray, steps: np.ndarray, final: np.ndarray
    ) -> np.ndarray:
        _roll_out(*state, self.lanes, self.params, plans, rewards, steps, final)
        return state.worlds["outcome"][: len(plans)]

    def views(self, rows: np.ndarray) -> Views:
        found, columns = np.zeros(len(rows), VIEW), np.zeros((5, self.most_bodies))
        _views(*self.state, self.lanes, self.frames, self.params, self._set_points, rows, columns, found)
        return Views(found, self.manoeuvres)

    @property
    def vehicles(self) -> float:
        return float(self.state.worlds["vehicles"].mean())

    @property
    def speeds(self) -> np.ndarray:
        return self.state.bodies["speed"][:, 0]

    @property
    def crashed(self) -> np.ndarray:
        return self.state.bodies["crashed"][:, 0] > 0

    def scene(self, i: int) -> Scene:
        return self.mirror.scene(self, i)
