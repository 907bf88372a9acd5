"""IDM and MOBIL as in `experts.idm`, for continuous actions: acceleration as it is, and pure pursuit as steering.

The centre lines of the scene's lanes are followed, also through curves. A lane change is decided anew at every
decision, from the lane that the ego is in. Where acceleration is no part of the action (racetrack) only the steering is
given, so that a slow car ahead is overtaken or run into. Traffic that crosses the ego's road is not seen.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

import sim
from experts.answers import failed
from experts.centrelines import Centrelines, pursuit_steering
from experts.idm import IDMConfig
from experts.idm import decide as idm_decision
from experts.provider import Context, Decision, PolicyProvider
from experts.rules.config import as_record
from experts.rules.kernel import LEFT, RIGHT
from experts.spaces import form
from sim.actions import NUM_ACTIONS
from sim.bounds import NonNegative, Number, Positive, config_dataclass
from sim.config import resolve
from sim.errors import UsageError
from sim.highway.scenario import HighwayScenario
from sim.scene import LaneShape, Scene
from sim.view import view_rows

Range = tuple[Number, Number]
ROADS = 64
"""Road networks whose centre lines are kept; environments that run at once have one each."""
ACTION = "ContinuousAction"
EVERY = np.ones(NUM_ACTIONS, bool)


@config_dataclass
class ContinuousIDMConfig:
    """Ranges that are None are those of the scenario's own config: give them where scenario_config changes them."""

    # of accelerations and lane changes; a desired speed that is None is the highest one that the scenario rewards
    idm: IDMConfig = field(default_factory=IDMConfig)
    lane_changes: bool = True  # False: keep the lane
    acceleration_range: Range | None = None  # m/s2 of actions -1 and 1
    steering_range: Range | None = None  # rad of actions -1 and 1
    preview: Positive = 0.5  # s ahead of the point that is steered to, at least two decisions: nearer ones overshoot
    least_distance: NonNegative = 4.0  # m to that point at low speed, about a car length


class ContinuousIDM(PolicyProvider):
    """Deterministic, without state.

    Args:
        config: Settings, without None among the ranges.
    """

    name = "idm-continuous"
    needs = frozenset({"scene"})

    def __init__(self, config: ContinuousIDMConfig) -> None:
        assert config.acceleration_range is not None
        assert config.steering_range is not None
        self.config = config
        self._ranges = (config.acceleration_range, config.steering_range)
        self._record = as_record(config.idm)[0]
        self._roads: dict[int, tuple[tuple[LaneShape, ...], Centrelines]] = {}
        """By identity of a scene's shapes, which are kept so that the identity stays theirs."""

    def check_spaces(self, observation_space: gym.Space, action_space: gym.Space, scenario: str) -> None:
        if not isinstance(action_space, spaces.Box) or action_space.shape not in ((1,), (2,)):
            raise UsageError(
                f"expert {self.name!r} gives acceleration and steering, actions of {scenario!r} are "
                f"{form(action_space)}: set scenario_config.action.type={ACTION}, or choose the expert idm"
            )

    def decide(self, contexts: Sequence[Context]) -> list[Decision]:
        return [self._answer(context) for context in contexts]

    def _answer(self, context: Context) -> Decision:
        started, scene = time.perf_counter(), context.scene
        if scene is None or not scene.shapes:
            return failed("there is no scene with lanes to follow")
        manoeuvre, acceleration, _ = idm_decision(view_rows([scene])[0], EVERY, self._record)
        side = {LEFT: -1, RIGHT: 1}.get(manoeuvre, 0) if self.config.lane_changes else 0
        controls = (acceleration, self._steering(scene, side))
        scaled = [_scaled(value, limits) for value, limits in zip(controls, self._ranges, strict=True)]
        size = (context.action_space.shape or (2,))[0]
        change = {-1: ", MOBIL: to the left", 0: "", 1: ", MOBIL: to the right"}[side]
        reason = f"IDM: {acceleration:+.1f} m/s2{change}"
        return Decision(np.array(scaled[-size:], np.float32), reason=reason, latency_s=time.perf_counter() - started)

    def _steering(self, scene: Scene, side: int) -> float:
        """rad, to the centre of the lane `side` lanes to the right of the ego's."""
        ego, config = scene.ego, self.config
        position = np.array([ego.x, ego.y])
        road = self._road(scene.shapes)
        place = road.locate(position, ego.heading)
        lane = min(max(ego.lane + side, 0), scene.num_lanes - 1)
        offset = place.offset + scene.lane_centers[lane] - ego.d
        distance = max(ego.speed * max(config.preview, 2 * scene.decision_period), config.least_distance)
        return pursuit_steering(position, ego.heading, road.ahead(place, distance, offset), ego.length)

    def _road(self, shapes: tuple[LaneShape, ...]) -> Centrelines:
        if id(shapes) not in self._roads:
            if len(self._roads) >= ROADS:
                self._roads.clear()
            self._roads[id(shapes)] = shapes, Centrelines(shapes)
        return self._roads[id(shapes)][1]


def _scaled(value: float, limits: Range) -> float:
    """A physical value as an action in [-1, 1]."""
    low, high = limits
    return min(max(2 * (value - low) / (high - low) - 1, -1.0), 1.0)


def make(options: Mapping[str, Any], scenario: str, seed: int) -> ContinuousIDM:
    """The expert `idm-continuous`: the Intelligent Driver Model with pure pursuit, for acceleration and steering.

    Args:
        options: Fields of `ContinuousIDMConfig`.
        scenario: Name of the scenario.
        seed: Not used.

    Raises:
        UsageError: An option is bad, or the scenario has no lanes to follow.
    """
    config = resolve(ContinuousIDMConfig(), options, "idm-continuous")
    found = sim.get(scenario)
    if not isinstance(found, HighwayScenario) or found.kind.area_width is not None:
        raise UsageError(
            f"expert 'idm-continuous' steers along lanes of highway-env, scenario {scenario!r} has none: choose "
            "another expert or scenario"
        )
    defaults = found.defaults
    action = defaults.action if defaults.action.get("type") == ACTION else {}
    speeds = getattr(defaults, "reward_speed_range", None)
    limit = float(speeds[1]) if speeds else getattr(defaults, "speed_limit", None)
    config = dataclasses.replace(
        config,
        idm=dataclasses.replace(config.idm, desired_speed=config.idm.desired_speed or limit),
        acceleration_range=config.acceleration_range or tuple(action.get("acceleration_range", (-5.0, 5.0))),
        steering_range=config.steering_range or tuple(action.get("steering_range", (-math.pi / 4, math.pi / 4))),
    )
    for name in ("acceleration_range", "steering_range"):
        low, high = getattr(config, name)
        if not low < high:
            raise UsageError(f"idm-continuous.{name} = {[low, high]}: give the lower bound first")
    return ContinuousIDM(config)
