"""Families `roundabout` and `roundabout-generic`: across a roundabout (highway-env 1.12, `envs/roundabout_env.py`).

Both have the same reward and end; the generic one has free radius, lane count and traffic. The kinds -v0 and -v1 differ
in the neighbour search across segment borders, which the compiled road knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sim.compiled import kernel
from sim.engine.episode import RUNNING, SUCCESS, conclude
from sim.engine.records import Field, nth
from sim.engine.rewards import linear
from sim.engine.rng import next_below, next_normal
from sim.engine.road_batch import RoadRules, road_family
from sim.engine.road_setup import DEFAULT_SPEEDS, Setup
from sim.engine.roads import lane_keys, on_road, position
from sim.engine.routes import MOST_ROUTES, from_every_lane, planned, table_of
from sim.engine.spawn import add_vehicle, clear, is_free, uniform

ENTRY = ("ser", "ses", 0)
EXIT = "nxs"
"""Where the ego enters and leaves."""
EXITS = ("exr", "sxr", "nxr")
GENERIC_EXITS = (*EXITS, "wxr")
"""Destinations of the other vehicles."""
EGO_SPEED = 8.0
CARS = 4
"""Other vehicles of `roundabout`."""
SPAWN_ROADS = (("we", "sx"), ("sx", "se"), ("ee", "nx"), ("nx", "ne"), ("eer", "ees"), ("ner", "nes"), ("wer", "wes"))
"""Roads on which vehicles of `roundabout-generic` start."""
SPAWN_TRIES = 10
SPAWN_DISTANCE = 7.0
"""m that vehicles of `roundabout-generic` are apart at the start."""
SPAWN_MARGIN = 5.0
"""m from the ends of a lane within which none starts."""
ACCESS_LANES = 16
MOST_LANES = (MOST_ROUTES // len(GENERIC_EXITS) - ACCESS_LANES) // 8 - 1
"""Lanes of a roundabout for which the table of routes has room."""


def _options(setup: Setup) -> dict[str, Field]:
    config = setup.config
    destination = config.incoming_vehicle_destination
    return {
        "entry": ("i8", setup.lane(*ENTRY)),
        "entry_s": ("f8", 125.0),
        "ring": ("i8", setup.lane("we", "sx", 0)),
        "east": ("i8", setup.lane("eer", "ees", 0)),
        "destination": ("i8", -1 if destination is None else destination),  # -1: drawn at random
        "collision": ("f8", config.collision_reward),
        "high_speed": ("f8", config.high_speed_reward),
        "lane_change": ("f8", config.lane_change_reward),
        "normalize": ("i8", config.normalize_reward),
        "duration": ("f8", config.duration),
    }


def _generic_options(setup: Setup) -> dict[str, Field]:
    roads = [setup.lane(*road, 0) for road in SPAWN_ROADS]
    return _options(setup) | {
        "entry_s": ("f8", setup.network.get_lane(ENTRY).length - 2.5),
        "others": ("i8", setup.config.vehicles_count),
        "spawn_roads": ("i8", roads, len(SPAWN_ROADS)),
    }


def _shared(exits: Sequence[str]) -> Any:
    """Route 0 is the ego's; then come those from every lane to every exit."""

    def shared(setup: Setup) -> dict[str, Any]:
        network, keys = setup.network, lane_keys(setup.network)
        routes = [planned(network, keys, ENTRY, EXIT), *from_every_lane(network, keys, exits)]
        return {"routes": table_of(routes), "ego_routes": 1}

    return shared


def _uncovered_generic(config: Any) -> str | None:
    if config.roundabout_lanes > MOST_LANES:
        return f"a roundabout of {config.roundabout_lanes} lanes"
    if config.roundabout_radius <= 0:
        return f"a roundabout of radius {config.roundabout_radius:g}"
    return None


