"""Whether a trained policy fits an environment."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from sim.errors import UsageError


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
