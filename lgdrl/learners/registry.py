"""Learners by name, found through the entry point group `lgdrl.learners` (each entry a `Learner`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from lgdrl.plugins import Registry

ActionType = Literal["discrete", "continuous"]


@dataclass(frozen=True)
class Learner:
    """A named learning algorithm."""

    name: str
    summary: str
    defaults: Any
    """An instance of its frozen config dataclass."""
    make: Callable[..., Any]
    """make(env, config, strategy, advisor, *, label_lag, seed, device) -> a `lgdrl.learners.guided.Guided` model; its
    class has SB3's `load`."""
    actions: tuple[ActionType, ...] = ("discrete",)
    """Action types that it learns."""
    on_policy: bool = False
    """Whether it has no replay buffer, so that methods which draw their own batches of experience do not fit."""
    num_envs: int | None = None
    """Environments of a run by default; None: as many as the scenario's simulator likes best."""


LEARNERS: Registry[Learner] = Registry("lgdrl.learners", "learner")
