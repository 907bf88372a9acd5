"""Streams of scenes for queries: consecutive decisions of several cars, driven through a scenario."""

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
from lgdrl.seeds import SCENE_SEED
from sim.errors import UsageError
from sim.view import views_of

CARS = 16
"""Cars whose scenes are mixed in a stream."""
WANDERING = 0.2
"""Share of decisions that are drawn at random, so that scenes do not all show the same good driving."""


@dataclass(frozen=True, slots=True)
class SceneQuery:
    """A scene that an expert is queried about, and what lateness would cost in it."""

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
    """Seconds between two decisions in a scenario.

    Args:
        scenario: Its name.
        backend: The simulator; None: the fastest.
        config: Changes to the scenario's config.
    Raises:
        UsageError: It has no driving scenes.
    """
    envs = sim.make_driving_vec(scenario, 1, backend=backend, config=config)
    try:
        envs.reset_to([0])
        return envs.scenes([0])[0].decision_period
    finally:
        envs.close()


def stream(
    scenario: str,
    count: int,
    *,
    backend: str | None = None,
    config: Mapping[str, Any] | None = None,
    driver: Literal["rule", "random"] = "rule",
    seed: int = 0,
) -> list[SceneQuery]:
    """Scenes of `CARS` cars, car after car within each decision; no two of them are the same.

    The contexts hold no `branch`: the expert has to decide from the scene alone.

    Args:
        scenario: Its name.
        count: Scenes.
        backend: The simulator; None: the fastest.
        config: Changes to the scenario's config.
        driver: What drives.
        seed: Of environments and driver.
    Raises:
        UsageError: The scenario has no meta-actions.
    """
    envs = sim.make_driving_vec(scenario, CARS, backend=backend, config=config or {})
    try:
        if not isinstance(envs.action_space, spaces.Discrete):
            raise UsageError(f"scenario {scenario!r} has no meta-actions: experts cannot be queried about it")
        with registry.make("rule", scenario, {}, 0) as rule:
            scenes = _drive(envs, rule, driver, np.random.default_rng(seed), seed)
            return [query for _, query in zip(range(count), scenes, strict=False)]
    finally:
        envs.close()


def _drive(envs: Any, expert: PolicyProvider, driver: str, rng: np.random.Generator, seed: int) -> Iterator[SceneQuery]:
    first = SCENE_SEED + 1000 * seed
    obs = envs.reset_to(range(first, first + envs.num_envs))
    step = 0
    while True:
        masks = envs.action_masks()
        contexts = contexts_of(envs, obs, masks, range(envs.num_envs), step=step)
        yield from (look(replace(context, branch=None)) for context in contexts)
        actions = idle_actions(envs.action_space, masks)
        wanders = rng.random(envs.num_envs) < (WANDERING if driver == "rule" else 1.0)
        decided = expert.decide(contexts)
        for i, decision in enumerate(decided):
            if wanders[i]:
                actions[i] = rng.choice(np.flatnonzero(masks[i]))
            elif decision.action is not None:
                actions[i] = decision.action
        obs, *_ = envs.step(actions)
        step += 1


def look(context: Context) -> SceneQuery:
    """A query about a scene, with what lateness would cost in it."""
    scene = context.scene
    assert scene is not None
    front = scene.front(scene.ego.lane)
    closing = 0.0 if front is None else max(0.0, scene.ego.speed - front.speed)
    ttc = float("inf") if front is None else float(front.ttc)
    return SceneQuery(context, unsafe_actions(views_of([scene]))[0], float(scene.ego.speed), float(closing), ttc)
