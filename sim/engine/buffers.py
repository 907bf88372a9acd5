"""Buffers of observations: one array that kernels fill, and the shapes of the observation space as views of it."""

from __future__ import annotations

import math

import numpy as np
from gymnasium import spaces

Observations = np.ndarray | dict[str, np.ndarray]
"""Of one environment or of many, the environment being the first axis then; by key in Dict spaces."""


def flat_buffer(space: spaces.Box | spaces.Dict, num_envs: int) -> np.ndarray:
    """An empty buffer for the observations of N environments.

    Args:
        space: Observation space of one environment; the parts of a Dict space are Boxes of one dtype.
        num_envs: N.
    Returns:
        Zeros (N, rows, columns) of the space's dtype: all but the last axis of a Box as rows; the numbers of a Dict
        space one after the other in the order of its keys, as one row.
    """
    if isinstance(space, spaces.Dict):
        parts = space.spaces.values()
        (dtype,) = {part.dtype for part in parts}
        return np.zeros((num_envs, 1, sum(math.prod(part.shape or ()) for part in parts)), dtype)
    return np.zeros((num_envs, math.prod(space.shape[:-1]), space.shape[-1]), space.dtype)


def shaped(space: spaces.Box | spaces.Dict, flat: np.ndarray) -> Observations:
    """The observations in a buffer, in the form of their space.

    Args:
        space: Observation space of one environment.
        flat: Its `flat_buffer` (N, rows, columns).
    Returns:
        Views of the buffer, (N, ...), by key for a Dict space.
    """
    if isinstance(space, spaces.Box):
        return flat.reshape(len(flat), *space.shape)
    views, start = {}, 0
    for key, part in space.spaces.items():
        shape = part.shape or ()
        end = start + math.prod(shape)
        views[key] = flat[:, 0, start:end].reshape(len(flat), *shape)
        start = end
    return views


def copied(observations: Observations, row: int | None = None) -> Observations:
    """A copy of observations that share memory with a buffer.

    Args:
        observations: Of N environments, as from `shaped`.
        row: One environment; None: all.
    Returns:
        Arrays of their own.
    """
    if isinstance(observations, dict):
        return {key: part.copy() if row is None else part[row].copy() for key, part in observations.items()}
    return observations.copy() if row is None else observations[row].copy()
