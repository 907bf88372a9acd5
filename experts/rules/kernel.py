"""The slot-aligning rule as compiled functions on numbers and on views (`sim.view`), SI units throughout.

`p` is the record made by `RuleConfig.record`.
"""

from __future__ import annotations

import math

from experts.rules.constants import FASTER, IDLE, LEFT, RIGHT, SLOWER
from experts.rules.crossing import clearance, give_way
from sim.compiled import kernel
from sim.sizes import CAR_LENGTH

CLEAR, FRONT_GAP, REAR_GAP, FRONT_TTC, REAR_TTC, NOT_STEADY, TOO_FAST, CROSSING = range(8)
"""Results of `change_test`: free to change, or the first test that failed. `check_manoeuvre` adds the last two."""
SAFE = CLEAR


@kernel
def safe_speed(distance, front_speed, braking, p):
    """The speed from which the ego, braking at `braking` (m/s2), stays behind the car ahead; inf without one."""
    if distance == math.inf:
        return math.inf
    lag = braking * p.reaction
    room = lag * lag + front_speed * abs(front_speed) / p.front_braking + 2.0 * braking * (distance - p.front_distance)
    return math.sqrt(max(room, 0.0)) - lag


@kernel
def front_needed(closing, braking, p):
    """Distance that a lane change needs ahead when the gap shrinks at `closing`."""
    closing = max(closing, 0.0)
    return p.front_distance + closing * closing / (2.0 * braking) + p.front_time * closing


@kernel
def rear_needed(closing, p):
    """Distance that a lane change needs behind when the gap shrinks at `closing`."""
    closing = max(closing, 0.0)
    return p.rear_distance + closing * closing / (2.0 * p.rear_braking) + p.rear_time * closing


@kernel
def change_test(speed, offset, front, front_speed, rear, rear_speed, braking, scale, p):
    """May the ego start a change into a lane with these two cars? `scale` < 1 relaxes all distances and times."""
    if abs(offset) >= p.steady_offset:
        return NOT_STEADY
    closing, approach = speed - front_speed, rear_speed - speed
    if front <= scale * front_needed(closing, braking, p):
        return FRONT_GAP
    if rear <= scale * rear_needed(approach, p):
        return REAR_GAP
    if closing > 0.0 and front - CAR_LENGTH <= scale * p.front_ttc * closing:
        return FRONT_TTC
    if approach > 0.0 and rear - CAR_LENGTH <= scale * p.rear_ttc * approach:
        return REAR_TTC
    return CLEAR


@kernel
def slot_speed(front, front_speed, rear, rear_speed, p):
    """The speed that brings the ego beside the wanted point between two cars of the side lane; inf without cars."""
    if front == math.inf and rear == math.inf:
        return math.inf
    if front == math.inf:
        front, front_speed = p.open_slot, rear_speed
    if rear == math.inf:
        rear, rear_speed = p.open_slot, front_speed
    slot = front + rear
    if slot > p.slot_length:
        wanted_rear = p.rear_distance + p.slot_share * (slot - p.front_distance - p.rear_distance)
        speed = 0.5 * (front_speed + rear_speed) + p.align_gain * (wanted_rear - rear)
    else:
        speed = min(front_speed, rear_speed) - p.drop_back
    return max(speed, p.slowest)


@kernel
def speed_step(speed, next_speed, wanted, p):
    """+1, 0 or -1 set-points: accelerate only if the next set-point (inf: none) is not above the wanted speed."""
    if speed > wanted + p.brake_margin:
        return -1
    if next_speed <= wanted + p.accelerate_margin:
        return 1
    return 0


@kernel
def allowed_speed(v, p):
    """The lower of the safe speeds behind the cars ahead in the target lane and in the lane being left."""
    speed = safe_speed(v.target.front, v.target.front_speed, v.braking, p)
    if v.old_distance < p.old_lane_reach:
        speed = min(speed, safe_speed(v.old.front, v.old.front_speed, v.braking, p))
    return speed


@kernel
def enter(v, lane, scale, p):
    """`change_test` of a lane beside the target lane."""
    return change_test(v.speed, v.offset, lane.front, lane.front_speed, lane.rear, lane.rear_speed, v.braking, scale, p)


