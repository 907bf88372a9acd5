"""Meta-actions, the five decisions of a highway driver with highway-env's ids; and what environments accept."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np

from sim.errors import UsageError


class MetaAction(IntEnum):
    """Ids as in highway-env's DiscreteMetaAction. "Right" is the higher lane index."""

    LANE_LEFT = 0
    IDLE = 1
    LANE_RIGHT = 2
    FASTER = 3
    SLOWER = 4


NUM_ACTIONS = len(MetaAction)
FULL = tuple(MetaAction)
LONGITUDINAL = (MetaAction.SLOWER, MetaAction.IDLE, MetaAction.FASTER)
LATERAL = (MetaAction.LANE_LEFT, MetaAction.IDLE, MetaAction.LANE_RIGHT)
"""What action ids mean, by the kinds of manoeuvre that an environment offers (highway-env's `ACTIONS_*`)."""


def legal_mask(lane: int, num_lanes: int, speed_index: int, num_speeds: int) -> np.ndarray:
    """Which meta-actions change something, by highway-env's `get_available_actions` rule.

    Args:
        lane: Present lane index, 0 leftmost.
        num_lanes: Lanes of the road.
        speed_index: Set-point in force.
        num_speeds: Set-points.
    Returns:
        bool (5,) by action id; IDLE is always legal.
    """
    return np.array([lane > 0, True, lane < num_lanes - 1, speed_index < num_speeds - 1, speed_index > 0])


# --- what environments of every kind accept ---------------------------------------------------------------------------


def one_action(action: Any, count: int) -> int:
    """The id of one discrete action, an integer or an integer array of one element.

    Args:
        action: What was given.
        count: Number of actions A.
    Returns:
        The id, 0 to A - 1.
    Raises:
        UsageError: It is no integer (floats and bools are not), or outside the range.
    """
    if type(action) in (int, np.int64) and 0 <= action < count:
        return int(action)
    number = np.asarray(action)
    if number.size != 1 or number.dtype.kind not in "iu" or not 0 <= number.item() < count:
        shown = number.item() if number.size == 1 else action
        raise UsageError(f"action {shown!r}: actions are the integers 0 to {count - 1}")
    return int(number.item())


def batch_of_actions(actions: Any, num_envs: int, count: int) -> np.ndarray:
    """One discrete action for each of N environments.

    Args:
        actions: Integers, (N,) or (N, 1).
        num_envs: N.
        count: Number of actions A.
    Returns:
        int64 (N,), contiguous.
    Raises:
        UsageError: Another number of actions, or one that `one_action` refuses.
    """
    values = np.asarray(actions)
    if values.size != num_envs or values.shape[:1] != (num_envs,):
        raise UsageError(f"actions of shape {values.shape}: give one to each of {num_envs} environments")
    if values.dtype.kind not in "iu":
        for value in values.ravel():
            one_action(value, count)
    numbers = np.ascontiguousarray(values.reshape(num_envs), np.int64)
    if numbers.view(np.uint64).max() >= count:  # negative ones count as huge
        for value in values.ravel():
            one_action(value, count)
    return numbers


def plans_of_actions(plans: Any, count: int) -> np.ndarray:
    """Sequences of discrete actions to roll out.

    Args:
        plans: Integers, (P, H), at least one.
        count: Number of actions A.
    Returns:
        int64 (P, H), contiguous.
    Raises:
        UsageError: Another shape or type, or an action that does not exist.
    """
    values = np.asarray(plans)
    if values.ndim != 2 or not values.size or values.dtype.kind not in "iu":
        raise UsageError(f"plans of shape {values.shape} and type {values.dtype}: expected integers of shape (P, H)")
    if values.min() < 0 or values.max() >= count:
        raise UsageError(f"plans hold actions {values.min()} to {values.max()}: expected 0 to {count - 1}")
    return np.ascontiguousarray(values, np.int64)


def continuous_action(action: Any, shape: tuple[int, ...]) -> np.ndarray:
    """One continuous action.

    Args:
        action: Finite numbers of that shape; those outside [-1, 1] are clipped by the simulator.
        shape: (D,)
    Returns:
        float32 (D,)
    Raises:
        UsageError: Another shape, or not all finite numbers.
    """
    try:
        values = np.array(action, dtype=np.float32)
    except (TypeError, ValueError):
        values = np.full(0, np.nan, np.float32)
    if values.shape != shape or not np.isfinite(values).all():
        raise UsageError(f"action {action!r}: expected finite numbers of shape {shape} in [-1, 1]")
    return values


def batch_of_continuous_actions(actions: Any, num_envs: int, shape: tuple[int, ...]) -> np.ndarray:
    """One continuous action for each of N environments.

    Args:
        actions: Finite numbers (N, D).
        num_envs: N.
        shape: Of one action, (D,).
    Returns:
        float32 (N, D), contiguous.
    Raises:
        UsageError: Another number of actions, or one that `continuous_action` refuses.
    """
    if len(actions) != num_envs:
        raise UsageError(f"{len(actions)} actions: give one to each of {num_envs} environments")
    try:
        values = np.ascontiguousarray(actions, np.float32)
    except (TypeError, ValueError):
        values = np.zeros(0, np.float32)
    if values.shape != (num_envs, *shape) or not np.isfinite(values).all():
        values = np.stack([continuous_action(action, shape) for action in actions])
    return values


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
