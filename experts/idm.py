"""highway-env's own driver as an expert: MOBIL decides the lane, IDM the speed, mapped to the nearest meta-action.

IDM: Treiber et al., 2000; MOBIL: Kesting et al., 2007; parameters and tie rules as in highway-env's IDMVehicle (no
politeness). The real IDM vehicle steers its acceleration freely; this one has set-points, so the speed to which the
acceleration leads within `foresight` is rounded to a set-point that this decision can have. With a goal lane
MOBIL changes towards it whenever neither the ego nor the new follower must brake harder than the limit, as highway-env
does for a vehicle whose route asks for a lane. In traffic as dense as that of `lane-change` it finds no such gap and
misses the goal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from experts.answers import answer_each, require_discrete, scene_decision
from experts.provider import Context, Decision
from experts.rules.view import SIDE_NAMES, SIDES, Lane, View, speed_after, view_of
from sim.actions import MetaAction
from sim.config import resolve
from sim.scene import Scene

STANDSTILL = 0.01
"""m and m/s that stand for zero in a denominator, as in highway-env."""


@dataclass(frozen=True)
class IDMConfig:
    """highway-env's values. Accelerations in m/s2, distances between centres in m, times in s."""

    desired_speed: float | None = None  # m/s on a free road; None: the highest set-point
    acceleration: float = 3.0  # comfortable maximum, a
    braking: float = 5.0  # comfortable braking, b
    limit: float = 6.0  # no acceleration beyond this in size
    jam_distance: float = 10.0  # wanted distance to the car ahead at rest (5 m + a car length)
    headway: float = 1.5  # s wanted to the car ahead
    exponent: float = 4.0  # of the free-road term
    least_gain: float = 0.2  # m/s2 that a lane change must bring
    imposed_braking: float = (
        2.0  # m/s2 that a lane change may ask of the new follower, and of the ego on its way to a goal
    )
    foresight: float = 2.0  # s, at least one decision: over 1 s, no acceleration would ever fill a 5 m/s step
    reach: float = 3.0  # m from its centre within which the lane being left still counts

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{field.name} = {value}: must be positive and finite")


class IDMExpert:
    """Deterministic, without state: unlike highway-env's vehicle it may reconsider its lane at every decision."""

    name = "idm"

    def __init__(self, config: IDMConfig | None = None) -> None:
        self.config = config or IDMConfig()

    def decide(self, contexts: Sequence[Context]) -> list[Decision]:
        return answer_each(contexts, lambda context: scene_decision(context, self._choose))

    def _choose(self, scene: Scene, legal: Mapping[MetaAction, int]) -> tuple[MetaAction, str]:
        view = view_of(scene, self.config.reach)
        desired = self.config.desired_speed or (scene.set_points[-1] if scene.set_points else scene.ego.speed)
        side = self._mobil(scene, view, desired, legal)
        if side:
            return SIDES[side], f"MOBIL: the {SIDE_NAMES[side]} lane is better"
        acceleration = min(
            self.acceleration(view.speed, desired, view.target.front, view.target.front_speed),
            self.acceleration(view.speed, desired, view.old.front, view.old.front_speed),
        )
        acceleration = min(max(acceleration, -self.config.limit), self.config.limit)
        wanted = view.speed + acceleration * max(self.config.foresight, scene.decision_period)
        return self._nearest(scene, legal, wanted), f"IDM: {acceleration:+.1f} m/s2 towards {max(wanted, 0.0):.1f} m/s"

    def acceleration(self, speed: float, desired: float, distance: float, front_speed: float) -> float:
        """IDM acceleration (m/s2, unlimited) behind a car `distance` m ahead (inf: none) at `front_speed`."""
        config = self.config
        free = 1 - (max(speed, 0.0) / max(desired, STANDSTILL)) ** config.exponent
        if distance == math.inf:
            return config.acceleration * free
        slowing = speed * (speed - front_speed) / (2 * math.sqrt(config.acceleration * config.braking))
        wanted = config.jam_distance + speed * config.headway + slowing
        return config.acceleration * (free - (wanted / max(distance, STANDSTILL)) ** 2)

    def _mobil(self, scene: Scene, view: View, desired: float, legal: Mapping[MetaAction, int]) -> int:
        """The side to change to, 0 for none. Not during a change, as highway-env; of two good sides the right one."""
        if scene.ego.lane != scene.ego.target_lane or view.speed < 1:
            return 0
        here = self.acceleration(view.speed, desired, view.target.front, view.target.front_speed)
        chosen = 0
        for side, lane, exists in ((-1, view.left, view.has_left), (1, view.right, view.has_right)):
            if exists and SIDES[side] in legal and self._recommends(view, side, lane, desired, here):
                chosen = side
        return chosen

    def _recommends(self, view: View, side: int, lane: Lane, desired: float, here: float) -> bool:
        config = self.config
        if lane.rear < math.inf:
            # The follower's own desired speed is hidden: its present speed stands for it.
            imposed = self.acceleration(lane.rear_speed, max(lane.rear_speed, 1.0), lane.rear, view.speed)
            if imposed < -config.imposed_braking:
                return False
        there = self.acceleration(view.speed, desired, lane.front, lane.front_speed)
        if view.lanes_to_go:
            return (side > 0) == (view.lanes_to_go > 0) and there >= -config.imposed_braking
        return there - here >= config.least_gain

    def _nearest(self, scene: Scene, legal: Mapping[MetaAction, int], wanted: float) -> MetaAction:
        """The legal speed manoeuvre whose set-point is nearest to the wanted speed; the slower one of two equals."""
        options = [m for m in (MetaAction.SLOWER, MetaAction.IDLE, MetaAction.FASTER) if m in legal]
        return min(options or [MetaAction.IDLE], key=lambda m: abs(speed_after(scene, m) - wanted))


def make_idm(options: Mapping[str, Any], scenario: str, seed: int) -> IDMExpert:
    """The expert `idm`; options are `IDMConfig` fields. The seed is not used."""
    require_discrete("idm", scenario)
    return IDMExpert(resolve(IDMConfig(), options, "idm"))
