"""Look-ahead on the exact model: try plans on copies of the environment and take the first action of the best one.

Privileged: `Context.branch` runs plans in the true simulator, hidden parameters of the other drivers included. It is
an upper bound and a near-oracle to learn from, not a driver for the road. With a goal lane the plans are macros: wait
with a speed goal, change towards the goal, take another speed goal. Without one: every action, followed by a simple
continuation, valued by the environment's own rewards.

Value of a plan with a goal lane, in units of one lane: crash -100 (a later one is a little better), goal missed -30,
goal reached +30 (an earlier one is a little better); else minus the lanes still to go, a cost for every decision that
the change is put off, a penalty for ending too close to the car ahead, and a small reward for speed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np

from experts.answers import require_discrete
from experts.views import Choice, Requests, ViewExpert
from sim.actions import FULL, MetaAction
from sim.bounds import Bounds, NonNegative, Number, Whole, config_dataclass
from sim.config import resolve
from sim.env import Branches
from sim.errors import UsageError
from sim.view import NO_GOAL

CRASH, MISSED, REACHED = -100.0, -30.0, 30.0
"""Values of how a plan may end, in lanes."""
FASTER_END = 1e-6
"""Value of a m/s at the end of a plan without a goal lane: it only decides between equals."""
LANE_CHANGES = (int(MetaAction.LANE_LEFT), int(MetaAction.LANE_RIGHT))


@config_dataclass
class SearchConfig:
    """Look-ahead and value; `horizon` and `waits` in decisions, speeds in set-points, distances in m."""

    horizon: Annotated[int, Bounds(2, 1000)] = 12  # decisions with a goal lane: 6 s on `lane-change`
    waits: tuple[Whole, ...] = (0, 2, 4, 7)  # decisions before the lane change; "never" is tried too
    free_horizon: Annotated[float, Bounds(0, 60, open_low=True)] = 5.0  # s of look-ahead without a goal lane
    delay: Number = 0.05  # cost of every decision that a change is put off, else it would be put off for ever
    speed: Number = 0.3  # value of ending at the highest set-point rather than the lowest
    # s of distance to the car ahead (bumper to bumper) under which a plan's end is penalised
    headway: NonNegative = 0.5
    close: Number = 2.0  # penalty of ending with no distance to the car ahead

    def __post_init__(self) -> None:
        if not self.waits or max(self.waits) >= self.horizon:
            raise ValueError("horizon must exceed every one of waits, of which there is at least one")


class SearchExpert(ViewExpert):
    """Deterministic, without state. Its confidence is 1 when the best plan neither crashes nor misses, else 0."""

    name = "search"
    needs = frozenset({"scene", "branch"})

    def __init__(self, config: SearchConfig | None = None) -> None:
        self.config = config or SearchConfig()

    def choose(self, requests: Requests) -> Choice:
        """Try plans in each state.

        Args:
            requests: R states.

        Raises:
            UsageError: The environment cannot be copied.
        """
        if requests.branch is None:
            raise UsageError(
                "expert 'search' tries plans on copies of the environment, and this one offers none: "
                "use a simulator that can branch (engine or highway-env) or another expert"
            )
        best = [self._best(requests, k, requests.branch) for k in range(len(requests.views))]
        return Choice(
            chosen=np.array([int(requests.manoeuvres[found.plan[0]]) for found in best], np.int64),
            reason=lambda k: best[k].words(requests.manoeuvres),
            confidence=np.array([float(best[k].ends_well) for k in range(len(best))]),
        )

    def _best(self, requests: Requests, k: int, branch: Callable[[int, np.ndarray], Branches]) -> Best:
        view = requests.views[k]
        aims = view.goal_lane != NO_GOAL and requests.manoeuvres == FULL and view.lowest < view.highest < math.inf
        if aims:
            plans = _goal_plans(int(np.sign(view.lanes_to_go)), self.config.horizon, self.config.waits)
        else:
            plans = _free_plans(requests.manoeuvres, max(round(self.config.free_horizon / view.period), 2))
        legal = [a for a, manoeuvre in enumerate(requests.manoeuvres) if requests.legal[k, manoeuvre]]
        plans = plans[np.isin(plans[:, 0], legal)]
        branches = branch(k, plans)
        values = self._goal_values(view, plans, branches) if aims else self._free_values(branches)
        return Best(plans, branches, int(np.argmax(values)))

    def _free_values(self, branches: Branches) -> np.ndarray:
        """(P,) mean reward per decision of the horizon; any crash is worse than any survival, a later one better.

        Success is better than driving on for rewards, and an early one is the best. Of equals the faster end is taken.
        """
        assert branches.final is not None
        later = branches.steps / branches.rewards.shape[1]
        values = branches.rewards.mean(axis=1) + FASTER_END * branches.final[:, 4]
        values = np.where(branches.ended & ~branches.success, MISSED + later, values)
        values = np.where(branches.success, REACHED - later + values, values)
        return np.where(branches.crashed, CRASH + later, values)

    def _goal_values(self, view: np.record, plans: np.ndarray, branches: Branches) -> np.ndarray:
        """(P,) as described at the top of this module."""
        assert branches.final is not None
        config = self.config
        _, _, _, target, speed, gap = branches.final.T
        to_go = np.abs(view.goal_lane - target)
        wanted = config.headway * np.maximum(speed, 1.0)
        closeness = np.clip(1.0 - gap / wanted, 0.0, 1.0)
        later = branches.steps / branches.rewards.shape[1]
        waited = np.where(np.isin(plans, LANE_CHANGES).any(axis=1), np.isin(plans, LANE_CHANGES).argmax(axis=1), 0)
        running = (
            config.speed * (speed - view.lowest) / (view.highest - view.lowest)
            - to_go
            - config.delay * waited
            - config.close * closeness**2
        )
        values = np.where(branches.success, REACHED - later, running)
        values = np.where(branches.ended & ~branches.success, MISSED + later - to_go, values)
        return np.where(branches.crashed, CRASH + later, values)


class Best(NamedTuple):
    """The best of some plans."""

    plans: np.ndarray
    branches: Branches
    k: int

    @property
    def plan(self) -> np.ndarray:
        return self.plans[self.k]

    @property
    def ends_well(self) -> bool:
        """Neither crashed nor ended without success."""
        b, k = self.branches, self.k
        return not (b.crashed[k] or (b.ended[k] and not b.success[k]))

    def words(self, actions: Sequence[MetaAction]) -> str:
        """What it does and how it ends."""
        b, k = self.branches, self.k
        changes = [MetaAction.LANE_LEFT, MetaAction.LANE_RIGHT]
        change = next((step for step, action in enumerate(self.plan) if actions[action] in changes), None)
        what = "stay in the lane" if change is None else f"change lane {f'in {change} decisions' if change else 'now'}"
        end = "crash" if b.crashed[k] else "reach the goal" if b.success[k] else None
        if end is None:
            end = "miss the goal" if b.ended[k] else "all clear"
        return f"best of {len(self.plans)} plans: {what}, then {end} (look-ahead {len(self.plan)} decisions)"


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


def make_search(options: Mapping[str, Any], scenario: str, seed: int) -> SearchExpert:
    """The expert `search`: exact look-ahead over plans; needs environments that can be copied.

    Args:
        options: Fields of `SearchConfig`.
        scenario: Name of the scenario.
        seed: Not used.

    Raises:
        UsageError: An option is bad, or the scenario has continuous actions.
    """
    require_discrete("search", scenario)
    return SearchExpert(resolve(SearchConfig(), options, "search"))
