"""Hand-made scenes for the experts' tests: a straight road with given cars."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from gymnasium import spaces

from experts.provider import Context
from sim.actions import legal_mask
from sim.env import Branches
from sim.scene import Ego, Goal, Scene, Vehicles

SET_POINTS = tuple(np.linspace(6.0, 28.0, 20).tolist())
LANE_WIDTH = 4.0


def index_of(speed: float, set_points: tuple[float, ...]) -> int:
    return int(np.argmin(np.abs(np.subtract(set_points, speed)))) if set_points else -1


def make_scene(
    cars: list[tuple[int, float, float]] = (),
    lane: int = 0,
    speed: float = 20.0,
    offset: float = 0.0,
    goal: int | None = 3,
    lanes: int = 4,
    set_points: tuple[float, ...] = SET_POINTS,
    period: float = 0.5,
    actions: int = 5,
    target: int | None = None,
) -> Scene:
    """Cars are (lane, dx, speed); a lane of -1 is another road. `offset` is metres to the right of the target lane."""
    target = lane if target is None else target
    count = len(cars)
    on_road = np.array([car[0] >= 0 for car in cars], bool)
    s = np.array([500.0 + dx for _, dx, _ in cars], float)
    d = np.array([car_lane * LANE_WIDTH for car_lane, _, _ in cars], float)
    index = index_of(speed, set_points)
    ego_d = target * LANE_WIDTH + offset
    legal = legal_mask(lane, lanes, index, len(set_points)) if actions == 5 else np.ones(actions, bool)
    return Scene(
        scenario="lane-change",
        time=0.0,
        decision_period=period,
        ego=Ego(500.0, ego_d, 0.0, speed, 500.0, ego_d, lane, target, index),
        vehicles=Vehicles(
            ids=np.arange(1, count + 1),
            x=s.copy(),
            y=d.copy(),
            heading=np.zeros(count),
            speed=np.array([car[2] for car in cars], float),
            acceleration=np.zeros(count),
            s=np.where(on_road, s, math.nan),
            d=np.where(on_road, d, math.nan),
            lane=np.array([car[0] for car in cars], int),
            length=np.full(count, 5.0),
            width=np.full(count, 2.0),
            crashed=np.zeros(count, bool),
        ),
        lane_centers=tuple(i * LANE_WIDTH for i in range(lanes)),
        lane_width=LANE_WIDTH,
        set_points=set_points,
        legal=legal,
        goal=None if goal is None else Goal(goal, 1000.0, 500.0),
    )


def mirrored(scene: Scene) -> Scene:
    """The same scene with left and right swapped."""
    last = scene.num_lanes - 1
    width = last * LANE_WIDTH
    ego, cars, legal = scene.ego, scene.vehicles, scene.legal.copy()
    if len(legal) == 5:
        legal[[0, 2]] = legal[[2, 0]]
    goal = scene.goal
    return replace(
        scene,
        ego=replace(ego, y=width - ego.y, d=width - ego.d, lane=last - ego.lane, target_lane=last - ego.target_lane),
        vehicles=replace(cars, y=width - cars.y, d=width - cars.d, lane=np.where(cars.lane < 0, -1, last - cars.lane)),
        legal=legal,
        goal=None if goal is None or goal.lane is None else replace(goal, lane=last - goal.lane),
    )


def context(scene: Scene | None, actions: int = 5, branch=None) -> Context:
    return Context(
        obs=np.zeros(29, np.float32),
        action_space=spaces.Discrete(actions),
        scene=scene,
        legal=None if scene is None else scene.legal,
        branch=branch,
    )


def decide(expert, scene: Scene):
    """The one decision of `expert` in `scene`."""
    (decision,) = expert.decide([context(scene, len(scene.legal), branch=survive)])
    return decision


def survive(plans: np.ndarray) -> Branches:
    """An environment in which nothing ever happens, for experts that look ahead."""
    count, horizon = plans.shape
    return Branches(
        rewards=np.zeros((count, horizon)),
        steps=np.full(count, horizon),
        crashed=np.zeros(count, bool),
        success=np.zeros(count, bool),
        ended=np.zeros(count, bool),
        final=np.tile([600.0, 0.0, 0.0, 0.0, 20.0, np.inf], (count, 1)),
    )
