"""Family `intersection`: a crossing of two roads with right of way (highway-env 1.12, `envs/intersection_env.py`).

Cars come and go during the episode: after each decision those that are leaving disappear and perhaps one more arrives.
An episode starts with three simulated seconds of traffic without the ego, which is then put into it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sim.compiled import kernel
from sim.engine import roads
from sim.engine.bodies import arrange, remove
from sim.engine.ego_actions import MDP
from sim.engine.episode import MISSED, RUNNING, conclude
from sim.engine.records import Field, assign, nth
from sim.engine.rewards import clipped, linear
from sim.engine.rng import next_below, next_double, next_normal, next_pair
from sim.engine.road_batch import RoadRules, road_family
from sim.engine.road_setup import Setup, two_root_ab
from sim.engine.roads import lane_keys
from sim.engine.routes import planned, table_of
from sim.engine.spawn import add_vehicle, clear, is_free, is_near, uniform
from sim.engine.traffic import substep_without_ego

ARMS = 4
EGO_ROUTE = 0
"""Route of the ego where its destination is given: from arm 0 to arm 0, which no car takes."""
COMFORT_ACC_MAX, COMFORT_ACC_MIN = 6.0, -3.0
"""What highway-env's intersections set on the class of their traffic, m/s2."""
DISTANCE_WANTED = 7.0
"""m, as the accelerations."""
REGULATIONS_PER_SECOND = 2
WARM_UP = 3
"""Seconds of traffic before the ego comes."""
SPAWN_LENGTH = 80.0
"""m along which the first cars are put."""
SPAWN_DISTANCE, EGO_DISTANCE = 15.0, 20.0
"""m around a place that must be free for a car to be put there, and for the ego, for which others make way."""
FIRST_SPAWN_PROBABILITY = 0.6
EXIT_DISTANCE = 25.0
"""m into an exit at which the ego has arrived."""
LEAVING_DISTANCE = 4 * 5.0
"""m before the end of an exit at which cars disappear."""
FIRST_CARS = 28
"""The most cars that find a place along the entries at the start, `SPAWN_DISTANCE` apart."""
MOST_BODIES = 96
"""More cars than ever stand on the crossing at a time; one more would not be put there."""


def _options(setup: Setup) -> dict[str, Field]:
    config = setup.config
    slow, fast = config.reward_speed_range
    return {
        "entries": ("i8", [setup.lane(f"o{arm}", f"ir{arm}", 0) for arm in range(ARMS)], ARMS),
        "exits": ("i8", [setup.lane(f"il{arm}", f"o{arm}", 0) for arm in range(ARMS)], ARMS),
        "first_cars": ("i8", max(config.initial_vehicle_count - 1, 0)),
        "warm_up": ("i8", WARM_UP * config.simulation_frequency),
        "any_exit": ("i8", not config.destination),  # of those but the one on its own arm
        "most": ("i8", _most_bodies(config)),
        "spawn_probability": ("f8", config.spawn_probability),
        "slow": ("f8", slow),
        "fast": ("f8", fast),
        "collision": ("f8", config.collision_reward),
        "high_speed": ("f8", config.high_speed_reward),
        "arrived": ("f8", config.arrived_reward),
        "normalize": ("i8", config.normalize_reward),
        "offroad_terminal": ("i8", config.offroad_terminal),
        "duration": ("f8", config.duration),
    }


def _shared(setup: Setup) -> dict[str, Any]:
    return {
        "comfort_acc_max": COMFORT_ACC_MAX,
        "two_root_ab": two_root_ab(COMFORT_ACC_MAX, COMFORT_ACC_MIN),
        "distance_wanted": DISTANCE_WANTED,
        "regulation": int(1 / (1 / setup.config.simulation_frequency) / REGULATIONS_PER_SECOND),
        "renewed": True,
        "routes": _routes(setup.network, setup.config.destination),
        "ego_routes": 1 if setup.config.destination else ARMS,
    }


def _routes(network: Any, destination: str | None) -> np.ndarray:
    """Routes from each arm to each other one, and that of the ego."""
    keys = lane_keys(network)
    ends = [divmod(number, ARMS) for number in range(ARMS * ARMS)]
    routes = [planned(network, keys, (f"o{start}", f"ir{start}", 0), f"o{end}") for start, end in ends]
    if destination:
        routes[EGO_ROUTE] = planned(network, keys, ("o0", "ir0", 0), destination)
    return table_of(routes)


def _most_bodies(config: Any) -> int:
    """Ego, challenger, the first cars, and one for every decision."""
    first = min(max(config.initial_vehicle_count - 1, 0), FIRST_CARS)
    return min(2 + first + math.ceil(config.duration * config.policy_frequency) + 1, MOST_BODIES)


