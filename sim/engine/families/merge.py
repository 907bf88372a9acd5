"""Families `merge` and `merge-generic`: a highway with a ramp (highway-env 1.12, `envs/merge_env.py`).

Both have the same reward and end; the generic one has free lane count, traffic and lengths. The kinds -v0 and -v1
differ in the neighbour search across segment borders, which the compiled road knows.
"""

from __future__ import annotations

from sim.compiled import kernel
from sim.engine.ego_actions import GIVEN
from sim.engine.episode import MISSED, RUNNING, conclude
from sim.engine.records import Field, nth
from sim.engine.rewards import linear
from sim.engine.rng import next_below
from sim.engine.road_batch import RoadRules, road_family
from sim.engine.road_setup import Setup
from sim.engine.spawn import add_obstacle, add_vehicle, clear, uniform

MAIN_LANES = 2
"""Lanes of the main road of `merge`."""
TRAFFIC = ((90.0, 29.0), (70.0, 31.0), (5.0, 31.5))
"""(position, speed) around which the cars of `merge` are drawn, m and m/s."""
END = 370.0
"""x at which `merge` ends, m."""
SPAWN_TRIES = 10
SPAWN_DISTANCE = 15.0
"""m that cars of `merge-generic` are apart at the start."""


def _merge_options(setup: Setup) -> dict[str, Field]:
    config = setup.config
    ramp_end = setup.network.get_lane(("b", "c", -1))
    obstacle = ramp_end.position(ramp_end.length, 0)
    slow, fast = config.reward_speed_range
    return {
        "main": ("i8", setup.lane("a", "b", 0)),
        "ramp": ("i8", setup.lane("j", "k", 0)),
        "altruism_lane": ("i8", setup.lane("b", "c", 2)),
        "obstacle_x": ("f8", obstacle[0]),
        "obstacle_y": ("f8", obstacle[1]),
        "end": ("f8", END),
        "slow": ("f8", slow),
        "fast": ("f8", fast),
        "collision": ("f8", config.collision_reward),
        "right_lane": ("f8", config.right_lane_reward),
        "high_speed": ("f8", config.high_speed_reward),
        "lane_change": ("f8", config.lane_change_reward),
        "merging_speed": ("f8", config.merging_speed_reward),
        "duration": ("f8", config.duration),
    }


def _generic_options(setup: Setup) -> dict[str, Field]:
    config = setup.config
    merged = config.before_merge_length + config.converge_merge_length + config.parallel_merge_length
    return _merge_options(setup) | {
        "lanes": ("i8", config.lanes_count),
        "others": ("i8", config.vehicles_count),
        "spawn_end": ("f8", merged),
        "end": ("f8", merged + config.after_merge_length - 90),
    }


@kernel
def _add_merging(env, ego, lanes, n, s):
    """The car on the ramp, which is lane n."""
    body = add_vehicle(env, ego, lanes, n, s, 20.0)
    body.target_speed = 30.0


@kernel
def start(envs, bodies, lanes, params, own, rows):
    """`merge`: three cars around fixed places, on lanes drawn at random."""
    f = own[0]
    for i in rows:
        env, ego, first = envs[i], bodies[i, 0], lanes[0]
        clear(env)
        add_vehicle(env, ego, first, f.main + 1, 30.0, 30.0)
        for at, speed in TRAFFIC:
            n = f.main + next_below(env.stream, MAIN_LANES)
            s = at + uniform(-5.0, 5.0, env.stream)
            add_vehicle(env, ego, first, n, s, speed + uniform(-1.0, 1.0, env.stream))
        _add_merging(env, ego, first, f.ramp, 110.0)
        add_obstacle(env, ego, first, f.obstacle_x, f.obstacle_y)  # at the end of the ramp


@kernel
def start_generic(envs, bodies, lanes, params, own, rows):
    """`merge-generic`: cars anywhere before the end of the ramp; one that finds no free place is left out."""
    f = own[0]
    for i in rows:
        env, ego, first = envs[i], bodies[i, 0], lanes[0]
        clear(env)
        add_vehicle(env, ego, first, f.main + f.lanes - 1, 30.0, 30.0)
        for _ in range(f.others):
            for _ in range(SPAWN_TRIES):
                n = f.main + next_below(env.stream, f.lanes)
                s = uniform(0.0, f.spawn_end, env.stream)
                free = True
                for k in range(env.vehicles):
                    other = nth(ego, k)
                    free &= other.y != nth(first, n).y or abs(s - other.x) > SPAWN_DISTANCE
                if free:
                    add_vehicle(env, ego, first, n, s, 30.0 + uniform(-2.0, 2.0, env.stream))
                    break
        _add_merging(env, ego, first, f.ramp, 60.0)
        add_obstacle(env, ego, first, f.obstacle_x, f.obstacle_y)  # at the end of the ramp


@kernel
def score(envs, bodies, lanes, params, own, actions, controls, rolling):
    """Speed, the right lane, crashes, lane changes, and the delay of merging cars. Success is to pass the end."""
    p, f = params[0], own[0]
    for i in range(actions.size):
        env, ego = envs[i], bodies[i, 0]
        if rolling and env.outcome != RUNNING:
            continue
        delayed = 0.0
        for k in range(env.vehicles):
            body = nth(ego, k)
            if body.lane == f.altruism_lane:
                delayed += (body.target_speed - body.speed) / body.target_speed
        reward = (
            0
            + f.collision * float(ego.crashed)
            + f.right_lane * (nth(lanes[0], ego.lane).id / 1)
            + f.high_speed * linear(ego.speed, f.slow, f.fast)
            + f.lane_change * (1.0 if controls[i, GIVEN] in (0.0, 2.0) else 0.0)
            + f.merging_speed * delayed
        )
        reward = linear(reward, f.collision + f.merging_speed, f.high_speed + f.right_lane)
        truncated = env.steps * p.period >= f.duration - 1e-9
        conclude(env, reward, ego.crashed != 0, ego.x > f.end, False, truncated, MISSED)


FAMILY = road_family(
    RoadRules(
        name="merge",
        kinds=("merge-v0", "merge-v1"),
        start=start,
        score=score,
        options=_merge_options,
        most_bodies=lambda config: 1 + len(TRAFFIC) + 2,  # the ramp's car and obstacle
        obstacles=True,
    )
)
GENERIC = road_family(
    RoadRules(
        name="merge-generic",
        kinds=("merge-generic-v0", "merge-generic-v1"),
        start=start_generic,
        score=score,
        options=_generic_options,
        most_bodies=lambda config: 1 + config.vehicles_count + 2,
        obstacles=True,
    )
)
