"""The expert desk: asks a policy provider on behalf of a strategy, within a label budget, and counts everything.

It turns decisions into `Advice` arrays, counts each status, and hands every query to the run's guidance log.

Experts that may be asked from several threads can also be asked ahead: `promise` sends the questions and `collect`
waits for the answers, in the order of the promises, so that counts and budgets do not depend on which answer was fast.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from experts.driving import batch_decisions
from experts.provider import Context, Decision, PolicyProvider, Status, label_distribution, label_distributions
from experts.views import ViewExpert
from lgdrl.guidance.log import GuidanceLog, Query
from lgdrl.guidance.strategy import STATUSES, Advice
from sim.env import DrivingVecEnv
from sim.scene import Scene

OK, FAILED = STATUSES.index(Status.OK), STATUSES.index(Status.FAILED)


@dataclass(slots=True)
class _Promise:
    """Questions whose answers nobody has collected yet."""

    asked: np.ndarray
    """int (R,) worlds"""
    masks: np.ndarray
    """bool (N, A)"""
    decisions: Sequence[Decision] = ()
    future: Future[Sequence[Decision]] | None = None
    """None where the answers have come."""
    queries: list[Query] = field(default_factory=list)
    """What the log expects to hear of."""


class ExpertDesk:
    """Implements `lgdrl.learners.discrete_sac.Advisor` for any `PolicyProvider`.

    Args: provider; most labels to give in the run (None: no limit); share of a bare label that is spread over all legal
        actions; log to write queries to; how many promises are answered at one time.
    """

    def __init__(
        self,
        provider: PolicyProvider,
        label_budget: int | None = None,
        label_spread: float = 0.05,
        log: GuidanceLog | None = None,
        ahead: int = 1,
    ) -> None:
        self.provider = provider
        self.label_budget = label_budget
        self.label_spread = label_spread
        self.log = log
        self.say: Callable[[str], None] | None = None
        """Who hears what the expert says about the first of the worlds while it answers."""
        self.counts: Counter[str] = Counter()
        """Decisions by status, with `queries`, `labels`, `tokens`."""
        self.wait_s = 0.0
        """Seconds of latency, decision by decision: where many are asked together, more than the clock shows."""
        self.blocked_s = 0.0
        """Seconds on the clock for which the training stood still."""
        self.cost = 0.0
        self._promised: deque[_Promise] = deque()
        self._pool = ThreadPoolExecutor(ahead, thread_name_prefix="expert")

    @property
    def labels_left(self) -> float:
        """Labels that may still be given, each promised one counted as given."""
        promised = sum(promise.asked.size for promise in self._promised)
        return float("inf") if self.label_budget is None else self.label_budget - self.counts["labels"] - promised

    def advise(
        self,
        env: VecEnv,
        rows: np.ndarray,
        obs: np.ndarray,
        masks: np.ndarray,
        episodes: np.ndarray,
        steps: np.ndarray,
    ) -> Advice:
        """Advice for the worlds where `rows` is True; the first ones where the budget does not reach for all."""
        advice = Advice.none(*masks.shape)
        asked = self._within_budget(rows)
        if asked.size == 0:
            return advice
        begin = time.perf_counter()
        scenes: list[Scene | None] = [None] * asked.size
        if isinstance(self.provider, ViewExpert) and isinstance(env, DrivingVecEnv):
            decisions = self._ask_together(self.provider, env, asked, masks, advice)
            kept = np.flatnonzero(self.log.wants(episodes[asked])) if self.log is not None else asked[:0]
            for k, scene in zip(kept, env.scenes(asked[kept].tolist()) if kept.size else [], strict=True):
                scenes[k] = scene
        else:
            if isinstance(env, DrivingVecEnv):
                scenes = list(env.scenes(asked.tolist()))
            decisions = self._ask_each(env, asked, scenes, obs, masks, episodes, steps, advice)
        self.blocked_s += time.perf_counter() - begin
        if self.log is not None:
            self.log.add(self.provider.name, asked, episodes[asked], steps[asked], decisions(), scenes)
        return advice

    def _within_budget(self, rows: np.ndarray) -> np.ndarray:
        """int (R,): worlds where bool (N,) `rows` is True, as far as the labels reach."""
        asked = np.flatnonzero(rows)
        return asked if asked.size <= self.labels_left else asked[: int(self.labels_left)]

    def promise(
        self,
        env: VecEnv,
        rows: np.ndarray,
        obs: np.ndarray,
        masks: np.ndarray,
        episodes: np.ndarray,
        steps: np.ndarray,
    ) -> None:
        """Ask as `advise` does, in other threads. The questions hold no look-ahead: the worlds go on."""
        asked = self._within_budget(rows)
        promise = _Promise(asked, masks.copy())
        if asked.size:
            scenes = list(env.scenes(asked.tolist())) if isinstance(env, DrivingVecEnv) else [None] * asked.size
            contexts = [
                Context(obs[i].copy(), env.action_space, scene, promise.masks[i], int(episodes[i]), int(steps[i]))
                for i, scene in zip(asked, scenes, strict=True)
            ]
            if self.log is not None:
                promise.queries = self.log.expect(self.provider.name, asked, episodes[asked], steps[asked], scenes)
            promise.future = self._pool.submit(self.provider.decide, contexts)
        self._promised.append(promise)

    def collect(self) -> Advice:
        """Wait for the answers of the oldest promise."""
        promise = self._promised.popleft()
        self._keep(promise)
        advice = Advice.none(*promise.masks.shape)
        for i, decision in zip(promise.asked, promise.decisions, strict=True):
            self._enter(advice, int(i), promise.masks[i], decision)
        return advice

    def settle(self) -> None:
        """Wait until all that was promised has been answered, and is in the log. It can be collected as before."""
        for promise in self._promised:
            self._keep(promise)

    def _keep(self, promise: _Promise) -> None:
        if promise.future is None:
            return
        begin = time.perf_counter()
        promise.decisions = promise.future.result()
        self.blocked_s += time.perf_counter() - begin
        promise.future = None
        if self.log is not None:
            self.log.answer(promise.queries, promise.decisions)
        promise.queries = []

    def close(self) -> None:
        """End what is under way. The provider is closed by its maker."""
        if any(promise.future is not None for promise in self._promised):
            self.provider.interrupt()
        self._pool.shutdown(cancel_futures=True)

    def _ask_together(
        self, expert: ViewExpert, env: DrivingVecEnv, asked: np.ndarray, masks: np.ndarray, advice: Advice
    ) -> Callable[[], list[Decision]]:
        """Fill the advice by one call for all worlds. Returns: what makes the decisions one by one, for the log."""
        started = time.perf_counter()
        actions, choice = batch_decisions(expert, env, masks, asked)
        wait = time.perf_counter() - started
        given = actions >= 0
        statuses = np.where(given, OK, FAILED)
        advice.action[asked], advice.status[asked] = actions, statuses
        rows = asked[given]
        advice.probs[rows] = label_distributions(actions[given], masks[rows], self.label_spread)
        self.counts.update(queries=asked.size, labels=rows.size)
        for status in np.unique(statuses):
            self.counts[STATUSES[status].value] += int((statuses == status).sum())
        self.wait_s += wait

        def decisions() -> list[Decision]:
            return [
                Decision(
                    action=int(action) if action >= 0 else None,
                    confidence=None if choice.confidence is None else float(choice.confidence[k]),
                    reason=choice.reason(k),
                    status=STATUSES[statuses[k]],
                    latency_s=wait / asked.size,
                )
                for k, action in enumerate(actions)
            ]

        return decisions

    def _ask_each(
        self,
        env: VecEnv,
        asked: np.ndarray,
        scenes: Sequence[Scene | None],
        obs: np.ndarray,
        masks: np.ndarray,
        episodes: np.ndarray,
        steps: np.ndarray,
        advice: Advice,
    ) -> Callable[[], list[Decision]]:
        """Fill the advice from one decision per world. Returns: what gives these, for the log."""
        contexts = [
            Context(
                obs=obs[i],
                action_space=env.action_space,
                scene=scene,
                legal=masks[i],
                episode=int(episodes[i]),
                step=int(steps[i]),
                branch=partial(env.branch, int(i)) if isinstance(env, DrivingVecEnv) else None,
                say=self.say if i == 0 else None,
            )
            for i, scene in zip(asked, scenes, strict=True)
        ]
        decisions = list(self.provider.decide(contexts))
        for i, decision in zip(asked, decisions, strict=True):
            self._enter(advice, int(i), masks[i], decision)
        return lambda: decisions

    def _enter(self, advice: Advice, i: int, mask: np.ndarray, decision: Decision) -> None:
        self.counts["queries"] += 1
        self.counts[decision.status.value] += 1
        self.counts["tokens"] += decision.tokens
        self.wait_s += decision.latency_s
        self.cost += decision.cost
        advice.status[i] = STATUSES.index(decision.status)
        if decision.action is None or decision.status == Status.FAILED:
            return
        action = int(decision.action)
        if not mask[action]:
            raise ValueError(f"expert {self.provider.name!r} chose action {action}, which is not legal here")
        self.counts["labels"] += 1
        advice.action[i] = action
        probs = decision.probs
        advice.probs[i] = label_distribution(action, mask, self.label_spread) if probs is None else probs

    def metrics(self) -> dict[str, float]:
        """For the log: queries, labels, each status, tokens, cost, seconds of latency and of standing still, and the
        provider's own figures. Waits for what was promised: these count it as answered."""
        self.settle()
        named = {name: float(count) for name, count in self.counts.items()}
        return self.provider.metrics() | named | {"cost": self.cost, "wait_s": self.wait_s, "blocked_s": self.blocked_s}

    def state_dict(self) -> dict[str, Any]:
        """Counts, answers that nobody has collected, and the provider's own state where it has one."""
        self.settle()
        return {
            "counts": dict(self.counts),
            "wait_s": self.wait_s,
            "blocked_s": self.blocked_s,
            "cost": self.cost,
            "promised": [(promise.asked, promise.masks, promise.decisions) for promise in self._promised],
            "provider": self.provider.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.counts = Counter(state["counts"])
        self.wait_s, self.cost = state["wait_s"], state["cost"]
        self.blocked_s = state.get("blocked_s", 0.0)
        self._promised = deque(_Promise(*promise) for promise in state.get("promised", []))
        self.provider.load_state_dict(state["provider"])
