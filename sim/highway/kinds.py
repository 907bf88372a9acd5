"""The kinds of highway-env environments: how to build one, what its goal is, and how its episodes end.

Imports nothing heavy, so that listing the scenarios stays quick.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sim.outcome import Outcome
from sim.scene import Goal

SUCCESS, CRASH, MISSED = (end.name.lower() for end in (Outcome.SUCCESS, Outcome.CRASH, Outcome.MISSED))

OutcomeReader = Callable[[Any, bool, bool], str | None]
"""(inner environment, terminated, truncated) of an ended episode -> success | crash | missed; None counts as missed."""
GoalReader = Callable[[Any, Any], Goal | None]
"""(inner environment, `sim.highway.frame` frame at the ego) -> what the ego must reach, or None."""


def survive(inner: Any, terminated: bool, truncated: bool) -> str | None:
    """Success is to reach the time limit without a crash."""
    if inner.vehicle.crashed:
        return CRASH
    return MISSED if terminated else SUCCESS


def pass_end(inner: Any, terminated: bool, truncated: bool) -> str | None:
    """Success is to pass the end of the road without a crash, in time (merge)."""
    if inner.vehicle.crashed:
        return CRASH
    return SUCCESS if terminated else MISSED


def arrive(inner: Any, terminated: bool, truncated: bool) -> str | None:
    """Success is to arrive 25 m into an exit: with a route (discrete actions) that is the destination's."""
    if inner.vehicle.crashed:
        return CRASH
    return SUCCESS if inner.has_arrived(inner.vehicle) else MISSED


def take_exit(inner: Any, terminated: bool, truncated: bool) -> str | None:
    """Success is to be on, or to be steering to, the exit lane when the episode ends."""
    if inner.vehicle.crashed:
        return CRASH
    return SUCCESS if inner._is_success() else MISSED


def park(inner: Any, terminated: bool, truncated: bool) -> str | None:
    """Success is to stop in the marked spot, in line with it."""
    if inner.vehicle.crashed:
        return CRASH
    return SUCCESS if terminated else MISSED


def stay_in_lane(inner: Any, terminated: bool, truncated: bool) -> str | None:
    """Success is to be on the road at the time limit; there is nothing to crash into (lane keeping)."""
    return SUCCESS if inner.vehicle.on_road else MISSED


def no_goal(inner: Any, frame: Any) -> Goal | None:
    """No goal but to drive on."""
    return None


def exit_goal(inner: Any, frame: Any) -> Goal | None:
    """Be in the extra lane on the right before it ends; None once past it."""
    exit_lane = inner.road.network.get_lane(("1", "2", -1))
    s = float(exit_lane.position(exit_lane.length, 0)[0])
    remaining = s - float(inner.vehicle.position[0])
    return Goal(lane=inner.config["lanes_count"], s=s, remaining=remaining) if remaining > 0 else None


def merge_goal(inner: Any, frame: Any) -> Goal | None:
    """Pass the end of the road in any lane."""
    end = float(getattr(inner, "end_position", 370.0))
    return Goal(s=end, remaining=max(end - float(inner.vehicle.position[0]), 0.0))


def intersection_goal(inner: Any, frame: Any) -> Goal | None:
    """Drive 25 m into the exit that the route leads to; None for a continuous ego, which has no route."""
    ego, network = inner.vehicle, inner.road.network
    route = getattr(ego, "route", None)
    if not route:
        return None
    here = ego.lane.local_coordinates(ego.position)[0]
    if "il" in ego.lane_index[0]:
        remaining = 25.0 - here
    else:
        later = [step for step in route if step[:2] != ego.lane_index[:2]]
        between = sum(network.graph[step[0]][step[1]][0].length for step in later if "il" not in step[0])
        remaining = ego.lane.length - here + between + 25.0
    remaining = float(remaining)
    return Goal(s=frame.project(ego.position)[0] + remaining, remaining=max(remaining, 0.0))


def parking_goal(inner: Any, frame: Any) -> Goal | None:
    """The marked spot: `s` is its x, `remaining` the straight distance to it."""
    goal = inner.vehicle.goal
    return Goal(s=float(goal.position[0]), remaining=math.dist(goal.position, inner.vehicle.position))


@dataclass(frozen=True)
class EnvKind:
    """How to build and read one kind of highway-env environment."""

    name: str
    env_class: str
    """"module:Class" of the AbstractEnv."""
    outcome: OutcomeReader = survive
    goal: GoalReader = no_goal
    overrides: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What differs from the class's `default_config()`."""
    time_limit: float | None = None
    """Seconds; set where highway-env never truncates. It becomes the config key `duration`."""
    inert: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Config keys ("action.target_speeds") that highway-env lists but ignores, with the reason."""
    private_traffic: bool = False
    """It overwrites class attributes of its traffic, so it gets private classes (`sim.highway.traffic`)."""
    on_engine: bool = False
    """A family of the batched engine covers it too (`sim.engine.families`)."""
    area_width: float | None = None
    """Metres; set for an open area without lanes (parking): width of the free strip along x."""
