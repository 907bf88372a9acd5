"""What comes of rolling continuous actions out from one exact state."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from sim.by_value import ByValue
from sim.errors import UsageError


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


def plans_of_continuous_actions(plans: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Sequences of continuous actions to roll out.

    Args:
        plans: Finite numbers, (P, H, D), at least one action.
        shape: Of one action, (D,).
    Returns:
        float32 (P, H, D).
    Raises:
        UsageError: Another shape, or numbers that are not finite.
    """
    try:
        values = np.asarray(plans, np.float32)
    except (TypeError, ValueError):
        values = np.zeros(0, np.float32)
    if values.ndim != 3 or not values.size or values.shape[2:] != shape or not np.isfinite(values).all():
        raise UsageError(f"plans of shape {values.shape}: expected finite numbers of shape (P, H, {shape[0]})")
    return values
