"""Family `exit`: leave a highway by the lane that opens on its right (highway-env 1.12, `envs/exit_env.py`)."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from sim.compiled import kernel
from sim.engine.episode import MISSED, RUNNING, SUCCESS, conclude
from sim.engine.records import Field, nth
from sim.engine.rewards import clipped, linear
from sim.engine.rng import next_double
from sim.engine.road_batch import RoadRules, road_family
from sim.engine.road_setup import MOST_ROUTES, NO_ROUTES, Setup, padded
from sim.engine.roads import lane_keys
from sim.engine.spawn import EGO_SPEED, add_behind_the_last, clear, crowding

MOST_LANES = MOST_ROUTES
"""Lanes of the main road: a car's route depends on the lane in which it starts."""


def _options(setup: Setup) -> dict[str, Field]:
    config = setup.config
    slow, fast = config.reward_speed_range
    lanes = config.lanes_count
    return {
        "others": ("i8", config.vehicles_count),
        "exit_lane": ("i8", setup.lane("1", "2", lanes)),
        "exit_ramp": ("i8", setup.lane("2", "exit", 0)),
        "shares": ("f8", padded(_lane_shares(lanes), MOST_LANES), MOST_LANES),
        "ego_spacing": ("f8", config.ego_spacing),
        "spacing": ("f8", 1 / config.vehicles_density),
        "crowding": ("f8", crowding(lanes)),
        "slow": ("f8", slow),
        "fast": ("f8", fast),
        "collision": ("f8", config.collision_reward),
        "goal": ("f8", config.goal_reward),
        "high_speed": ("f8", config.high_speed_reward),
        "right_lane": ("f8", config.right_lane_reward),
        "normalize": ("i8", config.normalize_reward),
        "duration": ("f8", config.duration),
    }


def _lane_shares(lanes: int) -> np.ndarray:
    """Cumulative shares with which cars draw a lane, as `Generator.choice` makes them; zeros for a single lane."""
    weights = np.arange(lanes)
    shares = np.cumsum(weights / max(weights.sum(), 1))[:MOST_LANES]
    return shares / (shares[-1] or 1.0)


def _shared(setup: Setup) -> dict[str, Any]:
    lanes = setup.config.lanes_count
    exit_lane = setup.network.get_lane(("1", "2", lanes))
    return {
        "routes": _routes(setup.network, lanes),
        "goal_lane": lanes,
        "goal_x": exit_lane.start[0] + exit_lane.length * exit_lane.direction[0],
        "obs_lane": setup.lane("1", "2", lanes),
    }


def _routes(network: Any, lanes: int) -> np.ndarray:
    """`plan_route_to("3")` of the cars by their first lane: int (P, S, 2), see `roads.next_lane`."""
    routes, keys = NO_ROUTES.copy(), lane_keys(network)
    path = ["0", *network.shortest_path("1", "3")]
    for first in range(lanes):
        for k, (a, b) in enumerate(itertools.pairwise(path)):
            routes[first, k] = keys.index((a, b, 0)), first if k == 0 else -1
    return routes


def _uncovered(config: Any) -> str | None:
    covered = 2 <= config.lanes_count <= MOST_LANES
    return None if covered else f"an exit from a road of {config.lanes_count} lanes"


@kernel
def start(envs, bodies, lanes, params, own, rows):
    """The ego on the left, then cars that stay on the road, each beyond the foremost one before it."""
    f = own[0]
    for i in rows:
        env, ego, first = envs[i], bodies[i, 0], lanes[0]
        clear(env)
        add_behind_the_last(env, ego, first, 0, EGO_SPEED, f.ego_spacing, f.crowding)
        for _ in range(f.others):
            share = next_double(env.stream)
            n = 0
            while f.shares[n] <= share:
                n += 1
            speed = nth(first, n).speed_limit
            body = add_behind_the_last(env, ego, first, n, speed, f.spacing, f.crowding)
            body.changes = 0
            body.route = body.lane


@kernel
def score(envs, bodies, lanes, params, own, actions, controls, rolling):
    """The exit, speed, lanes to the right, crashes. Ends at a crash or the time limit; success: on the way out."""
    f = own[0]
    for i in range(actions.size):
        env, ego = envs[i], bodies[i, 0]
        if rolling and env.outcome != RUNNING:
            continue
        exits = ego.target in (f.exit_lane, f.exit_ramp)
        reward = (
            0
            + f.collision * float(ego.crashed)
            + f.goal * (1.0 if exits else 0.0)
            + f.high_speed * clipped(linear(ego.speed, f.slow, f.fast))
            + f.right_lane * float(nth(lanes[0], ego.target).id)
        )
        if f.normalize:
            reward = clipped(linear(reward, f.collision, f.goal))
        at_limit = SUCCESS if exits else MISSED
        conclude(env, reward, ego.crashed != 0, False, False, env.time >= f.duration, at_limit)


FAMILY = road_family(
    RoadRules(
        name="exit",
        kinds=("exit-v0", "exit-v1"),
        start=start,
        score=score,
        options=_options,
        shared=_shared,
        most_bodies=lambda config: config.vehicles_count + 1,
        uncovered=_uncovered,
    )
)
