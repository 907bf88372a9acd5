"""The actions of an engine environment: their space, what is accepted, and what kernels read of them.

Kernels get every action as an id and a row of numbers, so that they are compiled once for all kinds of actions: ids
int64 (N,), `NONE` where actions are continuous, and controls float64 (N, `CONTROLS`). The arithmetic is that of
highway-env (highway-env 1.12, `envs/common/action.py`), single precision included.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from sim.actions import (
    FULL,
    LATERAL,
    LONGITUDINAL,
    MetaAction,
    batch_of_actions,
    batch_of_continuous_actions,
    continuous_action,
    one_action,
    plans_of_actions,
    plans_of_continuous_actions,
)
from sim.kinematics import MAX_SPEED

NONE = -1
"""The id of an action that has none."""
ACCELERATION, STEERING, GIVEN, GIVEN_SECOND = range(4)
CONTROLS = 4
"""Columns of controls: m/s2 and rad that the ego is driven with (0 for meta-actions), then the action as it was given:
its components, or its id."""
MDP, PLAIN, BICYCLE = range(3)
"""What an ego is: highway-env's `MDPVehicle` with meta-actions, a `Vehicle` or a `BicycleVehicle` with controls."""
ACCELERATIONS = (-5.0, 5.0)
STEERINGS = (-np.pi / 4, np.pi / 4)
"""Default ranges of highway-env, m/s2 and rad."""


class Actions(ABC):
    """The actions of one kind of environment."""

    width: int
    """Entries of a mask of legal actions: how many discrete actions there are, or components of a continuous one."""

    @abstractmethod
    def space(self) -> spaces.Discrete | spaces.Box:
        """A new space of one action, with a random stream of its own."""

    @abstractmethod
    def one(self, action: Any) -> np.ndarray:
        """An action as a batch of one; UsageError where the space does not hold it."""

    @abstractmethod
    def batch(self, actions: Any, num_envs: int) -> np.ndarray:
        """One action for each environment, (N, ...); UsageError where the space does not hold them."""

    @abstractmethod
    def plans(self, plans: Any) -> np.ndarray:
        """Sequences of actions, (P, H, ...); UsageError where the space does not hold them."""

    @abstractmethod
    def for_kernels(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(ids, controls) of what `batch` returned."""


class DiscreteActions(Actions):
    """Actions by number."""

    def __init__(self, controls: np.ndarray) -> None:
        """Name what each action means to the kernels: float64 (A, CONTROLS)."""
        self.controls = controls
        self.width = len(controls)

    def space(self) -> spaces.Discrete:
        return spaces.Discrete(self.width)

    def one(self, action: Any) -> np.ndarray:
        return np.array([one_action(action, self.width)])

    def batch(self, actions: Any, num_envs: int) -> np.ndarray:
        return batch_of_actions(actions, num_envs, self.width)

    def plans(self, plans: Any) -> np.ndarray:
        return plans_of_actions(plans, self.width)

    def for_kernels(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return actions, self.controls.take(actions, axis=0)


class ContinuousActions(Actions):
    """Acceleration, steering, or both, each in [-1, 1]."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Take the settings of a highway-env ContinuousAction."""
        self._columns: list[tuple[int, Any]] = []
        if settings.get("longitudinal", True):
            self._columns.append((ACCELERATION, settings.get("acceleration_range") or ACCELERATIONS))
        if settings.get("lateral", True):
            self._columns.append((STEERING, settings.get("steering_range") or STEERINGS))
        self._clip = settings.get("clip", True)
        self.width = len(self._columns)

    def space(self) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (self.width,), np.float32)

    def one(self, action: Any) -> np.ndarray:
        return continuous_action(action, (self.width,))[None]

    def batch(self, actions: Any, num_envs: int) -> np.ndarray:
        return batch_of_continuous_actions(actions, num_envs, (self.width,))

    def plans(self, plans: Any) -> np.ndarray:
        return plans_of_continuous_actions(plans, (self.width,))

    def for_kernels(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        controls = np.zeros((len(actions), CONTROLS))
        controls[:, GIVEN : GIVEN + self.width] = actions
        bounded = np.clip(actions, -1, 1) if self._clip else actions
        for k, (column, (low, high)) in enumerate(self._columns):
            controls[:, column] = low + (bounded[:, k] - -1) * (high - low) / (1 - -1)  # in single precision
        return np.full(len(actions), NONE), controls


def meta_actions(settings: Mapping[str, Any]) -> tuple[MetaAction, ...]:
    """What the action ids of a highway-env config's `action` mean; () where they are no meta-actions."""
    if settings["type"] != "DiscreteMetaAction":
        return ()
    longitudinal, lateral = settings.get("longitudinal", True), settings.get("lateral", True)
    return FULL if longitudinal and lateral else LONGITUDINAL if longitudinal else LATERAL


def choice_of(count: int) -> DiscreteActions:
    """Actions by number, with no controls."""
    controls = np.zeros((count, CONTROLS))
    controls[:, GIVEN] = np.arange(count)
    return DiscreteActions(controls)


def _meta(settings: Mapping[str, Any]) -> Actions:
    return choice_of(len(meta_actions(settings)))


def _grid(settings: Mapping[str, Any]) -> Actions:
    """highway-env's DiscreteAction: evenly spaced values on every axis, the last axis running fastest."""
    continuous = ContinuousActions(settings)
    space = continuous.space()
    axes = np.linspace(space.low, space.high, settings.get("actions_per_axis", 3)).T
    _, controls = continuous.for_kernels(np.array(list(itertools.product(*axes)), np.float32))
    controls[:, GIVEN], controls[:, GIVEN_SECOND] = np.arange(len(controls)), 0.0
    return DiscreteActions(controls)


KINDS = {"DiscreteMetaAction": _meta, "ContinuousAction": ContinuousActions, "DiscreteAction": _grid}
"""Makers of `Actions` by highway-env's types."""


def uncovered(settings: Mapping[str, Any]) -> str | None:
    """What of a resolved config's `action` the engine does not cover; None: it covers all."""
    return None if settings["type"] in KINDS else f"action type {settings['type']}"


def actions_of(settings: Mapping[str, Any]) -> Actions:
    """The actions of a resolved highway-env config's `action`."""
    return KINDS[settings["type"]](settings)


def ego_kind(settings: Mapping[str, Any]) -> int:
    """What drives by such actions: MDP, PLAIN or BICYCLE."""
    if settings["type"] == "DiscreteMetaAction":
        return MDP
    return BICYCLE if settings.get("dynamical", False) else PLAIN


def speed_range(settings: Mapping[str, Any]) -> tuple[float, float]:
    """m/s beyond which the ego is not accelerated; highway-env's DiscreteAction and meta-actions leave it as it is."""
    chosen = settings.get("speed_range") if settings["type"] == "ContinuousAction" else None
    return tuple(chosen) if chosen else (-MAX_SPEED, MAX_SPEED)
