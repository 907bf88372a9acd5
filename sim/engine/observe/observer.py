"""`Observer`: what the engine must know of one type of highway-env observation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from sim.engine.records import Field

Settings = Mapping[str, Any]
"""`observation` of a resolved highway-env config."""


def no_table(config: Any) -> np.ndarray:
    return np.zeros((0, 0))


@dataclass(frozen=True)
class Observer:
    """One type of observation.

    The common ones are computed at the end of the kernel that simulates, while the state is in the processor's cache.
    The others (`serial`, `parallel`) are kernels of their own that run after it, and are compiled when first used:
    (envs, bodies, lanes, params, own, table, rows, out) fills rows of `out`, the buffer of the observations (N, rows,
    columns); `own` is a record of the type's parameters, in an array of one.
    """

    name: str
    """highway-env's name of the type."""
    space: Callable[[Any], spaces.Box | spaces.Dict]
    """(resolved config) -> the space that highway-env declares."""
    fields: Callable[[Any], dict[str, Field]]
    """(resolved config) -> parameters: of `own`, or of the shared ones without a kernel."""
    uncovered: Callable[[Settings], str | None] = lambda settings: None
    """What of the settings the engine does not cover; None: it covers all."""
    serial: Any = None
    parallel: Any = None
    """The same on several threads."""
    table: Callable[[Any], np.ndarray] = no_table
    """(resolved config) -> constants that the kernel reads, float64 (R, C)."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by name: an observer is code."""
        return _named, (self.name,)


def _named(name: str) -> Observer:
    from sim.engine.observe import OBSERVERS

    return OBSERVERS[name]
