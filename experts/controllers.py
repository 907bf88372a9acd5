"""Experts on observations with continuous actions: what controllers, linear policies and perceptrons share.

A `Controller` maps observation vectors to actions. It needs no scene, and nothing but the observation and the number of
decisions made in the episode, so that it has no state of its own.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Collection, Sequence

import numpy as np
from gymnasium import spaces

from experts.answers import failed
from experts.provider import Context, Decision, PolicyProvider
from experts.spaces import require_box, require_observations
from sim.errors import UsageError


class Controller(PolicyProvider):
    """A deterministic provider for observations of shape (D,) and continuous actions of shape (M,)."""

    observation_size: int
    """D"""
    action_size: int
    """M"""

    @abstractmethod
    def control(self, obs: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Choose actions; what is beyond the range of the actions is cut off.

        Args:
            obs: Observations, float64 (R, D), finite.
            steps: Decisions made in the episode so far, int (R,).

        Returns:
            Actions, float (R, M).
        """

    def check_spaces(self, observation_space: spaces.Space, action_space: spaces.Space, scenario: str) -> None:
        require_observations(self.name, (self.observation_size,), observation_space, scenario)
        require_box(self.name, self.action_size, action_space, scenario)

    def decide(self, contexts: Sequence[Context]) -> list[Decision]:
        """See `PolicyProvider`. FAILED where an observation is not finite.

        Raises:
            UsageError: Observations or actions have another shape.
        """
        if not contexts:
            return []
        started = time.perf_counter()
        space = contexts[0].action_space
        require_box(self.name, self.action_size, space, "this environment")
        assert isinstance(space, spaces.Box)
        obs = np.stack([np.asarray(context.obs, np.float64) for context in contexts])
        if obs.shape[1:] != (self.observation_size,):
            raise UsageError(
                f"expert {self.name!r} takes observations of shape ({self.observation_size},), this environment gives "
                f"{obs.shape[1:]}: choose another expert or scenario"
            )
        finite: np.ndarray = np.asarray(np.isfinite(obs).all(axis=1))
        steps = np.array([context.step for context in contexts])
        actions = self.control(np.where(finite[:, None], obs, 0.0), steps)
        actions = np.clip(actions, space.low, space.high).astype(np.float32)
        share = (time.perf_counter() - started) / len(contexts)
        return [
            Decision(action, latency_s=share) if sound else failed("the observation is not finite")
            for action, sound in zip(actions, finite, strict=True)
        ]


def environment_of(scenario: str) -> str:
    """The gymnasium id in the name of a scenario: Swimmer-v5 of `gym:Swimmer-v5` and of `mujoco:Swimmer-v5`.

    Args:
        scenario: Its name; one without a colon is returned as it is.
    """
    return scenario.partition(":")[2] or scenario


def require_environment(expert: str, scenario: str, known: Collection[str]) -> str:
    """Check that an expert was made for the environment of a scenario.

    Args:
        expert: Its name, for the message.
        scenario: Name of the scenario.
        known: Ids of the environments that it was made for.

    Returns:
        The environment's id.

    Raises:
        UsageError: It was made for others.
    """
    found = environment_of(scenario)
    if found not in known:
        raise UsageError(
            f"expert {expert!r} controls {' and '.join(known)}, not {scenario!r}: choose another expert or scenario"
        )
    return found
