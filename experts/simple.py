"""Baselines that need no scene: one constant manoeuvre, pedals and steering at rest, or a random legal action."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

import sim
from experts.answers import failed, legal_mask, require_discrete
from experts.provider import Context, Decision, PolicyProvider
from experts.spaces import form, require_box
from experts.views import Choice, Requests, ViewExpert
from sim.actions import MetaAction
from sim.config import NoOptions, resolve
from sim.errors import UsageError


class ConstantExpert(ViewExpert):
    """Always the same manoeuvre; IDLE where that is not legal or does not exist."""

    def __init__(self, name: str, manoeuvre: MetaAction) -> None:
        self.name = name
        self.manoeuvre = manoeuvre

    def choose(self, requests: Requests) -> Choice:
        return Choice(np.full(len(requests.views), int(self.manoeuvre)), lambda k: None)


class RestExpert(PolicyProvider):
    """Pedals and steering at rest: the middle of every continuous action."""

    name = "idle"

    def check_spaces(self, observation_space: spaces.Space, action_space: spaces.Space, scenario: str) -> None:
        if not isinstance(action_space, spaces.Box):
            raise UsageError(
                f"expert 'idle' of {scenario!r} rests the controls of continuous actions, these are "
                f"{form(action_space)}: choose another expert"
            )

    def decide(self, contexts: Sequence[Context]) -> list[Decision]:
        return [self._answer(context.action_space) for context in contexts]

    def _answer(self, space: spaces.Space) -> Decision:
        if not isinstance(space, spaces.Box):
            return failed("pedals and steering belong to continuous actions")
        return Decision(np.clip(np.zeros(space.shape, np.float32), space.low, space.high))


class RandomExpert(PolicyProvider):
    """A uniformly random legal action, also a continuous one.

    Its random stream advances with every context of any environment.
    """

    name = "random"

    def __init__(self, seed: int = 0, report_probs: bool = True) -> None:
        """Start the random stream.

        Args:
            seed: Of the stream.
            report_probs: Decisions hold the uniform distribution, not the action alone.
        """
        self._rng = np.random.default_rng(seed)
        self._report_probs = report_probs

    def check_spaces(self, observation_space: spaces.Space, action_space: spaces.Space, scenario: str) -> None:
        if not isinstance(action_space, spaces.Discrete):
            require_box(self.name, None, action_space, scenario)

    def decide(self, contexts: Sequence[Context]) -> list[Decision]:
        return [self._answer(context) for context in contexts]

    def _answer(self, context: Context) -> Decision:
        started, space = time.perf_counter(), context.action_space
        if isinstance(space, spaces.Box) and space.is_bounded():
            drawn = self._rng.uniform(space.low, space.high).astype(np.float32)
            return Decision(action=drawn, latency_s=time.perf_counter() - started)
        if not isinstance(space, spaces.Discrete):
            return failed("random actions are drawn from discrete or bounded actions only")
        mask = legal_mask(context)
        legal = np.flatnonzero(mask)
        if not legal.size:
            return failed("no action is legal")
        action = int(self._rng.choice(legal))
        probs = mask / legal.size if self._report_probs else None
        return Decision(action=action, probs=probs, latency_s=time.perf_counter() - started)

    def state_dict(self) -> dict[str, Any]:
        return {"stream": self._rng.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._rng.bit_generator.state = state["stream"]


def make_idle(options: Mapping[str, Any], scenario: str, seed: int) -> PolicyProvider:
    """The expert `idle`: keep speed and lane; pedals and steering at rest where actions are continuous.

    Args:
        options: None are known.
        scenario: Name of the scenario.
        seed: Not used.

    Raises:
        UsageError: An option is bad.
    """
    if sim.get(scenario).actions == "continuous":
        resolve(NoOptions(), options, "idle")
        return RestExpert()
    return _constant("idle", MetaAction.IDLE, options, scenario)


def make_slower(options: Mapping[str, Any], scenario: str, seed: int) -> ConstantExpert:
    """The expert `slower`: brake to the lowest set-point.

    Args:
        options: None are known.
        scenario: Name of the scenario.
        seed: Not used.

    Raises:
        UsageError: An option is bad, or the scenario has continuous actions.
    """
    return _constant("slower", MetaAction.SLOWER, options, scenario)


def make_faster(options: Mapping[str, Any], scenario: str, seed: int) -> ConstantExpert:
    """The expert `faster`: accelerate to the highest set-point.

    Args:
        options: None are known.
        scenario: Name of the scenario.
        seed: Not used.

    Raises:
        UsageError: An option is bad, or the scenario has continuous actions.
    """
    return _constant("faster", MetaAction.FASTER, options, scenario)


def make_random(options: Mapping[str, Any], scenario: str, seed: int) -> RandomExpert:
    """The expert `random`: a legal action at random.

    Args:
        options: None are known.
        scenario: Name of the scenario.
        seed: The same seed gives the same actions for the same sequence of contexts.

    Raises:
        UsageError: An option is bad.
    """
    resolve(NoOptions(), options, "random")
    return RandomExpert(seed)


def _constant(name: str, manoeuvre: MetaAction, options: Mapping[str, Any], scenario: str) -> ConstantExpert:
    require_discrete(name, scenario)
    resolve(NoOptions(), options, name)
    return ConstantExpert(name, manoeuvre)
