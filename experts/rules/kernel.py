"""The slot-aligning rule as pure functions on scalars, compiled by numba, so that batched kernels can call them too.

Speeds in m/s. Distances in m between the centres of 5 m cars (a longer car counts as nearer by its extra length),
always positive; an absent car is at infinity, an oncoming one has a negative speed. `p` is the record made by
`RuleConfig.record`. `decide` knows no left and right: "side" is the lane beside the one that the ego is steering to,
towards the goal.
"""

from __future__ import annotations

import math

from sim.compiled import kernel

CAR_LENGTH = 5.0

CLEAR, FRONT_GAP, REAR_GAP, FRONT_TTC, REAR_TTC, NOT_STEADY = range(6)
"""Answers of `change_test`: free to change, or the first test that failed."""


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
def decide(
    speed,
    next_speed,
    offset,
    lanes_to_go,
    ahead,
    ahead_speed,
    old,
    old_speed,
    front,
    front_speed,
    rear,
    rear_speed,
    braking,
    p,
):
    """The whole rule for a world with a goal lane.

    Args: ego speed; the set-point above it; metres from the centre of the lane it steers to; lanes from there to the
        goal lane; the car ahead there; the car ahead in the lane being left (inf unless the ego is still on it); the
        cars ahead and behind in the side lane; the ego's braking (m/s2).
    Returns: (change lane?, set-point steps -1 | 0 | 1, result of `change_test`, wanted speed).
    """
    wanted = min(safe_speed(ahead, ahead_speed, braking, p), safe_speed(old, old_speed, braking, p))
    verdict = NOT_STEADY
    if lanes_to_go > 0:
        verdict = change_test(speed, offset, front, front_speed, rear, rear_speed, braking, 1.0, p)
        if verdict == CLEAR:
            return True, 0, verdict, wanted
        wanted = min(wanted, slot_speed(front, front_speed, rear, rear_speed, p))
    wanted = min(wanted, p.fastest)
    return False, speed_step(speed, next_speed, wanted, p), verdict, wanted


@kernel
def cruise(speed, next_speed, offset, ahead, ahead_speed, old, old_speed, left, right, sides, top, braking, p):
    """The rule for a world without a goal lane: keep the safe speed, overtake where another lane allows clearly more.

    Args: as `decide`; `left` and `right` are (front, speed, rear, speed); `sides` says which of the two may be entered;
        `top` is the highest set-point. At equal gain the right lane is taken.
    Returns: (side -1 | 0 | 1, set-point steps, safe speed, speed that the best side lane allows).
    """
    allowed = min(safe_speed(ahead, ahead_speed, braking, p), safe_speed(old, old_speed, braking, p))
    own = min(allowed, top)
    best, best_speed = 0, own + p.overtake_gain
    for side in (-1, 1):
        lane = left if side < 0 else right
        if not (sides[0] if side < 0 else sides[1]):
            continue
        if change_test(speed, offset, lane[0], lane[1], lane[2], lane[3], braking, 1.0, p) == CLEAR:
            there = min(safe_speed(lane[0], lane[1], braking, p), top)
            if there >= best_speed:
                best, best_speed = side, there
    return best, 0 if best else speed_step(speed, next_speed, own, p), allowed, best_speed
