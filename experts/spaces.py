"""Whether a policy or an expert fits the observations and actions of an environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from sim.actions import LONGITUDINAL, NUM_ACTIONS
from sim.errors import UsageError
from sim.view import no_manoeuvres


@dataclass(frozen=True)
class Spaces:
    """What one environment gives and takes."""

    observation_space: spaces.Space
    action_space: spaces.Space


def check_spaces(name: str, policy: Any, environment: Any, scenario: str) -> None:
    """Compare what a policy was trained on with what an environment gives and takes.

    Args:
        name: Of the policy, for the message.
        policy: Has `observation_space` and `action_space`, as models of Stable-Baselines3 do.
        environment: Has them too; those of one environment where it is vectorised.
        scenario: Its name, for the message.
    Raises:
        UsageError: Observations or actions are others.
    """
    if not same_form(policy.observation_space, environment.observation_space):
        raise UsageError(
            f"{name} was trained on observations {form(policy.observation_space)}, those of {scenario} are "
            f"{form(environment.observation_space)}: choose a scenario or observation settings like those of its "
            "training"
        )
    if not same_actions(policy.action_space, environment.action_space):
        raise UsageError(
            f"{name} was trained to choose actions {form(policy.action_space)}, those of {scenario} are "
            f"{form(environment.action_space)}: choose a scenario or action settings like those of its training"
        )


def require_observations(expert: str, shape: tuple[int, ...], space: spaces.Space, scenario: str) -> None:
    """Check the shape of the observations that an expert decides on.

    Args:
        expert: Its name, for the message.
        shape: What it takes.
        space: Of the observations of one environment.
        scenario: Name of the scenario, for the message.

    Raises:
        UsageError: The shape is another one.
    """
    if not isinstance(space, spaces.Box) or space.shape != shape:
        raise UsageError(
            f"expert {expert!r} takes observations of shape {shape}, those of {scenario!r} are {form(space)}: choose "
            "another expert or scenario"
        )


def require_box(expert: str, size: int | None, space: spaces.Space, scenario: str) -> None:
    """Check that actions are continuous and bounded, and how many numbers an action has.

    Args:
        expert: Its name, for the message.
        size: Numbers in an action; None: any.
        space: Of the actions of one environment.
        scenario: Name of the scenario, for the message.

    Raises:
        UsageError: The actions are others.
    """
    fits = isinstance(space, spaces.Box) and space.is_bounded() and (size is None or space.shape == (size,))
    if not fits:
        wanted = "bounded continuous actions" if size is None else f"continuous actions of shape ({size},)"
        raise UsageError(
            f"expert {expert!r} gives {wanted}, those of {scenario!r} are {form(space)}: choose another expert or "
            "scenario"
        )


def require_manoeuvres(space: spaces.Space, scenario: str) -> None:
    """Check that actions may be meta-actions.

    Args:
        space: Of the actions of one environment.
        scenario: Name of the scenario, for the message.

    Raises:
        UsageError: They are others.
    """
    if not isinstance(space, spaces.Discrete) or space.n not in (NUM_ACTIONS, len(LONGITUDINAL)):
        raise no_manoeuvres(scenario)


def same_form(one: spaces.Space, other: spaces.Space) -> bool:
    """Whether values of two spaces have the same structure and shape; bounds and element types may differ."""
    if isinstance(one, spaces.Dict) and isinstance(other, spaces.Dict):
        return one.keys() == other.keys() and all(same_form(one[key], other[key]) for key in one)
    if isinstance(one, spaces.Tuple) and isinstance(other, spaces.Tuple):
        return len(one) == len(other) and all(map(same_form, one, other))
    if isinstance(one, spaces.Box) and isinstance(other, spaces.Box):
        return one.shape == other.shape
    return one == other


def same_actions(one: spaces.Space, other: spaces.Space) -> bool:
    """Whether an action means the same in two spaces; types of numbers may differ."""
    if isinstance(one, spaces.Discrete) and isinstance(other, spaces.Discrete):
        return (one.n, one.start) == (other.n, other.start)
    if isinstance(one, spaces.Box) and isinstance(other, spaces.Box):
        return bool(np.array_equal(one.low, other.low) and np.array_equal(one.high, other.high))
    return one == other


def form(space: spaces.Space) -> str:
    """The structure and shape of a space, short."""
    if isinstance(space, spaces.Dict):
        return "{" + ", ".join(f"{key}: {form(part)}" for key, part in space.items()) + "}"
    if isinstance(space, spaces.Box):
        return f"of shape {space.shape}{_range(space)}"
    if isinstance(space, spaces.Discrete):
        return f"0 to {space.n - 1}"
    return str(space)


def _range(space: spaces.Box) -> str:
    """The bounds of a box where they are the same number everywhere."""
    low, high = np.unique(space.low), np.unique(space.high)
    alike = low.size == high.size == 1 and np.isfinite([low[0], high[0]]).all()
    return f" in [{low[0]:g}, {high[0]:g}]" if alike else ""
