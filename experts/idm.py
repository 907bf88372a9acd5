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
from collections.abc import Mapping
from typing import Any

import numpy as np

from experts.answers import require_discrete
from experts.rules.config import as_record
from experts.rules.kernel import FASTER, IDLE, LEFT, RIGHT, SLOWER
from experts.views import SIDE_NAMES, KernelExpert
from sim.bounds import Positive, config_dataclass
from sim.compiled import kernel
from sim.config import resolve

STANDSTILL = 0.01
"""m and m/s that stand for zero in a denominator, as in highway-env."""


@config_dataclass
class IDMConfig:
    """highway-env's values. Accelerations in m/s2, distances between centres in m, times in s."""

    desired_speed: Positive | None = None  # m/s on a free road; None: the highest set-point
    acceleration: Positive = 3.0  # comfortable maximum, a
    braking: Positive = 5.0  # comfortable braking, b
    limit: Positive = 6.0  # no acceleration beyond this in size
    jam_distance: Positive = 10.0  # wanted distance to the car ahead at rest (5 m + a car length)
    headway: Positive = 1.5  # s wanted to the car ahead
    exponent: Positive = 4.0  # of the free-road term
    least_gain: Positive = 0.2  # m/s2 that a lane change must bring
    # m/s2 that a lane change may ask of the new follower, and of the ego on its way to a goal
    imposed_braking: Positive = 2.0
    foresight: Positive = 2.0  # s, at least one decision: over 1 s, no acceleration would ever fill a 5 m/s step
    reach: Positive = 3.0  # m from its centre within which the lane being left still counts


@kernel
def acceleration(speed, desired, distance, front_speed, p):
    """IDM acceleration (m/s2, unlimited) behind a car `distance` m ahead (inf: none) at `front_speed`."""
    free = 1 - (max(speed, 0.0) / max(desired, STANDSTILL)) ** p.exponent
    if distance == math.inf:
        return p.acceleration * free
    slowing = speed * (speed - front_speed) / (2 * math.sqrt(p.acceleration * p.braking))
    wanted = p.jam_distance + speed * p.headway + slowing
    return p.acceleration * (free - (wanted / max(distance, STANDSTILL)) ** 2)


@kernel
def _recommends(v, lane, towards_goal, desired, here, p):
    """MOBIL without politeness."""
    if lane.rear < math.inf:
        # The follower's own desired speed is hidden: its present speed stands for it.
        imposed = acceleration(lane.rear_speed, max(lane.rear_speed, 1.0), lane.rear, v.speed, p)
        if imposed < -p.imposed_braking:
            return False
    there = acceleration(v.speed, desired, lane.front, lane.front_speed, p)
    if v.lanes_to_go:
        return towards_goal and there >= -p.imposed_braking
    return there - here >= p.least_gain


@kernel
def decide(v, legal, p):
    """One decision: view, bool (5,), record of an `IDMConfig` -> (manoeuvre, acceleration, wanted speed)."""
    desired = p.desired_speed if p.desired_speed == p.desired_speed else v.highest
    if desired == math.inf:
        desired = v.speed
    here = acceleration(v.speed, desired, v.target.front, v.target.front_speed, p)
    a = here
    if v.old_distance < p.reach:
        a = min(a, acceleration(v.speed, desired, v.old.front, v.old.front_speed, p))
    a = min(max(a, -p.limit), p.limit)
    wanted = v.speed + a * max(p.foresight, v.period)
    chosen = -1
    if not v.changing and v.speed >= 1:
        if v.has_left and legal[LEFT] and _recommends(v, v.left, v.lanes_to_go < 0, desired, here, p):
            chosen = LEFT
        if v.has_right and legal[RIGHT] and _recommends(v, v.right, v.lanes_to_go > 0, desired, here, p):
            chosen = RIGHT
    if chosen < 0:  # the legal speed manoeuvre nearest to the wanted speed; the slower one of two equals
        chosen, nearest = IDLE, math.inf
        for manoeuvre, speed in ((SLOWER, v.slower), (IDLE, v.idle), (FASTER, v.faster)):
            if legal[manoeuvre] and abs(speed - wanted) < nearest:
                chosen, nearest = manoeuvre, abs(speed - wanted)
    return chosen, a, wanted


@kernel
def drive(views, legal, params, out):
    """`decide` for many egos: `VIEW` (R,), bool (R, 5), the record in an array of one -> int64 (R,) manoeuvres."""
    for i in range(views.size):
        out[i], _, _ = decide(views[i], legal[i], params[0])


class IDMExpert(KernelExpert):
    """Deterministic, without state: unlike highway-env's vehicle it may reconsider its lane at every decision.

    It does not change lane during a change, nor below 1 m/s; of two good sides it takes the right one.
    """

    name = "idm"
    kernel = staticmethod(drive)

    def __init__(self, config: IDMConfig | None = None) -> None:
        self.config = config or IDMConfig()
        self.parameters = as_record(self.config)

    def reason(self, view: np.record, legal: np.ndarray) -> str:
        chosen, a, wanted = decide(view, legal, self.parameters[0])
        if chosen in SIDE_NAMES:
            return f"MOBIL: the {SIDE_NAMES[chosen]} lane is better"
        return f"IDM: {a:+.1f} m/s2 towards {max(wanted, 0.0):.1f} m/s"


def make_idm(options: Mapping[str, Any], scenario: str, seed: int) -> IDMExpert:
    """The expert `idm`: the Intelligent Driver Model with MOBIL lane changes, as traffic drives.

    Args:
        options: Fields of `IDMConfig`.
        scenario: Name of the scenario.
        seed: Not used.

    Raises:
        UsageError: An option is bad, or the scenario has continuous actions.
    """
    require_discrete("idm", scenario)
    return IDMExpert(resolve(IDMConfig(), options, "idm"))
