"""Family `highway`: highway-v0, highway-fast-v0 and the dense highways (highway-env 1.12, `envs/highway_env.py`)."""

from __future__ import annotations

from typing import Any

from sim.compiled import kernel
from sim.engine import roads
from sim.engine.episode import RUNNING, SUCCESS, conclude
from sim.engine.records import Field, nth
from sim.engine.rewards import clipped, linear
from sim.engine.rng import next_below
from sim.engine.road_batch import RoadRules, road_family
from sim.engine.road_setup import Setup
from sim.engine.spawn import EGO_SPEED, add_behind_the_last, clear, crowding, uniform


def _options(setup: Setup) -> dict[str, Field]:
    config = setup.config
    slow, fast = config.reward_speed_range
    return {
        "lanes": ("i8", config.lanes_count),
        "others": ("i8", config.vehicles_count),
        "initial_lane": ("i8", -1 if config.initial_lane_id is None else config.initial_lane_id),
        "ego_spacing": ("f8", config.ego_spacing),
        "spacing": ("f8", 1 / config.vehicles_density),
        "crowding": ("f8", crowding(config.lanes_count)),
        "slow": ("f8", slow),
        "fast": ("f8", fast),
        "collision": ("f8", config.collision_reward),
        "right_lane": ("f8", config.right_lane_reward),
        "high_speed": ("f8", config.high_speed_reward),
        "normalize": ("i8", config.normalize_reward),
        "offroad_terminal": ("i8", config.offroad_terminal),
        "duration": ("f8", config.duration),
    }


def _shared(setup: Setup) -> dict[str, Any]:
    return {"only_ego_checks": setup.kind == "highway-fast-v0"}


@kernel
def start(envs, bodies, lanes, params, own, rows):
    """The ego, then the others, each beyond the foremost one before it, on lanes drawn at random."""
    p, f = params[0], own[0]
    for i in rows:
        env, ego, first = envs[i], bodies[i, 0], lanes[0]
        clear(env)
        n = f.initial_lane if f.initial_lane >= 0 else next_below(env.stream, f.lanes)
        add_behind_the_last(env, ego, first, n, EGO_SPEED, f.ego_spacing, f.crowding)
        for _ in range(f.others):
            n = next_below(env.stream, f.lanes)
            speed = uniform(0.7 * first.speed_limit, 0.8 * first.speed_limit, env.stream)
            body = add_behind_the_last(env, ego, first, n, speed, f.spacing, f.crowding)
            body.delta = uniform(3.5, 4.5, env.stream)
            body.checks = 0 if p.only_ego_checks else 1


@kernel
def score(envs, bodies, lanes, params, own, actions, controls, rolling):
    """Speed along the road, lanes to the right, crashes. Ends at a crash, off the road, or at the time limit."""
    f = own[0]
    for i in range(actions.size):
        env, ego = envs[i], bodies[i, 0]
        if rolling and env.outcome != RUNNING:
            continue
        lane, crashed = nth(lanes[0], ego.lane), float(ego.crashed)
        s, lateral = roads.project(lane, ego.x, ego.y)
        holds = roads.holds(lane, s, lateral, 0.0)
        on_road = 1.0 if holds else 0.0
        reward = (
            0
            + f.collision * crashed
            + f.right_lane * (float(nth(lanes[0], ego.target).id) / max(lane.count - 1, 1))
            + f.high_speed * clipped(linear(ego.speed * ego.cos, f.slow, f.fast))
            + 0 * on_road
        )
        if f.normalize:
            reward = linear(reward, f.collision, f.high_speed + f.right_lane)
        off_road = bool(f.offroad_terminal) and not holds
        conclude(env, reward * on_road, ego.crashed != 0, False, off_road, env.time >= f.duration, SUCCESS)


FAMILY = road_family(
    RoadRules(
        name="highway",
        kinds=("highway-v0", "highway-fast-v0"),
        start=start,
        score=score,
        options=_options,
        shared=_shared,
        most_bodies=lambda config: config.vehicles_count + 1,
    )
)
