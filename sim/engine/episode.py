"""What every family keeps of a running episode: fields of its environment record, and the kernels that update them."""

from __future__ import annotations

import math

from sim.compiled import kernel
from sim.engine.rng import STREAM
from sim.outcome import Outcome

RUNNING, SUCCESS, CRASH, MISSED = (int(outcome) for outcome in Outcome)

FIELDS = [
    ("reward", "f8"),  # of the last decision
    ("episode_return", "f8"),
    ("speed_sum", "f8"),  # m/s, over decisions
    ("distance", "f8"),  # m
    ("min_ttc", "f8"),  # s
    ("steps", "i8"),  # decisions
    ("lane_changes", "i8"),
    ("outcome", "i8"),  # `Outcome` after the last decision
    ("terminated", "?"),  # the task itself has ended
    ("truncated", "?"),  # a time limit outside the task has been reached; may come together with `terminated`
    ("stream", "u8", STREAM),  # PCG64 stream
]
"""Fields that the environment record of every family starts with."""


@kernel
def begin(env, ttc):
    """Start an episode in whose first state the time-to-collision is `ttc`."""
    env.reward = env.episode_return = env.speed_sum = env.distance = 0.0
    env.min_ttc = ttc
    env.steps = env.lane_changes = 0
    env.outcome = RUNNING
    env.terminated = env.truncated = False


@kernel
def count(env, speed, dx, dy, lane_changed, ttc):
    """Add one decision: speed and time-to-collision after it, displacement, and whether the lane changed."""
    env.steps += 1
    env.lane_changes += 1 if lane_changed else 0
    env.distance += math.sqrt(dx**2 + dy**2)
    env.speed_sum += speed
    env.min_ttc = min(env.min_ttc, ttc)


@kernel
def conclude(env, reward, crashed, passed, off_road, truncated, outcome_at_limit):
    """Set reward, outcome and flags of a decision.

    A crash counts before passing the end of the task (success), that before leaving the road (missed), and that before
    the time limit, whose outcome the family names.
    """
    env.reward = reward
    env.episode_return += reward
    env.terminated = crashed or passed or off_road
    env.truncated = truncated
    env.outcome = RUNNING
    if crashed:
        env.outcome = CRASH
    elif passed:
        env.outcome = SUCCESS
    elif off_road:
        env.outcome = MISSED
    elif truncated:
        env.outcome = outcome_at_limit
