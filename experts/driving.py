"""Let an expert, or any other source of actions, drive a batch of environments: exactly one episode per seed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from gymnasium import spaces

from experts.provider import Context, Need, PolicyProvider, Status, check_needs
from experts.views import Choice, ViewExpert
from sim.actions import NUM_ACTIONS, MetaAction
from sim.env import DrivingVecEnv, ScenarioVecEnv
from sim.scene import Scene

NEEDS: frozenset[Need] = frozenset({"scene", "branch"})
"""What driving environments give providers beyond observations."""
ContextsFn = Callable[..., list[Context]]
"""(indices, scenes=True) -> contexts of these environments, see `contexts_of`."""
Actor = Callable[[Any, np.ndarray, ContextsFn, np.ndarray], Any]
"""(observations of all N environments, masks (N, A), contexts(indices), indices of running ones (R,)) -> R actions."""


@dataclass(frozen=True, slots=True)
class Moves:
    """R decisions of the running environments, all made at one time, and what came of them."""

    episodes: np.ndarray
    """int64 (R,): numbers of the episodes, from 0 in the order of the seeds."""
    step: int
    """Position within the episode, from 0."""
    obs: np.ndarray
    """(R, ...)"""
    legal: np.ndarray
    """bool (R, A)"""
    actions: np.ndarray
    """int64 (R,) or float32 (R, D): executed."""
    decided: np.ndarray
    """bool (R,): False where the driver gave no action and an idle one was executed."""
    rewards: np.ndarray
    """float32 (R,)"""
    next_obs: np.ndarray
    """(R, ...): true successors, also where the episode ended."""
    next_legal: np.ndarray
    """bool (R, A)"""
    terminated: np.ndarray
    """bool (R,)"""
    truncated: np.ndarray
    """bool (R,)"""


def run_episodes(
    vec_env: ScenarioVecEnv,
    driver: PolicyProvider | Actor,
    seeds: Sequence[int],
    watch: Callable[[Moves], object] | None = None,
    first: int = 0,
) -> list[dict[str, Any]]:
    """Drive one episode per seed.

    Scenes are built only for running environments, and only for drivers that need them. The environments are left
    in the middle of some episode: reset them before other use.

    Args:
        vec_env: N environments; several batches of seeds are driven one after the other.
        driver: A provider, or a function, see `Actor`.
        seeds: One per episode.
        watch: Called after every step of the environments; they need plain arrays as observations. None: nobody looks.
        first: Number of the first episode.

    Returns:
        `EpisodeSummary` values as dicts, in the order of `seeds`, with `seed`, `undecided`: decisions without an action
        (status FAILED), at which an idle action was executed, and, of a provider, `statuses`: decisions by status.

    Raises:
        UsageError: The environments do not give the provider what it needs, or their spaces do not fit it.
    """
    actor = actor_of(driver, vec_env) if isinstance(driver, PolicyProvider) else driver
    results: list[dict[str, Any]] = []
    for start in range(0, len(seeds), vec_env.num_envs):
        chunk = [int(seed) for seed in seeds[start : start + vec_env.num_envs]]
        if isinstance(actor, Asking):
            actor.on_episode_start(range(first + start, first + start + len(chunk)))
        results += _run_chunk(vec_env, actor, chunk, first + start, watch)
    return results


def check_provider(provider: PolicyProvider, vec_env: ScenarioVecEnv) -> None:
    """Check that a provider can decide in environments.

    Args:
        provider: Any.
        vec_env: The environments; nothing is reset.

    Raises:
        UsageError: They do not give it what it needs, or their observations or actions do not fit it.
    """
    given = NEEDS if isinstance(vec_env, DrivingVecEnv) else frozenset[Need]()
    check_needs(provider, given, vec_env.scenario)
    provider.check_spaces(vec_env.observation_space, vec_env.action_space, vec_env.scenario)


def _run_chunk(
    vec_env: ScenarioVecEnv,
    actor: Actor,
    seeds: list[int],
    first: int,
    watch: Callable[[Moves], object] | None,
) -> list[dict[str, Any]]:
    """At most one seed per environment; `first` is the number of the first episode.

    Environments whose episode has ended continue with a legal placeholder action and are ignored.
    """
    spare = [seeds[-1]] * (vec_env.num_envs - len(seeds))
    obs: Any = vec_env.reset_to(seeds + spare)
    results: list[dict[str, Any]] = [{} for _ in seeds]
    undecided = np.zeros(vec_env.num_envs, np.int64)
    statuses = [Counter[str]() for _ in seeds]
    running = np.arange(len(seeds))
    episodes = range(first, first + vec_env.num_envs)
    step = 0
    while running.size:
        masks = vec_env.action_masks()
        contexts = partial(contexts_of, vec_env, obs, masks, episodes=episodes, step=step)
        chosen = actor(obs, masks, contexts, running)
        if isinstance(actor, Asking):
            for i, status in zip(running, actor.statuses, strict=True):
                statuses[i][status.value] += 1
        actions = idle_actions(vec_env.action_space, masks)
        decided = np.array([action is not None for action in chosen], bool)
        undecided[running] += ~decided
        for i, action in zip(running, chosen, strict=True):
            if action is not None:
                actions[i] = action
        before, (obs, rewards, dones, infos) = obs, vec_env.step(actions)
        if watch is not None:
            after = _successors(obs, vec_env.action_masks(), running, dones, infos)
            rows = (before[running], masks[running], actions[running], decided, rewards[running])
            watch(Moves(first + running, step, *rows, *after))
        for i in running[dones[running]]:
            results[i] = {"seed": seeds[i], **infos[i]["summary"], "undecided": int(undecided[i])}
            if statuses[i]:
                results[i]["statuses"] = dict(statuses[i])
        running = running[~dones[running]]
        step += 1
    return results


def _successors(
    obs: np.ndarray, masks: np.ndarray, running: np.ndarray, dones: np.ndarray, infos: Sequence[dict[str, Any]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Next observations, next legal actions, terminated and truncated of the running environments after a step."""
    next_obs, next_legal = obs[running], masks[running]
    truncated = np.array([bool(infos[i]["TimeLimit.truncated"]) for i in running])
    for k in np.flatnonzero(dones[running]):
        info = infos[running[k]]
        next_obs[k], next_legal[k] = info["terminal_observation"], info["terminal_action_mask"]
    return next_obs, next_legal, dones[running] & ~truncated, truncated


