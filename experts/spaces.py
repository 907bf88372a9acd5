"""Whether a trained policy fits an environment."""

from __future__ import annotations

from typing import Any

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
            f"{name} takes observations {form(policy.observation_space)}, {scenario} gives "
            f"{form(environment.observation_space)}: choose a scenario or observation settings like those of its "
            "training"
        )
    if not same_form(policy.action_space, environment.action_space):
        raise UsageError(
            f"{name} chooses actions {form(policy.action_space)}, {scenario} takes {form(environment.action_space)}: "
            "choose a scenario or action settings like those of its training"
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


def form(space: spaces.Space) -> str:
    """The structure and shape of a space, short."""
    if isinstance(space, spaces.Dict):
        return "{" + ", ".join(f"{key}: {form(part)}" for key, part in space.items()) + "}"
    if isinstance(space, spaces.Box):
        return f"of shape {space.shape}"
    if isinstance(space, spaces.Discrete):
        return f"0 to {space.n - 1}"
    return str(space)
