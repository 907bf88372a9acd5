"""The advisor: asks an expert on behalf of a strategy, within a label budget, and counts everything.

It turns decisions into `Labels`, counts each status, and writes every query to the run's guidance log. Experts that may
be asked from several threads can also be asked ahead: `request` sends the queries and `collect` waits for the labels,
in the order of the requests, so that counts and budgets do not depend on which response was fast.

Shapes: N environments, R of them asked.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from experts.driving import batch_decisions
from experts.provider import Context, Decision, PolicyProvider, Status, label_distribution, label_distributions
from experts.views import ViewExpert
from lgdrl.finite import NotFinite
from lgdrl.guidance.log import GuidanceLog, Query
from lgdrl.guidance.records import STATUSES, Labels, StepContext
from sim.env import DrivingVecEnv
from sim.scene import Scene

WINDOW = 100
"""Latest queries of which the share of the fallback is taken ..."""
ENOUGH = 50
"""... once there were so many."""
OK, FAILED = STATUSES.index(Status.OK), STATUSES.index(Status.FAILED)


@dataclass(slots=True)
class _Request:
    """Queries whose labels have not been collected."""

    asked: np.ndarray
    """int (R,): environments."""
    legal: np.ndarray | None
    """bool (N, A)"""
    empty: Labels
    """What `collect` fills."""
    decisions: Sequence[Decision] = ()
    future: Future[Sequence[Decision]] | None = None
    """None where the decisions have come."""
    queries: list[Query] = field(default_factory=list)
    """Entries of the log that wait for the decisions."""


class Advisor:
    """Asks any `PolicyProvider`.

    Args:
        provider: The expert; it is closed by its maker.
        label_budget: Most labels to give in the run; None: no limit.
        label_spread: Share of a bare label that is spread over all legal actions.
        log: Guidance log to write queries to.
        ahead: Requests that are answered at one time.
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
        """Receives what the expert says about the first environment while it answers."""
        self.counts: Counter[str] = Counter()
        """Decisions by status, with `queries`, `labels`, `tokens`."""
        self.wait_s = 0.0
        """Seconds of latency, summed over decisions: more than the clock shows where many are asked together."""
        self.blocked_s = 0.0
        """Seconds on the clock for which the training stood still."""
        self.cost = 0.0
        self._fallen_back: deque[bool] = deque(maxlen=WINDOW)
        """Of the latest queries: whether the expert's fallback decided, without a limit of its own being the cause."""
        self._requests: deque[_Request] = deque()
        self._pool = ThreadPoolExecutor(ahead, thread_name_prefix="expert")

    @property
    def labels_left(self) -> float:
        """Labels that may still be given; each requested one counts as given."""
        requested = sum(request.asked.size for request in self._requests)
        return float("inf") if self.label_budget is None else self.label_budget - self.counts["labels"] - requested

    @property
    def fallback_share(self) -> float:
        """Share of the latest queries, in [0, 1], that the expert's fallback decided; 0 before there were enough."""
        recent = self._fallen_back
        return sum(recent) / len(recent) if len(recent) >= ENOUGH else 0.0

    def forget_fallbacks(self) -> None:
        """Begin anew to count how often the fallback decides."""
        self._fallen_back.clear()

    def on_episode_start(self, episodes: np.ndarray) -> None:
        """Episodes with these numbers, int (R,), begin; for experts that draw once per episode."""
        self.provider.on_episode_start(episodes.tolist())

    def label(self, env: VecEnv, context: StepContext, rows: np.ndarray) -> Labels:
        """Ask now, and wait.

        Args:
            env: The environments, before the step is executed.
            context: The step.
            rows: Environments to ask about, bool (N,); the first ones where the budget does not reach for all.
        """
        labels = context.no_labels()
        asked = self._within_budget(rows)
        if asked.size == 0:
            return labels
        begin = time.perf_counter()
        scenes: list[Scene | None] = [None] * asked.size
        episodes, steps = context.episodes[asked], context.steps[asked]
        if isinstance(self.provider, ViewExpert) and isinstance(env, DrivingVecEnv):
            decisions = self._ask_together(self.provider, env, context, asked, labels)
            kept = np.flatnonzero(self.log.wants(episodes)) if self.log is not None else asked[:0]
            for k, scene in zip(kept, env.scenes(asked[kept].tolist()) if kept.size else [], strict=True):
                scenes[k] = scene
        else:
            if isinstance(env, DrivingVecEnv):
                scenes = list(env.scenes(asked.tolist()))
            decisions = self._ask_each(env, context, asked, scenes, labels)
        self.blocked_s += time.perf_counter() - begin
        if self.log is not None:
            self.log.add(self.provider.name, asked, episodes, steps, decisions(), scenes)
        return labels

    def _within_budget(self, rows: np.ndarray) -> np.ndarray:
        """int (R,): environments where bool (N,) `rows` is True, as far as the labels reach."""
        asked = np.flatnonzero(rows)
        return asked if asked.size <= self.labels_left else asked[: int(self.labels_left)]

    def request(self, env: VecEnv, context: StepContext, rows: np.ndarray) -> None:
        """Ask as `label` does, in other threads, without waiting. There is no look-ahead: the environments go on."""
        asked = self._within_budget(rows)
        legal = None if context.legal is None else context.legal.copy()
        request = _Request(asked, legal, context.no_labels())
        if asked.size:
            scenes = list(env.scenes(asked.tolist())) if isinstance(env, DrivingVecEnv) else [None] * asked.size
            episodes, steps = context.episodes[asked], context.steps[asked]
            contexts = [
                Context(
                    obs=context.obs[i].copy(),
                    action_space=env.action_space,
                    scene=scene,
                    legal=None if legal is None else legal[i],
                    episode=int(context.episodes[i]),
                    step=int(context.steps[i]),
                )
                for i, scene in zip(asked, scenes, strict=True)
            ]
            if self.log is not None:
                request.queries = self.log.expect(self.provider.name, asked, episodes, steps, scenes)
            request.future = self._pool.submit(self.provider.decide, contexts)
        self._requests.append(request)

    def collect(self) -> Labels:
        """Wait for the labels of the oldest request."""
        request = self._requests.popleft()
        self._receive(request)
        for i, decision in zip(request.asked, request.decisions, strict=True):
            self._enter(request.empty, int(i), None if request.legal is None else request.legal[i], decision)
        return request.empty

    def settle(self) -> None:
        """Wait until all requests have been answered, and are in the log. They can be collected as before."""
        for request in self._requests:
            self._receive(request)

    def _receive(self, request: _Request) -> None:
        if request.future is None:
            return
        begin = time.perf_counter()
        request.decisions = request.future.result()
        self.blocked_s += time.perf_counter() - begin
        request.future = None
        if self.log is not None:
            self.log.answer(request.queries, request.decisions)
        request.queries = []

    def close(self) -> None:
        """End what is under way."""
        if any(request.future is not None for request in self._requests):
            self.provider.interrupt()
        self._pool.shutdown(cancel_futures=True)

    def _ask_together(
        self, expert: ViewExpert, env: DrivingVecEnv, context: StepContext, asked: np.ndarray, labels: Labels
    ) -> Callable[[], list[Decision]]:
        """Fill the labels by one call for all environments. Returns: makes the decisions one by one, for the log."""
        assert context.legal is not None
        assert labels.probs is not None
        started = time.perf_counter()
        actions, choice = batch_decisions(expert, env, context.legal, asked)
        wait = time.perf_counter() - started
        given = actions >= 0
        statuses = np.where(given, OK, FAILED)
        rows = asked[given]
        labels.given[rows], labels.action[rows], labels.status[asked] = True, actions[given], statuses
        labels.probs[rows] = label_distributions(actions[given], context.legal[rows], self.label_spread)
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
        context: StepContext,
        asked: np.ndarray,
        scenes: Sequence[Scene | None],
        labels: Labels,
    ) -> Callable[[], list[Decision]]:
        """Fill the labels from one decision per environment. Returns: what gives these, for the log."""
        contexts = [
            Context(
                obs=context.obs[i],
                action_space=env.action_space,
                scene=scene,
                legal=None if context.legal is None else context.legal[i],
                episode=int(context.episodes[i]),
                step=int(context.steps[i]),
                branch=partial(env.branch, int(i)) if isinstance(env, DrivingVecEnv) else None,
                say=self.say if i == 0 else None,
            )
            for i, scene in zip(asked, scenes, strict=True)
        ]
        decisions = list(self.provider.decide(contexts))
        for i, decision in zip(asked, decisions, strict=True):
            self._enter(labels, int(i), None if context.legal is None else context.legal[i], decision)
        if isinstance(env.action_space, spaces.Box):  # what is executed lies in the box
            labels.action = labels.action.clip(env.action_space.low, env.action_space.high)
        return lambda: decisions

    def _enter(self, labels: Labels, i: int, legal: np.ndarray | None, decision: Decision) -> None:
        self.counts["queries"] += 1
        self.counts[decision.status.value] += 1
        self.counts["tokens"] += decision.tokens
        self.wait_s += decision.latency_s
        self.cost += decision.cost
        labels.status[i] = STATUSES.index(decision.status)
        if not self.provider.exhausted:
            self._fallen_back.append(decision.status == Status.FALLBACK)
        if decision.action is None or decision.status == Status.FAILED:
            return
        if legal is not None and not legal[int(decision.action)]:
            raise ValueError(f"expert {self.provider.name!r} chose action {decision.action}, which is not legal here")
        if decision.probs is not None and not np.isfinite(decision.probs).all():
            raise NotFinite(f"the action probabilities of expert {self.provider.name!r} are {decision.probs}")
        self.counts["labels"] += 1
        labels.given[i], labels.action[i] = True, decision.action
        if labels.probs is not None and legal is not None:
            bare = decision.probs is None
            labels.probs[i] = (
                label_distribution(int(decision.action), legal, self.label_spread) if bare else decision.probs
            )

    def metrics(self) -> dict[str, float]:
        """For the log: queries, labels, each status, tokens, cost, seconds of latency and of standing still, and the
        provider's own figures. Waits for what was requested: these count it as answered."""
        self.settle()
        named = {name: float(count) for name, count in self.counts.items()}
        times = {"cost": self.cost, "wait_s": self.wait_s, "blocked_s": self.blocked_s}
        return self.provider.metrics() | named | times

    def state_dict(self) -> dict[str, Any]:
        """Counts, decisions that have not been collected, and the provider's own state."""
        self.settle()
        return {
            "counts": dict(self.counts),
            "wait_s": self.wait_s,
            "blocked_s": self.blocked_s,
            "cost": self.cost,
            "fallen_back": list(self._fallen_back),
            "requests": [
                {
                    "asked": request.asked,
                    "legal": request.legal,
                    "empty": dataclasses.asdict(request.empty),
                    "decisions": [_plain(decision) for decision in request.decisions],
                }
                for request in self._requests
            ],
            "provider": self.provider.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.counts = Counter(state["counts"])
        self.wait_s, self.blocked_s, self.cost = state["wait_s"], state["blocked_s"], state["cost"]
        self._fallen_back.extend(state["fallen_back"])
        self._requests = deque(_request_of(values) for values in state["requests"])
        self.provider.load_state_dict(state["provider"])


def _plain(decision: Decision) -> dict[str, Any]:
    """What is still needed of a decision, without the history that the log has."""
    values = {field.name: getattr(decision, field.name) for field in dataclasses.fields(Decision)}
    return values | {"status": decision.status.value}


def _request_of(values: Mapping[str, Any]) -> _Request:
    decisions = [Decision(**{**each, "status": Status(each["status"])}) for each in values["decisions"]]
    return _Request(values["asked"], values["legal"], Labels(**values["empty"]), decisions)
