"""The collector: one step of experience, from the learner's proposal to stored transitions, for every learner.

It numbers episodes, knows which actions are legal, asks the expert on behalf of the strategy, lets labels arrive late
(`label_lag`), and hands finished transitions over in the order of the steps. A learner calls `act` where it would
sample an action and `finish` where it would store a transition.

Shapes: N environments, A actions.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from lgdrl.finite import require_finite
from lgdrl.guidance.advisor import Advisor
from lgdrl.guidance.records import Execution, Labels, PolicySummary, StepContext, Transitions
from lgdrl.guidance.strategy import Strategy
from sim.env import DrivingVecEnv
from sim.view import Views


class Proposer(Protocol):
    """The learner, as far as the collector needs it."""

    def propose(self, obs: np.ndarray, legal: np.ndarray | None, warming_up: bool) -> tuple[np.ndarray, PolicySummary]:
        """What the learner would do, drawn from its policy.

        Args:
            obs: Observations (N, ...).
            legal: Legal actions, bool (N, A); None where actions are continuous.
            warming_up: Before learning begins: propose uniformly random actions.
        Returns:
            Actions, int64 (N,) or float32 (N, D), and the policy that they were drawn from.
        """
        ...

    def values(self, obs: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """The critics' estimate of actions in states: float32 (N,)."""
        ...


