"""Family `two-way`: overtaking against oncoming traffic (highway-env 1.12, `envs/two_way_env.py`)."""

from __future__ import annotations

from sim.compiled import kernel
from sim.engine.episode import RUNNING, SUCCESS, conclude
from sim.engine.records import Field, nth
from sim.engine.rng import next_normal
from sim.engine.road_batch import RoadRules, road_family
from sim.engine.road_setup import Setup
from sim.engine.spawn import add_vehicle, clear

SAME_WAY, ONCOMING = 1, 2
"""Lanes 0 and 1 lead one way, lane 2 the other."""
OTHERS = 5
FIRST_ONCOMING = 3


def _options(setup: Setup) -> dict[str, Field]:
    config = setup.config
    return {
        "left_lane": ("f8", config.left_lane_reward),
        "high_speed": ("f8", config.high_speed_reward),
        "duration": ("f8", config.duration),
    }


@kernel
def start(envs, bodies, lanes, params, own, rows):
    """Three cars ahead of the ego and two oncoming ones, at normally distributed places and speeds."""
    for i in rows:
        env, ego, first = envs[i], bodies[i, 0], lanes[0]
        clear(env)
        add_vehicle(env, ego, first, SAME_WAY, 30.0, 30.0)
        for k in range(OTHERS):
            oncoming = k >= FIRST_ONCOMING
            at = 200.0 + 100.0 * float(k - FIRST_ONCOMING) if oncoming else 70.0 + 40.0 * float(k)
            s = at + 10.0 * next_normal(env.stream)
            speed = 20.0 + 5.0 * next_normal(env.stream) if oncoming else 24.0 + 2.0 * next_normal(env.stream)
            body = add_vehicle(env, ego, first, ONCOMING if oncoming else SAME_WAY, s, speed)
            body.changes = 0
            if oncoming:
                body.target = ONCOMING


@kernel
def score(envs, bodies, lanes, params, own, actions, controls, rolling):
    """The set-point in force and lanes to the left. Ends at a crash or at the time limit, which highway-env lacks."""
    p, f = params[0], own[0]
    for i in range(actions.size):
        env, ego = envs[i], bodies[i, 0]
        if rolling and env.outcome != RUNNING:
            continue
        lane, target_id = nth(lanes[0], ego.lane), float(nth(lanes[0], ego.target).id)
        reward = (
            0
            + f.high_speed * (env.speed_index / (p.set_points - 1))
            + f.left_lane * ((lane.count - 1 - target_id) / (lane.count - 1))
        )
        truncated = env.steps * p.period >= f.duration - 1e-9
        conclude(env, reward, ego.crashed != 0, False, False, truncated, SUCCESS)


FAMILY = road_family(
    RoadRules(
        name="two-way",
        kinds=("two-way-v0",),
        start=start,
        score=score,
        options=_options,
        most_bodies=lambda config: 1 + OTHERS,
    )
)
