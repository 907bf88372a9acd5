"""Integration methods by name, found through the entry point group `lgdrl.strategies` (each entry a `Method`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import numpy as np

from lgdrl.guidance.strategy import Strategy
from sim.errors import unknown

GROUP = "lgdrl.strategies"


@dataclass(frozen=True)
class Setting:
    """What a strategy may know of the run that it takes part in."""

    total_decisions: int
    label_budget: int | None
    """Most labels in the run; None: no limit."""
    seed: np.random.SeedSequence
    """For its own random draws."""
    demonstrated: bool = False
    """Whether recorded demonstrations are in the replay from the start."""


@dataclass(frozen=True)
class Method:
    """A named way of learning with an expert. `defaults` is an instance of its frozen config dataclass."""

    name: str
    summary: str
    defaults: Any
    build: Callable[[Any, Setting], Strategy]
    """(resolved config, setting) -> strategy"""
    needs_expert: bool = True


def available() -> dict[str, EntryPoint]:
    """All methods by name; nothing is imported yet."""
    return {entry.name: entry for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name)}


def get(name: str) -> Method:
    """The method registered under `name`; UsageError with a suggestion otherwise."""
    found = available()
    if name not in found:
        raise unknown("strategy", name, found)
    return found[name].load()