class Collector:
    """Steps of experience of one learner.

    Args:
        learner: Proposes actions.
        strategy: Decides what is executed and what is kept.
        advisor: Asks the expert; None where the run has none.
        label_lag: Steps for which a label that is not executed may be on its way. 0: every label is waited for.
    """

    def __init__(self, learner: Proposer, strategy: Strategy, advisor: Advisor | None, label_lag: int = 0) -> None:
        self.learner = learner
        self.strategy = strategy
        self.advisor = advisor
        self.label_lag = label_lag
        self.context: StepContext | None = None
        """What was known before the last step ..."""
        self.execution: Execution | None = None
        """... and what was done in it."""
        self._waiting: deque[tuple[Transitions, int]] = deque()
        """Steps that are not stored yet, oldest first, and the number of requests that hold their labels."""
        self._requests = 0
        self._next_episode = 0
        self._episodes = np.zeros(0, np.int64)
        self._steps = np.zeros(0, np.int64)

    def begin(self, num_envs: int) -> None:
        """All environments were reset: number their episodes."""
        self._episodes = np.full(num_envs, -1, np.int64)
        self._steps = np.zeros(num_envs, np.int64)
        self._begin_episodes(np.arange(num_envs))

    def _begin_episodes(self, envs: np.ndarray) -> None:
        self._episodes[envs] = self._next_episode + np.arange(len(envs))
        self._steps[envs] = 0
        if self.advisor is not None and len(envs):
            self.advisor.on_episode_start(self._episodes[envs])
        self._next_episode += len(envs)

    # -------------------------------------------------------------------------------------------------- acting

    def act(self, env: VecEnv, obs: np.ndarray, decisions: int, warming_up: bool) -> Execution:
        """Choose what is executed in the present state.

        Args:
            env: The environments.
            obs: Their observations (N, ...).
            decisions: Decisions made so far in the run, over all environments.
            warming_up: Whether learning has not begun.
        Raises:
            ValueError: An environment offers no legal action, or the strategy chose an illegal one.
        """
        env = _innermost(env)
        legal = legal_actions(env)
        proposals, policy = self.learner.propose(obs, legal, warming_up)
        context: StepContext = StepContext(
            obs=obs,
            legal=legal,
            proposals=proposals,
            policy=policy,
            decisions=decisions,
            episodes=self._episodes.copy(),
            steps=self._steps.copy(),
            action_space=env.action_space,
            ask=lambda rows, now=None: self._ask(env, context, rows, now),
            scenes=lambda indices: _scenes(env, indices),
            views=lambda indices: _views(env, indices),
            values=lambda actions: self.learner.values(obs, actions),
        )
        execution = self.strategy.on_action(context)
        if legal is not None:
            allowed = legal[np.arange(len(legal)), execution.actions]
            if not allowed.all():
                raise ValueError(
                    f"strategy {self.strategy.name!r} executed an illegal action in environments "
                    f"{np.flatnonzero(~allowed).tolist()}"
                )
        self.context, self.execution = context, execution
        return execution

    def _ask(self, env: VecEnv, context: StepContext, rows: np.ndarray, now: np.ndarray | None) -> Labels:
        if self.advisor is None or not rows.any():
            return context.no_labels()
        if now is None or not self.label_lag:
            return self.advisor.label(env, context, rows)
        labels = self.advisor.label(env, context, rows & now)
        self.advisor.request(env, context, rows & ~now)
        self._requests += 1
        return labels

    # ------------------------------------------------------------------------------------------------- storing

    def finish(
        self, env: VecEnv, next_obs: np.ndarray, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]
    ) -> Iterator[Transitions]:
        """What came of the step that `act` chose. Yields the transitions that are ready to be stored.

        Args:
            env: The environments; those that ended have been reset.
            next_obs: Their observations (N, ...) now.
            rewards: float (N,)
            dones: bool (N,)
            infos: One dict per environment, with SB3's `terminal_observation` and `TimeLimit.truncated`.
        """
        transitions = self._transitions(env, next_obs, rewards, dones.astype(bool), infos)
        self._steps += 1
        self._begin_episodes(np.flatnonzero(dones))
        if not self.label_lag:
            yield self.strategy.on_store(transitions)
            return
        self._waiting.append((copy.deepcopy(transitions), self._requests))
        self._requests = 0
        yield from self.ready(self.label_lag)

    def ready(self, left: int = 0) -> Iterator[Transitions]:
        """Steps that waited for their labels, oldest first, until no more than `left` of them wait."""
        while len(self._waiting) > left:
            transitions, requests = self._waiting.popleft()
            for _ in range(requests):
                assert self.advisor is not None
                transitions.labels.fill(self.advisor.collect())
            yield self.strategy.on_store(transitions)

    def _transitions(
        self, env: VecEnv, next_obs: np.ndarray, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]
    ) -> Transitions:
        """Environments that ended have been reset already: their true successors are in the infos."""
        context, execution = self.context, self.execution
        assert context is not None
        assert execution is not None
        require_finite("the reward", rewards, context.decisions)
        require_finite("the observation", next_obs, context.decisions)
        successors, next_legal = next_obs.copy(), legal_actions(_innermost(env))
        truncated = np.zeros(len(dones), bool)
        for i in np.flatnonzero(dones):
            successors[i] = infos[i].get("terminal_observation", next_obs[i])
            truncated[i] = infos[i].get("TimeLimit.truncated", False)
            if next_legal is not None:
                next_legal[i] = infos[i].get("terminal_action_mask", True)
        if dones.any():
            require_finite("the last observation of an episode", successors, context.decisions)
        return Transitions(
            obs=context.obs,
            next_obs=successors,
            legal=context.legal,
            next_legal=next_legal,
            learner_actions=context.proposals,
            actions=execution.actions,
            labels=execution.labels,
            authority=execution.authority,
            reason=execution.reason,
            rewards=rewards.astype(np.float32),
            terminated=dones & ~truncated,
            truncated=truncated,
            episodes=context.episodes,
            steps=context.steps,
        )

    def state_dict(self) -> dict[str, Any]:
        """Episode numbers and steps that wait for labels; a copy."""
        return {
            "waiting": [(dataclasses.asdict(transitions), requests) for transitions, requests in self._waiting],
            "next_episode": self._next_episode,
            "episodes": self._episodes.copy(),
            "steps": self._steps.copy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self._waiting = deque((_transitions_of(values), requests) for values, requests in state["waiting"])
        self._next_episode = state["next_episode"]
        self._episodes, self._steps = state["episodes"].copy(), state["steps"].copy()


def _transitions_of(values: dict[str, Any]) -> Transitions:
    """Inverse of `dataclasses.asdict`; a copy."""
    found = copy.deepcopy(values)
    return Transitions(**{**found, "labels": Labels(**found["labels"])})


# ------------------------------------------------------------------------------------- what environments may offer


def legal_actions(env: VecEnv) -> np.ndarray | None:
    """Legal actions now: those that the environments name, else all; None where actions are continuous.

    Returns:
        bool (N, A), a fresh array.
    Raises:
        ValueError: An environment offers no legal action.
    """
    if not isinstance(env.action_space, spaces.Discrete):
        return None
    if isinstance(env, DrivingVecEnv):
        legal = np.array(env.action_masks(), bool)
    elif env.has_attr("action_masks"):
        legal = np.stack(env.env_method("action_masks")).astype(bool)
    else:
        return np.ones((env.num_envs, int(env.action_space.n)), bool)
    stuck = np.flatnonzero(~legal.any(axis=1))
    if stuck.size:
        raise ValueError(f"environments {stuck.tolist()} offer no legal action")
    return legal


def _innermost(env: VecEnv) -> VecEnv:
    """Driving environments without SB3's wrappers around them, which hide scenes and legal actions; else `env`."""
    return env.unwrapped if isinstance(env.unwrapped, DrivingVecEnv) else env


def _scenes(env: VecEnv, indices: np.ndarray) -> list[Any]:
    return env.scenes(indices.tolist()) if isinstance(env, DrivingVecEnv) else [None] * len(indices)


def _views(env: VecEnv, indices: np.ndarray) -> Views | None:
    return env.views(indices.tolist()) if isinstance(env, DrivingVecEnv) else None