def batch_decisions(
    expert: ViewExpert, vec_env: DrivingVecEnv, masks: np.ndarray, indices: np.ndarray
) -> tuple[np.ndarray, Choice]:
    """`ViewExpert.act` in some of N environments.

    Args:
        expert: Decides.
        vec_env: N environments.
        masks: Legal actions of all of them, bool (N, A).
        indices: Which ones, int (R,).

    Returns:
        As `ViewExpert.act`.
    """
    return expert.act(
        vec_env.views(indices.tolist()), masks[indices], lambda k, plans: vec_env.branch(int(indices[k]), plans)
    )


def contexts_of(
    vec_env: ScenarioVecEnv,
    obs: Any,
    masks: np.ndarray,
    indices: Sequence[int],
    episodes: Sequence[int] | None = None,
    step: int = 0,
    scenes: bool = True,
) -> list[Context]:
    """The present states of some of N environments as contexts, each with its own `branch`.

    Args:
        vec_env: N environments.
        obs: Their observations.
        masks: Their legal actions, bool (N, A).
        indices: Which ones.
        episodes: Numbers of the episodes of all N; None: the indices.
        step: Decisions made in the episode so far.
        scenes: Whether to build the scenes, where there are some: most of the time that a context takes.
    """
    rows = [int(i) for i in indices]
    discrete = isinstance(vec_env.action_space, spaces.Discrete)
    driving = vec_env if isinstance(vec_env, DrivingVecEnv) else None
    seen: Sequence[Scene | None] = driving.scenes(rows) if driving and scenes else [None] * len(rows)
    return [
        Context(
            obs=_row(obs, i),
            action_space=vec_env.action_space,
            scene=scene,
            legal=masks[i] if discrete else None,
            episode=i if episodes is None else episodes[i],
            step=step,
            branch=partial(driving.branch, i) if driving else None,
        )
        for i, scene in zip(rows, seen, strict=True)
    ]


