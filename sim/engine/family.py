"""`Family`: what the engine must know of one family of environments to build batches of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sim.engine.batch import EnvBatch


@dataclass(frozen=True)
class Family:
    """A family of environments: its state layout, start, reward and end, behind two functions."""

    name: str
    kinds: tuple[str, ...]
    """Values of `Scenario.family` that it covers."""
    make: Callable[[Any, Any, int, int], EnvBatch]
    """(scenario, resolved config, number of environments, threads) -> their batch."""
    why_not: Callable[[Any], str | None] = lambda config: None
    """(resolved config) -> what in it the engine does not cover; None: it covers all."""
