"""Streams of real scenes to ask about: consecutive decisions of several cars, driven through a scenario."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from gymnasium import spaces

import sim
from experts import registry
from experts.driving import contexts_of, idle_actions
from experts.provider import Context, PolicyProvider
from experts.safety import refused, unsafe_actions
from sim.errors import UsageError
from sim.view import views_of

CARS = 16
"""Cars whose scenes are mixed in a stream."""
FIRST_SEED = 20_000
"""First of their seeds: neither trained on nor judged elsewhere."""
WANDERING = 0.2
"""Share of decisions that are drawn at random, so that scenes do not all show the same good driving."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A scene to ask about, and what lateness would cost in it."""

    context: Context
    unsafe: np.ndarray
    """bool (A,): what the safety gate of trainings calls unsafe."""
    speed: float
    """Of the ego, m/s."""
    closing: float
    """Speed at which it approaches the car ahead in its lane, m/s, at least 0."""
    ttc: float
    """Time to collision with that car, s; inf where none is approached."""

    def refuses(self, action: int) -> bool:
        """Whether a shield would refuse `action`: it is unsafe although another legal one is not."""
        return refused(self.unsafe, self.context.legal, action)


def period_of(scenario: str, backend: str | None, config: Mapping[str, Any]) -> float:
    """Seconds between two decisions in a scenario. UsageError for one without driving scenes."""
    worlds = sim.make_driving_vec(scenario, 1, backend=backend, config=config)
    try:
        worlds.reset_to([0])
        return worlds.scenes([0])[0].decision_period
    finally:
        worlds.close()


def stream(
    scenario: str,
    count: int,
    *,
    backend: str | None = None,
    config: Mapping[str, Any] | None = None,
    driver: Literal["rule", "random"] = "rule",
    seed: int = 0,
) -> list[Asked]:
    """`count` scenes of `CARS` cars, car after car within each decision; no two of them are the same moment.

    The contexts hold no `branch`: what is asked must be answered from the scene alone. UsageError for a scenario
    without meta-actions.
    """
    worlds = sim.make_driving_vec(scenario, CARS, backend=backend, config=config or {})
    try:
        if not isinstance(worlds.action_space, spaces.Discrete):
            raise UsageError(f"scenario {scenario!r} has no meta-actions: nothing can be asked about it")
        with registry.make("rule", scenario, {}, 0) as rule:
            scenes = _drive(worlds, rule, driver, np.random.default_rng(seed), seed)
            return [asked for _, asked in zip(range(count), scenes, strict=False)]
    finally:
        worlds.close()


def _drive(worlds: Any, expert: PolicyProvider, driver: str, rng: np.random.Generator, seed: int) -> Iterator[Asked]:
    first = FIRST_SEED + 1000 * seed
    obs = worlds.reset_to(range(first, first + worlds.num_envs))
    step = 0
    while True:
        masks = worlds.action_masks()
        contexts = contexts_of(worlds, obs, masks, range(worlds.num_envs), step=step)
        yield from (look(replace(context, branch=None)) for context in contexts)
        actions = idle_actions(worlds.action_space, masks)
        wanders = rng.random(worlds.num_envs) < (WANDERING if driver == "rule" else 1.0)
        decided = expert.decide(contexts)
        for i, decision in enumerate(decided):
            if wanders[i]:
                actions[i] = rng.choice(np.flatnonzero(masks[i]))
            elif decision.action is not None:
                actions[i] = decision.action
        obs, *_ = worlds.step(actions)
        step += 1


def look(context: Context) -> Asked:
    """What a scene says about the price of being late."""
    scene = context.scene
    assert scene is not None
    front = scene.front(scene.ego.lane)
    closing = 0.0 if front is None else max(0.0, scene.ego.speed - front.speed)
    ttc = float("inf") if front is None else float(front.ttc)
    return Asked(context, unsafe_actions(views_of([scene]))[0], float(scene.ego.speed), float(closing), ttc)
