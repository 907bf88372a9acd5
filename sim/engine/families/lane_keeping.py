"""Family `lane-keeping`: steering along two lanes one after the other (highway-env 1.12, `envs/lane_keeping_env.py`).

The variant is that of `sim.highway.upstream.LaneKeeping`: observed after moving, with a clock.
"""

from __future__ import annotations

import math
from typing import Any

from sim.compiled import kernel
from sim.engine import roads
from sim.engine.bodies import place
from sim.engine.episode import MISSED, RUNNING, SUCCESS, conclude
from sim.engine.records import Field, nth
from sim.engine.rewards import TWO
from sim.engine.rng import next_double
from sim.engine.road_batch import RoadRules, road_family
from sim.engine.road_setup import Setup
from sim.engine.spawn import clear

NOISY = ("state", "derivative")
"""Attributes that are observed with noise ..."""
NOISY_NUMBERS = 4
"""... and how many numbers each has."""
SPACES_MADE = 2
"""How often a reset observes only to know the shapes, with noise from the same stream."""
START = 50.0, -4.0
"""Along and across the first lane, m."""
START_SPEED = 8.3


def _options(setup: Setup) -> dict[str, Field]:
    noisy = [name for name in setup.config.observation.get("attributes", ()) if name in NOISY]
    return {
        "first_lane": ("i8", setup.lane("c", "d", 0)),
        "second_lane": ("i8", setup.lane("a", "b", 0)),
        "lost_draws": ("i8", SPACES_MADE * NOISY_NUMBERS * len(noisy)),
        "duration": ("f8", setup.config.duration),
        "two": ("f8", TWO),
    }


@kernel
def start(envs, bodies, lanes, params, own, rows):
    """The ego beside the centre of the first lane."""
    f = own[0]
    for i in rows:
        env, ego, lane = envs[i], bodies[i, 0], nth(lanes[0], own[0].first_lane)
        clear(env)
        for _ in range(f.lost_draws):
            next_double(env.stream)
        along, across = START
        x, y = roads.position(lane, along, across)
        place(ego, lanes[0], x, y, roads.heading_at(lane, 0.0), START_SPEED)
        env.vehicles = env.bodies = 1
        env.followed = f.first_lane


@kernel
def score(envs, bodies, lanes, params, own, actions, controls, rolling):
    """Nearness to the centre of the lane that is followed. Ends at the time limit; success: on the road then."""
    p, f = params[0], own[0]
    for i in range(actions.size):
        env, ego = envs[i], bodies[i, 0]
        if rolling and env.outcome != RUNNING:
            continue
        followed = nth(lanes[0], env.followed)
        s, lateral = roads.project(followed, ego.x, ego.y)
        reward = 1 - math.pow(lateral / followed.width, f.two)
        if not roads.holds(followed, s, lateral, 0.0):
            env.followed = f.second_lane  # from the next decision on; never back
        truncated = env.steps * p.period >= f.duration - 1e-9
        at_limit = SUCCESS if roads.on_road(ego, lanes[0]) else MISSED
        conclude(env, reward, ego.crashed != 0, False, False, truncated, at_limit)


def _uncovered(config: Any) -> str | None:
    """The environment itself knows neither state nor noise of another vehicle."""
    dynamical = config.action["type"] != "DiscreteMetaAction" and config.action.get("dynamical", False)
    observed = config.observation["type"] == "AttributesObservation"
    return "attributes of an ego without tyre slip" if observed and not dynamical else None


FAMILY = road_family(
    RoadRules(
        name="lane-keeping",
        kinds=("lane-keeping-v0",),
        start=start,
        score=score,
        options=_options,
        most_bodies=lambda config: 1,
        observations=("AttributesObservation",),
        uncovered=_uncovered,
    )
)
