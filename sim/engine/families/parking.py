"""Family `parking`: reach the marked spot and stand in line with it (highway-env 1.12, `envs/parking_env.py`).

An open area: parked cars stand still until they are pushed, walls surround the lot, and the goal is a landmark.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sim.compiled import kernel
from sim.engine import roads
from sim.engine.bodies import OBSTACLE_SIZE, place
from sim.engine.ego_actions import MDP, ego_kind
from sim.engine.episode import MISSED, RUNNING, conclude
from sim.engine.observe.features import COS, SIN, VX, VY, X, Y
from sim.engine.observe.goal import goal_feature
from sim.engine.records import Field, nth
from sim.engine.rng import next_below, next_double
from sim.engine.road_batch import RoadRules, road_family
from sim.engine.road_setup import Setup
from sim.engine.spawn import add_vehicle, clear

SPOTS = 28
FEATURES = (X, Y, VX, VY, COS, SIN)
"""What the reward compares with the goal, whatever is observed ..."""
SCALES = (100.0, 100.0, 5.0, 5.0, 1.0, 1.0)
"""... each divided by this."""
WIDTH, HEIGHT, THICKNESS = 70.0, 42.0, 1.0
"""Of the walls, m."""
PARKED_AT = 4.0
"""m along a spot at which parked cars stand."""


def _options(setup: Setup) -> dict[str, Field]:
    config = setup.config
    return {
        "others": ("i8", config.vehicles_count),
        "walls": ("i8", config.add_walls),
        "weights": ("f8", config.reward_weights, len(FEATURES)),
        "success": ("f8", config.success_goal_reward),
        "collision": ("f8", config.collision_reward),
        "duration": ("f8", config.duration),
    }


def _shared(setup: Setup) -> dict[str, Any]:
    from sim.highway.catalog import AISLE

    return {"landmarks": 1, "area_width": AISLE}


def _most_bodies(config: Any) -> int:
    return 1 + min(config.vehicles_count, SPOTS - 2) + 1 + 4 * config.add_walls


def _uncovered(config: Any) -> str | None:
    return "meta-actions on a parking lot" if ego_kind(config.action) == MDP else None


def goal_rewards(config: Any, achieved: np.ndarray, desired: np.ndarray) -> np.ndarray:
    """Rewards of goals achieved while others were desired; crashes are not counted.

    Args:
        config: The resolved config.
        achieved: float (..., 6), as observed.
        desired: float (..., 6)
    Returns:
        float (...)
    """
    return -np.power(np.dot(np.abs(achieved - desired), np.array(config.reward_weights)), 0.5)


@kernel
def _take_spot(env, free, count):
    """Draw one of the free spots and take it off their list; -1 where none is left."""
    if count == 0:
        return -1
    at = next_below(env.stream, count)
    spot = free[at]
    for k in range(at, count - 1):
        free[k] = free[k + 1]
    return spot


@kernel
def _add_body(env, ego, lanes, x, y, heading, length, width):
    body = nth(ego, env.bodies)
    place(body, lanes, x, y, heading, 0.0)
    body.length, body.width = length, width
    env.bodies += 1


@kernel
def start(envs, bodies, lanes, params, own, rows):
    """The ego in the middle, turned at random; the goal; parked cars, each in a spot of its own; walls."""
    f = own[0]
    for i in rows:
        env, ego, first = envs[i], bodies[i, 0], lanes[0]
        clear(env)
        place(ego, first, 0.0, 0.0, 2.0 * math.pi * next_double(env.stream), 0.0)
        env.vehicles = env.bodies = 1
        free, count = np.empty(SPOTS, np.int64), 0
        for n in range(SPOTS):
            if n != ego.lane:
                free[count] = n
                count += 1
        goal = _take_spot(env, free, count)
        for k in range(f.others):
            spot = _take_spot(env, free, count - 1 - k) if k < count - 1 else -1
            if spot >= 0:
                add_vehicle(env, ego, first, spot, PARKED_AT, 0.0)
        lane = nth(first, goal)
        x, y = roads.position(lane, lane.length / 2, 0.0)
        _add_body(env, ego, first, x, y, lane.heading, OBSTACLE_SIZE, OBSTACLE_SIZE)
        if f.walls:
            for side in (-1.0, 1.0):
                _add_body(env, ego, first, 0.0, side * HEIGHT / 2, 0.0, WIDTH, THICKNESS)
            for side in (-1.0, 1.0):
                _add_body(env, ego, first, side * WIDTH / 2, 0.0, math.pi / 2, HEIGHT, THICKNESS)


@kernel
def _goal_reward(env, ego, lanes, p, f):
    """Minus the root of the weighted distance to the goal."""
    total = 0.0
    for k in range(len(FEATURES)):
        here = goal_feature(FEATURES[k], env, ego, lanes, p, 0) / SCALES[k]
        there = goal_feature(FEATURES[k], env, ego, lanes, p, env.vehicles) / SCALES[k]
        total += abs(here - there) * f.weights[k]
    return -math.sqrt(total)


@kernel
def score(envs, bodies, lanes, params, own, actions, controls, rolling):
    """Nearness to the goal, and crashes. Ends at a crash, in the goal (success), or at the time limit."""
    f = own[0]
    for i in range(actions.size):
        env, ego = envs[i], bodies[i, 0]
        if rolling and env.outcome != RUNNING:
            continue
        near, crashed = _goal_reward(env, ego, lanes[0], params[0], f), ego.crashed != 0
        reward = near + f.collision * float(ego.crashed)
        conclude(env, reward, crashed, near > -f.success, False, env.time >= f.duration, MISSED)


FAMILY = road_family(
    RoadRules(
        name="parking",
        kinds=("parking-v0", "parking-ActionRepeat-v0", "parking-parked-v0"),
        start=start,
        score=score,
        options=_options,
        shared=_shared,
        most_bodies=_most_bodies,
        observations=("KinematicsGoal",),
        goal_rewards=goal_rewards,
        uncovered=_uncovered,
    )
)
