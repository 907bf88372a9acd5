"""Look-ahead on the exact model: try plans on copies of the world and take the first action of the best one.

Privileged: `Context.branch` plays plans in the true simulator, hidden parameters of the other drivers included. It is
an upper bound and a near-oracle to learn from, not a driver for the road. With a goal lane the plans are macros: wait
with a speed goal, change towards the goal, take another speed goal. Without one: every action, followed by a simple
continuation, valued by the world's own rewards.

Value of a plan with a goal lane, in units of one lane: crash -100 (a later one is a little better), goal missed -30,
goal reached +30 (an earlier one is a little better); else minus the lanes still to go, a cost for every decision that
the change is put off, a penalty for ending too close to the car ahead, and a small reward for speed.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experts.answers import answer_each, legal_manoeuvres, require_discrete
from experts.provider import Context, Decision
from experts.rules.view import goal_lane, manoeuvres
from sim.actions import FULL, MetaAction
from sim.config import resolve
from sim.env import Branches
from sim.errors import UsageError
from sim.scene import Scene

CRASH, MISSED, REACHED = -100.0, -30.0, 30.0
"""Values of how a plan may end, in lanes."""
LANE_CHANGES = (int(MetaAction.LANE_LEFT), int(MetaAction.LANE_RIGHT))


@dataclass(frozen=True)
class SearchConfig:
    """Look-ahead and value; `horizon` and `waits` in decisions, speeds in set-points, distances in m."""

    horizon: int = 12  # decisions with a goal lane: 6 s on `lane-change`
    waits: tuple[int, ...] = (0, 2, 4, 7)  # decisions before the lane change; "never" is tried too
    free_horizon: float = 5.0  # s of look-ahead without a goal lane
    delay: float = 0.05  # cost of every decision that a change is put off, else it would be put off for ever
    speed: float = 0.3  # value of ending at the highest set-point rather than the lowest
    headway: float = 0.5  # s of distance to the car ahead (bumper to bumper) under which a plan's end is penalised
    close: float = 2.0  # penalty of ending with no distance to the car ahead

    def __post_init__(self) -> None:
        if self.horizon < 2 or not self.waits or min(self.waits) < 0 or max(self.waits) >= self.horizon:
            raise ValueError("horizon must be at least 2 and exceed every one of waits (at least one, none negative)")
        if not 0 < self.free_horizon <= 60:
            raise ValueError(f"free_horizon = {self.free_horizon}: choose up to 60 s")


class SearchExpert:
    """Deterministic, without state. Its confidence is 1 when the best plan neither crashes nor misses, else 0."""

    name = "search"

    def __init__(self, config: SearchConfig | None = None) -> None:
        self.config = config or SearchConfig()

    def decide(self, contexts: Sequence[Context]) -> list[Decision]:
        """UsageError where the world cannot be branched."""
        return answer_each(contexts, self._answer)

    def _answer(self, context: Context) -> Decision:
        scene = context.scene
        if scene is None or context.branch is None:
            raise UsageError(
                "expert 'search' plays plans on copies of the world, and this world offers none: "
                "use a simulator that can branch (engine or highway-env) or another expert"
            )
        legal = legal_manoeuvres(context)
        goal = goal_lane(scene) if manoeuvres(scene) == FULL and len(scene.set_points) > 1 else None
        if goal is None:
            plans = _free_plans(manoeuvres(scene), self._free_decisions(scene))
        else:
            plans = _goal_plans(int(np.sign(goal - scene.ego.target_lane)), self.config.horizon, self.config.waits)
        plans = plans[np.isin(plans[:, 0], list(legal.values()))]
        branches = context.branch(plans)
        values = self._free_values(branches) if goal is None else self._goal_values(scene, goal, plans, branches)
        best = int(np.argmax(values))
        return Decision(
            action=int(plans[best, 0]),
            confidence=float(not _bad_end(branches)[best]),
            reason=_words(plans[best], manoeuvres(scene), branches, best),
        )

    def _free_decisions(self, scene: Scene) -> int:
        return max(round(self.config.free_horizon / scene.decision_period), 2)

    def _free_values(self, branches: Branches) -> np.ndarray:
        """(P,) mean reward per decision of the horizon; any crash is worse than any survival, a later one better."""
        values = branches.rewards.mean(axis=1)
        return values + np.where(branches.crashed, CRASH + branches.steps / branches.rewards.shape[1], 0.0)

    def _goal_values(self, scene: Scene, goal: int, plans: np.ndarray, branches: Branches) -> np.ndarray:
        """(P,) as described at the top of this module."""
        assert branches.final is not None
        config = self.config
        _, _, _, target, speed, gap = branches.final.T
        low, high = scene.set_points[0], scene.set_points[-1]
        wanted = config.headway * np.maximum(speed, 1.0)
        closeness = np.clip(1.0 - gap / wanted, 0.0, 1.0)
        later = branches.steps / branches.rewards.shape[1]
        waited = np.where(np.isin(plans, LANE_CHANGES).any(axis=1), np.isin(plans, LANE_CHANGES).argmax(axis=1), 0)
        running = (
            config.speed * (speed - low) / (high - low)
            - np.abs(goal - target)
            - config.delay * waited
            - config.close * closeness**2
        )
        values = np.where(branches.success, REACHED - later, running)
        values = np.where(branches.ended & ~branches.success, MISSED + later - np.abs(goal - target), values)
        return np.where(branches.crashed, CRASH + later, values)


def _bad_end(branches: Branches) -> np.ndarray:
    """(P,) bool: crashed, or ended without success."""
    return branches.crashed | (branches.ended & ~branches.success)


@functools.cache
def _goal_plans(side: int, horizon: int, waits: tuple[int, ...]) -> np.ndarray:
    """int (P, horizon): macros around one change to `side` (-1, 1); only speed goals for side 0. No duplicates."""
    plans = [_ramp(steps, horizon) for steps in _goals(horizon)]
    if side:
        change = int(MetaAction.LANE_RIGHT if side > 0 else MetaAction.LANE_LEFT)
        for wait in waits:
            rest = horizon - wait - 1
            for before in _goals(wait):
                for after in (-rest, -min(3, rest), 0, rest):
                    plans.append([*_ramp(before, wait), change, *_ramp(after, rest)])
    return np.unique(np.array(plans, np.int64), axis=0)


def _goals(length: int) -> list[int]:
    """Speed goals, in set-points from now, that `length` decisions can tell apart."""
    half = length // 2 if length > 2 else 0
    return sorted({-length, -half, 0, half, length})


def _ramp(steps: int, length: int) -> list[int]:
    """`length` actions that go up or down by `steps` set-points at once and then hold."""
    move = int(MetaAction.FASTER if steps > 0 else MetaAction.SLOWER)
    return [move] * abs(steps) + [int(MetaAction.IDLE)] * (length - abs(steps))


@functools.cache
def _free_plans(actions: tuple[MetaAction, ...], horizon: int) -> np.ndarray:
    """int (P, horizon): each action, followed by holding, braking or accelerating for the rest."""
    speeds = [m for m in (MetaAction.IDLE, MetaAction.SLOWER, MetaAction.FASTER) if m in actions]
    plans = [[actions.index(first)] + [actions.index(then)] * (horizon - 1) for first in actions for then in speeds]
    return np.array(plans, np.int64)


def _words(plan: np.ndarray, actions: Sequence[MetaAction], branches: Branches, best: int) -> str:
    """What the best plan does and how it ends."""
    changes = [MetaAction.LANE_LEFT, MetaAction.LANE_RIGHT]
    names = [actions[a] for a in plan]
    change = next((k for k, name in enumerate(names) if name in changes), None)
    what = "stay in the lane" if change is None else f"change lane {'now' if not change else f'in {change} decisions'}"
    end = "crash" if branches.crashed[best] else "reach the goal" if branches.success[best] else None
    if end is None:
        end = "miss the goal" if branches.ended[best] else "all clear"
    return f"best of {len(branches.steps)} plans: {what}, then {end} (look-ahead {len(plan)} decisions)"


def make_search(options: Mapping[str, Any], scenario: str, seed: int) -> SearchExpert:
    """The expert `search`; options are `SearchConfig` fields. The seed is not used."""
    require_discrete("search", scenario)
    return SearchExpert(resolve(SearchConfig(), options, "search"))
