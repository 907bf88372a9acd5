"""Families `racetrack` and `racetrack-oval`: circuits of straights and arcs (highway-env 1.12, `racetrack_env.py`).

The oval may have obstacles. Rewards of continuous actions are in single precision where highway-env's are: an action is
an array of that type, which a plain number, such as an offset from a straight lane, does not widen.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sim.compiled import kernel
from sim.engine import roads
from sim.engine.ego_actions import GIVEN, GIVEN_SECOND, NONE
from sim.engine.episode import RUNNING, SUCCESS, conclude
from sim.engine.records import Field, nth
from sim.engine.rewards import TWO, linear
from sim.engine.rng import next_below
from sim.engine.road_batch import RoadRules, road_family
from sim.engine.road_setup import Setup, padded
from sim.engine.roads import lane_keys
from sim.engine.spawn import add_obstacle, add_vehicle, clear, is_free, uniform

START_LANES = 2
"""Lanes in which the ego may start, but on the oval; the large circuit has a third."""
MOST_ROADS = 16
"""Roads of a circuit."""
MOST_OBSTACLES = 12
SPAWN_DISTANCE = 20.0
"""m around a car within which no further one is put."""


def _options(setup: Setup) -> dict[str, Field]:
    config = setup.config
    firsts = [n for n, key in enumerate(lane_keys(setup.network)) if key[2] == 0]
    points = _obstacles(config)
    return {
        "others": ("i8", config.other_vehicles),
        "start": ("i8", setup.lane("a", "b", 0)),
        "start_lanes": ("i8", getattr(config, "no_lanes", START_LANES)),
        "after_start": ("i8", setup.lane("b", "c", 0)),
        "roads": ("i8", len(firsts)),
        "firsts": ("i8", padded(firsts, MOST_ROADS), MOST_ROADS),  # lane 0 of each road
        "obstacles": ("i8", len(points)),
        "points": ("f8", [*points, *[(0.0, 0.0)] * (MOST_OBSTACLES - len(points))], (MOST_OBSTACLES, 2)),
        "collision": ("f8", config.collision_reward),
        "centering": ("f8", config.lane_centering_reward),
        "cost": ("f8", config.lane_centering_cost),
        "effort": ("f8", config.action_reward),
        "offroad_terminal": ("i8", config.terminate_off_road),
        "duration": ("f8", config.duration),
        "two": ("f8", TWO),
    }


def _obstacles(config: Any) -> list[tuple[float, float]]:
    """Where obstacles stand."""
    points: list[tuple[float, float]] = []
    if getattr(config, "block_lane", False):
        points += [(config.length - back, y) for back in (40.0, 43.0, 46.0, 49.0) for y in (3.75, 6.25)]
    if getattr(config, "force_decision", False):
        points += [(config.length - 90.0, y) for y in (-1.25, 1.25, 8.85, 11.25)]
    return points


def _most_bodies(config: Any) -> int:
    return 1 + config.other_vehicles + len(_obstacles(config))


def _uncovered(config: Any) -> str | None:
    return "an oval of random length" if getattr(config, "length", None) == 0 else None


@kernel
def _add_car(env, ego, lanes, n, length, distance):
    """One more car, anywhere along `length` metres of lane n, unless another one is within a distance (m)."""
    s, speed = uniform(0.0, length, env.stream), 6.0 + uniform(0.0, 3.0, env.stream)
    x, y = roads.position(nth(lanes, n), s, 0.0)
    if is_free(env, ego, x, y, distance):
        add_vehicle(env, ego, lanes, n, s, speed)


@kernel
def start(envs, bodies, lanes, params, own, rows):
    """The ego on the first straight, a car in the arc after it, and others anywhere; those near a car are left out."""
    f = own[0]
    for i in rows:
        env, ego, first = envs[i], bodies[i, 0], lanes[0]
        clear(env)
        lane = next_below(env.stream, f.start_lanes)
        n = f.start + lane
        add_vehicle(env, ego, first, n, uniform(20.0, 50.0, env.stream), nth(first, n).speed_limit)
        if f.others > 0:
            _add_car(env, ego, first, f.after_start + lane, nth(first, f.after_start).length, 0.0)
            for _ in range(next_below(env.stream, f.others)):
                n = f.firsts[next_below(env.stream, f.roads)]
                n += next_below(env.stream, nth(first, n).count)
                _add_car(env, ego, first, n, nth(first, n).length, SPAWN_DISTANCE)
        for k in range(f.obstacles):
            add_obstacle(env, ego, first, f.points[k, 0], f.points[k, 1])


@kernel
def _weighted(f, lane, lateral, crashed, action, given, second):
    """The sum of the weighted terms, on the road."""
    straight = lane.kind == roads.STRAIGHT
    centering = f.centering * (1 / (1 + f.cost * math.pow(lateral, f.two)))
    crash = f.collision * crashed
    if action != NONE:
        return centering + f.effort * given + crash
    a, b = np.float32(given), np.float32(second)
    effort = np.float32(f.effort) * np.sqrt(a * a + b * b)
    if straight:
        return np.float64(np.float32(centering) + effort + np.float32(crash))
    return centering + np.float64(effort) + crash


@kernel
def score(envs, bodies, lanes, params, own, actions, controls, rolling):
    """Nearness to the centre of the lane, the size of the action, crashes; 0 off the road.

    Ends at a crash, off the road, or at the time limit.
    """
    f = own[0]
    for i in range(actions.size):
        env, ego = envs[i], bodies[i, 0]
        if rolling and env.outcome != RUNNING:
            continue
        lane = nth(lanes[0], ego.lane)
        s, lateral = roads.project(lane, ego.x, ego.y)
        on_road, reward = roads.holds(lane, s, lateral, 0.0), 0.0
        if on_road:
            given = controls[i, GIVEN], controls[i, GIVEN_SECOND]
            total = _weighted(f, lane, lateral, float(ego.crashed), actions[i], *given)
            reward = linear(total, f.collision, 1.0)
        off_road = bool(f.offroad_terminal) and not on_road
        conclude(env, reward, ego.crashed != 0, False, off_road, env.time >= f.duration, SUCCESS)


FAMILY = road_family(
    RoadRules(
        name="racetrack",
        kinds=("racetrack-v0", "racetrack-v1", "racetrack-large-v0", "racetrack-large-v1"),
        start=start,
        score=score,
        options=_options,
        most_bodies=_most_bodies,
    )
)
OVAL = road_family(
    RoadRules(
        name="racetrack-oval",
        kinds=("racetrack-oval-v0", "racetrack-oval-v1"),
        start=start,
        score=score,
        options=_options,
        most_bodies=_most_bodies,
        uncovered=_uncovered,
    )
)
