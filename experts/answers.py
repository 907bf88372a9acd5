"""What experts that look at one context at a time share."""

from __future__ import annotations

import numpy as np

import sim
from experts.provider import Context, Decision, Status
from sim.errors import UsageError


def legal_mask(context: Context) -> np.ndarray:
    """bool (A,): the context's mask, else the scene's, else everything that the action space has."""
    if context.legal is not None:
        return np.asarray(context.legal, bool)
    if context.scene is not None:
        return np.asarray(context.scene.legal, bool)
    return np.ones(int(getattr(context.action_space, "n", 0)), bool)


def failed(reason: str) -> Decision:
    """Nobody decided, and why."""
    return Decision(action=None, status=Status.FAILED, reason=reason)


def require_discrete(expert: str, scenario: str) -> None:
    """UsageError where `scenario` is not driven by discrete actions."""
    kind = sim.get(scenario).actions
    if kind == "continuous":
        raise UsageError(
            f"expert {expert!r} chooses among meta-actions, scenario {scenario!r} has continuous actions: "
            "choose another expert or scenario"
        )
