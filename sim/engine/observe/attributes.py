"""AttributesObservation: attributes of the lane-keeping environment by name (highway-env 1.12, `lane_keeping_env.py`).

State and derivative are those of the slipping ego: y, heading, lateral speed and yaw rate, read with noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numba import prange

from sim.compiled import kernel
from sim.engine import bicycle, roads
from sim.engine.observe.observer import Observer, Settings
from sim.engine.records import Field, nth
from sim.engine.rng import next_double

NAMES = ("state", "derivative", "reference_state")
STATE, DERIVATIVE, REFERENCE = range(len(NAMES))
NUMBERS = 4
"""Of each attribute."""


def _space(config: Any) -> spaces.Dict:
    return spaces.Dict(
        {name: spaces.Box(-np.inf, np.inf, (NUMBERS, 1), np.float64) for name in config.observation["attributes"]}
    )


def _fields(config: Any) -> dict[str, Field]:
    names = config.observation["attributes"]
    codes, places = np.full(len(NAMES), -1), np.zeros(len(NAMES), np.int64)
    codes[: len(names)] = [NAMES.index(name) for name in names]
    places[: len(names)] = [NUMBERS * sorted(names).index(name) for name in names]
    return {
        "attributes": ("i8", codes, len(NAMES)),  # in the order in which they draw noise, then -1
        "places": ("i8", places, len(NAMES)),  # columns of the buffer, whose keys are sorted
        "noise": ("f8", [config.state_noise, config.derivative_noise, 0.0], len(NAMES)),
    }


def _uncovered(settings: Settings) -> str | None:
    names = settings.get("attributes", [])
    for k, name in enumerate(names):
        if name not in NAMES or name in names[:k]:
            return f"observation of attribute {name}" + " twice" * (name in names[:k])
    return None if names else "an observation of no attributes"


@kernel
def _attribute(env, ego, lanes, code):
    """The four numbers of an attribute, without noise."""
    if code == STATE:
        return ego.y, ego.heading, env.lateral_speed, env.yaw_rate
    if code == DERIVATIVE:
        rates = bicycle.derivative(ego.heading, ego.speed, env.lateral_speed, env.yaw_rate, ego.steering)
        return rates[1], env.yaw_rate, rates[2], rates[3]
    lane = nth(lanes, env.followed)
    s, lateral = roads.project(lane, ego.x, ego.y)
    return ego.y - lateral, roads.heading_at(lane, s), 0.0, 0.0


@kernel
def _observe(env, ego, lanes, g, out):
    for k in range(len(NAMES)):
        code = g.attributes[k]
        if code < 0:
            return
        numbers = _attribute(env, ego, lanes, code)
        for n in range(NUMBERS):
            value = numbers[n]
            if code != REFERENCE:
                low, high = -g.noise[code], g.noise[code]
                value += low + (high - low) * next_double(env.stream)
            out[0, g.places[k] + n] = value


@kernel
def _serial(envs, bodies, lanes, params, own, table, rows, out):
    for i in rows:
        _observe(envs[i], bodies[i, 0], lanes[0], own[0], out[i])


@kernel(parallel=True)
def _parallel(envs, bodies, lanes, params, own, table, rows, out):
    for k in prange(rows.size):
        i = rows[k]
        _observe(envs[i], bodies[i, 0], lanes[0], own[0], out[i])


OBSERVER = Observer("AttributesObservation", _space, _fields, _uncovered, _serial, _parallel)
