"""KinematicsGoal: features of the ego as observation and achieved goal, those of a landmark as desired goal.

highway-env's spaces and values are float64 here (highway-env 1.12).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numba import prange

from sim.compiled import kernel
from sim.engine.observe.features import DEFAULT, FEATURES, MOST_FEATURES, OF_VEHICLES, codes_of, feature_of, unusable
from sim.engine.observe.observer import Observer, Settings
from sim.engine.records import Field, nth

KEYS = ("achieved_goal", "desired_goal", "observation")
"""In the order of the space, which sorts them."""


def _features(settings: Settings) -> list[str]:
    return list(settings.get("features") or DEFAULT)


def _space(config: Any) -> spaces.Dict:
    shape = (len(_features(config.observation)),)
    return spaces.Dict({key: spaces.Box(-np.inf, np.inf, shape, np.float64) for key in KEYS})


def _fields(config: Any) -> dict[str, Field]:
    features = _features(config.observation)
    scales = np.ones(MOST_FEATURES)
    scales[: len(features)] = config.observation["scales"]
    return {
        "count": ("i8", len(features)),
        "features": ("i8", codes_of(features), MOST_FEATURES),
        "scales": ("f8", scales, MOST_FEATURES),
    }


def _uncovered(settings: Settings) -> str | None:
    features = _features(settings)
    if len(settings.get("scales", ())) not in (1, len(features)):
        return f"{len(settings.get('scales', ()))} scales of {len(features)} features"
    return unusable(features, [name for name in FEATURES if name not in OF_VEHICLES])


@kernel
def goal_feature(feature, env, ego, lanes, p, j):
    """One feature of body j as it is, without scale."""
    body = nth(ego, j)
    velocity = (body.vx, body.vy) if j < env.vehicles else (0.0, 0.0)
    return feature_of(feature, env, ego, lanes, p, j, (body.x, body.y, *velocity), True)


@kernel
def _observe(env, ego, lanes, p, g, out):
    goal = env.vehicles
    for k in range(g.count):
        value = goal_feature(g.features[k], env, ego, lanes, p, 0) / g.scales[k]
        out[0, k] = out[0, 2 * g.count + k] = value
        out[0, g.count + k] = goal_feature(g.features[k], env, ego, lanes, p, goal) / g.scales[k]


@kernel
def _serial(envs, bodies, lanes, params, own, table, rows, out):
    for i in rows:
        _observe(envs[i], bodies[i, 0], lanes[0], params[0], own[0], out[i])


@kernel(parallel=True)
def _parallel(envs, bodies, lanes, params, own, table, rows, out):
    for k in prange(rows.size):
        i = rows[k]
        _observe(envs[i], bodies[i, 0], lanes[0], params[0], own[0], out[i])


OBSERVER = Observer("KinematicsGoal", _space, _fields, _uncovered, _serial, _parallel)
