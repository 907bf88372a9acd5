"""highway-env's observations of a compiled road, to the bit (highway-env 1.12, `envs/common/observation.py`).

One file for each type; `OBSERVERS` lists them. Those of one family alone (exits, goals, attributes) are covered where
its rules name them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sim.compiled import kernel
from sim.engine import roads
from sim.engine.observe import attributes, goal, grid, kinematics, lidar, time_to_collision
from sim.engine.observe.observer import Observer, Settings
from sim.engine.records import Field, nth

OBSERVERS: dict[str, Observer] = {
    "Kinematics": Observer("Kinematics", kinematics.space, kinematics.fields, kinematics.uncovered),
    "ExitObservation": Observer("ExitObservation", kinematics.space, kinematics.exit_fields, kinematics.uncovered),
    "TimeToCollision": Observer("TimeToCollision", time_to_collision.space, time_to_collision.fields),
    **{observer.name: observer for observer in (grid.OBSERVER, lidar.OBSERVER, goal.OBSERVER, attributes.OBSERVER)},
}
SPECIAL = ("ExitObservation", "KinematicsGoal", "AttributesObservation")
"""Types that only some families have."""
KINEMATICS, EXIT, TTC, SEPARATE = range(4)
KINDS = {"Kinematics": KINEMATICS, "ExitObservation": EXIT, "TimeToCollision": TTC}


def observer_fields(config: Any) -> dict[str, Field]:
    """Fields of the shared parameters that describe the observation: the same ones for every type.

    Args:
        config: A resolved highway-env config.
    Returns:
        Fields for `records.record`.
    """
    kind = config.observation["type"]
    shared = kinematics.table_fields({}) | {"obs_times": ("i8", 0)}
    if kind in KINDS:
        shared |= OBSERVERS[kind].fields(config)
    return {"obs_kind": ("i8", KINDS.get(kind, SEPARATE)), **shared}


def uncovered(settings: Settings, special: Sequence[str] = ()) -> str | None:
    """What of an observation the engine does not cover.

    Args:
        settings: `observation` of a resolved highway-env config.
        special: Types of `SPECIAL` that the family has.
    Returns:
        The reason; None: it covers the observation.
    """
    kind = settings["type"]
    if kind not in OBSERVERS or (kind in SPECIAL and kind not in special):
        return f"observation type {kind}"
    return OBSERVERS[kind].uncovered(settings)


@kernel
def observe(env, ego, lanes, p, out):
    """Fill `out`, float32 (rows, columns), with an observation that has no kernel of its own."""
    if p.obs_kind == TTC:
        time_to_collision.time_to_collision(env, ego, lanes, p, out)
    elif p.obs_kind == KINEMATICS:
        kinematics.kinematic_table(env, ego, lanes, p, ego.x, out)
    elif p.obs_kind == EXIT:
        x = roads.along(nth(lanes, p.obs_lane), ego.x, ego.y)
        kinematics.kinematic_table(env, ego, lanes, p, x, out)
