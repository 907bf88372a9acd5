"""Observation and action spaces as JSON: what a file needs to say to have its space rebuilt without a pickle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from sim.errors import UsageError

LARGEST = 100_000_000
"""Most numbers that one value of a space may have."""


def space_to_json(space: spaces.Space) -> dict[str, Any]:
    """A Box or Discrete space as plain values for JSON.

    Args:
        space: The space.
    Raises:
        UsageError: It is of another kind.
    """
    if isinstance(space, spaces.Discrete):
        return {"type": "discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.Box):
        bounds = {"low": _bounds_to_json(space.low), "high": _bounds_to_json(space.high)}
        return {"type": "box", "dtype": str(space.dtype), "shape": list(space.shape), **bounds}
    raise UsageError(f"space {space} cannot be described in a file: only Box and Discrete ones can")


def space_from_json(values: Mapping[str, Any]) -> spaces.Space:
    """The space that `space_to_json` described.

    Args:
        values: Its plain values.
    Raises:
        UsageError: They describe none.
    """
    try:
        if values["type"] == "discrete":
            return spaces.Discrete(int(values["n"]), start=int(values["start"]))
        if values["type"] == "box":
            shape = tuple(int(size) for size in values["shape"])
            if any(size < 0 for size in shape) or math.prod(shape) > LARGEST:
                raise ValueError(f"shape {shape}")
            dtype = np.dtype(values["dtype"])
            if dtype.kind not in "fiub":
                raise ValueError(f"dtype {dtype}")
            low, high = (_bounds_from_json(values[name], shape, dtype) for name in ("low", "high"))
            return spaces.Box(low, high, shape, dtype.type)
    except (AssertionError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"{dict(values)!r:.200} describes no space ({error})") from None
    raise UsageError(f"space type {values['type']!r:.50} is neither 'box' nor 'discrete'")


def _bounds_to_json(bounds: np.ndarray) -> Any:
    """One number where all are equal. JSON has no infinity: it is written as a word."""
    if bounds.size and (bounds == bounds.flat[0]).all():
        return _number(bounds.flat[0])
    return [_number(value) for value in bounds.reshape(-1)]


def _number(value: Any) -> float | int | str:
    number = value.item()
    return number if math.isfinite(number) else str(number)


def _bounds_from_json(values: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    numbers = np.array([float(value) for value in values] if isinstance(values, list) else float(values))
    return np.broadcast_to(numbers, shape).astype(dtype) if numbers.ndim == 0 else numbers.reshape(shape).astype(dtype)