@kernel
def reach_goal(v, legal, p):
    """The rule for an environment with a goal lane.

    Args:
        v: One row of `VIEW`.
        legal: bool (5,) by manoeuvre.
        p: Parameters.

    Returns:
        (manoeuvre, result of `change_test`, target speed).
    """
    wanted = allowed_speed(v, p)
    verdict = NOT_STEADY
    rightwards = v.lanes_to_go > 0
    if v.lanes_to_go != 0 and legal[RIGHT if rightwards else LEFT]:
        side = v.right if rightwards else v.left
        verdict = enter(v, side, 1.0, p)
        if verdict == CLEAR:
            return RIGHT if rightwards else LEFT, verdict, wanted
        wanted = min(wanted, slot_speed(side.front, side.front_speed, side.rear, side.rear_speed, p))
    wanted = min(wanted, p.fastest)
    return _speed_manoeuvre(v, legal, wanted, p), verdict, wanted


@kernel
def cruise(v, legal, p):
    """The rule for an environment without a goal lane: keep the safe speed, overtake where that allows clearly more.

    At equal gain the right lane is taken.

    Args:
        v: One row of `VIEW`.
        legal: bool (5,) by manoeuvre.
        p: Parameters.

    Returns:
        (manoeuvre, safe speed, speed that the best side lane allows).
    """
    allowed = allowed_speed(v, p)
    own = min(allowed, v.highest)
    best, best_speed = IDLE, own + p.overtake_gain
    for side in (LEFT, RIGHT):
        lane = v.left if side == LEFT else v.right
        if not (legal[side] and (v.has_left if side == LEFT else v.has_right)):
            continue
        if enter(v, lane, 1.0, p) == CLEAR:
            there = min(safe_speed(lane.front, lane.front_speed, v.braking, p), v.highest)
            if there >= best_speed:
                best, best_speed = side, there
    if best == IDLE:
        best = _speed_manoeuvre(v, legal, own, p)
        if best == SLOWER and own == v.highest and v.idle <= own:
            best = IDLE  # which already leads down to the highest set-point
    return best, allowed, best_speed


@kernel
def _speed_manoeuvre(v, legal, wanted, p):
    step = speed_step(v.speed, v.faster if legal[FASTER] else math.inf, wanted, p)
    return SLOWER if step < 0 else FASTER if step > 0 else IDLE


@kernel
def drive(views, legal, params, out):
    """The rule for many egos: `VIEW` (R,), bool (R, 5), the record in an array of one -> int64 (R,) manoeuvres."""
    for i in range(views.size):
        if views[i].goal_lane >= 0:
            chosen, _, _ = reach_goal(views[i], legal[i], params[0])
        else:
            chosen, _, _ = cruise(views[i], legal[i], params[0])
        out[i] = give_way(views[i], legal[i], chosen, params[0])


@kernel
def check_manoeuvre(v, manoeuvre, gap_scale, speed_margin, p):
    """Why a manoeuvre is unsafe (see `experts.safety`): SAFE, a result of `change_test`, TOO_FAST or CROSSING."""
    verdict = SAFE if manoeuvre == SLOWER else _check_lane(v, manoeuvre, gap_scale, speed_margin, p)
    if verdict == SAFE and v.conflict_count > 0:
        return CROSSING if clearance(v, manoeuvre, p)[0] < 0.0 else SAFE
    return verdict


@kernel
def _check_lane(v, manoeuvre, gap_scale, speed_margin, p):
    """`check_manoeuvre` of anything but braking, without conflicts."""
    speed = v.faster if manoeuvre == FASTER else v.idle
    if manoeuvre in (LEFT, RIGHT):
        exists = v.has_left if manoeuvre == LEFT else v.has_right
        verdict = enter(v, v.left if manoeuvre == LEFT else v.right, gap_scale, p)
        if exists or verdict == NOT_STEADY:
            return verdict
    return TOO_FAST if speed > allowed_speed(v, p) + speed_margin else SAFE


@kernel
def check_all(views, manoeuvres, gap_scale, speed_margin, params, out):
    """Which manoeuvres are unsafe, for many egos: `VIEW` (R,), int64 (A,) -> bool (R, A)."""
    for i in range(views.size):
        for a in range(manoeuvres.size):
            out[i, a] = check_manoeuvre(views[i], manoeuvres[a], gap_scale, speed_margin, params[0]) != SAFE
