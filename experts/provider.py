"""The policy-provider contract: anything that can advise or drive.

Rules, search, language models, people and trained policies all implement `PolicyProvider`. One call serves many scenes,
so that a provider can batch. A provider is asked for advice on states; whether the advice is executed, stored as a
label or ignored is the business of `lgdrl.guidance`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

import gymnasium as gym
import numpy as np

from sim.env import Branches
from sim.scene import Scene


class Status(StrEnum):
    """How a decision came about; every one of them is counted in the metrics."""

    OK = "ok"
    REPAIRED = "repaired"
    """The first answer was unusable; a second one was used."""
    VETOED = "vetoed"
    """The answer named an unavailable or unsafe action; the fallback provider decided."""
    FALLBACK = "fallback"
    """No usable answer (fault, budget, open circuit); the fallback provider decided."""
    LATE = "late"
    """The answer came after its deadline: a label for its own state, never executed on a later one."""
    FAILED = "failed"
    """Nobody decided: `action` is None."""


@dataclass(frozen=True, slots=True)
class Context:
    """One request for advice."""

    obs: np.ndarray
    """What the learner sees."""
    action_space: gym.Space
    scene: Scene | None = None
    """The traffic scene, on driving worlds."""
    legal: np.ndarray | None = None
    """bool (A,), discrete actions only."""
    episode: int = 0
    step: int = 0
    branch: Callable[[np.ndarray], Branches] | None = field(default=None, repr=False)
    """Exact roll-out of (P, H) plans from this state, where the world can copy itself. Privileged knowledge."""
    say: Callable[[str], None] | None = field(default=None, repr=False)
    """Called, from any thread, with the reason so far while the answer is on its way; None: nobody listens."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One piece of advice. `action` is an id (discrete), an array (continuous) or None (status FAILED)."""

    action: int | np.ndarray | None
    probs: np.ndarray | None = None
    """float (A,), sums to 1, zero on illegal actions; None when only the action is known."""
    confidence: float | None = None
    reason: str | None = None
    status: Status = Status.OK
    latency_s: float = 0.0
    tokens: int = 0
    cost: float = 0.0
    """In the currency of the configured price table."""


@runtime_checkable
class PolicyProvider(Protocol):
    """Anything that can advise or drive.

    Some have more: `close()`, `metrics()`, `state_dict()` with `load_state_dict()`, and `interrupt()`, which may be
    called from any thread when whoever waits for a decision wants to leave: what is under way then ends at once.
    `concurrent = True` says that `decide` may be called from several threads at once, and needs no `Context.branch`.
    """

    name: str

    def decide(self, contexts: Sequence[Context]) -> Sequence[Decision]:
        """One decision per context, in order. Never raises for a single bad answer: it says so in the status."""
        ...


def label_distributions(actions: np.ndarray, legal: np.ndarray, spread: float = 0.05) -> np.ndarray:
    """Bare labels as distributions: 1 - spread on the action, `spread` shared evenly over all legal actions.

    Args: int (R,) action ids; bool (R, A); share in [0, 1).
    Returns: float64 (R, A). Source: our p_E for a single label, (1 - eps) 1[a = u] + eps / |A_legal|.
    """
    probs = np.where(legal, spread / np.maximum(legal.sum(axis=1, keepdims=True), 1), 0.0)
    probs[np.arange(len(probs)), actions] += 1.0 - probs.sum(axis=1)
    return probs


def label_distribution(action: int, legal: np.ndarray, spread: float = 0.05) -> np.ndarray:
    """`label_distributions` of one label: action id, bool (A,) -> float64 (A,)."""
    return label_distributions(np.array([action]), np.asarray(legal)[None], spread)[0]