@kernel
def _send(env, body, destination, exits):
    """Plan the route of a vehicle, to an exit drawn at random where none is given, and draw its exponent."""
    if destination < 0:
        destination = next_below(env.stream, exits)
    body.route = 1 + body.lane * exits + destination
    body.delta = uniform(3.5, 4.5, env.stream)


@kernel
def _add_ego(env, ego, lanes, n, s):
    """The ego alone, at its entry."""
    clear(env)
    add_vehicle(env, ego, lanes, n, s, EGO_SPEED)
    ego.route = 0


@kernel
def _add_car(env, ego, lanes, n, s, destination):
    """A vehicle around a place of lane n."""
    at = s + next_normal(env.stream) * 2.0
    body = add_vehicle(env, ego, lanes, n, at, 16.0 + next_normal(env.stream) * 2.0)
    _send(env, body, destination, len(EXITS))


@kernel
def start(envs, bodies, lanes, params, own, rows):
    """`roundabout`: the ego at an entry, three cars to its left on the roundabout, one that enters at its right."""
    f = own[0]
    for i in rows:
        env, ego, first = envs[i], bodies[i, 0], lanes[0]
        _add_ego(env, ego, first, f.entry, f.entry_s)
        _add_car(env, ego, first, f.ring + 1, 5.0, f.destination)
        _add_car(env, ego, first, f.ring, 20.0, -1)
        _add_car(env, ego, first, f.ring, -20.0, -1)
        _add_car(env, ego, first, f.east, 50.0, -1)


@kernel
def start_generic(envs, bodies, lanes, params, own, rows):
    """`roundabout-generic`: cars on roads drawn at random; one that finds no free place is left out."""
    f = own[0]
    for i in rows:
        env, ego, first = envs[i], bodies[i, 0], lanes[0]
        _add_ego(env, ego, first, f.entry, f.entry_s)
        for _ in range(f.others):
            for _ in range(SPAWN_TRIES):
                n = f.spawn_roads[next_below(env.stream, len(SPAWN_ROADS))]
                n += next_below(env.stream, nth(first, n).count)
                s = uniform(SPAWN_MARGIN, max(SPAWN_MARGIN, nth(first, n).length - SPAWN_MARGIN), env.stream)
                x, y = position(nth(first, n), s, 0.0)
                if is_free(env, ego, x, y, SPAWN_DISTANCE):
                    body = add_vehicle(env, ego, first, n, s, 14.0 + next_normal(env.stream) * 2.0)
                    _send(env, body, f.destination, len(GENERIC_EXITS))
                    break


@kernel
def score(envs, bodies, lanes, params, own, actions, controls, rolling):
    """The set-point in force, crashes, lane changes; 0 off the road. Ends at a crash or the time limit."""
    f = own[0]
    for i in range(actions.size):
        env, ego = envs[i], bodies[i, 0]
        if rolling and env.outcome != RUNNING:
            continue
        reward = (
            0
            + f.collision * float(ego.crashed)
            + f.high_speed * (env.speed_index / (len(DEFAULT_SPEEDS) - 1))
            + f.lane_change * (1.0 if actions[i] in (0, 2) else 0.0)
        )
        if f.normalize:
            reward = linear(reward, f.collision, f.high_speed)
        reward *= 1.0 if on_road(ego, lanes[0]) else 0.0
        conclude(env, reward, ego.crashed != 0, False, False, env.time >= f.duration, SUCCESS)


FAMILY = road_family(
    RoadRules(
        name="roundabout",
        kinds=("roundabout-v0", "roundabout-v1"),
        start=start,
        score=score,
        options=_options,
        shared=_shared(EXITS),
        most_bodies=lambda config: 1 + CARS,
    )
)
GENERIC = road_family(
    RoadRules(
        name="roundabout-generic",
        kinds=("roundabout-generic-v0", "roundabout-generic-v1"),
        start=start_generic,
        score=score,
        options=_generic_options,
        shared=_shared(GENERIC_EXITS),
        most_bodies=lambda config: 1 + config.vehicles_count,
        uncovered=_uncovered_generic,
    )
)
