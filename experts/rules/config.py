"""Numbers of the slot-aligning rule."""

from __future__ import annotations

import functools
import math
from dataclasses import astuple, fields
from typing import Any

import numpy as np

from sim.bounds import NonNegative, Number, Positive, config_dataclass


@config_dataclass
class RuleConfig:
    """Found by a cross-entropy search over the rule's structure on `lane-change` at 25 vehicles/km/lane.

    Those of conflicts by a grid search on intersection-v0.

    Distances between centres of 5 m cars, in m; times in s; speeds in m/s.
    """

    reaction: Positive = 0.53  # s before the ego's braking takes effect
    front_distance: Positive = 7.7  # m to the car ahead that are never used up (2.7 m between bumpers)
    front_braking: Positive = 0.8745  # braking of the car ahead over the ego's (2.02 / 2.31 m/s2)
    front_time: Positive = 0.34  # s of closing speed that a change needs ahead on top of the braking distance
    rear_distance: Positive = 6.5  # m behind that a change always needs
    # m/s2, what a car behind is trusted to brake (measured limit of the published traffic)
    rear_braking: Positive = 2.0
    rear_time: Positive = 0.10  # s of closing speed that a change needs behind on top of that car's braking distance
    front_ttc: Positive = 3.65  # s, bumper to bumper, that a change needs ahead
    rear_ttc: Positive = 3.85  # s, bumper to bumper, that a change needs behind
    steady_offset: Positive = 1.37  # m from the lane's centre within which the next change may start
    old_lane_reach: Positive = 3.0  # m from its centre within which the lane being left still counts
    slot_length: Positive = 19.2  # m between the two cars of a slot that is worth aligning with
    slot_share: Positive = 0.66  # share of the slot's slack that is wanted behind the ego
    open_slot: Positive = 40.0  # m to an absent car of a slot (the mean spacing)
    align_gain: Positive = 0.43  # 1/s, speed per metre of misalignment
    drop_back: Positive = 4.2  # m/s below the slower car when the slot is too short
    slowest: Positive = 8.5  # m/s, aligning never asks for less
    fastest: Positive = 23.5  # m/s, in an environment with a goal lane
    brake_margin: Positive = 0.60  # m/s above the wanted speed at which to brake (half a set-point)
    accelerate_margin: Positive = 0.16  # m/s that the next set-point may exceed the wanted speed
    overtake_gain: Positive = 2.0  # m/s that a lane must allow beyond the present one, without a goal lane
    conflict_room: Number = 0.7  # m that the ego and a crossing car must miss each other by
    conflict_doubt: NonNegative = 0.3  # m/s by which a crossing car may be faster or slower than it is now
    conflict_start: Positive = 3.0  # m/s2 at which it may become faster
    conflict_horizon: Positive = 4.5  # s of look-ahead
    conflict_reaction: NonNegative = 0.3  # s from now that nothing can be done about

    def record(self) -> np.ndarray:
        """The numbers as one record for the compiled functions, in an array of one."""
        return as_record(self)


@functools.cache
def as_record(config: Any) -> np.ndarray:
    """A frozen dataclass of numbers as one record of float64 fields, in an array of one; None becomes NaN."""
    dtype = np.dtype([(field.name, "f8") for field in fields(config)])
    values = [math.nan if value is None else float(value) for value in astuple(config)]
    return np.array([tuple(values)], dtype)