def idle_actions(space: spaces.Space, masks: np.ndarray) -> np.ndarray:
    """A legal action for each environment that does nothing: IDLE for meta-actions, the middle one or 0 otherwise.

    Args:
        space: Of one environment.
        masks: Legal actions, bool (N, A).
    """
    if not isinstance(space, spaces.Discrete):
        return np.zeros((len(masks), *(space.shape or ())), np.float32)
    idle = int(MetaAction.IDLE) if space.n in (3, NUM_ACTIONS) else 0
    return np.where(masks[:, idle], idle, masks.argmax(axis=1))


class Asking(ABC):
    """A source of actions that keeps the statuses of its last decisions."""

    def __init__(self) -> None:
        self.statuses: list[Status] = []

    @abstractmethod
    def __call__(self, obs: Any, masks: np.ndarray, contexts: ContextsFn, running: np.ndarray) -> Sequence[Any]:
        """See `Actor`; None where there is no action."""

    def on_episode_start(self, episodes: Sequence[int]) -> None:
        """Episodes begin.

        Args:
            episodes: Their numbers, those of environments 0, 1, ... in this order.
        """


def actor_of(provider: PolicyProvider, vec_env: ScenarioVecEnv) -> Asking:
    """A provider as a source of actions; one that decides on views does so for all environments at once.

    Args:
        provider: Any.
        vec_env: Where it will drive.

    Raises:
        UsageError: As `check_provider`.
    """
    check_provider(provider, vec_env)
    if not isinstance(provider, ViewExpert):
        return _Provided(provider)
    assert isinstance(vec_env, DrivingVecEnv)
    return _Viewing(provider, vec_env)


class _Viewing(Asking):
    """An expert that decides on views."""

    def __init__(self, expert: ViewExpert, vec_env: DrivingVecEnv) -> None:
        super().__init__()
        self.expert = expert
        self.vec_env = vec_env

    def __call__(self, obs: Any, masks: np.ndarray, contexts: ContextsFn, running: np.ndarray) -> list[int | None]:
        actions, _ = batch_decisions(self.expert, self.vec_env, masks, running)
        self.statuses = [Status.OK if action >= 0 else Status.FAILED for action in actions]
        return [int(action) if action >= 0 else None for action in actions]

    def on_episode_start(self, episodes: Sequence[int]) -> None:
        self.expert.on_episode_start(episodes)


class _Provided(Asking):
    """Any other provider."""

    def __init__(self, provider: PolicyProvider) -> None:
        super().__init__()
        self.provider = provider

    def __call__(self, obs: Any, masks: np.ndarray, contexts: ContextsFn, running: np.ndarray) -> list[Any]:
        decisions = self.provider.decide(contexts(running.tolist(), scenes="scene" in self.provider.needs))
        self.statuses = [decision.status for decision in decisions]
        return [decision.action for decision in decisions]

    def on_episode_start(self, episodes: Sequence[int]) -> None:
        self.provider.on_episode_start(episodes)


def _row(obs: Any, i: int) -> Any:
    """The part of a batched observation that belongs to environment i."""
    if isinstance(obs, dict):
        return {key: value[i] for key, value in obs.items()}
    if isinstance(obs, tuple):
        return tuple(value[i] for value in obs)
    return obs[i]
