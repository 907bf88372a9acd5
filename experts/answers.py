"""What experts that decide in one context at a time share."""

from __future__ import annotations

import numpy as np

import sim
from experts.provider import Context, Decision, Status
from sim.errors import UsageError


def legal_mask(context: Context) -> np.ndarray:
    """Legal actions: the context's mask, else the scene's, else all of a discrete action space.

    Args:
        context: Any.

    Returns:
        bool (A,).
    """
    if context.legal is not None:
        return np.asarray(context.legal, bool)
    if context.scene is not None:
        return np.asarray(context.scene.legal, bool)
    return np.ones(int(getattr(context.action_space, "n", 0)), bool)


def failed(reason: str) -> Decision:
    """A decision with the status FAILED.

    Args:
        reason: Why there is no action.
    """
    return Decision(action=None, status=Status.FAILED, reason=reason)


def require_discrete(expert: str, scenario: str) -> None:
    """Check that a scenario has discrete actions.

    Args:
        expert: Name of the expert, for the message.
        scenario: Name of the scenario.

    Raises:
        UsageError: Its actions are continuous.
    """
    kind = sim.get(scenario).actions
    if kind == "continuous":
        raise UsageError(
            f"expert {expert!r} chooses among meta-actions, scenario {scenario!r} has continuous actions: "
            "idm-continuous, idle, random, policy:PATH or a person (lgdrl play --drive) can drive there"
        )
