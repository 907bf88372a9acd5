"""What comes of rolling continuous actions out from one exact state."""

from __future__ import annotations

import dataclasses

import numpy as np

from sim.by_value import ByValue


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Rollouts(ByValue):
    """Outcome of P action sequences of length H. One that ends early makes no more steps; its later rewards are 0."""

    rewards: np.ndarray
    """(P, H) float64"""
    steps: np.ndarray
    """(P,) int64: decisions made."""
    terminated: np.ndarray
    """(P,) bool: it reached a terminal state."""
    ended: np.ndarray
    """(P,) bool: it reached a terminal state or the time limit."""
    observations: np.ndarray
    """(P, ...): the last one of each, in the type of the observation space."""