# --- traffic ---------------------------------------------------------------------------------------------------------


@kernel
def _spawn(env, ego, lanes, f, at, spread, speed_spread, probability, straight):
    """Perhaps one more car, `at` metres along an entry drawn at random, on the way to another arm."""
    if next_double(env.stream) > probability:
        return
    start, end = next_pair(env.stream, ARMS)
    if straight:
        end = (start + 2) % ARMS
    n = f.entries[start]
    s = at + 5.0 + next_normal(env.stream) * spread
    speed = 8.0 + next_normal(env.stream) * speed_spread
    x, y = roads.position(nth(lanes, n), s, 0.0)
    if env.vehicles == f.most or not is_free(env, ego, x, y, SPAWN_DISTANCE):
        return
    body = add_vehicle(env, ego, lanes, n, s, speed)
    body.route = ARMS * start + end
    body.delta = uniform(3.5, 4.5, env.stream)
    env.last_id += 1
    body.id = env.last_id


@kernel
def _clear(env, ego, lanes, f):
    """Cars near the end of their exit disappear."""
    for i in range(env.vehicles - 1, 0, -1):
        body = nth(ego, i)
        lane = nth(lanes, body.lane)
        if _leads_out(f, body.lane) and roads.along(lane, body.x, body.y) >= lane.length - LEAVING_DISTANCE:
            remove(env, ego, i)


@kernel
def _leads_out(f, n):
    return n == f.exits[0] or n == f.exits[1] or n == f.exits[2] or n == f.exits[3]


@kernel
def _enter(env, ego, lanes, p, f):
    """The ego comes into the traffic, last in the list; cars near it are taken off the road."""
    for i in range(env.vehicles, 0, -1):
        assign(nth(ego, i), nth(ego, i - 1))
    others = env.vehicles
    route = 1 + next_below(env.stream, ARMS - 1) if f.any_exit else EGO_ROUTE
    n = f.entries[0]
    env.vehicles = 0
    add_vehicle(env, ego, lanes, n, 60.0 + 5.0 * (1.0 + next_normal(env.stream)), nth(lanes, n).speed_limit)
    ego.route = route if p.ego_kind == MDP else -1
    env.place = others
    env.vehicles = env.bodies = others + 1
    for i in range(others, 0, -1):
        if is_near(nth(ego, i), ego.x, ego.y, EGO_DISTANCE):
            remove(env, ego, i)


@kernel
def start(envs, bodies, lanes, params, own, rows):
    """The first cars, three seconds of their driving, a challenger that goes straight on, and the ego."""
    f = own[0]
    for i in rows:
        env, ego, first = envs[i], bodies[i, 0], lanes[0]
        clear(env)
        for k in range(f.first_cars):
            _spawn(env, ego, first, f, SPAWN_LENGTH / f.first_cars * k, 1.0, 1.0, FIRST_SPAWN_PROBABILITY, False)
        arrange(env, ego)
        for _ in range(f.warm_up):
            substep_without_ego(env, ego, first, params[0])
        _spawn(env, ego, first, f, 60.0, 0.1, 0.0, 1.0, True)
        _enter(env, ego, first, params[0], f)


@kernel
def score(envs, bodies, lanes, params, own, actions, controls, rolling):
    """Arrival, speed, crashes; then cars come and go. Ends at a crash, on arrival or at the time limit."""
    f = own[0]
    for i in range(actions.size):
        env, ego, first = envs[i], bodies[i, 0], lanes[0]
        if rolling and env.outcome != RUNNING:
            continue
        lane = nth(first, ego.lane)
        s, lateral = roads.project(lane, ego.x, ego.y)
        on_road = roads.holds(lane, s, lateral, 0.0)
        arrived = _leads_out(f, ego.lane) and s >= EXIT_DISTANCE
        reward = (
            0
            + f.collision * float(ego.crashed)
            + f.high_speed * clipped(linear(ego.speed, f.slow, f.fast))
            + f.arrived * (1.0 if arrived else 0.0)
        )
        reward = (f.arrived if arrived else reward) * (1.0 if on_road else 0.0)
        if f.normalize:
            reward = linear(reward, f.collision, f.arrived)
        off_road = bool(f.offroad_terminal) and not on_road
        conclude(env, reward, ego.crashed != 0, arrived, off_road, env.time >= f.duration, MISSED)
        _clear(env, ego, first, f)
        _spawn(env, ego, first, f, 0.0, 1.0, 1.0, f.spawn_probability, False)
        arrange(env, ego)


FAMILY = road_family(
    RoadRules(
        name="intersection",
        kinds=("intersection-v0", "intersection-v1", "intersection-v2"),
        start=start,
        score=score,
        options=_options,
        shared=_shared,
        most_bodies=_most_bodies,
    )
)
