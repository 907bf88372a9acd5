"""Collect transition data sets: any policy, or a mixture of policies, drives whole episodes of a scenario.

A mixture is by episode (each episode has one driver) or by step (each decision is drawn, which makes a noisy policy of
an expert and `random`). Every transition keeps which policy chose its action.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from experts.data.transitions import NO_ORIGIN, DatasetInfo, References, TransitionDataset
from experts.driving import Asking, ContextsFn, Moves, actor_of, run_episodes
from experts.provider import PolicyProvider, Status
from sim.config import to_dict
from sim.env import ScenarioVecEnv
from sim.errors import UsageError

REFERENCE_EPISODES = 20
"""Episodes of each policy that reference returns are means over."""


@dataclass(frozen=True)
class Plan:
    """What is to be collected."""

    seed: int  # of the first episode; the others follow
    episodes: int | None = None  # whole episodes
    steps: int | None = None  # transitions in place of a number of episodes; the last episode is broken off
    mix: str = "episodes"  # a name in `MIXES`


@dataclass(frozen=True)
class Policy:
    """One policy of a mixture."""

    provider: PolicyProvider
    share: float = 1.0
    """Of the episodes or decisions, relative to the shares of the others."""


@dataclass(frozen=True)
class Collected:
    """A data set and what its episodes were like."""

    dataset: TransitionDataset
    summaries: list[dict[str, Any]]
    """Of each episode, see `run_episodes`."""
    statuses: dict[str, int]
    """Decisions by status."""


class Mix(ABC):
    """Which policy of a mixture is in control.

    Args:
        shares: Of each policy, float (P,), summing to 1.
        seed: Of random draws.
    """

    def __init__(self, shares: np.ndarray, seed: int) -> None:
        self.shares = shares
        self.rng = np.random.default_rng(seed)

    def begin(self, episodes: Sequence[int]) -> list[Sequence[int]]:
        """Episodes begin in environments 0, 1, ...; they come in the order of their numbers.

        Args:
            episodes: Their numbers.

        Returns:
            For each policy, those in which it may be in control.
        """
        return [episodes] * len(self.shares)

    @abstractmethod
    def draw(self, running: np.ndarray) -> np.ndarray:
        """The policies in control of the next decision, int (R,).

        Args:
            running: Environments, int (R,).
        """


class ByEpisode(Mix):
    """One policy drives a whole episode. Among the first k episodes, each drives its share of k but for one at most."""

    def __init__(self, shares: np.ndarray, seed: int) -> None:
        super().__init__(shares, seed)
        self._driven = np.zeros(len(shares), np.int64)
        self._drivers = np.zeros(0, np.int64)

    def begin(self, episodes: Sequence[int]) -> list[Sequence[int]]:
        drivers = [self._next() for _ in episodes]
        self._drivers = np.array(drivers, np.int64)
        return [[n for n, k in zip(episodes, drivers, strict=True) if k == each] for each in range(len(self.shares))]

    def draw(self, running: np.ndarray) -> np.ndarray:
        return self._drivers[running]

    def _next(self) -> int:
        """The policy that lags most behind its share."""
        chosen = int(np.argmax(self.shares * (self._driven.sum() + 1) - self._driven))
        self._driven[chosen] += 1
        return chosen


class ByStep(Mix):
    """Each decision is drawn by the shares, independently of the others."""

    def draw(self, running: np.ndarray) -> np.ndarray:
        return self.rng.choice(len(self.shares), size=len(running), p=self.shares)


MIXES: dict[str, type[Mix]] = {"episodes": ByEpisode, "steps": ByStep}
"""Kinds of mixtures by what the shares are shares of."""


class _Mixture(Asking):
    """Policies of which one at a time is in control of each environment."""

    def __init__(self, actors: Sequence[Asking], mix: Mix) -> None:
        super().__init__()
        self.actors, self.mix = actors, mix
        self.origin = np.zeros(0, np.int64)
        """Policies behind the last actions, int (R,)."""

    def on_episode_start(self, episodes: Sequence[int]) -> None:
        for actor, own in zip(self.actors, self.mix.begin(episodes), strict=True):
            if own:
                actor.on_episode_start(own)

    def __call__(self, obs: Any, masks: np.ndarray, contexts: ContextsFn, running: np.ndarray) -> list[Any]:
        self.origin = self.mix.draw(running)
        actions: list[Any] = [None] * len(running)
        self.statuses = [Status.FAILED] * len(running)
        for k, actor in enumerate(self.actors):
            mine = np.flatnonzero(self.origin == k)
            if not mine.size:
                continue
            chosen = actor(obs, masks, contexts, running[mine])
            for row, action, status in zip(mine, chosen, actor.statuses, strict=True):
                actions[row], self.statuses[row] = action, status
        return actions


class _Recorder:
    """Keeps what `run_episodes` shows, and puts it in the order of episodes and steps."""

    def __init__(self, mixture: _Mixture, report: Callable[[int, int], object] | None) -> None:
        self.mixture = mixture
        self.report = report
        self.episodes = self.transitions = 0
        self._columns: dict[str, list[np.ndarray]] = {}

    def __call__(self, moves: Moves) -> None:
        origin = np.where(moves.decided, self.mixture.origin, NO_ORIGIN)
        columns = {field.name: getattr(moves, field.name) for field in dataclasses.fields(Moves)}
        columns |= {"step": np.full(len(origin), moves.step, np.int64), "origin": origin.astype(np.int16)}
        for name, values in columns.items():
            self._columns.setdefault(name, []).append(values)
        self.transitions += len(origin)
        self.episodes += int((moves.terminated | moves.truncated).sum())
        if self.report is not None:
            self.report(self.episodes, self.transitions)

    def columns(self) -> dict[str, np.ndarray]:
        """Every column, sorted."""
        joined = {name: np.concatenate(parts) for name, parts in self._columns.items()}
        order = np.lexsort((joined["step"], joined["episodes"]))
        return {name: values[order] for name, values in joined.items()}


def collect(
    envs: ScenarioVecEnv,
    policies: Sequence[Policy],
    plan: Plan,
    report: Callable[[int, int], object] | None = None,
) -> Collected:
    """Drive and keep every transition.

    Args:
        envs: N environments; equal plans give equal data sets for equal N.
        policies: At least one.
        plan: How much, from which seeds, and mixed how.
        report: Called with episodes finished and transitions made.

    Raises:
        UsageError: A policy cannot drive there, or observations or actions cannot be kept.
    """
    check_spaces_kept(envs)
    shares = np.array([policy.share for policy in policies], float)
    mixture = _Mixture(
        [actor_of(policy.provider, envs) for policy in policies], MIXES[plan.mix](shares / shares.sum(), plan.seed)
    )
    recorder = _Recorder(mixture, report)
    summaries: list[dict[str, Any]] = []
    while not _enough(plan, len(summaries), recorder.transitions):
        first = len(summaries)
        count = envs.num_envs if plan.episodes is None else min(envs.num_envs, plan.episodes - first)
        seeds = range(plan.seed + first, plan.seed + first + count)
        summaries += run_episodes(envs, mixture, seeds, recorder, first)
    dataset = _dataset(envs, policies, plan, recorder.columns())
    kept = summaries[: len(dataset.seeds)]
    statuses = sum((Counter(each.get("statuses", {})) for each in kept), Counter())
    return Collected(dataset, kept, dict(statuses))


def check_spaces_kept(envs: ScenarioVecEnv) -> None:
    """UsageError unless a data set can keep observations and actions of these environments."""
    if not isinstance(envs.observation_space, spaces.Box):
        raise UsageError(
            f"scenario {envs.scenario!r} has observations of several parts, a data set keeps one array: choose another "
            "observation in scenario_config, or another scenario"
        )
    if not isinstance(envs.action_space, spaces.Discrete | spaces.Box):
        raise UsageError(f"scenario {envs.scenario!r} has actions {envs.action_space}: they cannot be kept")


def measure_references(
    envs: ScenarioVecEnv, random: PolicyProvider, policies: Sequence[PolicyProvider], seed: int
) -> References:
    """Mean returns of random actions and of the best of some policies.

    Args:
        envs: Where they drive.
        random: Random actions.
        policies: At least one.
        seed: Of the first of `REFERENCE_EPISODES` episodes, the same for all.

    Raises:
        UsageError: The best policy is no better than random actions.
    """
    seeds = range(seed, seed + REFERENCE_EPISODES)

    def mean_return(provider: PolicyProvider) -> float:
        return float(np.mean([episode["episode_return"] for episode in run_episodes(envs, provider, seeds)]))

    low, returns = mean_return(random), [mean_return(provider) for provider in policies]
    best = int(np.argmax(returns))
    if returns[best] <= low:
        raise UsageError(
            f"--reference: the best policy {policies[best].name!r} has a mean return of {returns[best]:.2f}, random "
            f"actions {low:.2f}: name a better policy, or leave --reference out"
        )
    return References(low, returns[best], policies[best].name, REFERENCE_EPISODES)


def _enough(plan: Plan, episodes: int, transitions: int) -> bool:
    if plan.episodes is not None:
        return episodes >= plan.episodes
    assert plan.steps is not None
    return transitions >= plan.steps


def _dataset(
    envs: ScenarioVecEnv, policies: Sequence[Policy], plan: Plan, columns: dict[str, np.ndarray]
) -> TransitionDataset:
    discrete = isinstance(envs.action_space, spaces.Discrete)
    kept = {name: values[: plan.steps] for name, values in columns.items()}
    count = int(kept["episodes"][-1]) + 1
    made = {
        "step": "collect",
        "policies": {policy.provider.name: policy.share for policy in policies},
        "mix": plan.mix,
        "seed": plan.seed,
        "environments": envs.num_envs,
    }
    return TransitionDataset(
        about=DatasetInfo(
            scenario=envs.scenario,
            backend=envs.backend,
            scenario_config=to_dict(envs.scenario_config),
            observation_space=envs.observation_space,
            action_space=envs.action_space,
            origins=tuple(policy.provider.name for policy in policies),
            made=(made,),
        ),
        observations=kept["obs"],
        next_observations=kept["next_obs"],
        actions=kept["actions"].astype(np.int64 if discrete else np.float32),
        rewards=kept["rewards"],
        terminated=kept["terminated"],
        truncated=kept["truncated"],
        episodes=kept["episodes"].astype(np.int64),
        steps=kept["step"],
        origin=kept["origin"],
        seeds=np.arange(plan.seed, plan.seed + count, dtype=np.int64),
        legal=kept["legal"] if discrete else None,
        next_legal=kept["next_legal"] if discrete else None,
    )
