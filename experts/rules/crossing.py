"""Speed at conflicts (`sim.conflicts`), as compiled functions on views.

A manoeuvre is judged by what may follow it: the ego keeps the speed, brakes or accelerates from the next decision on,
and each of these is rolled out against the times at which the other cars are in the conflicts. What counts is the
clearance: how far, at the worst moment, one of the two stays out of the stretch that they share. A car may be some way
ahead of or behind where its present speed would bring it. Cars whose paths join may be in the stretch together, one
behind the other. `p` is the record made by `RuleConfig.record`; SI units.
"""

from __future__ import annotations

import math

import numpy as np

from experts.rules.constants import FASTER, IDLE, SLOWER
from sim.compiled import kernel
from sim.sizes import CAR_LENGTH

SPEED_LAG = 0.6
"""s, time constant with which an ego takes up a set-point (highway-env's `TAU_ACC`)."""
SLOW = 1.0
"""m/s at the end of a roll-out under which the ego has stopped: to stop where roads cross is no way out."""
SIDE_WORDS = {-1: "left", 1: "right"}
TICK = 0.1
"""s between the moments at which clearance is measured."""


@kernel
def aimed_speed(v, manoeuvre, speed):
    """The set-point that a manoeuvre leads to at a speed; all but SLOWER and FASTER keep the one in force."""
    if v.step == 0.0 or manoeuvre not in (SLOWER, FASTER):
        return v.idle
    nearest = v.lowest + round((speed - v.lowest) / v.step) * v.step
    aim = nearest + v.step if manoeuvre == FASTER else nearest - v.step
    return min(max(aim, v.lowest), v.highest)


@kernel
def clearance_at(c, gone, t, p):
    """m by which the ego, `gone` m from here, and the car of one conflict miss each other in t s; negative: they meet.

    Args:
        c: `CONFLICT`.
        gone: m.
        t: s.
        p: Parameters.
    """
    doubt = p.conflict_doubt * t
    farthest = c.speed * t + min(doubt, 0.5 * p.conflict_start * t * t)
    least = c.speed * t - min(doubt, c.speed * t)
    clear = max(c.begin - gone, gone - c.end, c.near - farthest, least - c.far)
    if c.joins:
        clear = max(clear, least - c.shift - gone - CAR_LENGTH, gone - farthest + c.shift - CAR_LENGTH)
    return clear


@kernel
def roll_out(v, manoeuvre, then, p):
    """The least clearance of a speed manoeuvre that is followed by another one for good, in m, and at which conflict.

    Args:
        v: One row of `VIEW`.
        manoeuvre: Any; lane changes keep the speed.
        then: SLOWER, IDLE or FASTER.
        p: Parameters.
    """
    speed, gone, least, where = v.speed, 0.0, math.inf, 0
    aim = aimed_speed(v, manoeuvre, speed)
    decision = 1
    for tick in range(1, int(p.conflict_horizon / TICK) + 1):
        t = tick * TICK
        speed += (aim - speed) * (TICK / SPEED_LAG)
        gone += speed * TICK
        if t >= decision * v.period - 0.5 * TICK:
            decision += 1
            if then != IDLE:
                aim = aimed_speed(v, then, speed)
        if t > p.conflict_reaction:
            for k in range(v.conflict_count):
                clear = clearance_at(v.conflicts[k], gone, t, p)
                if clear < least:
                    least, where = clear, k
    for k in range(v.conflict_count if speed < SLOW else 0):
        clear = max(v.conflicts[k].box_begin - gone, gone - v.conflicts[k].box_end)
        if clear < least:
            least, where = clear, k
    return least, where


@kernel
def clearance(v, manoeuvre, p):
    """The least clearance of a speed manoeuvre with the best of its continuations, in m, and at which conflict.

    Without conflicts: inf and 0.
    """
    best, where = (math.inf if v.conflict_count == 0 else -math.inf), 0
    for then in (SLOWER, IDLE, FASTER):
        if v.conflict_count > 0:
            clear, k = roll_out(v, manoeuvre, then, p)
            if clear > best:
                best, where = clear, k
    return best, where


def conflict_words(c: np.record) -> str:
    """What the car of a conflict does, e.g. "a car from the left reaches the ego's path in 1.8 s".

    Args:
        c: `CONFLICT`.
    """
    side = SIDE_WORDS[int(c["side"])]
    if c["enter"] == math.inf:
        return f"a car standing on the {side} is about to enter the ego's path"
    if c["enter"] <= 0.0:
        return f"a car from the {side} is in the ego's path"
    return f"a car from the {side} reaches the ego's path in {c['enter']:.1f} s"


@kernel
def give_way(v, legal, chosen, p):
    """The speed manoeuvre that gives way where that is needed; lanes are not changed while there are conflicts.

    Args:
        v: One row of `VIEW`.
        legal: bool (5,) by manoeuvre.
        chosen: What the rule does without conflicts: what this chooses is not faster, unless nothing slower is clear.
        p: Parameters.

    Returns:
        `chosen`, or another of SLOWER, IDLE and FASTER.
    """
    if v.conflict_count == 0:
        return chosen
    wish = chosen if chosen in (SLOWER, FASTER) else IDLE
    best, best_clearance = chosen, -math.inf
    for manoeuvre in (FASTER, IDLE, SLOWER):
        if not legal[manoeuvre]:
            continue
        clear = clearance(v, manoeuvre, p)[0]
        slower = wish == FASTER or manoeuvre == SLOWER or (wish == IDLE and manoeuvre == IDLE)
        if clear >= p.conflict_room:
            if slower:
                return manoeuvre
            clear = p.conflict_room
        if clear > best_clearance:
            best, best_clearance = manoeuvre, clear
    return best
