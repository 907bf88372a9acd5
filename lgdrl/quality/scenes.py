"""Scenes with known safe actions, for the evaluation of experts.

Scenes come from random driving. Each legal action is labelled by exact roll-out from a copy of the environment:
`strict` = no crash when the action is followed by IDLE four times, `recov` = none when followed by SLOWER. Only scenes
where at least one action is strict-safe and one is not are kept: elsewhere every expert scores the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import gymnasium as gym
import numpy as np

from experts.labels import ActionSet
from experts.provider import Context
from sim.actions import MetaAction
from sim.env import DrivingEnv
from sim.errors import UsageError

FOLLOW_UP = 4
"""Steps rolled out after the labelled action."""


@dataclass(frozen=True)
class LabelledSceneConfig:
    """Which scenes are kept."""

    scenes: int = 60  # kept
    max_seeds: int = 1000  # episodes of random driving tried for them
    steps: int = 20  # random steps before a scene is looked at, at most; the first ones are rarely dangerous
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("scenes", "max_seeds", "steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} = {getattr(self, name)}: expected 1 or more")


@dataclass(frozen=True, slots=True)
class LabelledScene:
    """A scene with its roll-out labels; A actions."""

    context: Context
    strict: np.ndarray
    """bool (A,): no crash when followed by IDLE. False on illegal actions."""
    recov: np.ndarray
    """bool (A,): no crash when followed by SLOWER, or where there is none by IDLE. False on illegal actions."""


def labelled_scenes(env: DrivingEnv, config: LabelledSceneConfig, tally: Counter[str]) -> Iterator[LabelledScene]:
    """Scenes reached by random legal driving, labelled by roll-out and filtered, until there are enough.

    The environment stays in a scene's state until the next one is requested, so that the context's `branch` is valid.

    Args:
        env: Drives; left in some state.
        config: How many scenes, and from which seeds.
        tally: Counts `episodes`, and scenes dropped as `nothing_safe` or `all_safe`.

    Raises:
        UsageError: Actions are not discrete meta-actions, or `max_seeds` episodes give no scene at all.
    """
    if not isinstance(env.action_space, gym.spaces.Discrete):
        raise UsageError(f"scenario {env.scenario!r} has no discrete actions: this evaluation needs meta-actions")
    rng = np.random.default_rng(config.seed)
    kept = 0
    while kept < config.scenes and tally["episodes"] < config.max_seeds:
        obs = _drive(env, rng, config.seed + tally["episodes"], config.steps)
        tally["episodes"] += 1
        if obs is None:
            continue
        labelled = label(env, obs, tally["episodes"])
        safe = labelled.strict[env.action_masks()]
        if safe.any() and not safe.all():
            kept += 1
            yield labelled
        else:
            tally["all_safe" if safe.any() else "nothing_safe"] += 1
    if not kept:
        raise UsageError(
            f"no scene of {env.scenario!r} in {tally['episodes']} episodes had both a safe and an unsafe action"
        )


def _drive(env: DrivingEnv, rng: np.random.Generator, seed: int, steps: int) -> np.ndarray | None:
    """The observation after 1 to `steps` random legal actions from `seed`, None when the episode ended before."""
    obs, _ = env.reset(seed=seed)
    for _ in range(int(rng.integers(1, steps + 1))):
        action = int(rng.choice(np.flatnonzero(env.action_masks())))
        obs, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            return None
    return obs


def label(env: DrivingEnv, obs: np.ndarray, episode: int = 0) -> LabelledScene:
    """The present scene of an environment with roll-out labels of every legal action.

    Args:
        env: Is not changed.
        obs: Its present observation.
        episode: Number of the episode.
    """
    scene, mask = env.scene(), env.action_masks()
    actions = ActionSet.of(scene)
    context = Context(
        obs=obs, action_space=env.action_space, scene=scene, legal=mask, episode=episode, branch=env.branch
    )
    idle, brake = actions.find(MetaAction.IDLE), actions.find(MetaAction.SLOWER)
    strict = _crash_free(env, mask, idle)
    recov = strict if brake is None else _crash_free(env, mask, brake)
    return LabelledScene(context, strict, recov)


def _crash_free(env: DrivingEnv, mask: np.ndarray, follow: int | None) -> np.ndarray:
    """bool (A,): legal and no crash within the action and `FOLLOW_UP` steps of `follow`."""
    assert follow is not None
    legal = np.flatnonzero(mask)
    plans = np.full((len(legal), 1 + FOLLOW_UP), follow, dtype=np.int64)
    plans[:, 0] = legal
    safe = np.zeros(len(mask), dtype=bool)
    safe[legal] = ~np.asarray(env.branch(plans).crashed, dtype=bool)
    return safe
