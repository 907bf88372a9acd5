"""Trained policies as experts: `policy:PATH`, where PATH is a model that Stable-Baselines3 saved.

Any object with SB3's `predict` is a provider here. `experts.sb3_zip` reads the zips.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Space

from experts.provider import Context, Decision, PolicyProvider, Status
from experts.spaces import Spaces, check_spaces, form, same_actions
from sim.errors import UsageError

Probabilities = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(observations (R, ...), legal actions bool (R, A)) -> float (R, A)."""


class LearnedPolicy(PolicyProvider):
    """A trained policy as an expert: the greedy action.

    Args:
        name: Its name in tables and logs.
        model: Has SB3's `predict`, `observation_space` and `action_space`.
        probabilities: Its distribution over legal actions, from which the greedy legal action is taken; None: `predict`
            chooses, and an illegal choice counts as no decision.
    """

    def __init__(self, name: str, model: Any, probabilities: Probabilities | None = None) -> None:
        self.name, self.model, self.probabilities = name, model, probabilities

    def check_spaces(self, observation_space: Space, action_space: Space, scenario: str) -> None:
        check_spaces(f"expert {self.name!r}", self.model, Spaces(observation_space, action_space), scenario)

    def decide(self, contexts: Sequence[Context]) -> list[Decision]:
        """See `PolicyProvider`.

        Raises:
            UsageError: Observations or actions are not those that the policy was trained on.
        """
        if not contexts:
            return []
        started = time.perf_counter()
        self._check(contexts[0])
        obs = np.stack([context.obs for context in contexts])
        legal = [context.legal for context in contexts]
        if self.probabilities is not None:
            masks = np.stack([self._mask(context) for context in contexts])
            probs = self.probabilities(obs, masks)
            share = (time.perf_counter() - started) / len(contexts)
            return [Decision(int(row.argmax()), row, float(row.max()), latency_s=share) for row in probs]
        actions, _ = self.model.predict(obs, deterministic=True)
        share = (time.perf_counter() - started) / len(contexts)
        return [self._decision(action, mask, share) for action, mask in zip(actions, legal, strict=True)]

    def _mask(self, context: Context) -> np.ndarray:
        return np.ones(int(self.model.action_space.n), bool) if context.legal is None else context.legal

    def _decision(self, action: Any, legal: np.ndarray | None, latency_s: float) -> Decision:
        if np.ndim(action):
            return Decision(np.asarray(action, np.float32), latency_s=latency_s)
        if legal is not None and not legal[int(action)]:
            reason = f"the policy chose action {int(action)}, which is not legal here"
            return Decision(None, reason=reason, status=Status.FAILED, latency_s=latency_s)
        return Decision(int(action), latency_s=latency_s)

    def _check(self, context: Context) -> None:
        shape, expected = np.shape(context.obs), self.model.observation_space.shape
        if shape != expected:
            raise UsageError(
                f"expert {self.name!r} takes observations of shape {expected}, this scenario gives {shape}"
            )
        mine, theirs = self.model.action_space, context.action_space
        if not same_actions(mine, theirs):
            raise UsageError(
                f"expert {self.name!r} was trained to choose actions {form(mine)}, those of this scenario are "
                f"{form(theirs)}"
            )
