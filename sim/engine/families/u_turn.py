"""Family `u-turn`: overtaking slow cars through a U-turn (highway-env 1.12, `envs/u_turn_env.py`).

The kinds -v0 and -v1 differ in the neighbour search across segment borders, which the compiled road knows.
"""

from __future__ import annotations

from typing import Any

from sim.compiled import kernel
from sim.engine.episode import RUNNING, SUCCESS, conclude
from sim.engine.records import Field, nth
from sim.engine.rewards import clipped, linear
from sim.engine.rng import next_normal
from sim.engine.road_batch import RoadRules, road_family
from sim.engine.road_setup import Setup
from sim.engine.roads import lane_keys, on_road
from sim.engine.routes import from_every_lane, planned, table_of
from sim.engine.spawn import add_vehicle, clear, uniform

END = "d"
"""Where all vehicles drive to."""
EGO_SPEED = 16.0
CARS = (
    ("a", "b", 0, 25.0, 13.5),
    ("a", "b", 1, 56.0, 14.5),
    ("b", "c", 1, 0.5, 4.5),
    ("b", "c", 0, 17.5, 5.5),
    ("c", "d", 0, 1.0, 3.5),
    ("c", "d", 1, 30.0, 5.5),
)
"""Lane, position (m) and speed (m/s) around which the other vehicles are drawn."""


def _options(setup: Setup) -> dict[str, Field]:
    config = setup.config
    slow, fast = config.reward_speed_range
    return {
        "entry": ("i8", setup.lane("a", "b", 0)),
        "lanes": ("i8", [setup.lane(*car[:3]) for car in CARS], len(CARS)),
        "places": ("f8", [car[3] for car in CARS], len(CARS)),
        "speeds": ("f8", [car[4] for car in CARS], len(CARS)),
        "slow": ("f8", slow),
        "fast": ("f8", fast),
        "collision": ("f8", config.collision_reward),
        "left_lane": ("f8", config.left_lane_reward),
        "high_speed": ("f8", config.high_speed_reward),
        "normalize": ("i8", config.normalize_reward),
        "duration": ("f8", config.duration),
    }


def _shared(setup: Setup) -> dict[str, Any]:
    """Route 0 is the ego's; then come those from every lane."""
    network, keys = setup.network, lane_keys(setup.network)
    routes = [planned(network, keys, ("a", "b", 0), END), *from_every_lane(network, keys, [END])]
    return {"routes": table_of(routes), "ego_routes": 1}


@kernel
def start(envs, bodies, lanes, params, own, rows):
    """The ego at the start, two slow cars before the turn, two in it and two behind it."""
    f = own[0]
    for i in rows:
        env, ego, first = envs[i], bodies[i, 0], lanes[0]
        clear(env)
        add_vehicle(env, ego, first, f.entry, 0.0, EGO_SPEED)
        ego.route = 0
        for k in range(len(CARS)):
            at = f.places[k] + next_normal(env.stream) * 2.0
            speed = f.speeds[k] + next_normal(env.stream) * 2.0
            body = add_vehicle(env, ego, first, f.lanes[k], at, speed)
            body.route = 1 + body.lane
            if k == 0:
                body.delta = uniform(3.5, 4.5, env.stream)


@kernel
def score(envs, bodies, lanes, params, own, actions, controls, rolling):
    """Speed, the outer lane, crashes; 0 off the road. Ends at a crash or the time limit."""
    f = own[0]
    for i in range(actions.size):
        env, ego = envs[i], bodies[i, 0]
        if rolling and env.outcome != RUNNING:
            continue
        lane = nth(lanes[0], ego.lane)
        reward = (
            0
            + f.collision * float(ego.crashed)
            + f.left_lane * (lane.id / max(lane.count - 1, 1))
            + f.high_speed * clipped(linear(ego.speed, f.slow, f.fast))
        )
        if f.normalize:
            reward = linear(reward, f.collision, f.high_speed + f.left_lane)
        reward *= 1.0 if on_road(ego, lanes[0]) else 0.0
        conclude(env, reward, ego.crashed != 0, False, False, env.time >= f.duration, SUCCESS)


FAMILY = road_family(
    RoadRules(
        name="u-turn",
        kinds=("u-turn-v0", "u-turn-v1"),
        start=start,
        score=score,
        options=_options,
        shared=_shared,
        most_bodies=lambda config: 1 + len(CARS),
    )
)
